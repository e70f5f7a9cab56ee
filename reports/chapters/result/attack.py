"""How each attack fared, and what the attacks cost: passes through the network, and time here."""

from collections.abc import Mapping, Sequence

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import NOTHING, duration, span

# A share that a check looks at is itself in doubt only if that check fired.
COLUMNS = [
    Column("loss", "label"),
    Column("", "attack_label"),
    Column("eps", "eps", words=eps_text),
    Column("attack success", "attack_success_rate", 100.0, 2, parts=("mean",)),
    Column("mean posterior", "mean_max_posterior", 1.0, 3, parts=("mean",)),
    Column("zero gradient", "zero_gradient_fraction", 100.0, 2, parts=("mean",),
           checks=("zero_gradient",), quiet=True),
    Column("left ball or box", "outside_fraction", 100.0, 2, parts=("mean",),
           checks=("outside_ball_or_box",), quiet=True),
]  # fmt: skip
EXPLAINED = {
    "zero gradient": " Zero gradient: share of images, in percent, for which the attack had no "
    "direction to go, so that it left them as they were; such images are no evidence of "
    "robustness.",
    "left ball or box": " Left ball or box: share of images, in percent, that came back outside "
    "and were put back before they were judged.",
}
METRICS = [column.key for column in COLUMNS if column.unit]
COST_KEYS = ("label", "seed", "attack_label", "images", "budgets", "forward", "backward", "seconds")


def attack_table(numbers: Numbers, attack: AttackInfo) -> Table:
    """Return how well an attack did: success, confidence, and the gradients that it did not have.

    Args:
        numbers: Of the run.
        attack: With an eps above 0.
    """
    rows = [
        {"label": label, "attack_label": attack.label, "eps": eps,
         **{metric: numbers.get(label, attack.label, eps, metric) for metric in METRICS},
         "flags": numbers.flags(label, attack.label, eps)}
        for label in numbers.labels
        for eps in attack.strengths
    ]  # fmt: skip
    marks = Marks(numbers)
    header, cells, data = lay_out(COLUMNS, rows, marks)
    explained = [words for head, words in EXPLAINED.items() if head in header]
    return Table(
        f"attack-{attack.slug}",
        f"How {attack.label} fared",
        "Attack success: share of the initially correct images that became wrong, in percent. "
        "Mean posterior: of the predicted class, over all attacked images."
        + "".join(explained),
        header,
        cells,
        data,
        marks.notes(),
    )  # fmt: skip


def cost_table(numbers: Numbers) -> Table | None:
    """Return the passes per image and attack over all cells; None where they were not counted."""
    by_attack: dict[str, list[Mapping]] = {}
    for entry in numbers.run.provenance.get("attack_cost") or []:
        by_attack.setdefault(str(entry["attack_label"]), []).append(entry)
    if not by_attack:
        return None
    place = {attack.label: i for i, attack in enumerate(numbers.attacks)}
    order = sorted(by_attack, key=lambda name: (place.get(name, len(place)), name))
    rows = []
    for name in order:
        own = by_attack[name]
        times = [float(e["seconds"]) for e in own if e.get("seconds") is not None]
        rows.append(
            {
                "attack": name,
                "cells": str(len(own)),
                "images a cell": span([float(e["images"]) for e in own]),
                "eps computed": span([float(e["budgets"]) for e in own]),
                "forward passes an image": _per_image(own, "forward"),
                "backward passes an image": _per_image(own, "backward"),
                "ms an image here": _per_image(own, "seconds", 1000.0),
                "time here, all cells": duration(sum(times)) if times else NOTHING,
            }
        )
    return Table(
        "attack-cost",
        "What the attacks cost",
        "Forward and backward passes of one image through the network, for all eps computed "
        "together; lowest to highest cell. A pass does not depend on the machine; seconds are "
        "those of this run on this machine and are no benchmark.",
        list(rows[0]),
        [[Entry(text) for text in row.values()] for row in rows],
        [{key: entry.get(key) for key in COST_KEYS} for name in order for entry in by_attack[name]],
    )  # fmt: skip


def _per_image(entries: Sequence[Mapping], key: str, unit: float = 1.0) -> str:
    values = [
        float(e[key]) / e["images"] for e in entries if e.get(key) is not None and e["images"]
    ]
    largest = unit * max(values, default=0.0)
    return span(values, 0 if largest >= 100 or largest == round(largest) else 1, unit)
