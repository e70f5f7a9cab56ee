"""Tables over all attacks of a norm: the per-image worst case, and every error side by side."""

from collections import Counter
from collections.abc import Sequence

from robustloss.reports.drawing.style import CROWD
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import eps_words, images, interval_words
from robustloss.reports.reading.marks import Marks, flags_of, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import NORM_NAMES, estimate, listed, span


def worst_table(numbers: Numbers, case: AttackInfo) -> Table:
    """Losses by eps: error of the worst case, and under it the attack that is strongest alone."""
    marks = Marks(numbers)
    rows, data = [], []
    for label in numbers.labels:
        rows += _worst_rows(numbers, case, label, marks)
        data += [_worst_data(numbers, case, label, eps) for eps in case.strengths]
    return Table(
        case.slug,
        f"Worst case over all attacks, {NORM_NAMES.get(case.norm or '', case.norm)}",
        "An image counts as an error if it is wrong when clean or under any of the attacks: an "
        "attacker may choose for every image. Error in percent on "
        f"{images(numbers)} test images; eps in {eps_words(case.norm)}. Below each loss stands the "
        "attack that finds most errors alone; what the worst case adds to it was found by the "
        f"others. {interval_words(numbers)}",
        ["loss", "seeds", "clean", *(f"eps {e:.4g}" for e in case.strengths)],
        rows,
        data,
        [*marks.notes(), *_reach_notes(marks), *_attack_notes(numbers, case)],
        of_errors=True,
    )


def _worst_rows(numbers: Numbers, case: AttackInfo, label: str, marks: Marks) -> list[list[Entry]]:
    clean = numbers.get(label, "none", 0.0, "error")
    found = [numbers.get(label, case.label, e, "error") for e in case.strengths]
    if clean is None and not any(found):
        return [[Entry(label), *(Entry("n/a", kind="gap") for _ in range(2 + len(found)))]]
    seeds = sorted({f.n_seeds for f in (clean, *found) if f})
    cells = [Entry(estimate(clean, unit=100, digits=2), marks.on(label, case, 0.0))]
    cells += [
        Entry(estimate(f, unit=100, digits=2), marks.on(label, case, e) if f else "",
              "" if f else "gap")
        for f, e in zip(found, case.strengths, strict=True)
    ]  # fmt: skip
    alone = [Entry(_strongest(numbers, case, label, e), kind="detail") for e in case.strengths]
    detail = [Entry(text, kind="detail") for text in (f"{label}: strongest alone", "", "")]
    return [[Entry(label), Entry(span([float(s) for s in seeds])), *cells], [*detail, *alone]]


def _strongest(numbers: Numbers, case: AttackInfo, label: str, eps: float) -> str:
    """The strongest attack and its own error in percent; the seeds may not agree on one."""
    rows = numbers.rows(label, case.label, eps)
    if not rows:
        return "–"
    mean = sum(float(row["strongest_error"]) for row in rows) / len(rows)
    return f"{listed(_ranked(rows))} {100 * mean:.2f}"


def _ranked(rows: Sequence[dict]) -> list[str]:
    return [name for name, _ in Counter(str(row["strongest"]) for row in rows).most_common()]


def _worst_data(numbers: Numbers, case: AttackInfo, label: str, eps: float) -> dict[str, object]:
    found, rows = numbers.get(label, case.label, eps, "error"), numbers.rows(label, case.label, eps)
    return {
        "label": label, "norm": case.norm, "eps": eps, "n_seeds": found.n_seeds if found else 0,
        "error": found.mean if found else None, "low": found.low if found else None,
        "high": found.high if found else None, "interval": found.interval if found else None,
        "strongest": "; ".join(_ranked(rows)),
        "strongest_error": sum(r["strongest_error"] for r in rows) / len(rows) if rows else None,
        "attacks": "; ".join(sorted({name for r in rows for name in r["attacks"]})),
        "marks": names(flags_of(numbers, label, case, eps)),
    }  # fmt: skip


def _reach_notes(marks: Marks) -> list[str]:
    if not marks.notes():
        return []
    return [
        "A worst case carries the marks of its loss, those of the attack that is strongest alone, "
        "and every sign that a transferred attack does better; what is wrong with a weaker attack "
        "does not reach it."
    ]


