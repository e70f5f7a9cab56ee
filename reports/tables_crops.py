"""Top-1 and top-5 error of image folders, from one crop and from ten."""

from reports.numbers import Numbers
from reports.published import PublishedCrops, published_crops
from reports.table import Entry, Table
from reports.words import NOTHING

KINDS = tuple((crops, top) for crops in (1, 10) for top in ("top1", "top5"))


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
        [f"Published numbers: {published.source}. {published.caveat}"] if published else [],
    )


def _text(row: dict | None, top: str) -> str:
    if row is None or row[f"{top}_error"] is None:
        return NOTHING
    error, low, high = (100 * row[f"{top}_{part}"] for part in ("error", "low", "high"))
    return f"{error:.2f} [{low:.2f}, {high:.2f}]"


def _published_row(published: PublishedCrops, label: str) -> list[Entry]:
    values = published.error[label]
    texts = [
        f"{100 * values[crops][top == 'top5']:.2f}" if crops in values else NOTHING
        for crops, top in KINDS
    ]
    name = f"{label}: published ({published.short})"
    return [Entry(text, kind="published") for text in (name, NOTHING, *texts)]
