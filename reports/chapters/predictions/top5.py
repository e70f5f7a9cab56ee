"""Top-1 and top-5 error of image folders, from one crop and from ten."""

from collections.abc import Iterator

from robustloss.reports.chapters.predictions.classes import interval_note
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.published import PublishedCrops, compared, published_crops
from robustloss.reports.words import NOTHING, Estimate, estimate, over_seeds

KINDS = tuple((crops, top) for crops in (1, 10) for top in ("top1", "top5"))
_NAMES = {"top1": "top-1", "top5": "top-5"}


def crops_table(numbers: Numbers) -> Table | None:
    """Losses by crops and top-k, the published numbers under ours; None without ten crops."""
    found = numbers.run.results.get("crops") or []
    if not found:
        return None
    published = published_crops(numbers)
    rows = []
    for label in numbers.labels:
        seeds = sorted({row["seed"] for row in found if row["label"] == label})
        for seed in seeds:
            own = {r["crops"]: r for r in found if (r["label"], r["seed"]) == (label, seed)}
            cells = [Entry(_text(own.get(crops), top)) for crops, top in KINDS]
            rows.append([Entry(label), Entry(str(seed)), *cells])
        if published and seeds and label in published.error:
            rows.append(_published_row(published, label))
    n = max(row["n"] for row in found)
    return Table(
        "crops",
        "One crop and ten",
        f"Error in percent on {n:,} clean test images, [low, high] a 95 % Wilson interval. Top-1: "
        "the class with the largest logit is wrong; top-5: the true class is not among the five "
        "largest. One crop is the center of the image, which is also what is attacked; ten are the "
        "four corners and the center, each mirrored too, with the mean of their posteriors.",
        ["loss", "seed", "1 crop, top-1", "1 crop, top-5", "10 crops, top-1", "10 crops, top-5"],
        rows,
        found,
        [compared(published, "crops", _pairs(found, published))] if published else [],
    )


def _pairs(
    found: list[dict], published: PublishedCrops
) -> Iterator[tuple[str, str, Estimate | None, float]]:
    """Our numbers beside the published ones; a single seed has its interval over images."""
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
            yield label, f"{crops}, {_NAMES[top]}", ours, by_crops[crops][top == "top5"]


def _text(row: dict | None, top: str) -> str:
    if row is None or row[f"{top}_error"] is None:
        return NOTHING
    error, low, high = (100 * row[f"{top}_{part}"] for part in ("error", "low", "high"))
    return f"{error:.2f} [{low:.2f}, {high:.2f}]"


def _published_row(published: PublishedCrops, label: str) -> list[Entry]:
    values, spread = published.error[label], published.spread[label]
    texts = [
        f"{100 * values[crops][top == 'top5']:.2f} ± {100 * spread[crops][top == 'top5']:.2f}"
        for crops, top in KINDS
    ]
    name = f"{label}: published ({published.short})"
    return [Entry(text, kind="published") for text in (name, NOTHING, *texts)]


def top5_table(numbers: Numbers) -> Table | None:
    """Top-1 beside top-5 error; None up to ten classes, or where ten crops have their own table."""
    if numbers.run.results.get("crops"):
        return None
    rows, data = [], []
    for label in numbers.labels:
        found = [r for r in numbers.rows(label, "none", 0.0) if r.get("top5_error") is not None]
        if not found:
            continue
        errors = [over_seeds([float(row[k]) for row in found]) for k in ("error", "top5_error")]
        rows.append([Entry(label), *(Entry(estimate(e, unit=100, digits=2)) for e in errors)])
        data += [
            {"label": label, "seed": row["seed"], "top1_error": row["error"],
             "top5_error": row["top5_error"]}
            for row in found
        ]  # fmt: skip
    if not rows:
        return None
    return Table(
        "top5",
        "Top-1 and top-5 error",
        "Clean test images; in percent. Top-5: the true class is not among the five with the "
        f"highest logits. {interval_note(numbers)}",
        ["loss", "top-1 error", "top-5 error"],
        rows,
        data,
        of_errors=True,
    )
