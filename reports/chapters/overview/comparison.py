"""Loss against loss: the differences, which of them are more than chance, and the ranks.

A comparison is over training seeds where a run has several, and over the test images of its first
seed otherwise. The ranks rest on the differences that are shown.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import NOTHING, eps_name, fixed, minus

Row = Mapping[str, Any]

FEW = 6  # losses up to which every pair has a row
# metric of `comparisons`: name, unit, decimals, what is compared
_METRICS = {
    "error": ("error", 100.0, 2, "Difference of the errors, in percentage points"),
    "auroc_all": ("AUROC", 1.0, 3, "Difference of the AUROC of the likelihood over all images"),
    "undetected_success_at_5fpr": (
        "fooled and not noticed",
        100.0,
        2,
        "Difference of the share fooled and not noticed at 5 % FPR, in percentage points",
    ),
}
_RANKED = {"error": "error", "auroc_all": "AUROC"}
_UNITS = {
    "seeds": "Unit: the training seed. Equal seeds share initial weights and the order of the "
    "data; intervals and tests are paired t over {n} seeds.",
    "images": "Unit: the test image, for the networks of one seed. Another training would give "
    "other networks, and that is not in these intervals: they do not say that one loss is better. "
    "Errors are tested by McNemar's test, other numbers by resampling the images, the same for "
    "both losses.",
}
_SHOWN = (
    "Shown means that the p-value is at most .05 after adjustment for all comparisons of this unit "
    "in the run, over attacks, eps and metrics (Benjamini and Hochberg); such a difference is bold "
    "unless a mark † doubts it. Where it reads “no difference shown”, one may be there and be too "
    "small for these data: the number after it is the difference that would have been shown four "
    "times out of five, before adjustment. The CSV has the p-values."
)


def rows_of_unit(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return the rows over seeds, or those over images of the first seed; and which these are."""
    unit = "seeds" if any(row["unit"] == "seeds" for row in rows) else "images"
    own = [row for row in rows if row["unit"] == unit]
    if unit == "images" and own:
        first = min(row["seed"] for row in own)
        own = [row for row in own if row["seed"] == first]
    return own, unit


def eps_of(row: Row) -> float:
    """Return the eps of a row; 0 for the clean pass."""
    return 0.0 if row["attack"] == "none" else float(row["eps"])


def comparison_tables(numbers: Numbers) -> list[Table]:
    """Return the differences: one table for each attack and metric."""
    rows, unit = rows_of_unit(numbers.run.comparisons)
    found = [
        difference_table(numbers, attack, metric, unit, rows)
        for attack in numbers.attacks
        if attack.strengths
        for metric in _METRICS
    ]
    return [table for table in found if table.rows]


def difference_table(
    numbers: Numbers, attack: AttackInfo, metric: str, unit: str, rows: Sequence[Row]
) -> Table:
    """Return pairs of losses by eps: the difference of one metric, and whether it is shown.

    Args:
        numbers: Of the run.
        attack: Under which the losses are compared.
        metric: A metric of `comparisons`.
        unit: "seeds" or "images".
        rows: Of `comparisons`, all of this unit.
    """
    name, scale, digits, words = _METRICS[metric]
    marks = Marks(numbers)
    eps = numbers.error_eps(attack) if metric == "error" else attack.strengths
    known = {
        (str(row["label_a"]), str(row["label_b"]), eps_of(row)): row
        for row in rows
        if row["metric"] == metric and row["attack_label"] in (attack.label, "none")
    }
    pairs, limited = list(dict.fromkeys((a, b) for a, b, _ in known)), ""
    if len(numbers.labels) > FEW:
        first, every = numbers.labels[0], len(pairs)
        pairs = [pair for pair in pairs if pair[0] == first]
        if len(pairs) < every:
            limited = f" Only {first} against each other loss; the CSV has every pair."
    body = []
    for pair in pairs:
        cells = [Entry(label) for label in pair]
        for e in eps:
            row = known.get((*pair, e))
            # the clean errors are the clean pass's own, whatever the attack
            doubts = [marks.on(label, attack, e) for label in pair] if row and e else []
            cells.append(_difference(row, scale, digits, "".join(dict.fromkeys(doubts))))
        body.append(cells)
    n = max((int(row["n_seeds"]) for row in known.values()), default=0)
    return Table(
        f"comparison-{metric.replace('_', '-')}-{attack.slug}",
        f"Which losses differ under {attack.label}? {name}",
        f"{words}: first loss less second, with its 95 % interval. {_SHOWN} "
        f"{_UNITS[unit].format(n=n)}{limited}",
        ["loss", "less", *map(eps_name, eps)],
        body,
        list(known.values()),
        marks.notes(),
        left=2,
        section=attack.label,
    )


def _difference(row: Row | None, scale: float, digits: int, doubt: str) -> Entry:
    """Return a difference with its interval, in bold where it is shown and nothing doubts it."""
    if row is None:
        return Entry(NOTHING)
    if scale * abs(row["difference"] or 0) >= 10:
        digits -= 1

    def signed(key: str) -> str:
        if row[key] is None:
            return NOTHING
        value = round(scale * row[key], digits)
        return minus(f"{value:+.{digits}f}") if value else f"{0:.{digits}f}"

    text = f"{signed('difference')} [{signed('low')}, {signed('high')}]"
    if row["shown"]:
        return Entry(text, doubt, kind="" if doubt else "top")
    least = row["minimum_detectable"]
    size = "" if least is None else f"; {fixed(least, digits, scale)}"
    return Entry(f"{text} no difference shown{size}", doubt)


def rank_tables(numbers: Numbers) -> list[Table]:
    """Return the ranks: one table an attack; none for a single loss or an older run."""
    rows, unit = rows_of_unit(numbers.run.ranks)
    found = [
        rank_table(numbers, attack, unit, rows) for attack in numbers.attacks if attack.strengths
    ]
    return [table for table in found if table.rows]


def rank_table(numbers: Numbers, attack: AttackInfo, unit: str, rows: Sequence[Row]) -> Table:
    """Return losses by metric and eps: the ranks that a loss may have.

    Args:
        numbers: Of the run.
        attack: Under which the losses are ranked.
        unit: "seeds" or "images".
        rows: Of `ranks`, all of this unit.
    """
    marks = Marks(numbers)
    places: list[tuple[str, float]] = [("error", 0.0)]
    places += [(metric, eps) for metric in _RANKED for eps in attack.strengths]
    known = {
        (row["label"], row["metric"], eps_of(row)): row
        for row in rows
        if row["attack_label"] in (attack.label, "none")
    }
    body, data = [], []
    for label in numbers.labels:
        own = [known.get((label, *place)) for place in places]
        if not any(own):
            continue
        cells = [Entry(label)]
        for row, (_, eps) in zip(own, places, strict=True):
            mark = marks.on(label, attack, eps) if row and eps else ""
            ranks = sorted({row["rank_low"], row["rank_high"]}) if row else []
            kind = "top" if len(ranks) == 1 and not mark else ""
            cells.append(Entry(" to ".join(map(str, ranks)) or NOTHING, mark, kind))
        body.append(cells)
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
        ["loss", *(f"{_RANKED[metric]}, {eps_name(eps)}" for metric, eps in places)],
        body,
        data,
        marks.notes(),
        section=attack.label,
    )
