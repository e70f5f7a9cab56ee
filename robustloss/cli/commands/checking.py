"""`check-loss` and `check-data`: is a loss or a data set of one's own as it should be?"""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from robustloss.cli.mistakes import showing_mistakes, showing_spec_mistakes
from robustloss.cli.options import Data
from robustloss.cli.saying import DONE, FAILED, say
from robustloss.notation import one_line


def check_loss(
    name: Annotated[
        str, Argument(metavar="NAME", help="a loss: softmax, module:Class or file.py:Class")
    ],
) -> int:
    """Check that a loss keeps the contract."""
    return FAILED if show_loss_checks(name, {}) else DONE


def check_data(
    name: Annotated[
        str,
        Argument(
            metavar="NAME",
            help="a data set, an .npz, a folder of images or parquet, file.py:function, or a spec",
        ),
    ],
    sheet: Annotated[
        str | None, Option(metavar="FILE", help="where the pictures go  [default: NAME-data.png]")
    ] = None,
    data: Data = None,
) -> int:
    """Show a data set: counts, pictures, oddities.

    If NAME is a function that makes the images, it is executed.
    """
    from robustloss.cli.listing import check_lines, find_data
    from robustloss.data.files import DataError
    from robustloss.spec.text import slug

    with showing_spec_mistakes(DataError, OSError):
        spec, folder = find_data(name)
        path = Path(sheet or f"{slug(spec.label) or 'images'}-data.png")
        for line in check_lines(spec, folder, path, None if data is None else Path(data)):
            say(one_line(line))
    return DONE


def show_loss_checks(name: str, params: dict[str, Any], *, only_failures: bool = False) -> int:
    """Check a loss with some parameters, print the outcome, and return how many checks failed."""
    from robustloss.losses.contract import check as contract
    from robustloss.runs.errors import RunError
    from robustloss.runs.executors.alone import call_alone, check_loss_alone
    from robustloss.spec.losses import LOSS_LABELS
    from robustloss.spec.prefixes import canonical_name, is_plugin

    name = canonical_name(name, LOSS_LABELS)
    with showing_mistakes(ValueError, RunError):
        if is_plugin(name):  # whatever it does to its process, such as ending it, is told
            checks = call_alone(check_loss_alone, name, params, foreign={"loss": name})
        else:
            checks = contract.check_loss(name, **params)
    follow: dict[str, list[str]] = {}  # a failed check -> those that fail with it
    for check in checks:
        detail = f": {check.detail}" if check.detail else ""
        if check.follows:
            follow.setdefault(check.follows, []).append(check.name)
        elif not (check.passed and only_failures):
            say(f"{'pass' if check.passed else 'FAIL'}  {check.name}{detail}")
    for first, names in follow.items():
        say(f"skip  {', '.join(names)}: judged once '{first}' passes")
    failed = sum(not check.passed for check in checks)
    if failed or not only_failures:
        say(f"{name}: {len(checks) - failed} of {len(checks)} checks passed")
    return failed
