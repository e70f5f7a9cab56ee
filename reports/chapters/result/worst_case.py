"""Tables over all attacks of a norm: the per-image worst case, and every error side by side."""

import itertools
from collections import Counter
from collections.abc import Sequence

from robustloss.notation import eps_text
from robustloss.reports.drawing.style import CROWD
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import eps_words, images
from robustloss.reports.reading.marks import Marks, names
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import (
    NOTHING,
    eps_name,
    estimate_fields,
    in_percent,
    listed,
    over_seeds,
    seed_count,
)

REACH = (
    "A worst case carries the marks of its loss, those of the attack that is strongest alone, and "
    "every sign that a transferred attack does better; what is wrong with a weaker attack does not "
    "reach it."
)
BOLD = (
    "Bold: the highest error of a single attack, and the worst case. A minimum-norm attack counts "
    "an image at every eps from its radius on."
)


def worst_table(scene: Scene) -> Table:
    """Return losses by eps: error of the worst case, and under it what is strongest alone."""
    numbers, case, marks = scene.numbers, scene.attack, Marks()
    rows, data = [], []
    for label in numbers.labels:
        found = [numbers.get(label, "none", 0.0, "error")]
        found += [scene.get(label, e, "error") for e in case.strengths]
        data += [_exact_row(scene, label, eps) for eps in case.strengths]
        if not any(found):
            rows.append([Entry(label), *[Entry(NOTHING, kind="gap")] * (len(found) + 1)])
            continue
        cells = [Entry(label), Entry(seed_count(found))]
        below = [f"{label}: strongest alone", "", ""]
        for value, e in zip(found, case.with_clean, strict=True):
            mark = marks.of(scene.flags(label, e)) if value or not e else ""
            cells.append(Entry(in_percent(value), mark, "" if value or not e else "gap"))
            if e:
                best, error = _strongest_alone(numbers.rows(label, case.label, e))
                share = None if error is None else over_seeds([error])
                below.append(f"{listed(best)} {in_percent(share)}" if share else "–")
        rows += [cells, [Entry(text, kind="detail") for text in below]]
    notes = marks.notes()
    return Table(
        case.slug,
        f"Worst case over all attacks, {case.norm_name}",
        f"Error in percent on {images(numbers)} test images; an image counts if it is wrong when "
        "clean or under any of the attacks. Below each loss stands the attack that finds most "
        f"errors alone. Eps in {eps_words(case.norm)}.",
        ["loss", "seeds", *map(eps_name, case.with_clean)],
        rows,
        data,
        [*notes, *([REACH] if notes else []), *_attack_notes(scene)],
        of_errors=True,
        on_page=False,  # the overview beside it holds these numbers
    )


def _strongest_alone(rows: Sequence[dict]) -> tuple[list[str], float | None]:
    """Return which attack is strongest alone, and its error; seeds may name several."""
    by_seeds = Counter(str(row["strongest"]) for row in rows).most_common()
    errors = [float(row["strongest_error"]) for row in rows]
    return [name for name, _ in by_seeds], sum(errors) / len(errors) if errors else None


def _exact_row(scene: Scene, label: str, eps: float) -> dict[str, object]:
    rows = scene.numbers.rows(label, scene.attack.label, eps)
    strongest, error = _strongest_alone(rows)
    return {
        "label": label, "norm": scene.attack.norm, "eps": eps,
        **estimate_fields(scene.get(label, eps, "error"), "error"),
        "strongest": "; ".join(strongest),
        "strongest_error": error,
        "attacks": "; ".join(sorted({name for r in rows for name in r["attacks"]})),
        "marks": names(scene.flags(label, eps)),
    }  # fmt: skip


def _attack_notes(scene: Scene) -> list[str]:
    """Return which attacks a worst case holds: one line where every eps has the same."""
    numbers, case = scene.numbers, scene.attack
    by_attacks: dict[tuple[str, ...], list[float]] = {}
    for eps in case.strengths:
        rows = [r for label in numbers.labels for r in numbers.rows(label, case.label, eps)]
        some = {name for row in rows for name in row["attacks"]}
        order = [attack.label for attack in numbers.attacks if attack.label in some]
        by_attacks.setdefault(tuple(order), []).append(eps)
    if len(by_attacks) == 1:
        return [f"Attacks in it: {listed(order)}." for order in by_attacks]
    return [
        f"Attacks in it at eps {listed([eps_text(e) for e in eps])}: {listed(order)}."
        for order, eps in by_attacks.items()
    ]


def overview_table(scene: Scene) -> Table:
    """Return every attack of a norm at every eps, one column a loss: the run at a glance.

    Where losses outnumber the attacks by far, a row is a loss and a column an attack. The scene is
    of the worst case of the norm.
    """
    numbers, case, labels = scene.numbers, scene.attack, scene.labels
    attacks = [a for a in numbers.attacks if a.norm == case.norm and a.strengths] + [case]
    crowded, marks = len(labels) > CROWD, Marks()
    rows, data = [], []
    for eps in sorted({e for attack in attacks[:-1] for e in attack.strengths}):
        used = [attack for attack in attacks if eps in attack.strengths]
        if crowded:
            lines = [(Entry(label), [label], attacks) for label in labels]
        else:
            lines = [(Entry(a.label, kind="top" if a is case else ""), labels, [a]) for a in used]
        for head, its_labels, its_attacks in lines:
            places = list(itertools.product(its_labels, its_attacks))
            entries = [_entry_of(Scene(numbers, a), marks, label, eps) for label, a in places]
            rows.append([Entry(eps_text(eps)), head, *entries])
            data += [
                {"label": label, "attack_label": attack.label, "norm": attack.norm, "eps": eps,
                 **estimate_fields(numbers.get(label, attack.label, eps, "error"), "error"),
                 "marks": names(numbers.flags_of(label, attack, eps))}
                for label, attack in places
                if attack in used
            ]  # fmt: skip
    by = "loss" if crowded else "attack"
    return Table(
        f"overview-{case.norm}",
        f"Every attack, {case.norm_name}",
        f"Error in percent by eps and {by}; in the worst case an image counts if any attack fools "
        f"it. {BOLD}",
        ["eps", by, *([a.label for a in attacks] if crowded else labels)],
        rows,
        data,
        marks.notes(),
        left=2,
        of_errors=True,
    )  # fmt: skip


def _entry_of(scene: Scene, marks: Marks, label: str, eps: float) -> Entry:
    """Return one error, in bold if no attack of the norm alone finds more."""
    numbers, attack = scene.numbers, scene.attack
    if eps not in attack.strengths:
        return Entry("–")
    found = scene.get(label, eps, "error")
    if found is None:
        return Entry(NOTHING)
    alone = [
        other.mean
        for each in numbers.of_norm(attack.norm)
        if eps in each.strengths and (other := numbers.get(label, each.label, eps, "error"))
    ]
    top = attack in numbers.worst_cases or found.mean == max(alone)
    return Entry(in_percent(found), marks.of(scene.flags(label, eps)), "top" if top else "")
