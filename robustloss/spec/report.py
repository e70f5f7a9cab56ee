"""Table [report]: how a run is shown. No key of a stored file depends on it."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from robustloss.spec.base import Table, as_tuple, check_each, declare


class ReportSpec(Table):
    """Table [report]: what the losses are compared with, which stand out, how much is drawn."""

    baseline: str | None = declare(
        "label of the loss that the others are compared with", None, shown="the first loss"
    )
    highlight: Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(check_each)] = (
        declare("labels of losses to highlight in the result", (), kind="list of text")
    )
    all: bool = declare("draw everything, also what the page leaves out", False)
