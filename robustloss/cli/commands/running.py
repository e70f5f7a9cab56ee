"""`run`: train, attack and report what a spec asks for."""

from typing import TYPE_CHECKING, Annotated

from typer import Option

from robustloss.cli.mistakes import showing_spec_mistakes
from robustloss.cli.options import (
    Beside,
    Data,
    Device,
    Executor,
    Log,
    Quiet,
    SpecName,
    load_named_spec,
    parse_seeds,
)
from robustloss.cli.saying import DONE, FAILED, complain, complain_of_failures, say
from robustloss.notation import one_line

if TYPE_CHECKING:
    from robustloss.runs.runner import RunOutcome


def run(
    spec: SpecName,
    out: Annotated[
        str | None, Option(metavar="DIR", help="run folder  [default: runs/NAME]")
    ] = None,
    device: Device = "auto",
    data: Data = None,
    seeds: Annotated[
        str | None, Option(metavar="0,1,2", help="instead of the spec's; may extend a run")
    ] = None,
    executor: Executor = "auto",
    reuse: Annotated[
        str | None, Option(metavar="RUN", help="take equal trained weights from this run")
    ] = None,
    no_plugins: Annotated[
        bool, Option("--no-plugins", help="Refuse a spec that names code of its own.")
    ] = False,
    log: Log = None,
    progress: Annotated[
        str | None,
        Option(
            metavar="MODULE:CLASS", help="call your own class, or FILE.py:CLASS, with every event"
        ),
    ] = None,
    beside: Beside = None,
    quiet: Quiet = False,
) -> int:
    """Train, attack and report what a spec asks for. Goes on where an earlier run stopped.

    Exit status: 0 when everything was computed; 1 when cells failed and have no numbers; 2 for a
    mistake in the spec or the command; 130 when interrupted. The status says whether the run is
    complete, not whether a model is robust: high errors and marked numbers end with 0 too.
    """
    wanted = parse_seeds(seeds)
    loaded = load_named_spec(spec)
    from robustloss.progress import choose_progress
    from robustloss.runs.executors.server import start_early

    cells = len(loaded.cells(wanted)) + len(loaded.trials())
    start_early(executor, device.casefold(), cells)  # before torch is imported here
    from robustloss.runs import runner
    from robustloss.runs.comparable import NotComparableError
    from robustloss.runs.references.find import NoReferenceError
    from robustloss.training import processes

    shown = choose_progress(quiet)
    try:
        with showing_spec_mistakes(NotComparableError, NoReferenceError):
            outcome = runner.run(
                loaded,
                out=out,
                device=device.casefold(),
                data=data,
                seeds=wanted,
                executor=executor,
                reuse=reuse,
                plugins=not no_plugins,
                progress=shown if progress is None else [shown, progress],
                log=log,
                beside=beside,
            )
    except processes.LeaderStoppedError:
        return DONE  # a process that fails makes torchrun end the first, which is still telling why
    except processes.BrokenGroupError as error:
        complain(f"{error} Finished work is kept; run the command again to go on.")
        return FAILED
    if not processes.is_leader():
        return DONE  # as above: the first process alone tells, and decides the status
    _show_outcome(outcome, quiet)
    return FAILED if outcome.failures else DONE


def _show_outcome(outcome: "RunOutcome", quiet: bool) -> None:
    """Print the result, where the report is, and which cells failed."""
    from robustloss.cli import terminal

    if quiet:
        say(outcome.report)
    else:
        for note in outcome.notes:
            say(one_line(f"Note: {note}"))
        terminal.print_result(outcome.beside or outcome.path)
        terminal.say_where(outcome.report)
    complain_of_failures(outcome.failures, "run the command again to try the rest.")
