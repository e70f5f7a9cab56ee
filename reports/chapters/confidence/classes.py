"""Errors class by class, and the errors that do not count every image alike."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Table, lay_out
from robustloss.reports.reading.facts import class_counts, class_names, mean, rows
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, Estimate, fixed, minus, over_seeds

MOST_CLASSES = 20
UNEQUAL = 1.5  # largest over smallest class; MNIST's digits have 1.25
WEIGHTED = "weighted_softmax"


def _count(value: Estimate | None) -> str:
    return NOTHING if value is None else f"{value.mean:,.4g}"


_OF_A_CLASS = [
    Column("loss", "label"),
    Column("class", "class"),
    Column("images", "n"),
    Column("error", "error", 100.0, 2),
    Column("false negatives", "false_negatives", words=_count),
    Column("false positives", "false_positives", words=_count),
    Column("false positive rate", "false_positive_rate",
           words=lambda rate: fixed(rate and rate.mean, 3, 100.0)),
]  # fmt: skip
_BALANCED = [
    Column("loss", "label"),
    Column("attack", "attack"),
    Column("error", "error", 100.0, 2),
    Column("balanced error", "balanced_error", 100.0, 2),
    Column("balanced − error", "apart",
           words=lambda apart: minus(f"{100 * apart:+.2f}") if abs(apart) >= 5e-5 else "0.00"),
]  # fmt: skip


def class_table(numbers: Numbers) -> Table | None:
    """Return clean error, false positives and false negatives of each class."""
    names = class_names(numbers)
    means: list[dict[str, Any]] = []
    data: list[dict] = []
    for label in numbers.labels:
        found = rows(numbers, "per_class", label, attack="none")
        means += _class_means(label, found, names)
        data += found
    if not data:
        return None
    widest = ", the widest over the training seeds" if len(numbers.seeds) > 1 else ""
    some = f" Of each loss the {MOST_CLASSES} classes with the highest error; the CSV has all."
    header, entries, _ = lay_out(_OF_A_CLASS, means)
    return Table(
        "per-class",
        "Clean error by class",
        "Error in percent of the class's own test images. False negatives: its images that are "
        "taken for another class; false positives: images of other classes that are taken for it; "
        "counts are means over seeds, the rate is a share of the images of all other classes, in "
        f"percent. [low, high] is a 95 % Wilson interval over images{widest}."
        + (some if len(names) > MOST_CLASSES else ""),
        header,
        entries,
        data,
        left=2,
        of_errors=True,
    )


def _class_means(label: str, found: Sequence[dict], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return means over seeds, a row a class; of many classes those with the highest errors."""
    classes: dict[int, list[dict]] = {}
    for row in found:
        classes.setdefault(row["class_index"], []).append(row)
    errors: dict[int, Estimate] = {}
    for k, own in classes.items():
        known = [row for row in own if row["error"] is not None]
        if error := over_seeds([float(row["error"]) for row in known]):
            low = min(float(row["error_low"]) for row in known)
            high = max(float(row["error_high"]) for row in known)
            errors[k] = replace(error, low=low, high=high, interval="Wilson over images")
    shown = list(classes)
    if len(names) > MOST_CLASSES:  # a class without test images has no error
        shown = sorted(errors, key=lambda k: (-sum(errors[k].values) / len(errors[k].values), k))
        del shown[MOST_CLASSES:]
    counts = ("false_negatives", "false_positives", "false_positive_rate")
    return [
        {"label": label, "class": names[k] if k < len(names) else str(k), "n": classes[k][0]["n"],
         "error": errors.get(k)} | {key: mean(classes[k], key) for key in counts}
        for k in sorted(shown)
    ]  # fmt: skip


def balance_table(numbers: Numbers) -> Table | None:
    """Return balanced error beside error, where the classes do not count alike."""
    counts = class_counts(numbers)
    unequal = bool(counts) and min(counts) > 0 and max(counts) > UNEQUAL * min(counts)
    if not (unequal or WEIGHTED in numbers.names.values()):
        return None
    places = [("clean", "none", 0.0)]
    for first in [attack for attack in numbers.attacks if attack.strengths][:1]:
        places += [(f"{first.label}, eps {eps_text(e)}", first.label, e) for e in first.strengths]
    means: list[dict[str, Any]] = []
    data: list[dict[str, object]] = []
    for label, (name, attack, eps) in product(numbers.labels, places):
        known = [row for row in numbers.rows(label, attack, eps)
                 if row.get("balanced_error") is not None]  # fmt: skip
        if not known:
            continue
        errors = {k: over_seeds([row[k] for row in known]) for k in ("error", "balanced_error")}
        apart = sum(row["balanced_error"] - row["error"] for row in known) / len(known)
        means.append({"label": label, "attack": name, "apart": apart} | errors)
        data += [
            {"label": label, "seed": row["seed"], "attack_label": attack, "eps": eps,
             "error": row["error"], "balanced_error": row["balanced_error"]}
            for row in numbers.rows(label, attack, eps)
        ]  # fmt: skip
    if not means:
        return None
    size = f" Training images per class: {min(counts):,} to {max(counts):,}." if counts else ""
    header, entries, _ = lay_out(_BALANCED, means)
    return Table(
        "balanced",
        "Balanced error",
        "Balanced error is the mean of the errors of the classes, so a rare class counts as much "
        f"as a frequent one; in percent.{size} Higher than the error: the rare classes are the "
        "wrong ones.",
        header,
        entries,
        data,
        left=2,
        of_errors=True,
    )
