"""Every loss against every other in one table: the difference, if it is shown, and the rank."""

from collections.abc import Mapping

from robustloss.reports.chapters.differences.comparison import Compared, Row, write_difference
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import NOTHING, eps_name

FEW = 6  # losses up to which every pair stands on the page
METRICS = {"error": "error", "auroc_all": "AUROC"}
_IN_FILES = (*METRICS, "undetected_success_at_5fpr")


def differences_table(scene: Scene) -> Table | None:
    """Return the differences of error and AUROC, clean and at up to four eps, with the ranks.

    A loss stands in a row and in a column. Of many losses, or beside a reference, only the baseline
    has a column, and the eps stand beside each other. None is returned where no losses are
    compared.
    """
    found, marks = Compared(scene), Marks()
    if not found.rows:
        return None
    eps, crowd = (0.0, *scene.eps), len(found.labels) > FEW or bool(scene.numbers.elsewhere)
    # blocks of rows by name, each with the numbers that stand side by side in it
    blocks: dict[str, list[tuple[str, float]]] = {}
    for metric, name in METRICS.items():
        for e in eps:
            if crowd:
                blocks.setdefault(name, []).append((metric, e))
            elif e or metric == "error":  # clean images have no AUROC
                blocks[f"{name}, {eps_name(e)}"] = [(metric, e)]
    columns = found.labels[:1] if crowd else found.labels[:-1]
    body = []
    for name, places in blocks.items():
        for label in found.labels:
            cells = [Entry(name), Entry(label)]
            for place in places:
                cells += [_difference(scene, found, place, label, k, marks) for k in columns]
                ranked = found.rank(*place, label)
                ends = {ranked["rank_low"], ranked["rank_high"]} if ranked else ()
                cells.append(Entry(" to ".join(map(str, sorted(ends)))))
            body.append(cells)
    heads = [f"minus {label}" for label in columns]
    minus = "Each loss minus the baseline, the first row" if crowd else "Row minus column"
    if crowd:
        heads = [head for e in eps for head in (eps_name(e), "rank")][:-1]
    return Table(
        f"differences-{scene.attack.slug}",
        f"Which losses differ under {scene.attack.label}?",
        f"{minus}, with 95 % intervals: error in percentage points, and AUROC over all "
        "attacked images. Bold: shown (p at most .05, adjusted by Benjamini and Hochberg for all "
        f"comparisons of the run); grey: not shown, which does not mean equal. "
        f"{found.unit_words()} Rank 1 is best; “2 to 4” is what the shown differences leave open "
        "(Mogstad et al. 2024). The CSV has every tested pair, its p-value and the smallest "
        "difference that would have been shown.",
        ["metric", "loss", *heads, "rank"],
        body,
        found.rows,
        marks.notes(),
        left=2,
        further=_files(found, scene),
    )


def _difference(
    scene: Scene, found: Compared, place: tuple[str, float], label: str, other: str, marks: Marks
) -> Entry:
    """Return a difference with its interval: bold where it is shown and nothing doubts it."""
    metric, eps = place
    below = found.labels.index(other) < found.labels.index(label)
    if not below or not (eps or metric == "error"):
        return Entry("")  # the other half of the square is the same with the other sign
    row = found.get(metric, eps, label, other)
    if row is None:
        return Entry(NOTHING)
    mark = marks.of([f for k in (label, other) for f in scene.flags(k, eps)]) if eps else ""
    unit, digits = (100.0, 2) if metric == "error" else (1.0, 3)
    text = write_difference(row, unit, digits)
    kind = ("" if mark else "top") if row["shown"] else "grey"
    return Entry(text, mark, kind)


def _files(found: Compared, scene: Scene) -> Mapping[str, list[Row]]:
    """Return the CSV files of this attack: each metric of the differences, and the ranks."""
    files = {
        f"comparison-{metric.replace('_', '-')}-{scene.attack.slug}": [
            row for row in found.rows if row["metric"] == metric
        ]
        for metric in _IN_FILES
    }
    places = [("error", 0.0), *((metric, e) for metric in METRICS for e in scene.attack.strengths)]
    ranks = (found.rank(*place, label) for label in scene.labels for place in places)
    files[f"ranks-{scene.attack.slug}"] = [row for row in ranks if row]
    return {name: rows for name, rows in files.items() if rows}
