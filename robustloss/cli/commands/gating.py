"""`check`: does a run keep what is asked of it? For scripts and continuous integration."""

from typing import Annotated

from typer import Option

from robustloss.cli.mistakes import showing_mistakes
from robustloss.cli.options import RunFolder
from robustloss.cli.saying import DONE, FAILED, say


def check(
    run: RunFolder,
    gates: Annotated[
        str | None,
        Option(metavar="FILE", help="TOML with [[gates]]  [default: those of the run's spec]"),
    ] = None,
    junit: Annotated[
        str | None, Option(metavar="FILE", help="also write the verdicts as JUnit XML")
    ] = None,
    json: Annotated[str | None, Option(metavar="FILE", help="also write them as JSON")] = None,
) -> int:
    """Judge a run by its gates, bounds on its numbers.

    Exit status: 0 when no gate fails; 1 when one does, or has no number; 2 for a gate that names
    what the run does not have, and where there are no gates.
    """
    from json import dumps

    from robustloss.analysis.gates.judge import check as judge_run
    from robustloss.storage import write_text

    with showing_mistakes(ValueError):
        verdicts = judge_run(run, gates)
    say(verdicts)
    if junit is not None:
        write_text(junit, verdicts.as_junit())
    if json is not None:
        write_text(json, dumps(verdicts.as_json(), indent=2, allow_nan=False) + "\n")
    return DONE if verdicts else FAILED
