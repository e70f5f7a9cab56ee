"""The table that the page begins with: every loss, errors by eps, and what detection is worth."""

from itertools import groupby

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import data_remark, images
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.result_table import ResultCell, ResultColumn, ResultTable


def result_table(numbers: Numbers) -> Table:
    """Return the result table of a run as the page and the files show it."""
    found: ResultTable = numbers.run.table()
    bests = [
        best_rows([row.cells[place] for row in found.rows], column)
        for place, column in enumerate(found.columns)
    ]
    rows = [
        [
            Entry(row.label),
            *(
                Entry(cell.text(column), found.mark(cell), _kind(cell, i == best))
                for cell, column, best in zip(row.cells, found.columns, bests, strict=True)
            ),
        ]
        for i, row in enumerate(found.rows)
    ]
    groups = [(group, len([*own])) for group, own in groupby(found.columns, lambda c: c.group)]
    detection = [column for column in found.columns if column.metric != "error"]
    words = (
        " AUROC: how often a clean image has a higher likelihood than an attacked one; 1 is "
        "always, 0.5 is guessing, below 0.5 attacked images look more typical than clean ones. "
        "Fooled and unnoticed: percentage of the initially correct images that are wrong after the "
        "attack and pass a threshold that rejects 5 % of clean validation images."
    )
    remark = data_remark(numbers)
    return Table(
        "losses",
        "All losses",
        f"{found.caption.replace('percent', f'percent of {images(numbers)} test images', 1)} Eps: "
        "how much an attack may change an image (L∞: each pixel, where 1 is from black to white; "
        "L2: the length of the whole change). Clean mistakes count; in the worst case an image "
        "counts if any attack fools it. Bold: the best, where its interval overlaps no other."
        f"{words if detection else ''}",
        ["loss", *(column.head for column in found.columns)],
        rows,
        [
            {"label": row.label, "metric": column.metric, "attack_label": column.attack_label,
             "norm": column.norm, "eps": column.eps, "n_seeds": cell.n_seeds, "mean": cell.mean,
             "low": cell.low, "high": cell.high, "interval": cell.interval,
             "marks": " ".join(cell.checks)}
            for row in found.rows
            for column, cell in zip(found.columns, row.cells, strict=True)
        ],
        [*(f"†{number} {text}" for number, text in enumerate(found.notes.values(), 1)),
         *([f"Data: {remark}."] if remark else [])],
        of_errors=True,
        groups=[("", 1), *groups],
        highlight=[*((numbers.spec.get("report") or {}).get("highlight") or ())],
    )  # fmt: skip


def best_rows(cells: list[ResultCell], column: ResultColumn) -> int | None:
    """Return the row of the best number where its interval overlaps no other; None for no such row.

    Args:
        cells: Of one column. Marked ones may be artefacts and are no best.
        column: Says which end is the better one.
    """
    known = [(i, c) for i, c in enumerate(cells) if c.mean is not None and not c.checks]
    sign = 1 if column.lower_is_better else -1
    known.sort(key=lambda pair: sign * (pair[1].mean or 0.0))
    if len(known) < 2 or any(c.low is None or c.high is None for _, c in known):
        return None
    (place, best), others = known[0], [cell for _, cell in known[1:]]
    apart = all(c.low > best.high or best.low > c.high for c in others)  # type: ignore[operator]
    return place if apart else None


def _kind(cell: ResultCell, best: bool) -> str:
    return "gap" if cell.mean is None else "top" if best else ""
