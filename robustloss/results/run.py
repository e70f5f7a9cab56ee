"""A run folder as the report reads it: results.json, and the cells behind it."""

import importlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from robustloss.results.checking import check, check_tables, refuse
from robustloss.results.finished_cell import Cell, check_version, load_cell
from robustloss.results.provenance import Provenance
from robustloss.results.schema import TABLES, Row
from robustloss.storage import read_json

# Without these a row of `rows` has no place and no number.
_NEEDED = {"label", "seed", "attack", "attack_label", "eps", "n", "error"}


@dataclass(frozen=True)
class Run:
    """A run folder with its results.json; cells are read when asked for.

    Each table of `schema.TABLES` is an attribute: run.rows, run.summary, run.detection and so on
    are lists of dicts, empty where an older run lacks the table.

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
    def provenance(self) -> dict[str, Any]:
        """Versions, device, data checksum, seeds, times, the resolved spec."""
        return self.results["provenance"]

    def __getattr__(self, name: str) -> list[Row]:
        if name in TABLES:
            return self.results.get(name, [])
        raise AttributeError(f"a run has no attribute and no table {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *TABLES]

    def to_frame(self, table: str = "rows") -> Any:
        """Return a table as a pandas DataFrame.

        Args:
            table: a table of results.json, by its name in `schema.TABLES`.

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

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The cells behind `rows`, in the order of the spec's losses, then by seed.

        A cell folder that the results do not mention (a loss since taken out of the spec) is
        left out.

        Raises:
            CorruptFile: a cell.json is altered.
        """
        spec = self.provenance.get("spec") or {}
        order = {loss["label"]: number for number, loss in enumerate(spec.get("losses", []))}
        mentioned = {(row["label"], row["seed"]) for row in self.rows}
        cells = [load_cell(path) for path in self.path.glob("cells/*/seed-*/cell.json")]
        cells = [cell for cell in cells if (cell.label, cell.seed) in mentioned]
        return tuple(sorted(cells, key=lambda c: (order.get(c.label, len(order)), c.label, c.seed)))


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        ValueError: no run folder, no results in it yet, damaged results, or a newer schema.
    """
    path = Path(path)
    file = path / "results.json"
    if not path.is_dir():
        raise ValueError(f"run (={path}) must be a folder that `robustloss run` wrote.")
    if not os.path.lexists(file):
        started = (path / "spec.toml").exists()
        why = "the run has not finished: start it again to continue" if started else "no run folder"
        raise ValueError(f"run (={path}) has no results.json ({why}).")
    results = read_json(file)
    check_version(file, results)
    tables = (name for name, table in TABLES.items() if name in results or not table.optional)
    for key, kind in {"name": str, "provenance": dict, **dict.fromkeys(tables, list)}.items():
        if not isinstance(results.get(key), kind):
            refuse(file, f"has no {kind.__name__} {key!r}")
    for number, row in enumerate(results["rows"]):
        if not isinstance(row, dict) or not row.keys() >= _NEEDED:
            refuse(file, f"has a row (number {number}) without {', '.join(sorted(_NEEDED))}")
    check_tables(file, results)
    check(file, "provenance", Provenance, results["provenance"])
    return Run(path, results)
