"""From a run folder to its report: numbers, tables, figures, page."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from robustloss.reports.album import Album, csv_text, write_text
from robustloss.reports.checks import flags_table
from robustloss.reports.detected import Detected
from robustloss.reports.gallery_confusion import confusion_tables
from robustloss.reports.guarded import guarded
from robustloss.reports.loss_notes import annotated
from robustloss.reports.matrix import matrices
from robustloss.reports.numbers import AttackInfo, Numbers
from robustloss.reports.page import render_page
from robustloss.reports.press import draw_all
from robustloss.reports.style import DPI
from robustloss.reports.table import Table, write_table
from robustloss.reports.tables_adaptive import auroc_table, every_adaptive_table, rejection_table
from robustloss.reports.tables_attack import attack_table, detection_table, scores_table
from robustloss.reports.tables_calibration import calibration_table
from robustloss.reports.tables_classes import balance_table, class_table, top5_table
from robustloss.reports.tables_comparison import comparison_tables
from robustloss.reports.tables_cost import cost_table
from robustloss.reports.tables_crops import crops_table
from robustloss.reports.tables_detection import outside_tables, populations_table
from robustloss.reports.tables_error import error_table
from robustloss.reports.tables_geometry import (
    center_table,
    geometry_tables,
    margin_table,
    tuple_table,
)
from robustloss.reports.tables_glance import glance_table
from robustloss.reports.tables_radius import radius_table
from robustloss.reports.tables_rank import rank_tables
from robustloss.reports.tables_run import seed_table, training_table
from robustloss.reports.tables_transfer import transfer_table
from robustloss.reports.tables_tuning import tuning_tables
from robustloss.reports.tables_worst import overview_table, worst_table
from robustloss.reports.views import Shown
from robustloss.results import load_run
from robustloss.results_shape import missing_told


def build_report(run_dir: str | Path, *, dpi: int = DPI) -> Path:
    """Render RUN/report from the files of a run; nothing is trained or attacked, no torch is used.

    The same run gives the same bytes. An earlier report in the folder is replaced as a whole.

    Args:
        run_dir: A folder that ``robustloss run`` wrote.
        dpi: Resolution of the PNG files and of the pixels inside the SVG files.

    Returns:
        The path of index.html.

    Raises:
        ValueError: No run folder, or one without usable results.
    """
    run = load_run(run_dir)
    target = Path(run_dir) / "report"
    shown = Shown(run)
    with missing_told(run.path / "results.json", run.results):
        numbers = Numbers(run, shown.classes)
    with (
        missing_told(run.path / "results.json", run.results),
        tempfile.TemporaryDirectory(prefix=".report-", dir=run_dir) as work,
    ):
        fresh = Path(work)
        made = [*make_tables(numbers), *_noted(numbers, confusion_tables(numbers, shown))]
        tables = [(table, write_table(fresh / "tables", table)) for table in made]
        (fresh / "tables").mkdir(exist_ok=True)
        every = fresh / "tables" / "rows.csv"  # for a spreadsheet: results.json as it is
        write_text(every, csv_text(run.rows))
        album = Album(fresh / "figures", dpi)
        draw_all(album, numbers, shown)
        page = render_page(
            numbers, tables, album.pictures, sorted(set(shown.gaps)), _spec_text(run.path)
        )
        write_text(fresh / "index.html", page)
        _replace(target, fresh)
    return target / "index.html"


def make_tables(numbers: Numbers) -> list[Table]:
    """Every table of the report, in the order of the page: what sums up comes first."""
    tables: list[Table | None] = [glance_table(numbers)]
    detected = Detected(numbers)
    for norm in numbers.norms:
        for case in (case for case in numbers.worst_cases if case.norm == norm):
            tables += [worst_table(numbers, case), overview_table(numbers, case)]
        tables.append(radius_table(numbers, norm))
    for found in guarded(numbers):
        tables += [auroc_table(found), rejection_table(found), every_adaptive_table(found)]
    tables += [transfer_table(matrix) for matrix in matrices(numbers)]
    kinds: list[Callable[[Numbers, AttackInfo], Table | None]] = [
        error_table,
        detection_table,
        lambda numbers, attack: populations_table(numbers, detected, attack),
        attack_table,
        calibration_table,
        scores_table,
    ]
    tables += [
        kind(numbers, attack)
        for attack in numbers.attacks
        for kind in kinds
        if attack.strengths or kind is error_table
    ]
    tables += [*comparison_tables(numbers), *rank_tables(numbers)]
    tables += [
        *outside_tables(numbers),
        top5_table(numbers),
        balance_table(numbers),
        class_table(numbers),
    ]
    tables += [
        crops_table(numbers),
        cost_table(numbers),
        *tuning_tables(numbers),
        training_table(numbers),
        seed_table(numbers),
    ]
    tables += [*geometry_tables(numbers), margin_table(numbers), center_table(numbers)]
    tables += [tuple_table(numbers), flags_table(numbers)]
    return _noted(numbers, [table for table in tables if table is not None and table.rows])


def _noted(numbers: Numbers, tables: list[Table]) -> list[Table]:
    return [annotated(numbers, table) for table in tables]


def _spec_text(run_dir: Path) -> str:
    try:
        return (run_dir / "spec.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _replace(target: Path, fresh: Path) -> None:
    """Put the new report in place; other files that lie in the folder stay."""
    target.mkdir(exist_ok=True)
    for part in ("tables", "figures"):
        shutil.rmtree(target / part, ignore_errors=True)
        if (fresh / part).is_dir():
            (fresh / part).rename(target / part)
    (fresh / "index.html").replace(target / "index.html")
