"""Tables over all attacks of a norm: the per-image worst case, and every error side by side."""

from collections import Counter
from collections.abc import Sequence

from robustloss.reports.drawing.style import CROWD
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import eps_words, images, interval_words
from robustloss.reports.reading.marks import Marks, flags_of, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import (
    NOTHING,
    eps_name,
    estimate_fields,
    in_percent,
    listed,
    seed_count,
)

REACH = (
    "A worst case carries the marks of its loss, those of the attack that is strongest alone, and "
    "every sign that a transferred attack does better; what is wrong with a weaker attack does not "
    "reach it."
)


def worst_table(numbers: Numbers, case: AttackInfo) -> Table:
    """Return losses by eps: error of the worst case, and under it what is strongest alone.

    Args:
        numbers: Of the run.
        case: One of its worst cases.
    """
    marks = Marks(numbers)
    rows, data = [], []
    for label in numbers.labels:
        found = [numbers.get(label, "none", 0.0, "error")]
        found += [numbers.get(label, case.label, e, "error") for e in case.strengths]
        if any(found):
            cells = [Entry(label), Entry(seed_count(found))]
            below = [f"{label}: strongest alone", "", ""]
            for value, e in zip(found, numbers.error_eps(case), strict=True):
                mark = marks.on(label, case, e) if value or not e else ""
                cells.append(Entry(in_percent(value), mark, "" if value or not e else "gap"))
                if e:
                    below.append(_strongest_alone(numbers.rows(label, case.label, e)))
            rows += [cells, [Entry(text, kind="detail") for text in below]]
        else:
            rows.append([Entry(label), *[Entry(NOTHING, kind="gap")] * (len(found) + 1)])
        data += [_worst_data(numbers, case, label, eps) for eps in case.strengths]
    notes = marks.notes()
    return Table(
        case.slug,
        f"Worst case over all attacks, {case.norm_name}",
        "An image counts as an error if it is wrong when clean or under any of the attacks: an "
        "attacker may choose for every image. Error in percent on "
        f"{images(numbers)} test images; eps in {eps_words(case.norm)}. Below each loss stands the "
        "attack that finds most errors alone; what the worst case adds to it was found by the "
        f"others. {interval_words(numbers)}",
        ["loss", "seeds", *map(eps_name, numbers.error_eps(case))],
        rows,
        data,
        [*notes, *([REACH] if notes else []), *_attack_notes(numbers, case)],
        of_errors=True,
    )


def _strongest_alone(rows: Sequence[dict]) -> str:
    """Return the strongest attack and its own error in percent."""
    if not rows:
        return "–"
    return f"{listed(_strongest(rows))} {100 * _strongest_error(rows):.2f}"


def _strongest(rows: Sequence[dict]) -> list[str]:
    """Return which attack is strongest alone, by how many seeds say so: they may not agree."""
    return [name for name, _ in Counter(str(row["strongest"]) for row in rows).most_common()]


def _strongest_error(rows: Sequence[dict]) -> float:
    return sum(float(row["strongest_error"]) for row in rows) / len(rows)


def _worst_data(numbers: Numbers, case: AttackInfo, label: str, eps: float) -> dict[str, object]:
    rows = numbers.rows(label, case.label, eps)
    return {
        "label": label, "norm": case.norm, "eps": eps,
        **estimate_fields(numbers.get(label, case.label, eps, "error"), "error"),
        "strongest": "; ".join(_strongest(rows)),
        "strongest_error": _strongest_error(rows) if rows else None,
        "attacks": "; ".join(sorted({name for r in rows for name in r["attacks"]})),
        "marks": names(flags_of(numbers, label, case, eps)),
    }  # fmt: skip


def _attack_notes(numbers: Numbers, case: AttackInfo) -> list[str]:
    """Return which attacks a worst case holds: one line where every eps has the same."""
    by_attacks: dict[tuple[str, ...], list[float]] = {}
    for eps in case.strengths:
        rows = [r for label in numbers.labels for r in numbers.rows(label, case.label, eps)]
        some = {name for row in rows for name in row["attacks"]}
        order = [attack.label for attack in numbers.attacks if attack.label in some]
        by_attacks.setdefault(tuple(order), []).append(eps)
    if len(by_attacks) == 1:
        return [f"Attacks in it: {listed(order)}." for order in by_attacks]
    return [
        f"Attacks in it at eps {listed([f'{e:.4g}' for e in eps])}: {listed(order)}."
        for order, eps in by_attacks.items()
    ]


def overview_table(numbers: Numbers, case: AttackInfo) -> Table:
    """Return every attack of a norm at every eps, one column a loss: the run at a glance.

    Where losses outnumber the attacks by far, a row is a loss and a column an attack.

    Args:
        numbers: Of the run.
        case: Worst case of the norm.
    """
    attacks = numbers.of_norm(case.norm)
    marks = Marks(numbers)
    data: list[dict] = []

    def entry(label: str, attack: AttackInfo, eps: float) -> Entry:
        """Return the error; its exact number goes to the CSV file, in the same order."""
        if eps not in attack.strengths:
            return Entry("–")
        found = numbers.get(label, attack.label, eps, "error")
        data.append(
            {"label": label, "attack_label": attack.label, "norm": attack.norm, "eps": eps,
             **estimate_fields(found, "error"),
             "marks": names(flags_of(numbers, label, attack, eps))}
        )  # fmt: skip
        if found is None:
            return Entry(NOTHING)
        alone = [
            other.mean
            for a in attacks
            if eps in a.strengths and (other := numbers.get(label, a.label, eps, "error"))
        ]
        top = attack is case or found.mean == max(alone)
        return Entry(in_percent(found), marks.on(label, attack, eps), "top" if top else "")

    rows = []
    columns = [*attacks, case]
    crowded = len(numbers.labels) > CROWD
    for eps in sorted({e for attack in attacks for e in attack.strengths}):
        first = Entry(f"{eps:.4g}")
        if crowded:
            rows += [
                [first, Entry(label), *(entry(label, a, eps) for a in columns)]
                for label in numbers.labels
            ]
        else:
            rows += [
                [first, Entry(a.label, kind="top" if a is case else ""),
                 *(entry(label, a, eps) for label in numbers.labels)]
                for a in columns
                if eps in a.strengths
            ]  # fmt: skip
    by = "loss" if crowded else "attack"
    return Table(
        f"overview-{case.norm}",
        f"Every attack, {case.norm_name}",
        f"Error in percent, by eps and {by}. Bold: the highest error that one attack reaches "
        "alone, and the worst case over all of them. A minimum-norm attack counts an image at "
        f"every eps from its radius on. {interval_words(numbers)}",
        ["eps", by, *([a.label for a in columns] if crowded else numbers.labels)],
        rows,
        data,
        marks.notes(),
        left=2,
        fold="of many losses",
        of_errors=True,
    )
