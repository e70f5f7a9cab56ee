"""`check`: does a run keep what is asked of it? For scripts and continuous integration."""

from typing import Annotated

from typer import Option

from robustloss.cli.mistakes import showing_mistakes, write_named
from robustloss.cli.options import RunFolder, parse_pairs
from robustloss.cli.saying import DONE, FAILED, say


def check(
    run: RunFolder,
    gates: Annotated[
        str | None,
        Option(metavar="FILE", help="TOML with [[gates]]  [default: those of the run's spec]"),
    ] = None,
    baseline: Annotated[
        str | None,
        Option(
            metavar="RUN|FILE|REFERENCE",
            help="compare with this run, a file from `baseline`, or a reference (NAME-reference)",
        ),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        Option(metavar="METRIC=VALUE", help="how much worse METRIC may be; may be repeated"),
    ] = None,
    junit: Annotated[
        str | None, Option(metavar="FILE", help="also write the verdicts as JUnit XML")
    ] = None,
    json: Annotated[
        str | None, Option(metavar="FILE", help="also write the verdicts as JSON")
    ] = None,
) -> int:
    """Judge a run by its gates, or against an earlier run.

    Against a baseline, tests on the same images decide whether a loss is shown worse than it was.

    Exit status: 0 when no gate fails and nothing is shown worse; 1 when a gate fails or has no
    number, or something is shown worse; 2 for a gate that names what the run does not have, for a
    baseline of other data, images or attacks, and where there is neither gate nor baseline.
    """
    from json import dumps

    from robustloss.runs.judging.check import check as judge_run

    limits = parse_pairs("--tolerance", tolerance) if tolerance else None
    with showing_mistakes(ValueError):
        verdicts = judge_run(run, gates, baseline=baseline, tolerance=limits)
    say(verdicts)
    if junit is not None:
        write_named("--junit", junit, verdicts.as_junit())
    if json is not None:
        write_named("--json", json, dumps(verdicts.as_json(), indent=2, allow_nan=False) + "\n")
    return DONE if verdicts else FAILED
