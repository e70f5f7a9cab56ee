"""Results.json from its tables."""

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from robustloss.results.finished_cell import Cell
from robustloss.results.schema import SCHEMA_VERSION, TABLES, Row
from robustloss.results.transfers import Transfer
from robustloss.storage import digest_content, digest_file, write_json


def collect_tables(
    cells: Iterable[Mapping[str, Any]], more: Mapping[str, Iterable[Mapping[str, Any]]]
) -> dict[str, list[Row]]:
    """Return every table of `schema.TABLES`, arranged; empty where nobody has rows for it.

    Args:
        cells: the tables of each finished cell, in any order. A cell that was written before a
            table existed may lack it.
        more: by table, the rows of the run, which stand beside those of the cells.
    """
    assert more.keys() <= TABLES.keys(), more.keys() - TABLES.keys()
    contents = [dict(cell) for cell in cells]
    tables = {}
    for name, table in TABLES.items():
        # Taken out of the cells one by one: rows are many, and not to be held in both orders.
        of_cells = contents if table.of == "cell" else ()
        own = (row for cell in of_cells for row in cell.pop(name, ()))
        tables[name] = table.arrange(chain(own, more.get(name, ())))
    return tables


def seals_of(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Return which cells a run was made from, for its provenance: label, seed, digest of each."""
    return [{"label": cell.label, "seed": cell.seed, "sha256": cell.sha256} for cell in cells]


def seals_of_transfers(run_dir: Path, transfers: Iterable[Transfer]) -> list[dict[str, Any]]:
    """Return which transfers a run was made from, for its provenance, with digests of the files.

    Args:
        run_dir: the run folder.
        transfers: stored in it.
    """
    return [
        {
            "source": one.source,
            "targets": list(one.targets),
            "attack_label": one.attack_label,
            "file": one.file,
            "sha256": digest_file(run_dir / one.file),
        }
        for one in transfers
    ]


def write_results(
    run_dir: str | Path,
    *,
    name: str,
    provenance: Mapping[str, Any],
    tables: Mapping[str, list[Row]],
) -> dict[str, Any]:
    """Write results.json into a run folder; equal runs give equal bytes.

    Its last value is the digest of all others, by which a reader notices that one was changed.

    Args:
        run_dir: the run folder.
        name: of the run.
        provenance: see DESIGN 4.6; times belong here and in the table `training`, nowhere else.
        tables: as `collect_tables` gives them, and the table `summary`.

    Returns:
        What was written.
    """
    results = {"schema_version": SCHEMA_VERSION, "name": name, "provenance": dict(provenance)}
    # only a run with a search has trials
    results |= {key: tables[key] for key in TABLES if tables[key] or key != "trials"}
    results["digest"] = digest_content(results)
    write_json(Path(run_dir) / "results.json", results, sort_keys=False)
    return results
