"""Top-1 and top-5 error of image folders, from one crop and from ten."""

from collections.abc import Iterator
from typing import Any

from robustloss.notation import interval_text
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.published import Published, count_outside, published_crops
from robustloss.reports.words import NOTHING, Estimate, over_seeds

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
            theirs, spread = published.error[label], published.spread[label]
            texts = [f"{100 * theirs[crops][k]:.2f} ± {100 * spread[crops][k]:.2f}"
                     for crops in (1, 10) for k in (0, 1)]  # fmt: skip
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
            own = [
                row
                for row in found
                if (row["label"], row["crops"]) == (label, crops)
                and row[f"{top}_error"] is not None
            ]
            if not own or crops not in by_crops:
                continue
            ours = over_seeds([row[f"{top}_error"] for row in own])
            if len(own) == 1:
                error, low, high = (own[0][f"{top}_{part}"] for part in ("error", "low", "high"))
                ours = Estimate(error, low, high, 1, (error,), None)
            yield ours, by_crops[crops][top == "top5"]


def top5_table(numbers: Numbers) -> Table | None:
    """Return top-1 beside top-5 error; None up to ten classes, or where crops have their table."""
    if numbers.run.results.get("crops"):
        return None
    means: list[dict[str, Any]] = []
    data: list[dict[str, object]] = []
    for label in numbers.labels:
        found = [r for r in numbers.rows(label, "none", 0.0) if r.get("top5_error") is not None]
        if found:
            errors = {k: over_seeds([float(r[k]) for r in found]) for k in ("error", "top5_error")}
            means.append({"label": label} | errors)
        data += [
            {"label": label, "seed": row["seed"], "top1_error": row["error"],
             "top5_error": row["top5_error"]}
            for row in found
        ]  # fmt: skip
    if not means:
        return None
    header, entries, _ = lay_out(_TOP5, means)
    return Table(
        "top5",
        "Top-1 and top-5 error",
        "Clean test images; in percent. Top-5: the true class is not among the five with the "
        "highest logits.",
        header,
        entries,
        data,
        of_errors=True,
    )
