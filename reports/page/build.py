"""From a run folder to its report: numbers, tables, figures, page."""

import os
from pathlib import Path

from robustloss.analysis.unfinished import open_run
from robustloss.reports.chapters.result.verdict import verdict
from robustloss.reports.drawing.album import Album, csv_text, write_text
from robustloss.reports.drawing.style import DPI, FORMATS, report_style
from robustloss.reports.drawing.table import write_table
from robustloss.reports.page.contents import NOT_MADE, Contents, make_tables
from robustloss.reports.page.notes import annotate
from robustloss.reports.page.page import Page
from robustloss.reports.page.press import draw_all
from robustloss.reports.page.summary import summarise_run
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.checking import naming_missing_columns, refuse_missing
from robustloss.results.run import Run, from_folder_on
from robustloss.run_files import check_no_link, read_file
from robustloss.spec.load import MOST_BYTES
from robustloss.work_folders import making_folder, put_in_place

WRITTEN = ("index.html", "details.html", "summary.md", "tables", "figures")
UNFINISHED = ".report-"  # begins the name of a folder in which a report is made


def build_report(run_dir: str | Path | Run, *, dpi: int = DPI, everything: bool = False) -> Path:
    """Render RUN/report from the files of a run, without torch.

    Nothing is trained or attacked. The same run gives the same bytes. An earlier report in the
    folder is replaced as a whole. A run that computes or was stopped is reported as far as it is,
    and not disturbed.

    Args:
        run_dir: A folder that ``robustloss run`` wrote, or writes at the moment; or the run in it
            as `open_run` gives it.
        dpi: Resolution of the PNG files and of the pixels inside the SVG files.
        everything: Also draw the figures under Details, and show them in details.html; so does
            ``all = true`` in the table [report] of the spec.

    Returns:
        The path of index.html.

    Raises:
        ValueError: No run folder, or one that cannot be read.
        OSError: The report cannot be written; one reason is a link in its place.
    """
    run = run_dir if isinstance(run_dir, Run) else open_run(run_dir)
    index = _write_report(run, dpi, everything=everything)
    if run.read is not None and os.path.lexists(run.path / "results.json"):
        # It has ended meanwhile, and may have put its own report in place before this one.
        return build_report(run.path, dpi=dpi, everything=everything)
    return index


def _write_report(run: Run, dpi: int, *, everything: bool) -> Path:
    """Render RUN/report of an open run and return the path of index.html."""
    target = run.path / "report"
    check_no_link(target)
    gaps: list[str] = []
    spec = read_spec(run.path, gaps)
    with (
        naming_missing_columns(run.path / "results.json", run.results),
        making_folder(target, UNFINISHED) as work,
    ):
        numbers = Numbers(run)
        contents, unread = Contents(numbers), numbers.shown.gaps
        everything = everything or bool((numbers.spec.get("report") or {}).get("all"))
        fresh = work / "report"
        tables = make_tables(contents)
        (fresh / "tables").mkdir(parents=True)
        for table in (table for _, made in tables for table in made):
            write_table(fresh / "tables", annotate(numbers, table))
        every = fresh / "tables" / "rows.csv"  # for a spreadsheet: results.json as it is
        write_text(every, csv_text(run.rows))
        pictures = draw_all(fresh / "figures", contents, dpi=dpi, details=everything)
        if any(NOT_MADE in gap for gap in unread):  # for want of a value: refuse with its name
            refuse_missing(run.path / "results.json", run.results)
        gaps = sorted(from_folder_on(run.path, gap) for gap in {*gaps, *unread})
        page = Page(contents, tables, pictures, gaps, spec)
        write_text(fresh / "index.html", page.render())
        if everything:
            write_text(fresh / "details.html", page.render_details())
        summary = summarise_run(numbers, " ".join(verdict(numbers)), gaps)
        write_text(fresh / "summary.md", summary)
        put_in_place(fresh, target, WRITTEN)
    return target / "index.html"


def draw_figure(run_dir: str | Path | Run, name: str, *, dpi: int = DPI) -> Path:
    """Draw one figure of a run, also one that the report leaves out, into RUN/report/figures.

    Args:
        run_dir: See `build_report`.
        name: Of the file, such as "roc-fgsm.pdf"; the ending is png, svg or pdf.
        dpi: See `build_report`.

    Returns:
        The path of the file.

    Raises:
        ValueError: No run folder, no such figure in it, or another ending.
        OSError: The file cannot be written; one reason is a link in its place.
    """
    stem, _, ending = name.rpartition(".")
    if ending not in FORMATS:
        raise ValueError(f"figure (={name}) must end in {', '.join(FORMATS)}, as in roc-fgsm.pdf.")
    run = run_dir if isinstance(run_dir, Run) else open_run(run_dir)
    folder = run.path / "report" / "figures"
    check_no_link(folder.parent)
    check_no_link(folder)
    drawings = Contents(Numbers(run)).list_drawings(details=True)
    wanted = [item for item in drawings if f"{stem}-".startswith(f"{item.name}-")]
    wanted = [item for item in wanted if item.attack and stem == item.file] or wanted
    if wanted:
        folder.mkdir(parents=True, exist_ok=True)
        with making_folder(folder, UNFINISHED) as work, report_style():
            for item in wanted:
                album = Album(work, dpi, formats=(ending,))
                album.add(item.make())
                if stem in {picture.name for picture in album.pictures}:
                    (work / name).replace(folder / name)  # a link in its place goes, no more
                    return folder / name
    known = [item.file for item in drawings]
    raise ValueError(
        f"figure (={name}) is none of this run. Its figures are {', '.join(dict.fromkeys(known))}."
    )


def read_spec(run_dir: Path, gaps: list[str]) -> str:
    """Return the spec as it was written; nothing if it cannot be read.

    Args:
        run_dir: The run folder. A merged run has no spec.
        gaps: Takes the reason why a spec that is there cannot be read.
    """
    try:
        return read_file(run_dir / "spec.toml", MOST_BYTES).decode("utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        gaps.append(f"spec.toml: cannot be read ({error.strerror}).")
    except UnicodeDecodeError as error:
        gaps.append(f"spec.toml: cannot be read (no UTF-8 text at byte {error.start}).")
    return ""
