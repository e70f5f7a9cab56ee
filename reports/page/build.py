"""From a run folder to its report: numbers, tables, figures, page."""

import os
from pathlib import Path

from robustloss.analysis.unfinished import open_run
from robustloss.reports.drawing.album import Album, csv_text, write_text
from robustloss.reports.drawing.style import DPI
from robustloss.reports.drawing.table import write_table
from robustloss.reports.page.contents import NOT_MADE, make_tables
from robustloss.reports.page.headline import headline
from robustloss.reports.page.page import render_page
from robustloss.reports.page.press import draw_all
from robustloss.reports.page.summary import summarise_run
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Shown
from robustloss.results.checking import naming_missing_columns, refuse_missing
from robustloss.results.run import Run, from_folder_on
from robustloss.run_files import check_no_link, read_file
from robustloss.spec.load import MOST_BYTES
from robustloss.work_folders import making_folder, put_in_place

WRITTEN = ("index.html", "summary.md", "tables", "figures")
UNFINISHED = ".report-"  # begins the name of a folder in which a report is made


def build_report(run_dir: str | Path | Run, *, dpi: int = DPI) -> Path:
    """Render RUN/report from the files of a run, without torch.

    Nothing is trained or attacked. The same run gives the same bytes. An earlier report in the
    folder is replaced as a whole. A run that computes or was stopped is reported as far as it is,
    and not disturbed.

    Args:
        run_dir: A folder that ``robustloss run`` wrote, or writes at the moment; or the run in it
            as `open_run` gives it.
        dpi: Resolution of the PNG files and of the pixels inside the SVG files.

    Returns:
        The path of index.html.

    Raises:
        ValueError: No run folder, or one that cannot be read.
        OSError: The report cannot be written; one reason is a link in its place.
    """
    run = run_dir if isinstance(run_dir, Run) else open_run(run_dir)
    index = _write_report(run, dpi)
    if run.read is not None and os.path.lexists(run.path / "results.json"):
        # It has ended meanwhile, and may have put its own report in place before this one.
        return build_report(run.path, dpi=dpi)
    return index


def _write_report(run: Run, dpi: int) -> Path:
    """Render RUN/report of an open run and return the path of index.html."""
    target = run.path / "report"
    check_no_link(target)
    gaps: list[str] = []
    spec = _read_spec(run.path, gaps)
    shown = Shown(run)
    with (
        naming_missing_columns(run.path / "results.json", run.results),
        making_folder(target, UNFINISHED) as work,
    ):
        numbers = Numbers(run, shown.classes)
        fresh = work / "report"
        made = make_tables(numbers, shown)
        tables = [(table, write_table(fresh / "tables", table)) for table in made]
        (fresh / "tables").mkdir(parents=True, exist_ok=True)
        every = fresh / "tables" / "rows.csv"  # for a spreadsheet: results.json as it is
        write_text(every, csv_text(run.rows))
        album = Album(fresh / "figures", dpi)
        draw_all(album, numbers, shown)
        if any(NOT_MADE in gap for gap in shown.gaps):  # for want of a value: refuse with its name
            refuse_missing(run.path / "results.json", run.results)
        gaps = sorted(from_folder_on(run.path, gap) for gap in {*gaps, *shown.gaps})
        page = render_page(numbers, tables, album.pictures, gaps, spec)
        write_text(fresh / "index.html", page)
        verdict = " ".join(finding.answer for finding in headline(numbers)[:3])
        write_text(fresh / "summary.md", summarise_run(numbers, verdict, gaps))
        put_in_place(fresh, target, WRITTEN)
    return target / "index.html"


def _read_spec(run_dir: Path, gaps: list[str]) -> str:
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
