"""The tables of a run: those of its cells, and what follows from all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.analysis.tables.ranks import rank_rows
from robustloss.analysis.tables.shifts import corruption_rows
from robustloss.analysis.tables.summary import summarise
from robustloss.results.compact.content import Baseline
from robustloss.results.finished_cell import Cell
from robustloss.results.schema import Row
from robustloss.results.write import collect_tables


def run_tables(
    cells: Sequence[Cell],
    compared: Sequence[Row],
    beside: Baseline | None = None,
    **more: Sequence[Mapping[str, Any]],
) -> dict[str, list[Row]]:
    """Return the tables of results.json: those of the cells and what follows from all of them.

    Args:
        cells: finished, in the order in which losses are compared.
        compared: their `comparison_rows`.
        beside: losses that were computed elsewhere.
        **more: further rows by table.
    """
    ranks = rank_rows(compared)
    if beside:
        # Its losses are not compared with one another, so they have no ranks; nor has a loss whose
        # radius lies beyond what was found, because it has no test against others of that kind.
        elsewhere = {cell.label for cell in beside.cells}
        ranks = [r for r in ranks if r["label"] not in elsewhere and r["value"] is not None]
    training = [
        {**cell.training(), "loss": cell.loss, "label": cell.label, "seed": cell.seed}
        for cell in cells
    ]
    for row in training:
        row.pop("key", None)
    others = dict(beside.tables) if beside else {}
    training += others.pop("training", [])
    tables = collect_tables(
        (*(cell.tables() for cell in cells), others),
        {"comparisons": compared, "ranks": ranks, "training": training, **more},
    )
    labels = list(dict.fromkeys(cell.label for cell in cells))
    tables["corruption"] = corruption_rows(tables.get("shifts", ()), labels)
    tables["summary"] = summarise(tables)
    return tables
