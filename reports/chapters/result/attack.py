"""What each attack did, and how many passes through the network it took."""

from collections.abc import Mapping, Sequence

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import span
from robustloss.results.numbers import group_rows

# A share that a check looks at is itself in doubt only if that check fired.
COLUMNS = [
    Column("loss", "label"),
    Column("", "attack_label"),
    Column("eps", "eps", words=eps_text),
    Column("attack success", "attack_success_rate", 100.0, 2, parts=("mean",)),
    Column("error", "error", 100.0, 2, parts=("mean",)),
    Column("error under noise", "error_noise", 100.0, 2, parts=("mean",), checks=()),
    Column("mean posterior", "mean_max_posterior", 1.0, 3, parts=("mean",)),
    Column("zero gradient", "zero_gradient_fraction", 100.0, 2, parts=("mean",),
           checks=("zero_gradient",), quiet=True),
    Column("left ball or box", "outside_fraction", 100.0, 2, parts=("mean",),
           checks=("outside_ball_or_box",), quiet=True),
]  # fmt: skip
EXPLAINED = {
    "error under noise": " Error under noise: under random noise as large as the attack's change "
    "of each image. An attack that finds no more errors than noise is worthless.",
    "zero gradient": " Zero gradient: percentage of images that the attack left as they were for "
    "want of a direction; they are no evidence of robustness.",
    "left ball or box": " Left ball or box: percentage of images that came back outside and were "
    "put back before they were judged.",
}
COST_KEYS = ("label", "seed", "attack_label", "images", "budgets", "forward", "backward", "seconds")


def attack_table(scene: Scene) -> Table:
    """Return how well an attack did: success, confidence, and the gradients that it did not have.

    The attack has an eps above 0.
    """
    attack, marks = scene.attack, Marks()
    rows = [
        {"label": label, "attack_label": attack.label, "eps": eps,
         **{column.key: scene.get(label, eps, column.key) for column in COLUMNS if column.unit},
         "flags": scene.flags(label, eps)}
        for label in scene.labels
        for eps in attack.strengths
    ]  # fmt: skip
    header, cells, data = lay_out(COLUMNS, rows, marks)
    explained = [words for head, words in EXPLAINED.items() if head in header]
    return Table(
        f"attack-{attack.slug}",
        f"Success and confidence: {attack.label}",
        "Percentage of the initially correct images that the attack fools, and the mean posterior "
        "of the predicted class over all attacked images."
        + "".join(explained),
        header,
        cells,
        data,
        marks.notes(),
    )  # fmt: skip


def cost_table(numbers: Numbers) -> Table | None:
    """Return the passes per image and attack over all cells; None where they were not counted."""
    entries = numbers.run.provenance.get("attack_cost") or []
    by_attack = group_rows(entries, lambda entry: str(entry["attack_label"]))
    if not by_attack:
        return None
    place = {attack.label: i for i, attack in enumerate(numbers.attacks)}
    order = sorted(by_attack, key=lambda name: (place.get(name, len(place)), name))
    rows = [
        {
            "attack": name,
            "cells": str(len(own)),
            "images per cell": span([float(e["images"]) for e in own]),
            "eps": span([float(e["budgets"]) for e in own]),
            "forward passes": _per_image(own, "forward"),
            "backward passes": _per_image(own, "backward"),
        }
        for name in order
        for own in [by_attack[name]]
    ]
    return Table(
        "attack-cost",
        "Cost of the attacks",
        "Passes through the network for each image, for all eps together. A cell is one loss with "
        "one seed; where cells differ, the lowest and the highest stand. The CSV has the seconds.",
        list(rows[0]),
        [[Entry(text) for text in row.values()] for row in rows],
        [{key: entry.get(key) for key in COST_KEYS} for name in order for entry in by_attack[name]],
    )  # fmt: skip


def _per_image(entries: Sequence[Mapping], key: str) -> str:
    values = [
        float(e[key]) / e["images"] for e in entries if e.get(key) is not None and e["images"]
    ]
    largest = max(values, default=0.0)
    return span(values, 0 if largest >= 100 or largest == round(largest) else 1)
