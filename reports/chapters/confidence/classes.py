"""Errors class by class, those that do not count every image alike, and top-5 errors."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from robustloss.notation import eps_text, interval_text
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
from robustloss.reports.reading.facts import class_names, mean, rows
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.published import Published, count_outside, published_crops
from robustloss.reports.words import NOTHING, Estimate, fixed, minus, over_rows
from robustloss.results.numbers import group_rows

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
    return Table(
        "per-class",
        "Clean error by class",
        "Error in percent of the class's own test images. False negatives: its images that are "
        "taken for another class; false positives: images of other classes that are taken for it; "
        "counts are means over seeds, the rate is a share of the images of all other classes, in "
        f"percent. [low, high] is a 95 % Wilson interval over images{widest}."
        + (some if len(names) > MOST_CLASSES else ""),
        *lay_out(_OF_A_CLASS, means)[:2],
        data,
        left=2,
        of_errors=True,
    )


def _class_means(label: str, found: Sequence[dict], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return means over seeds, a row a class; of many classes those with the highest errors."""
    classes = group_rows(found, lambda row: row["class_index"])
    errors: dict[int, Estimate] = {}
    for k, own in classes.items():
        known = [row for row in own if row["error"] is not None]
        if error := over_rows(known, "error"):
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
    counts = [int(n) for n in numbers.data.get("class_counts") or []]
    unequal = bool(counts) and min(counts) > 0 and max(counts) > UNEQUAL * min(counts)
    if not (unequal or WEIGHTED in numbers.names.values()):
        return None
    places = [("clean", "none", 0.0)]
    for first in numbers.attacking[:1]:
        places += [(f"{first.label}, eps {eps_text(e)}", first.label, e) for e in first.strengths]
    means, data = _beside_errors(numbers, places, "balanced_error")
    for row in means:
        known = row["rows"]
        row["apart"] = sum(r["balanced_error"] - r["error"] for r in known) / len(known)
    if not means:
        return None
    size = f" Training images per class: {min(counts):,} to {max(counts):,}." if counts else ""
    return Table(
        "balanced",
        "Balanced error",
        "Balanced error is the mean of the errors of the classes, so a rare class counts as much "
        f"as a frequent one; in percent.{size} Higher than the error: the rare classes are the "
        "wrong ones.",
        *lay_out(_BALANCED, means)[:2],
        data,
        left=2,
        of_errors=True,
    )


KINDS = tuple((crops, top) for crops in (1, 10) for top in ("top1", "top5"))
_TOP5 = [
    Column("loss", "label"),
    Column("top-1 error", "error", 100.0, 2),
    Column("top-5 error", "top5_error", 100.0, 2),
]


def crops_table(numbers: Numbers) -> Table | None:
    """Return losses by crops and top-k, the published numbers under ours; None without crops."""
    found = numbers.run.results.get("crops") or []
    if not found:
        return None
    published = published_crops(numbers)
    rows = []
    for label in numbers.labels:
        own = [row for row in found if row["label"] == label]
        for seed in sorted({row["seed"] for row in own}):
            by_crops = {row["crops"]: row for row in own if row["seed"] == seed}
            texts = []
            for crops, top in KINDS:
                row = by_crops.get(crops)
                if row is None or row[f"{top}_error"] is None:
                    texts.append(NOTHING)
                else:
                    ends = (row[f"{top}_{end}"] for end in ("error", "low", "high"))
                    texts.append(interval_text(*ends, unit=100.0))
            rows.append([Entry(text) for text in (label, str(seed), *texts)])
        if published and own and label in published.error:
            texts = [text for crops in (1, 10) for text in published.quotes[label][crops]]
            rows.append([Entry(text, kind="published") for text in ("published", NOTHING, *texts)])
    return Table(
        "crops",
        "One crop and ten",
        f"Error in percent on {max(row['n'] for row in found):,} clean test images, [low, high] a "
        "95 % Wilson interval. Top-1: the class with the largest logit is wrong; top-5: the true "
        "class is not among the five largest. One crop is the center of the image, which is also "
        "what is attacked; ten are the four corners and the center, each mirrored too, with the "
        "mean of their posteriors.",
        ["loss", "seed", "1 crop, top-1", "1 crop, top-5", "10 crops, top-1", "10 crops, top-5"],
        rows,
        found,
        [f"Published: {published.source}. {count_outside(_pairs(found, published))} "
         f"{published.caveat}"] if published else [],
    )  # fmt: skip


def _pairs(found: list[dict], published: Published) -> Iterator[tuple[Estimate | None, float]]:
    """Yield our numbers beside the published ones; a single seed has its interval over images."""
    for label, by_crops in published.error.items():
        for crops, top in KINDS:
            own = [row for row in found if (row["label"], row["crops"]) == (label, crops)
                   and row[f"{top}_error"] is not None]  # fmt: skip
            if own and crops in by_crops:
                ours = over_rows(own, f"{top}_error", ends=(f"{top}_low", f"{top}_high"))
                yield ours, by_crops[crops][top == "top5"]


def top5_table(numbers: Numbers) -> Table | None:
    """Return top-1 beside top-5 error; None up to ten classes, or where crops have their table."""
    if numbers.run.results.get("crops"):
        return None
    means, exact = _beside_errors(numbers, [("clean", "none", 0.0)], "top5_error")
    data = [{"label": row["label"], "seed": row["seed"], "top1_error": row["error"],
             "top5_error": row["top5_error"]} for row in exact]  # fmt: skip
    if not means:
        return None
    return Table(
        "top5",
        "Top-1 and top-5 error",
        "Clean test images; in percent. Top-5: the true class is not among the five with the "
        "highest logits.",
        *lay_out(_TOP5, means)[:2],
        data,
        of_errors=True,
    )


def _beside_errors(
    numbers: Numbers, places: Sequence[tuple[str, str, float]], key: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return means of the error and of another one by loss and place, and the rows behind them.

    Args:
        numbers: Of the run.
        places: What the page calls it, label of the attack, eps.
        key: The column of the other error.
    """
    means, data = [], []
    for label, (name, attack, eps) in product(numbers.labels, places):
        known = [r for r in numbers.rows(label, attack, eps) if r.get(key) is not None]
        if known:
            errors = {each: over_rows(known, each) for each in ("error", key)}
            means.append({"label": label, "attack": name, "rows": known} | errors)
        data += [{"label": label, "seed": row["seed"], "attack_label": attack, "eps": eps,
                  "error": row["error"], key: row[key]} for row in known]  # fmt: skip
    return means, data
