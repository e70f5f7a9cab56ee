"""Loss against loss: differences with intervals, and which of them are more than chance."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import NOTHING

FEW = 6  # losses up to which every pair has a row
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
_UNITS = {
    "seeds": "Unit: the training seed. Equal seeds share initial weights and the order of the "
    "data; intervals and tests are paired t over {n} seeds.",
    "images": "Unit: the test image, for the networks of one seed. Another training would give "
    "other networks, and that is not in these intervals: they do not say that one loss is better. "
    "Errors are tested by McNemar's test, other numbers by resampling the images, the same for "
    "both losses.",
}

Row = Mapping[str, Any]


def comparison_tables(numbers: Numbers) -> list[Table]:
    """One table for each attack and metric, over seeds where there are several."""
    rows = numbers.run.comparisons
    unit = "seeds" if any(row["unit"] == "seeds" for row in rows) else "images"
    own = [row for row in rows if row["unit"] == unit]
    if unit == "images" and own:
        own = [row for row in own if row["seed"] == min(row["seed"] for row in own)]
    found = [
        _table(numbers, attack, metric, unit, own)
        for attack in numbers.attacks
        if attack.strengths
        for metric in _METRICS
    ]
    return [table for table in found if table.rows]


def _table(
    numbers: Numbers,
    attack: AttackInfo,
    metric: str,
    unit: str,
    rows: Sequence[Mapping[str, Any]],
) -> Table:
    name, scale, digits, words = _METRICS[metric]
    marks = Marks(numbers)
    eps = numbers.error_eps(attack) if metric == "error" else attack.strengths
    by_place = {
        (
            str(row["label_a"]),
            str(row["label_b"]),
            0.0 if row["attack"] == "none" else row["eps"],
        ): row
        for row in rows
        if row["metric"] == metric and row["attack_label"] in (attack.label, "none")
    }
    pairs = list(dict.fromkeys((a, b) for a, b, _ in by_place))
    shown = pairs
    if len(numbers.labels) > FEW:
        shown = [pair for pair in pairs if pair[0] == numbers.labels[0]]
    body = []
    for a, b in shown:
        cells = [Entry(a), Entry(b)]
        for e in eps:
            row = by_place.get((a, b, e))
            # the clean errors are the clean pass's own, whatever the attack
            found = dict.fromkeys(marks.on(label, attack, e) for label in (a, b))
            doubt = "".join(found) if row and e else ""
            cells.append(_entry(row, scale, digits, doubt))
        body.append(cells)
    data = [row for row in by_place.values() if (row["label_a"], row["label_b"]) in set(pairs)]
    n = max((int(row["n_seeds"]) for row in data), default=0)
    limited = (
        f" Only {numbers.labels[0]} against each other loss; the CSV has every pair."
        if shown != pairs
        else ""
    )
    return Table(
        f"comparison-{metric.replace('_', '-')}-{attack.slug}",
        f"Which losses differ under {attack.label}? {name}",
        f"{words}: first loss less second, with its 95 % interval. Shown means that the "
        "p-value is at most .05 after adjustment for all comparisons of this unit in the run, "
        "over attacks, eps and metrics (Benjamini and Hochberg); such a difference is bold unless "
        "a mark † doubts it. Where it reads “no difference shown”, one may be there and be too "
        "small for these data: the number after it is the difference that would have been shown "
        "four times out of five, before adjustment. The CSV has the p-values. "
        f"{_UNITS[unit].format(n=n)}{limited}",
        ["loss", "less", *(f"eps {e:.4g}" if e else "clean" for e in eps)],
        body,
        data,
        marks.notes(),
        left=2,
        section=attack.label,
    )


def _entry(row: Mapping[str, Any] | None, scale: float, digits: int, doubt: str) -> Entry:
    if row is None:
        return Entry(NOTHING)
    text = f"{_signed(row['difference'], scale, digits)} ({_signed(row['low'], scale, digits)} to "
    text += f"{_signed(row['high'], scale, digits)})"
    if row["shown"]:
        return Entry(text, doubt, kind="top" if not doubt else "")
    least = row["minimum_detectable"]
    size = f"; {scale * least:.{digits}f}" if least is not None else ""
    return Entry(f"{text} no difference shown{size}", doubt)


def _signed(value: float | None, scale: float, digits: int) -> str:
    if value is None:
        return NOTHING
    number = round(scale * value, digits)
    return f"{number:+.{digits}f}".replace("-", "−") if number else f"{0:.{digits}f}"


_RANKED = {"error": "error", "auroc_all": "AUROC"}


def rank_tables(numbers: Numbers) -> list[Table]:
    """One table an attack; none for a single loss or an older run."""
    rows = numbers.run.ranks
    unit = "seeds" if any(row["unit"] == "seeds" for row in rows) else "images"
    own = [row for row in rows if row["unit"] == unit]
    if unit == "images" and own:
        own = [row for row in own if row["seed"] == min(row["seed"] for row in own)]
    found = [
        _rank_table(numbers, attack, unit, own) for attack in numbers.attacks if attack.strengths
    ]
    return [table for table in found if table.rows]


def _rank_table(numbers: Numbers, attack: AttackInfo, unit: str, rows: Sequence[Row]) -> Table:
    marks = Marks(numbers)
    places: list[tuple[str, float]] = [("error", 0.0)]
    places += [(metric, eps) for metric in _RANKED for eps in attack.strengths]
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
                _rank_entry(row, marks.on(label, attack, eps) if row and eps else "")
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
        ["loss", *(f"{_RANKED[m]}, {f'eps {e:.4g}' if e else 'clean'}" for m, e in places)],
        body,
        data,
        marks.notes(),
        section=attack.label,
    )


def _rank_entry(row: Row | None, mark: str) -> Entry:
    if row is None:
        return Entry(NOTHING)
    low, high = row["rank_low"], row["rank_high"]
    if low == high:
        return Entry(str(low), mark, kind="" if mark else "top")
    return Entry(f"{low} to {high}", mark)
