"""What the attacks cost: passes through the network, and the time they took here."""

from collections.abc import Mapping, Sequence

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Flag, Marks, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import NOTHING, duration, estimate, span

KEYS = ("label", "seed", "attack_label", "images", "budgets", "forward", "backward", "seconds")


_FARED = (
    ("attack success", "attack_success_rate", 100.0, 2),
    ("mean posterior", "mean_max_posterior", 1.0, 3),
    ("zero gradient", "zero_gradient_fraction", 100.0, 2),
    ("left ball or box", "outside_fraction", 100.0, 2),
)


_EVIDENCE = {
    "zero_gradient_fraction": "zero_gradient",
    "outside_fraction": "outside_ball_or_box",
}


def cost_table(numbers: Numbers) -> Table | None:
    """Passes per image and attack over all cells; None for a run that did not count them."""
    entries = numbers.run.provenance.get("attack_cost") or []
    place = {attack.label: i for i, attack in enumerate(numbers.attacks)}
    by_attack: dict[str, list[Mapping]] = {}
    for entry in entries:
        by_attack.setdefault(str(entry["attack_label"]), []).append(entry)
    order = sorted(by_attack, key=lambda name: (place.get(name, len(place)), name))
    if not order:
        return None
    return Table(
        "attack-cost",
        "What the attacks cost",
        "Forward and backward passes of one image through the network, for all eps computed "
        "together; lowest to highest cell. A pass does not depend on the machine; seconds are "
        "those of this run on this machine and are no benchmark.",
        ["attack", "cells", "images a cell", "eps computed", "forward passes an image",
         "backward passes an image", "ms an image here", "time here, all cells"],
        [_row(name, by_attack[name]) for name in order],
        [{key: entry.get(key) for key in KEYS} for name in order for entry in by_attack[name]],
    )  # fmt: skip


def _row(name: str, entries: Sequence[Mapping]) -> list[Entry]:
    times = [float(e["seconds"]) for e in entries if e.get("seconds") is not None]
    texts = [
        str(len(entries)),
        span([float(e["images"]) for e in entries]),
        span([float(e["budgets"]) for e in entries]),
        _per_image(entries, "forward"),
        _per_image(entries, "backward"),
        _per_image(entries, "seconds", 1000.0),
        duration(sum(times)) if times else NOTHING,
    ]
    return [Entry(name), *(Entry(text) for text in texts)]


def _per_image(entries: Sequence[Mapping], key: str, unit: float = 1.0) -> str:
    values = [
        float(e[key]) / e["images"] for e in entries if e.get(key) is not None and e["images"]
    ]
    largest = unit * max(values, default=0.0)
    return span(values, 0 if largest >= 100 or largest == round(largest) else 1, unit)


def attack_table(numbers: Numbers, attack: AttackInfo) -> Table:
    """How well the attack did: success, confidence, and the gradients that it did not have."""
    # older runs did not count what left ball or box: no column of n/a for them
    columns = [c for c in _FARED if c[1] != "outside_fraction" or _counted(numbers, attack, c[1])]
    rows, data = [], []
    marks = Marks(numbers)
    for label in numbers.labels:
        for eps in attack.strengths:
            found = {m: numbers.get(label, attack.label, eps, m) for _, m, _, _ in columns}
            flags = numbers.flags(label, attack.label, eps)
            cells = [
                Entry(
                    estimate(found[m], unit=u, digits=d), _mark(marks, flags, m) if found[m] else ""
                )
                for _, m, u, d in columns
            ]
            rows.append([Entry(label), Entry(f"{eps:.4g}"), *cells])
            data.append(
                {"label": label, "attack_label": attack.label, "eps": eps}
                | {m: found[m].mean if found[m] else None for _, m, _, _ in columns}  # type: ignore[union-attr]
                | {"marks": names(numbers.flags(label, attack.label, eps))}
            )
    outside = (
        " Left ball or box: share of images, in percent, that came back outside and were put back "
        "before they were judged."
        if len(columns) == len(_FARED)
        else ""
    )
    return Table(
        f"attack-{attack.slug}",
        f"How {attack.label} fared",
        "Attack success: share of the initially correct images that became wrong, in percent. "
        "Mean posterior: of the predicted class, over all attacked images. Zero gradient: share "
        "of images, in percent, for which the attack had no direction to go, so that it left "
        f"them as they were; such images are no evidence of robustness.{outside}",
        ["loss", "eps", *(name for name, *_ in columns)],
        rows,
        data,
        marks.notes(),
        section=attack.label,
        fold="of many losses",
    )


def _mark(marks: Marks, flags: Sequence[Flag], metric: str) -> str:
    """A share that a check looks at is itself in doubt only if that check fired."""
    own = _EVIDENCE.get(metric)
    return marks.of(f for f in flags if own is None or f.get("check") == own)


def _counted(numbers: Numbers, attack: AttackInfo, metric: str) -> bool:
    return any(
        numbers.get(label, attack.label, eps, metric)
        for label in numbers.labels
        for eps in attack.strengths
    )
