"""Likelihood of clean test images beside images that are not of the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from robustloss.metrics.rates import auroc, rejected_fraction
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import Spot, draw_grid, drawn_cells
from robustloss.reports.drawing.histograms import Bins, frame_bins, pooled_bins
from robustloss.reports.drawing.style import ADVERSARIAL, CROWD, NORMAL, write_note
from robustloss.reports.drawing.table import Column, Entry, Table, fields_of
from robustloss.reports.reading.detected import area_or_rate, in_order
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Shown
from robustloss.results.columns import Row
from robustloss.results.numbers import group_rows
from robustloss.results.scores import CLEAN, Pass
from robustloss.spec.detection import LIKELIHOOD, score_words

_ESTIMATES = [
    Column("AUROC", "auroc", 1.0),
    Column("", "average_precision", 1.0),
    Column("", "tpr_at_1fpr", 1.0),
    Column("", "tpr_at_5fpr", 1.0),
    Column("", "clean_rejected_at_95tpr", 1.0),
    Column("", "equal_error_rate", 1.0),
    Column("caught", "caught_at_5fpr", 100.0, 1),
]
_SHOWN = [column for column in _ESTIMATES if column.head]
_COLUMNS = [*(Column("", key) for key in ("outside", "label", "score", "n_outside")), *_ESTIMATES]


@dataclass(frozen=True)
class _Overlap:
    """Scores of clean test images and of images of another kind, of one loss."""

    bins: Bins  # of all sets of images of another kind
    clean: np.ndarray
    other: np.ndarray
    threshold: float  # of the detector

    @property
    def area(self) -> float:
        """AUROC of the other images against the clean ones."""
        return auroc(self.clean, self.other)

    @property
    def shares(self) -> list[np.ndarray]:
        """Percent of the clean and of the other images in each bin."""
        return [self.bins.shares(scores, scores.size) for scores in (self.clean, self.other)]


def plot_outside(numbers: Numbers) -> Iterator[Plot]:
    """Draw losses by outside sets; nothing where no set was shown."""
    sets = list(dict.fromkeys(row["outside"] for row in numbers.run.out_of_distribution))
    grid = [[_overlap(numbers.shown, k, outside) for outside in sets] for k in numbers.pictured]
    drawn = drawn_cells(numbers.pictured, sets, grid)
    if not drawn:
        return
    areas = [f"{label}, {outside}: AUROC {cell.area:.3f}" for label, outside, cell in drawn]
    yield Plot(
        "outside",
        _draw(numbers.pictured, sets, grid),
        [
            {"label": label, "outside": outside, "low": low, "high": high, "clean_percent": clean,
             "outside_percent": other}
            for label, outside, cell in drawn
            for low, high, clean, other in zip(
                cell.bins.drawn()[:-1], cell.bins.drawn()[1:], *cell.shares, strict=True
            )
        ],
        title="Likelihood of images of another kind",
        caption="Log-likelihood at the predicted class of clean test images, and of images of "
        "another kind that nobody attacked. Each histogram adds up to 100 %; hatched bars to the "
        "right of the filled ones look more typical than the data themselves. The dashed line "
        "rejects 5 % of clean validation images; “caught” is the share of the other images left of "
        "it. Bins at the ends are open. A loss without a density, such as softmax, has its logit. "
        f"{numbers.shown.words(numbers.labels)}",
        alt="Grid of overlaid histograms, losses by sets of other images, of the log-likelihood. "
        f"{'; '.join(areas)}.",
    )  # fmt: skip


def _overlap(shown: Shown, label: str, outside: str) -> _Overlap | str:
    scores, known = shown.scores(label), shown.reference(label)
    if isinstance(scores, str):
        return scores
    if isinstance(known, str):
        return known
    if not scores.has(LIKELIHOOD, Pass("outside", outside)):
        return "not shown to this loss"
    clean = scores.get(LIKELIHOOD, CLEAN)
    every = [scores.get(LIKELIHOOD, each) for each in scores.passes("outside")]
    bins = pooled_bins([clean, *every], around=clean)
    return _Overlap(bins, clean, scores.get(LIKELIHOOD, Pass("outside", outside)), known.threshold)


def _draw(
    labels: Sequence[str], sets: Sequence[str], grid: Sequence[Sequence[_Overlap | str]]
) -> Figure:
    # as high as the highest bar of its row, with room for the words in it
    tops = []
    for row in grid:
        heights = [h.max() for cell in row if not isinstance(cell, str) for h in cell.shares]
        tops.append(1.45 * max(heights, default=1.0) or 1.0)

    def draw(ax: Axes, cell: _Overlap, spot: Spot) -> None:
        edges, (clean, other) = cell.bins.drawn(), cell.shares
        ax.stairs(clean, edges, fill=True, color=NORMAL)
        ax.stairs(other, edges, color=ADVERSARIAL, lw=1.0, hatch="////", fill=False)
        if edges[0] < cell.threshold < edges[-1]:
            ax.axvline(cell.threshold, color="#444444", lw=0.9, ls="--")
        caught = 100 * rejected_fraction(cell.other, cell.threshold)
        write_note(ax, f"AUROC {cell.area:.3f}, caught {caught:.1f} %", spacing=None)
        frame_bins(ax, cell.bins, tops[spot.row], "number", spot.width)

    handles = [
        Patch(facecolor=NORMAL, label="clean test images"),
        Patch(facecolor="none", edgecolor=ADVERSARIAL, hatch="////", label="other images"),
    ]
    height = 1.45 if len(labels) <= CROWD else 1.05
    return draw_grid(labels, sets, grid, draw, widest=4.2, height=height, handles=handles,
                     labels=("log-likelihood (nats)", "share of images"))  # fmt: skip


def likelihood_tables(numbers: Numbers) -> list[Table]:
    """Return the sets by the likelihood of every loss; nothing where no set was shown."""
    lean = [row for row in numbers.run.out_of_distribution if row["score"] == LIKELIHOOD]
    return [_outside(numbers, lean, "out-of-distribution", "the likelihood")] if lean else []


def score_tables(numbers: Numbers) -> list[Table]:
    """Return the sets by all scores of every loss, if there are others than the likelihood."""
    every = numbers.run.out_of_distribution
    if all(row["score"] == LIKELIHOOD for row in every):
        return []
    return [_outside(numbers, every, "scores-out-of-distribution", "each score")]


def _outside(numbers: Numbers, every: Sequence[Row], name: str, what: str) -> Table:
    places = group_rows(every, lambda row: (row["label"], row["score"], row["outside"]))
    sets = group_rows(every, lambda row: row["outside"])
    shown = []
    for outside, own in sets.items():
        title, n = own[0].get("outside_name") or outside, max(int(r["n_outside"]) for r in own)
        shown.append(f"{outside}{'' if title == outside else f' ({title})'}, {n:,} images")
    rows, data = [], []
    for label, score in product(numbers.labels, in_order(row["score"] for row in every)):
        if not any((label, score, outside) in places for outside in sets):
            continue  # the loss has no such score
        cells = []
        for outside in sets:
            own = places.get((label, score, outside), [])
            row = {"outside": outside, "label": label, "score": score,
                   "n_outside": sum(int(r["n_outside"]) for r in own) if own else None}  # fmt: skip
            row |= {column.key: area_or_rate(own, column.key) for column in _ESTIMATES}
            cells += [column.entry(row[column.key]) for column in _SHOWN]
            data.append(fields_of(_COLUMNS, row))
        rows.append([Entry(label), Entry(score_words(score)), *cells])
    return Table(
        name,
        f"Does {what} notice images of another kind?",
        "Images of another kind, not attacked, against all clean test images: "
        f"{'; '.join(shown)}. An AUROC below 0.5 means that they look more typical than the data "
        "themselves. Caught: percentage that the threshold at 5 % FPR rejects.",
        ["loss", "score", *(f"{o}: {column.head}" for o in sets for column in _SHOWN)],
        rows,
        data,
        left=2,
    )
