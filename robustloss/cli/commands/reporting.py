"""`report` and `compare`: the report of one run, and of several merged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from robustloss.cli.mistakes import MistakeError, showing_mistakes
from robustloss.cli.options import Beside, RunFolder
from robustloss.cli.saying import DONE, complain, say
from robustloss.notation import one_line

if TYPE_CHECKING:
    from robustloss.results.run import Run


def report(
    run: RunFolder,
    everything: Annotated[
        bool, Option("--all", help="Also draw the figures under Details, in details.html.")
    ] = False,
    figure: Annotated[
        str | None,
        Option("--figure", metavar="FILE", help="Draw one figure only, such as roc-fgsm.pdf."),
    ] = None,
    page: Annotated[
        bool, Option("--page", help="Write a page of Markdown and its figures to FILE instead.")
    ] = False,
    quiet: Annotated[
        bool, Option("--quiet", help="Print the path of what is written only.")
    ] = False,
    file: Annotated[
        str | None, Argument(metavar="FILE", help="of --page, RUN/report/page.md by default")
    ] = None,
) -> int:
    """Render the report of a run, finished or not; needs no torch."""
    if file is not None and not page:
        raise MistakeError(
            f"report: FILE (={file}) goes with --page only. Add it, or leave FILE out."
        )
    if page and (figure is not None or everything):
        raise MistakeError("report: --page goes without --all and --figure. Name one of them.")
    from robustloss.analysis.unfinished import open_run

    with showing_mistakes(ValueError):
        loaded = open_run(run)
    for text in loaded.unfinished:
        complain(one_line(f"unfinished: {text}"))
    for doubt in loaded.doubts:
        complain(one_line(f"warning: {doubt}"))
    if page:
        from robustloss.reports.page.gallery import write_gallery_page

        with showing_mistakes(ValueError):
            written = write_gallery_page(loaded, file)
        say(written if quiet else f"Page: {written}")
        return DONE
    if figure is None:
        show_report(loaded, everything=everything, quiet=quiet)
        return DONE
    from robustloss.reports.page.build import draw_figure

    with showing_mistakes(ValueError):
        drawn = draw_figure(loaded, figure)
    say(drawn if quiet else f"Figure: {drawn}")
    return DONE


def compare(
    runs: Annotated[list[str], Argument(metavar="RUN RUN...", help="finished run folders")],
    out: Annotated[str | None, Option(metavar="DIR", help="Folder of the merged run.")] = None,
    other_networks: Annotated[
        bool, Option("--other-networks", help="Merge runs of different networks too.")
    ] = False,
    beside: Beside = None,
) -> int:
    """Merge losses and seeds of several runs into one report.

    An attack or a loss of two runs counts as one where it is the same with all defaults filled in,
    whatever it is called.
    """
    from robustloss.runs.merge import merge_runs
    from robustloss.runs.references.find import open_reference

    name = "-and-".join(Path(run).name for run in runs)
    with showing_mistakes(ValueError):
        reference = None if beside is None else open_reference(beside)
        if reference is not None:
            name += f"-beside-{reference.name}"
        folder = out or Path(runs[0]).parent / name
        merged = merge_runs(runs, folder, other_networks=other_networks, beside=reference)
    for note in merged.notes:
        say(one_line(f"Note: {note}"))
    show_report(merged.path)
    return DONE


def show_report(run: "Path | Run", *, everything: bool = False, quiet: bool = False) -> None:
    """Render the report of a run, or of the run in a folder; print the result and its place.

    Args:
        run: Itself, or its folder.
        everything: Also draw the figures under Details.
        quiet: Print the path of the report alone.
    """
    from robustloss.cli import terminal
    from robustloss.reports import build_report
    from robustloss.storage import CorruptFile

    with showing_mistakes(CorruptFile):
        written = build_report(run, everything=everything)
    if quiet:
        say(written)
        return
    terminal.print_result(run)
    terminal.say_where(written)
