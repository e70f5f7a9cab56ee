"""`try`: a loss of one's own beside the losses of a run."""

from typing import Annotated

from typer import Argument, Option

from robustloss.cli.commands.checking import show_loss_checks
from robustloss.cli.mistakes import showing_mistakes, showing_spec_mistakes
from robustloss.cli.options import Data, Device, Executor, Log, Quiet, parse_pairs, parse_seeds
from robustloss.cli.saying import DONE, FAILED, complain_of_failures, say
from robustloss.notation import one_line


def try_(
    loss: Annotated[
        str, Argument(metavar="FILE:CLASS", help="your loss, or any that a spec can name")
    ],
    against: Annotated[
        str,
        Option(
            metavar="SPEC|RUN|REFERENCE",
            help="whose losses to compare with: a spec, a run, a reference such as "
            "mnist-reference, or a file of `baseline`; what is finished is not run again",
        ),
    ] = "quickstart",
    label: Annotated[str | None, Option(help="what tables call it  [default: the class]")] = None,
    param: Annotated[
        list[str] | None, Option(metavar="KEY=VALUE", help="its own parameter; may be repeated")
    ] = None,
    train: Annotated[
        list[str] | None,
        Option(metavar="KEY=VALUE", help="key of [train] for it alone; may be repeated"),
    ] = None,
    out: Annotated[
        str | None, Option(metavar="DIR", help="result folder  [default: runs/try-LABEL-RUN]")
    ] = None,
    seeds: Annotated[
        str | None,
        Option(
            metavar="0,1,2",
            help="seeds to train  [default: those of the others; beside a reference, its first]",
        ),
    ] = None,
    device: Device = "auto",
    data: Data = None,
    executor: Executor = "auto",
    log: Log = None,
    quiet: Quiet = False,
) -> int:
    """Put your loss into one table with the losses of a run.

    Your loss is checked as by check-loss, trained and attacked as the others were, and compared
    with each. Their run is not changed. Try again after an edit: only your loss is trained.
    """
    wanted = parse_seeds(seeds)
    params, keys = parse_pairs("--param", param or []), parse_pairs("--train", train or [])
    from robustloss.cli import differences, terminal
    from robustloss.progress import choose_progress
    from robustloss.reports import build_report
    from robustloss.runs.beside import compute_try, plan_try
    from robustloss.runs.comparable import NotComparableError
    from robustloss.storage import CorruptFile

    with showing_mistakes(ValueError), showing_spec_mistakes():
        plan = plan_try(loss, against, label=label, params=params, train=keys, out=out,
                        seeds=wanted)  # fmt: skip
    if not quiet:
        say(f"Checking the contract of {loss}.")
    if show_loss_checks(loss, params, only_failures=True):
        return FAILED
    with showing_spec_mistakes(NotComparableError, CorruptFile):
        if not quiet:
            differences.show_plan(plan, data)
        shown = choose_progress(quiet)
        tried = compute_try(
            plan, device=device, data=data, executor=executor, progress=shown, log=log
        )
        report = None if tried.path is None else build_report(tried.path)
    if report is not None and quiet:
        say(report)
    elif report is not None:
        for note in tried.notes:
            say(one_line(f"Note: {note}"))
        terminal.print_result(plan.out)
        differences.show_differences(plan.out, plan.label)
        terminal.say_where(report)
    remedy = "run the command again to try the rest."
    if any(each["label"] == plan.label and each["stage"] == "train" for each in tried.failures):
        remedy = (
            f"to train {plan.label} otherwise, add --train KEY=VALUE to the command: train.lr = "
            "0.01 is written --train lr=0.01."
        )
    complain_of_failures(tried.failures, remedy)
    return FAILED if tried.failures else DONE
