"""The tables of a run: those of its cells, and what follows from all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.analysis.tables.ranks import rank_rows
from robustloss.analysis.tables.shifts import corruption_rows
from robustloss.analysis.tables.summary import summarise
from robustloss.results.finished_cell import Cell
from robustloss.results.schema import Row
from robustloss.results.write import collect_tables


def run_tables(
    cells: Sequence[Cell], compared: Sequence[Row], **more: Sequence[Mapping[str, Any]]
) -> dict[str, list[Row]]:
    """Return the tables of results.json: those of the cells and what follows from all of them.

    Args:
        cells: finished, in the order in which losses are compared.
        compared: their `comparison_rows`.
        **more: further rows by table.
    """
    training = [
        {**cell.training(), "loss": cell.loss, "label": cell.label, "seed": cell.seed}
        for cell in cells
    ]
    for row in training:
        row.pop("key", None)
    tables = collect_tables(
        (cell.tables() for cell in cells),
        {"comparisons": compared, "ranks": rank_rows(compared), "training": training, **more},
    )
    labels = list(dict.fromkeys(cell.label for cell in cells))
    tables["corruption"] = corruption_rows(tables.get("shifts", ()), labels)
    tables["summary"] = summarise(tables)
    return tables
