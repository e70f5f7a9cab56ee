"""Likelihood of clean test images beside images that are not of the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from robustloss.metrics.rates import auroc, rejected_fraction
from robustloss.reports.chapters.detection.detected import (
    LIKELIHOOD,
    in_order,
    interval_words,
    over_rows,
    score_words,
)
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.frames import Spot, draw_grid
from robustloss.reports.drawing.histograms import Bins, bin_ticks, pooled_bins
from robustloss.reports.drawing.style import ADVERSARIAL, CROWD, NORMAL
from robustloss.reports.drawing.table import Column, Entry, Table, fields_of
from robustloss.reports.drawing.ticks import percent_of_all
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Reference, Shown
from robustloss.reports.words import NOTHING
from robustloss.results.scores import CLEAN, Pass, StoredScores

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
class _Pair:
    """Clean and other scores of one loss over shared bins; a gap says why there is nothing."""

    bins: Bins | None
    clean: np.ndarray
    other: np.ndarray
    threshold: float
    gap: str = ""


def add_outside(album: Album, numbers: Numbers, shown: Shown) -> None:
    """Losses by outside sets; nothing where no set was shown."""
    sets = list(dict.fromkeys(row["outside"] for row in numbers.run.out_of_distribution))
    if not sets:
        return
    rows = [[_pair(shown, label, sets, k) for k in range(len(sets))] for label in numbers.labels]
    drawn = [
        (label, name, pair)
        for label, row in zip(numbers.labels, rows, strict=True)
        for name, pair in zip(sets, row, strict=True)
        if not pair.gap
    ]
    if not drawn:
        return
    album.add(
        "outside",
        _draw(numbers.labels, sets, rows),
        [line for label, name, pair in drawn for line in _lines(label, name, pair)],
        title="Likelihood of images that are not of the data",
        caption="Log-likelihood of the features at the predicted class, of all clean test images "
        "and of images of another kind, which nobody attacked. Each histogram adds up to 100 % of "
        "its own images. The less the two overlap, the better the likelihood tells that an image "
        "is not of the data; hatched bars to the right of the filled ones mean that it takes them "
        "for more typical than the data themselves. The dashed line rejects 5 % of clean "
        "validation images, and “caught” is the share of the other images left of it. Bins are "
        "shared within a row; the wide bins at the ends are open. For a loss without a density, "
        f"such as softmax, the quantity is the logit. {shown.words(numbers.labels)}",
        alt="Grid of overlaid histograms, losses by sets of other images, of the log-likelihood. "
        + "; ".join(f"{label}, {name}: AUROC {_area(pair):.3f}" for label, name, pair in drawn)
        + ".",
    )


def _pair(shown: Shown, label: str, sets: Sequence[str], k: int) -> _Pair:
    none = np.zeros(0)
    scores, known = shown.scores(label), shown.reference(label)
    for part in (scores, known):
        if isinstance(part, str):
            return _Pair(None, none, none, 0.0, part)
    assert isinstance(scores, StoredScores)
    assert isinstance(known, Reference)
    which = Pass("outside", sets[k])
    if not scores.has(LIKELIHOOD, which):
        return _Pair(None, none, none, 0.0, "not shown to this loss")
    clean = scores.get(LIKELIHOOD, CLEAN)
    row = [scores.get(LIKELIHOOD, p) for p in scores.passes("outside")]
    bins = pooled_bins([clean, *row], around=clean)
    return _Pair(bins, clean, scores.get(LIKELIHOOD, which), known.threshold)


def _area(pair: _Pair) -> float:
    return auroc(pair.clean, pair.other)


def _draw(labels: Sequence[str], sets: Sequence[str], rows: Sequence[Sequence[_Pair]]) -> Figure:
    # as high as the highest bar of its row, with room for the words in it
    tops = []
    for row in rows:
        heights = [share.max() for pair in row if not pair.gap for share in _shares(pair)]
        tops.append(1.45 * max(heights, default=1.0) or 1.0)

    def draw(ax: Axes, pair: _Pair, spot: Spot) -> None:
        assert pair.bins is not None
        edges, (clean, other) = pair.bins.drawn(), _shares(pair)
        ax.stairs(clean, edges, fill=True, color=NORMAL)
        ax.stairs(other, edges, color=ADVERSARIAL, lw=1.0, hatch="////", fill=False)
        if edges[0] < pair.threshold < edges[-1]:
            ax.axvline(pair.threshold, color="#444444", lw=0.9, ls="--")
        caught = 100 * rejected_fraction(pair.other, pair.threshold)
        ax.text(
            0.03, 0.96, f"AUROC {_area(pair):.3f}, caught {caught:.1f} %",
            transform=ax.transAxes, va="top", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
        )  # fmt: skip
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylim(0, tops[spot.row])
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
        ax.yaxis.set_major_formatter(percent_of_all)
        bin_ticks(ax, pair.bins, "number", spot.width)

    return draw_grid(
        labels,
        sets,
        [[pair.gap or pair for pair in row] for row in rows],
        draw,
        widest=4.2,
        height=1.45 if len(labels) <= CROWD else 1.05,
        handles=[
            Patch(facecolor=NORMAL, label="clean test images"),
            Patch(facecolor="none", edgecolor=ADVERSARIAL, hatch="////", label="other images"),
        ],
        labels=("log-likelihood (nats)", "share of images"),
    )


def _shares(pair: _Pair) -> tuple[np.ndarray, np.ndarray]:
    assert pair.bins is not None
    return (
        pair.bins.shares(pair.clean, pair.clean.size),
        pair.bins.shares(pair.other, pair.other.size),
    )


def _lines(label: str, name: str, pair: _Pair) -> list[dict[str, object]]:
    assert pair.bins is not None
    edges = pair.bins.drawn()
    clean, other = _shares(pair)
    return [
        {"label": label, "outside": name, "low": low, "high": high, "clean_percent": a,
         "outside_percent": b}
        for low, high, a, b in zip(edges, edges[1:], clean, other, strict=False)
    ]  # fmt: skip


def outside_tables(numbers: Numbers) -> list[Table]:
    """Out-of-distribution sets: the likelihood of every loss, and, if there are, all scores."""
    every = numbers.run.results.get("out_of_distribution") or []
    lean = [row for row in every if row["score"] == LIKELIHOOD]
    tables = [_outside(numbers, lean, "out-of-distribution", "by likelihood")] if lean else []
    if len(every) > len(lean):
        tables.append(_outside(numbers, every, "scores-out-of-distribution", "by every score"))
    return tables


def _outside(numbers: Numbers, every: Sequence[Mapping], name: str, how: str) -> Table:
    places: dict[tuple[str, str, str], list[Mapping]] = {}
    for row in every:
        places.setdefault((row["outside"], row["label"], row["score"]), []).append(row)
    sets = list(dict.fromkeys(row["outside"] for row in every))
    scores = in_order(row["score"] for row in every)
    rows, data = [], []
    for label in numbers.labels:
        for score in scores:
            if not any((o, label, score) in places for o in sets):
                continue  # the loss has no such score
            cells = []
            for outside in sets:
                own = places.get((outside, label, score), [])
                row = {
                    "outside": outside,
                    "label": label,
                    "score": score,
                    "n_outside": sum(int(r["n_outside"]) for r in own) if own else None,
                    **{column.key: over_rows(own, column.key) for column in _ESTIMATES},
                }
                cells += [column.entry(row[column.key]) for column in _SHOWN]
                data.append(fields_of(_COLUMNS, row))
            rows.append([Entry(label), Entry(score_words(score)), *cells])
    return Table(
        name,
        f"Images that are not of the data: are they noticed {how}?",
        f"{_sets(every, sets)} AUROC: of these images against all clean test images; 1 means that "
        "every one of them has a lower score than every clean image, 0.5 is guessing, and less "
        "that they look more typical than the network's own data. Caught: percent of them below "
        "the threshold that rejects 5 % of clean validation images. Nobody attacked here. A score "
        f"that a loss does not have is left out. {interval_words(every)}",
        ["loss", "score", *(f"{o}: {column.head}" for o in sets for column in _SHOWN)],
        rows,
        data,
        left=2,
        fold="always" if name.startswith("scores") else "never",
    )


def _sets(rows: Sequence[Mapping], sets: Sequence[str]) -> str:
    parts = []
    for outside in sets:
        own = [row for row in rows if row["outside"] == outside]
        name, n = own[0].get("outside_name") or outside, max(int(r["n_outside"]) for r in own)
        parts.append(f"{outside}{'' if name == outside else f' ({name})'}, {n:,} images")
    return f"Shown to the networks as they are: {'; '.join(parts) or NOTHING}."