def _attack_notes(numbers: Numbers, case: AttackInfo) -> list[str]:
    """Which attacks a worst case holds: one line where every eps has the same."""
    by_attacks: dict[tuple[str, ...], list[float]] = {}
    for eps in case.strengths:
        rows = [r for label in numbers.labels for r in numbers.rows(label, case.label, eps)]
        some = {name for row in rows for name in row["attacks"]}
        order = [attack.label for attack in numbers.attacks if attack.label in some]
        by_attacks.setdefault(tuple(order), []).append(eps)
    if len(by_attacks) == 1:
        return [f"Attacks in it: {listed(list(order))}." for order in by_attacks]
    return [
        f"Attacks in it at eps {listed([f'{e:.4g}' for e in eps])}: {listed(list(order))}."
        for order, eps in by_attacks.items()
    ]


def overview_table(numbers: Numbers, case: AttackInfo) -> Table:
    """Every attack of a norm at every eps, one column a loss: the whole run at a glance.

    Where losses outnumber the attacks by far, a row is a loss and a column an attack.
    """
    attacks = numbers.of_norm(case.norm)
    cells = _Overview(numbers, case, attacks)
    crowded = len(numbers.labels) > CROWD
    rows = []
    for eps in sorted({e for attack in attacks for e in attack.strengths}):
        there = [a for a in (*attacks, case) if eps in a.strengths]
        if crowded:
            rows += [
                [Entry(f"{eps:.4g}"), Entry(k), *(cells.entry(k, a, eps) for a in (*attacks, case))]
                for k in numbers.labels
            ]
        else:
            rows += [
                [
                    Entry(f"{eps:.4g}"),
                    Entry(a.label, kind="top" if a is case else ""),
                    *(cells.entry(k, a, eps) for k in numbers.labels),
                ]
                for a in there
            ]
    by, columns = ("loss", [a.label for a in (*attacks, case)]) if crowded else (
        "attack", numbers.labels)  # fmt: skip
    return Table(
        f"overview-{case.norm}",
        f"Every attack, {NORM_NAMES.get(case.norm or '', case.norm)}",
        f"Error in percent, by eps and {by}. Bold: the highest error that one attack reaches "
        "alone, and the worst case over all of them. A minimum-norm attack counts an image at "
        f"every eps from its radius on. {interval_words(numbers)}",
        ["eps", by, *columns],
        rows,
        cells.data,
        cells.marks.notes(),
        left=2,
        fold="of many losses",
        of_errors=True,
    )


class _Overview:
    """The entries of the overview, and the numbers behind them in the order of their making."""

    def __init__(self, numbers: Numbers, case: AttackInfo, attacks: list[AttackInfo]) -> None:
        self.numbers, self.case, self.attacks = numbers, case, attacks
        self.marks = Marks(numbers)
        self.data: list[dict] = []

    def entry(self, label: str, attack: AttackInfo, eps: float) -> Entry:
        """Error of a loss under an attack; a dash where the attack has no such eps."""
        if eps not in attack.strengths:
            return Entry("–")
        some = [a for a in self.attacks if eps in a.strengths]
        found = self.numbers.get(label, attack.label, eps, "error")
        mark = self.marks.on(label, attack, eps) if found else ""
        highest = _highest(self.numbers, some, label, eps)
        top = found is not None and (attack is self.case or found.mean == highest)
        self.data.append(_overview_data(self.numbers, label, attack, eps))
        return Entry(estimate(found, unit=100, digits=2), mark, "top" if top else "")


def _highest(
    numbers: Numbers, attacks: Sequence[AttackInfo], label: str, eps: float
) -> float | None:
    found = [numbers.get(label, attack.label, eps, "error") for attack in attacks]
    return max((f.mean for f in found if f), default=None)


def _overview_data(
    numbers: Numbers, label: str, attack: AttackInfo, eps: float
) -> dict[str, object]:
    found = numbers.get(label, attack.label, eps, "error")
    return {
        "label": label, "attack_label": attack.label, "norm": attack.norm, "eps": eps,
        "n_seeds": found.n_seeds if found else 0, "error": found.mean if found else None,
        "low": found.low if found else None, "high": found.high if found else None,
        "interval": found.interval if found else None,
        "marks": names(flags_of(numbers, label, attack, eps)),
    }  # fmt: skip
