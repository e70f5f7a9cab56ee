"""The run directory as the report reads it: cells, their records, and results.json."""

import importlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from robustloss.results.checking import check_provenance, check_tables
from robustloss.results.finished_cell import Cell, check_version, load_cell
from robustloss.results.schema import LATER_KEYS, RESULT_KEYS, ROW_KEYS, Row
from robustloss.storage import CorruptFile, read_json


@dataclass(frozen=True)
class Run:
    """A run folder with its results.json; cells are read when asked for.

    Attributes:
        path: the run folder.
        results: the content of results.json.
    """

    path: Path
    results: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the run, from its spec."""
        return self.results["name"]

    @property
    def rows(self) -> list[Row]:
        """One per (label, seed, attack_label, eps); columns: `columns.ROW_COLUMNS`."""
        return self.results["rows"]

    @property
    def summary(self) -> list[Row]:
        """Metrics over seeds; columns: `columns.SUMMARY_COLUMNS`."""
        return self.results["summary"]

    @property
    def detection(self) -> list[Row]:
        """Scores x populations; columns: `columns.DETECTION_COLUMNS`."""
        return self.results["detection"]

    @property
    def worst_case(self) -> list[Row]:
        """Per-image worst case over attacks; columns: `columns.WORST_CASE_COLUMNS`."""
        return self.results["worst_case"]

    @property
    def radii(self) -> list[Row]:
        """Each attack's error curve in numbers; columns: `columns.RADII_COLUMNS`."""
        return self.results.get("radii", [])

    @property
    def adaptive(self) -> list[Row]:
        """Naive beside adaptive attacks; columns: `columns.ADAPTIVE_COLUMNS`."""
        return self.results.get("adaptive", [])

    @property
    def transfer(self) -> list[Row]:
        """Images made on one loss, shown to another; columns: `columns.TRANSFER_COLUMNS`."""
        return self.results.get("transfer", [])

    @property
    def per_class(self) -> list[Row]:
        """Errors class by class; columns: `columns.CLASS_COLUMNS`."""
        return self.results.get("per_class", [])

    @property
    def geometry(self) -> list[Row]:
        """Distances, angles and norms of features; columns: `columns.GEOMETRY_COLUMNS`."""
        return self.results.get("geometry", [])

    @property
    def margins(self) -> list[Row]:
        """Boundaries between class means; columns: `columns.MARGIN_COLUMNS`."""
        return self.results.get("margins", [])

    @property
    def center_estimates(self) -> list[Row]:
        """How well mini-batches know the class means; columns: `columns.CENTER_COLUMNS`."""
        return self.results.get("center_estimates", [])

    @property
    def crops(self) -> list[Row]:
        """Error from one crop and from ten; columns: `columns.CROPS_COLUMNS`."""
        return self.results.get("crops", [])

    @property
    def out_of_distribution(self) -> list[Row]:
        """Images that are not of the data; columns: `columns.OUTSIDE_COLUMNS`."""
        return self.results.get("out_of_distribution", [])

    @property
    def calibration(self) -> list[Row]:
        """Confidence against accuracy; columns: `columns.CALIBRATION_COLUMNS`."""
        return self.results.get("calibration", [])

    @property
    def reliability(self) -> list[Row]:
        """The same by bins of confidence; columns: `columns.RELIABILITY_COLUMNS`."""
        return self.results.get("reliability", [])

    @property
    def comparisons(self) -> list[Row]:
        """Loss against loss, with tests; columns: `columns.COMPARISON_COLUMNS`."""
        return self.results.get("comparisons", [])

    @property
    def trials(self) -> list[Row]:
        """The search for each loss's values; columns: `columns.TRIAL_COLUMNS`."""
        return self.results.get("trials", [])

    @property
    def ranks(self) -> list[Row]:
        """Ranks of the losses with what is known of them; columns: `columns.RANK_COLUMNS`."""
        return self.results.get("ranks", [])

    def to_frame(self, table: str = "rows") -> Any:
        """A table as a pandas DataFrame, one row each.

        Args:
            table: "rows", "summary", "detection", "comparisons" or another list of results.json.

        Raises:
            ValueError: no such table.
            ImportError: pandas is not installed.
        """
        tables = [name for name, value in self.results.items() if isinstance(value, list)]
        if table not in tables:
            raise ValueError(f"table (={table!r}) must be one of {', '.join(tables)}.")
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise ImportError(
                "to_frame needs pandas, which is not installed: pip install pandas. Without it, "
                "run.rows is a list of dicts, and report/tables/rows.csv holds the same."
            ) from None
        return pandas.DataFrame(self.results[table])

    @property
    def training(self) -> list[Row]:
        """One per cell: learning curve, seconds, precision."""
        return self.results["training"]

    @property
    def flags(self) -> list[Row]:
        """Numbers that could be an artefact of the attack; columns: `columns.FLAG_COLUMNS`."""
        return self.results["flags"]

    @property
    def failures(self) -> list[Row]:
        """Cells that did not finish: loss, label, seed, stage, reason."""
        return self.results["failures"]

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, data checksum, seeds, times, the resolved spec."""
        return self.results["provenance"]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The cells behind `rows`, in the order of the spec's losses, then by seed.

        A cell folder that the results do not mention (a loss since taken out of the spec) is
        left out.

        Raises:
            CorruptFile: a cell.json is altered.
        """
        spec = self.provenance.get("spec") or {}
        order = [loss["label"] for loss in spec.get("losses", [])]
        mentioned = {(row["label"], row["seed"]) for row in self.rows}
        cells = [load_cell(path) for path in self.path.glob("cells/*/seed-*/cell.json")]

        def key(cell: Cell) -> tuple[int, str, int]:
            place = order.index(cell.label) if cell.label in order else len(order)
            return place, cell.label, cell.seed

        return tuple(sorted((c for c in cells if (c.label, c.seed) in mentioned), key=key))


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        ValueError: no run folder, no results in it yet, damaged results, or a newer schema.
    """
    path = Path(path)
    file = path / "results.json"
    if not path.is_dir():
        raise ValueError(f"run (={path}) must be a folder that `robustloss run` wrote.")
    if not file.exists():
        started = (path / "spec.toml").exists()
        why = "the run has not finished: start it again to continue" if started else "no run folder"
        raise ValueError(f"run (={path}) has no results.json ({why}).")
    results = read_json(file)
    check_version(file, results)
    later = {key: kind for key, kind in LATER_KEYS.items() if key in results}
    for key, kind in (RESULT_KEYS | later).items():
        if not isinstance(results.get(key), kind):
            raise CorruptFile(
                f"{file} has no {kind.__name__} {key!r}. Run `robustloss run` again to rewrite it."
            )
    for number, row in enumerate(results["rows"]):
        if not isinstance(row, dict) or not row.keys() >= ROW_KEYS:
            raise CorruptFile(
                f"{file} has a row (number {number}) without {', '.join(sorted(ROW_KEYS))}. Run "
                "`robustloss run` again to rewrite it."
            )
    check_tables(file, results)
    check_provenance(file, results)
    return Run(path, results)
