"""A run folder as the report reads it: results.json, and the cells behind it."""

import importlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from robustloss.notation import one_line
from robustloss.results.checking import check, check_tables, refuse
from robustloss.results.finished_cell import Cell, check_version, load_cell
from robustloss.results.provenance import Provenance, find_reference_labels
from robustloss.results.result import build_result_table
from robustloss.results.result_table import as_paragraphs
from robustloss.results.schema import TABLES, Row
from robustloss.storage import digest_content, read_json

STARTED = "started.json"  # in the folder of a run that has not finished: what it was asked for

# Without these a row of `rows` has no place and no number.
_NEEDED = {"label", "seed", "attack", "attack_label", "eps", "n", "error"}


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder with its results.json; cells are read when asked for.

    Each table of `schema.TABLES` is an attribute: run.rows, run.summary, run.detection and so on
    are lists of dicts, empty where an older run lacks the table.

    Attributes:
        path: the run folder.
        results: the content of results.json; of a run without one, what it would hold now.
        unfinished: what is still missing, a sentence each; empty for a finished run.
        missing: the cells that are still to come, such as "L-GM seed 1".
        asked: how many cells an unfinished run was asked for.
        read: the readable cells and their problems, where whoever made this object has read them.
    """

    path: Path
    results: dict[str, Any]
    unfinished: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    asked: int = 0
    read: tuple[list[Cell], list[str]] | None = None

    @property
    def name(self) -> str:
        """Name of the run, from its spec."""
        return self.results["name"]

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, data checksum, seeds, times, the resolved spec."""
        return self.results["provenance"]

    @property
    def counts(self) -> tuple[int, int]:
        """How many cells are finished, and how many the run was asked for."""
        if self.unfinished:
            return self.asked - len(self.missing), self.asked
        failed = {(row.get("label"), row.get("seed")) for row in self.failures}
        return len(self._places), len(failed | self._places.keys())

    def __getattr__(self, name: str) -> list[Row]:
        if name in TABLES:
            return self.results.get(name, [])
        raise AttributeError(f"a run has no attribute and no table {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *TABLES]

    def table(self, name: str = "result") -> Any:
        """Return a table of the run.

        Args:
            name: "result", the table that report and terminal begin with, as a ResultTable; or a
                table of results.json, by its name in `schema.TABLES`, as a list of dicts.

        Raises:
            ValueError: no such table.
        """
        if name == "result":
            return build_result_table(self.results)
        if name not in TABLES:
            raise ValueError(f"table (={name!r}) must be one of result, {', '.join(TABLES)}.")
        return self.results.get(name, [])

    def __repr__(self) -> str:
        return "\n".join([self._describe(), *self._next_steps()])

    def _repr_html_(self) -> str:
        return self.table().as_html() + as_paragraphs([self._describe(), *self._next_steps()])

    def _describe(self) -> str:
        """Say in a line what was run, and where it lies if it still does."""
        result, spec = self.table(), self.provenance.get("spec") or {}
        seeds = len({row["seed"] for row in self.rows})
        images = max((row["n"] for row in self.rows), default=0)
        attacks = [str(attack["label"]) for attack in spec.get("attacks", ())]
        data = self.provenance.get("data") or {}
        counts = [(len(result.rows), "loss", "losses"), (seeds, "seed", "seeds")]
        size = " × ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts)
        text = (
            f"Run {self.name!r}: {size}, {data.get('label') or data.get('name')}, {images:,} test "
            f"images; {', '.join(attacks) or 'no attack'}"
        )
        if self.unfinished:
            done, asked = self.counts
            text += "; not finished" + (f": {done} of {asked} cells" if done < asked else "")
        return one_line(f"{text}; in {self.path}" if self.path.is_dir() else text)

    def _next_steps(self) -> list[str]:
        steps = [
            'Next: run.table() is the result by loss, run.table("rows") every number of it; '
            "dir(run) names the other tables, run.cells hold predictions and scores."
        ]
        report = self.path / "report" / "index.html"
        if report.is_file():
            steps.append(one_line(f"Its report: {report}"))
        return steps

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
        if self.read is not None:
            return tuple(self.read[0])
        spec = self.provenance.get("spec") or {}
        order = {loss["label"]: number for number, loss in enumerate(spec.get("losses", []))}
        cells = [load_cell(path) for path in self._cell_files()]
        cells = [cell for cell in cells if (cell.label, cell.seed) in self._places]
        return tuple(sorted(cells, key=lambda c: (order.get(c.label, len(order)), c.label, c.seed)))

    @cached_property
    def readable_cells(self) -> tuple[list[Cell], list[str]]:
        """The cells that can be read, and in a sentence each what cannot be read or is missing.

        Missing is a cell that has rows, and one that the spec asks for and of which there is
        nothing at all: neither rows nor the reason of a failure.
        """
        if self.read is not None:
            return self.read
        cells, problems, unread = [], [], set()
        for path in sorted(self._cell_files()):
            try:
                cell = load_cell(path)
            except ValueError as error:
                unread.add(path.parent)
                cell_folder = path.parent.relative_to(self.path)
                problems.append(f"{cell_folder}: {from_folder_on(self.path, error)}")
            else:
                cells += [cell] if (cell.label, cell.seed) in self._places else []
        found = {(cell.label, cell.seed) for cell in cells}
        elsewhere = find_reference_labels(self.provenance)
        for label, seed in self._places:
            if label in elsewhere:  # rows of a reference have no cells
                continue
            # The file of one that is there and cannot be read is told already.
            folders = [folder for folder in unread if folder.name == f"seed-{seed}"]
            if (label, seed) not in found and not folders:
                problems.append(f"{label}, seed {seed}: its cell.json is missing.")
        failed = {(row.get("label"), row.get("seed")) for row in self.failures}
        for place in self.asked_for():
            if place not in self._places and place not in failed:
                told = (
                    "{}, seed {}: the spec asks for it, and it has neither numbers nor a failure."
                )
                problems.append(told.format(*place))
        return cells, problems

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """Why the numbers may not be those that the run came to, a sentence each; mostly none."""
        found = []
        if self.digest_state == "altered":
            found.append(
                "results.json was altered after it was written: its digest does not fit its "
                "content. Run `robustloss run` again to rewrite it."
            )
        sealed = {(s["label"], s["seed"]): s["sha256"] for s in self.provenance.get("cells") or ()}
        found += [
            f"{cell.label}, seed {cell.seed}: cell.json is another one than the numbers of "
            "results.json were made from. Run `robustloss run` again to rewrite it."
            for cell in self.readable_cells[0]
            if sealed.get((cell.label, cell.seed), cell.sha256) != cell.sha256
        ]
        return tuple(found)

    @cached_property
    def digest_state(self) -> Literal["fits", "altered", "absent"]:
        """Whether the digest of results.json fits; runs that are old or unfinished have none."""
        if self.read is not None:
            return "absent"
        others = {key: value for key, value in self.results.items() if key != "digest"}
        if len(others) == len(self.results):
            return "altered" if "cells" in self.provenance else "absent"
        return "fits" if digest_content(others) == self.results["digest"] else "altered"

    def _cell_files(self) -> list[Path]:
        return list(self.path.glob("cells/*/seed-*/cell.json"))

    @cached_property
    def _places(self) -> dict[tuple[str, int], None]:
        """Label and seed of the cells that have rows, in the order of the rows."""
        return dict.fromkeys((row["label"], row["seed"]) for row in self.rows)

    def asked_for(self) -> list[tuple[str, int]]:
        """Return label and seed of the cells that the spec asks for; none of a merged run."""
        spec, seeds = self.provenance.get("spec") or {}, self.provenance.get("seeds") or []
        if "merged" in self.provenance:  # each loss has the seeds of its own run
            return []
        seeds = [seed for seed in seeds if isinstance(seed, int)]
        places = []
        for loss in spec.get("losses") or ():
            # A model that was trained elsewhere has no seed: it is one cell.
            given = loss.get("weights") or isinstance(loss.get("model"), str)
            places += [(loss["label"], seed) for seed in (seeds[:1] if given else seeds)]
        return places


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        ValueError: no run folder, no results in it yet, damaged results, or a newer schema.
    """
    path = Path(path)
    file = path / "results.json"
    around = find_run_around(path)
    if not path.is_dir():
        hint = f" Did you mean {around}?" if around else ""
        raise ValueError(f"run (={path}) must be a folder that `robustloss run` wrote.{hint}")
    if not os.path.lexists(file):
        why = "no run folder"
        if (path / "spec.toml").exists():
            why = (
                "the run has not finished: start it again to continue, or see what is there with "
                "`robustloss report`"
            )
        elif around or (around := next((p.parent for p in path.glob("*/results.json")), None)):
            why += f"; {around} is one"
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


def find_run_around(path: Path) -> Path | None:
    """Return the run folder in which a file or a folder lies, such as its report; None without.

    Args:
        path: that need not exist.
    """
    folders = [folder for folder in path.parents[:2] if (folder / "results.json").is_file()]
    return folders[0] if folders and path.exists() else None


def from_folder_on(folder: Path, text: object) -> str:
    """Return a message with files of the run named from its folder on: alike on any machine.

    Args:
        folder: of the run.
        text: of an error.
    """
    return str(text).replace(f"{folder}{os.sep}", "")


def read_started(folder: str | Path) -> dict[str, Any] | None:
    """Return what a run that has not finished noted as it began; None where it noted nothing.

    It is the provenance of results.json as far as it is known then.

    Args:
        folder: the run folder.

    Raises:
        CorruptFile: the note is damaged.
    """
    file = Path(folder) / STARTED
    if not os.path.lexists(file):
        return None
    started = read_json(file, checked=True)
    check(file, "", Provenance, started)
    return started
