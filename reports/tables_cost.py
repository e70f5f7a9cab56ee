"""What the attacks cost: passes through the network, and the time they took here."""

from collections.abc import Mapping, Sequence

from robustloss.reports.numbers import Numbers
from robustloss.reports.table import Entry, Table
from robustloss.reports.words import NOTHING, duration, span

KEYS = ("label", "seed", "attack_label", "images", "budgets", "forward", "backward", "seconds")


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
