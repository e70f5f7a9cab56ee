"""`rerun`: the spec of a run from its report, and what differs on this machine."""

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from robustloss.cli.mistakes import MistakeError, showing_spec_mistakes, write_named
from robustloss.cli.options import Data
from robustloss.cli.saying import DONE, say


def rerun(
    source: Annotated[
        str, Argument(metavar="REPORT|RUN", help="the index.html of a report, or a run folder")
    ],
    out: Annotated[
        str | None, Option(metavar="SPEC.toml", help="file for the spec  [default: stdout]")
    ] = None,
    data: Data = None,
) -> int:
    """Write the spec of a run from its report alone.

    It also says what differs on this machine, and which command runs the spec. Without --out it
    prints the spec, with all else as comments. Nothing of a report is executed.
    """
    from robustloss.runs.rerun import plan_rerun

    if out is not None and Path(out).exists():
        raise MistakeError(f"--out (={out}) exists and is not replaced. Name another file.")
    with showing_spec_mistakes(ValueError):
        found = plan_rerun(source, data=data)
    if out is None:
        for line in (*found.lines, f"Run it: {found.command}"):
            say(f"# {line}")
        say(f"\n{found.text}".rstrip())
        return DONE
    write_named("--out", out, found.text)
    for line in found.lines:
        say(line)
    say(f"Spec: {out}")
    say(f"Run it: {found.command.replace('SPEC', shlex.quote(out))}")
    return DONE
