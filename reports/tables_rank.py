"""Ranks of the losses: which places each may have, given what is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.reports.marks import Marks
from robustloss.reports.numbers import AttackInfo, Numbers
from robustloss.reports.table import Entry, Table
from robustloss.reports.words import NOTHING

Row = Mapping[str, Any]
_METRICS = {"error": "error", "auroc_all": "AUROC"}


def rank_tables(numbers: Numbers) -> list[Table]:
    """One table an attack; none for a single loss or an older run."""
    rows = numbers.run.ranks
    unit = "seeds" if any(row["unit"] == "seeds" for row in rows) else "images"
    own = [row for row in rows if row["unit"] == unit]
    if unit == "images" and own:
        own = [row for row in own if row["seed"] == min(row["seed"] for row in own)]
    found = [_table(numbers, attack, unit, own) for attack in numbers.attacks if attack.strengths]
    return [table for table in found if table.rows]


def _table(numbers: Numbers, attack: AttackInfo, unit: str, rows: Sequence[Row]) -> Table:
    marks = Marks(numbers)
    places: list[tuple[str, float]] = [("error", 0.0)]
    places += [(metric, eps) for metric in _METRICS for eps in attack.strengths]
    known = {
        (row["label"], row["metric"], 0.0 if row["attack"] == "none" else float(row["eps"])): row
        for row in rows
        if row["attack_label"] in (attack.label, "none")
    }
    body, data = [], []
    for label in numbers.labels:
        own = [known.get((label, *place)) for place in places]
        if not any(own):
            continue
        body.append(
            [Entry(label)]
            + [
                _entry(row, marks.on(label, attack, eps) if row and eps else "")
                for row, (_, eps) in zip(own, places, strict=True)
            ]
        )
        data += [dict(row) for row in own if row]
    return Table(
        f"ranks-{attack.slug}",
        f"Ranks under {attack.label}",
        "1 is best: the fewest errors, or the highest AUROC of the likelihood over all images. "
        "“2 to 4” means that one loss is shown to be better and that the differences to the "
        "others are not all shown, so that the loss may have any of these ranks; in bold where one "
        "rank is left. What is shown comes from the tables of differences, adjusted for their "
        "number; over many tables about one in twenty of the differences that ranks rest on may "
        f"be chance. Unit: the {'training seed' if unit == 'seeds' else 'test image, of one seed'}."
        " Source: Mogstad, Romano, Shaikh and Wilhelm 2024.",
        ["loss", *(f"{_METRICS[m]}, {f'eps {e:.4g}' if e else 'clean'}" for m, e in places)],
        body,
        data,
        marks.notes(),
        section=attack.label,
    )


def _entry(row: Row | None, mark: str) -> Entry:
    if row is None:
        return Entry(NOTHING)
    low, high = row["rank_low"], row["rank_high"]
    if low == high:
        return Entry(str(low), mark, kind="" if mark else "top")
    return Entry(f"{low} to {high}", mark)
