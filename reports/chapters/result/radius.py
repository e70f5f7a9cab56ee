"""How far to the first mistake: radii and error curves in numbers, losses ranked by them."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Entry, Table, fields_of, without_empty_columns
from robustloss.reports.reading.facts import eps_words
from robustloss.reports.reading.featured import featured
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import NORM_NAMES, NOTHING, Estimate, estimate, in_percent
from robustloss.results.numbers import WORST
from robustloss.spec.attack_kinds import attack_kind

METRICS = ("median_radius", "eps_at_50_error", "area_under_error_curve")
UNKNOWN = "–"
PARTS = ("mean", "low", "high", "n_seeds")
COLUMNS = [
    Column("", "label"),
    Column("", "attack_label"),
    Column("", "norm"),
    *(Column("", metric, 1.0, parts=PARTS) for metric in METRICS),
    Column("", "n_found"),
    Column("", "n"),
    Column("", "eps_max"),
]


def radius_table(numbers: Numbers, norm: str) -> Table | None:
    """Return attacks and losses of one norm by radius, losses in the order of the first attack's.

    Of many attacks the page shows the worst case, those with radii and the featured ones.

    Args:
        numbers: Of the run.
        norm: "linf" or "l2".
    """
    curves = numbers.curves(norm)
    if not curves:
        return None
    shown = [
        attack
        for attack in curves
        if attack.name == WORST or is_minimum_norm(numbers, attack) or attack in featured(numbers)
    ]
    rows, marks = _rows(numbers, curves), Marks()
    set_aside = " The CSV has every attack." if len(shown) < len(curves) else ""
    return Table(
        f"radius-{norm}",
        f"How large a change fools half of the images, {NORM_NAMES.get(norm, norm)}",
        f"How far each attack must go, in {eps_words(norm)}; losses stand in the order of "
        f"{curves[0].label}, the most robust first. Eps at 50 % error: where the error curve "
        "crosses 50 %, interpolated between the eps of the run, so that one attack may seem "
        "stronger than the worst case. Area: mean error in percent over eps from 0 to the largest; "
        "lower is better. Fooled: images that the attack fools at any eps, clean mistakes "
        "included. Median radius: the smallest change that fools half of the images, from attacks "
        f"that look for it.{set_aside}",
        *without_empty_columns(
            ["attack", "loss", "median radius", "eps at 50 % error", "area", "fooled"],
            [_entries_of(row, marks) for row in rows if row["attack"] in shown],
        ),
        [fields_of(COLUMNS, row) for row in rows],
        marks.notes(),
        left=2,
    )  # fmt: skip


def _rows(numbers: Numbers, curves: Sequence[AttackInfo]) -> list[dict[str, Any]]:
    """Return one row for each attack and loss with radii, by attack and then by rank.

    The first of the curves ranks the losses.
    """
    rows = []
    for attack, label in itertools.product(curves, rank_labels(numbers, curves[0])):
        radii = numbers.radii(label, attack)
        if not radii:
            continue
        # an attack with fixed eps counts no images with a radius
        known = [row for row in radii if row["n_found"] is not None]
        rows.append(
            {
                "attack": attack,
                "label": label,
                "attack_label": "worst case" if attack.name == WORST else attack.label,
                "norm": attack.norm,
                **{metric: numbers.get(label, attack.label, None, metric) for metric in METRICS},
                "n_found": sum(int(row["n_found"]) for row in known) if known else None,
                "n": sum(int(row["n"]) for row in known or radii),
                "eps_max": max(row["eps_max"] for row in radii),
                "seeds": len(radii),
                "flags": numbers.flags_of(label, attack, None),
            }
        )
    return rows


def _entries_of(row: Mapping[str, Any], marks: Marks) -> list[Entry]:
    """Return a row as the page shows it; what is unknown or never happened has no mark."""
    radius, half, area = (row[metric] for metric in METRICS)
    never = f"> {eps_text(row['eps_max'])}" if area else NOTHING
    texts = [
        _length(radius, row["seeds"]) if radius else UNKNOWN,
        _length(half, row["seeds"]) if half else never,
        in_percent(area),
    ]
    mark = marks.of(row["flags"])
    found = UNKNOWN if row["n_found"] is None else f"{row['n_found']:,} of {row['n']:,}"
    return [
        Entry(row["attack"].label),
        Entry(row["label"]),
        *(Entry(text, "" if text in (NOTHING, UNKNOWN) else mark) for text in texts),
        Entry(found),
    ]


def is_minimum_norm(numbers: Numbers, attack: AttackInfo) -> bool:
    """Return whether an attack looks for the smallest change; a user's own shows it by radii.

    Args:
        numbers: Of the run.
        attack: One of its attacks.
    """
    rows = [row for label in numbers.labels for row in numbers.radii(label, attack)]
    known = any(row["median_radius"] is not None for row in rows)
    return attack_kind(attack.name) == "minimum_norm" or known


def rank_labels(numbers: Numbers, curve: AttackInfo) -> list[str]:
    """Return the losses by how far an attack must go, farthest first.

    By the eps at 50 % error. A loss whose curve never gets there is better than all whose does;
    among those the area under it decides. Losses without a number come last.

    Args:
        numbers: Of the run.
        curve: The attack, or a worst case.
    """

    def key(label: str) -> tuple[int, float]:
        half, area = (numbers.get(label, curve.label, None, metric) for metric in METRICS[1:])
        if half is not None:
            return 1, -half.mean
        return (0, area.mean) if area is not None else (2, 0.0)

    return sorted(numbers.labels, key=key)


def _length(value: Estimate, seeds: int) -> str:
    """Return a length with three digits that count, and how many of the seeds never got there."""
    digits = 4 if value.mean < 0.1 else 3 if value.mean < 1 else 2
    missing = seeds - value.n_seeds
    never = f" ({missing} of {seeds} seeds never)" if missing else ""
    return estimate(value, digits=digits) + never
