"""Which classes are taken for which, clean and under attack: matrices, or a table of pairs."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgba
from matplotlib.figure import Figure
from scipy.sparse import csr_array

from robustloss.notation import eps_text
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.squares import colour_bar, frame_squares, ink_on
from robustloss.reports.drawing.style import SOFT, plain
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import class_names
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import featured
from robustloss.reports.reading.views import View

MOST_PAIRS = 20
MOST_CLASSES = 20  # more do not fit as numbers in a matrix
COLOURS = "YlOrRd"


@dataclass(frozen=True)
class Counted:
    """The confusion matrices of one pass."""

    slug: str  # "clean", or of the attack: for file names
    words: str  # what a heading calls the pass
    # (K, K) counts of each loss, true class by predicted class, or why there is none; sparse, as
    # most of the pairs of thousands of classes never occur
    matrices: Mapping[str, csr_array | str]

    def known(self) -> dict[str, csr_array]:
        """Return the matrices that could be counted."""
        return {k: m for k, m in self.matrices.items() if not isinstance(m, str)}


def _count_passes(numbers: Numbers) -> list[Counted]:
    """Count the clean pass, and the first featured attack at a middle eps."""
    shown = numbers.shown
    passes: list[tuple[str, str, Callable[[str], View | str]]] = [("clean", "clean", shown.clean)]
    for attack in featured(numbers)[:1]:
        eps = attack.strengths[(len(attack.strengths) - 1) // 2]
        attacked = partial(shown.attacked, attack=attack, eps=eps)
        passes.append((attack.slug, f"{attack.label}, eps {eps_text(eps)}", attacked))
    counted = []
    for slug, words, load in passes:
        views = {label: load(label) for label in numbers.pictured}
        matrices = {
            label: view if isinstance(view, str)
            else confusion(view.labels, view.predictions, numbers.classes or 1)
            for label, view in views.items()
        }  # fmt: skip
        counted.append(Counted(slug, words, matrices))
    return counted


def plot_confusions(numbers: Numbers) -> Iterator[Plot]:
    """Draw matrices of up to twenty classes, a figure for each pass."""
    if not numbers.classes or numbers.classes > MOST_CLASSES:
        return
    names = class_names(numbers)
    for counted in _count_passes(numbers):
        matrices = {label: matrix.toarray() for label, matrix in counted.known().items()}
        if not matrices:
            continue
        percents = {label: row_percent(matrix) for label, matrix in matrices.items()}
        largest = []
        for label, percent in percents.items():
            errors = percent.copy()
            np.fill_diagonal(errors, -1)
            i, j = np.unravel_index(np.nanargmax(errors), errors.shape)
            words = f"{names[i]} taken for {names[j]}, {errors[i, j]:.1f} %"
            largest.append(f"{label}: {words if errors[i, j] > 0 else 'none'}")
        yield Plot(
            f"confusion-{counted.slug}",
            _draw(
                {k: matrices.get(k, str(why)) for k, why in counted.matrices.items()}, names
            ),
            [{"label": label, "true_class": i, "predicted_class": j, "percent": float(p)}
             for label, percent in percents.items() for (i, j), p in np.ndenumerate(percent)],
            title=f"Which classes are taken for which: {counted.words}",
            caption="Each row is a true class and adds up to 100 %; the column says what its "
            "images are taken for. Numbers are percent of the row, empty is none. The diagonal, "
            "the share that is right, is grey: colour shows errors only, on one scale for all "
            "losses of this figure, steeper for small shares. "
            + numbers.shown.words(numbers.labels),
            alt=f"Confusion matrices, {counted.words}. Largest error of each loss: "
            f"{'; '.join(largest)}.",
        )  # fmt: skip


def confusion_tables(numbers: Numbers) -> list[Table]:
    """Return, for more than twenty classes, the pairs that are most confused, over the losses."""
    if not numbers.classes or numbers.classes <= MOST_CLASSES:
        return []
    return [
        Table(
            f"confused-{counted.slug}",
            f"Most confused classes: {counted.words}",
            f"Of {numbers.classes} classes the {MOST_PAIRS} pairs with the highest share of images "
            "of the true class that are taken for the other, mean over losses; in percent of the "
            f"true class's images. The CSV has every loss. {numbers.shown.words(numbers.labels)}",
            ["true class", "taken for", "mean over losses", "lowest", "highest"],
            *confused_pairs(counted.known(), class_names(numbers)),
            left=2,
        )
        for counted in _count_passes(numbers)
        if counted.known()
    ]


def confused_pairs(
    matrices: Mapping[str, csr_array], names: Sequence[str]
) -> tuple[list[list[Entry]], list[dict[str, object]]]:
    """Return the rows of the page, a pair each, and those of the CSV file, a pair and loss each.

    Args:
        matrices: (K, K) counts of each loss.
        names: Of the K classes.
    """
    shares = {}
    for label, matrix in matrices.items():
        counts = matrix.tocoo()
        percent = 100.0 * counts.data / matrix.sum(1)[counts.row]
        shares[label] = csr_array((percent, (counts.row, counts.col)), shape=matrix.shape)
    average = csr_array(sum(shares.values()) / len(shares)).tocoo()
    pairs = [
        (-value, int(i), int(j))
        for value, i, j in zip(average.data, average.row, average.col, strict=True)
        if i != j and value > 0
    ]
    rows, data = [], []
    for value, i, j in heapq.nsmallest(MOST_PAIRS, pairs):
        own = {label: float(percent[i, j]) for label, percent in shares.items()}
        top, low = max(own, key=own.__getitem__), min(own, key=own.__getitem__)
        rows.append([
            Entry(text)
            for text in (names[i], names[j], f"{-value:.1f}",
                         f"{own[low]:.1f} ({low})", f"{own[top]:.1f} ({top})")
        ])  # fmt: skip
        data += [
            {"true_class": names[i], "predicted_class": names[j], "label": label,
             "share": share / 100, "count": int(matrices[label][i, j])}
            for label, share in own.items()
        ]  # fmt: skip
    return rows, data


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> csr_array:
    """Return (K, K) counts: true class by predicted class.

    Args:
        labels, predictions: (N,) class indices.
        classes: K.
    """
    places, counts = np.unique(labels * classes + predictions, return_counts=True)
    return csr_array((counts, np.divmod(places, classes)), shape=(classes, classes))


def row_percent(counts: np.ndarray) -> np.ndarray:
    """Return the percent of each row; a class without images has NaN."""
    total = counts.sum(1, keepdims=True).astype(float)
    return np.divide(100.0 * counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def off_diagonal(percent: np.ndarray) -> np.ndarray:
    """Return the errors only."""
    return percent[~np.eye(len(percent), dtype=bool)]


def _draw(matrices: Mapping[str, np.ndarray | str], names: Sequence[str]) -> Figure:
    """Draw one matrix a loss; one colour scale for all, of errors only."""
    count = len(names)
    words = [plain(name, 11) for name in names]
    longest = max(len(word) for word in words)
    side = 0.24 + 0.062 * longest
    below = 0.1 + (0.062 * longest if longest > 2 else 0.16)
    counts = [matrix for matrix in matrices.values() if not isinstance(matrix, str)]
    highest = max((np.nanmax(off_diagonal(row_percent(m))) for m in counts), default=1.0)
    scale = PowerNorm(0.5, 0, max(float(highest), 0.1))

    def draw(ax: Axes, matrix: np.ndarray, spot: Spot) -> None:
        letters = min(8.5, 72 * spot.width / count / 2.9)
        _draw_matrix(ax, matrix, scale, letters)
        # all matrices have the same classes in the same order: the outer ones name them
        rows, columns = (words if named else [] for named in (spot.leftmost, spot.lowest))
        size = min(8, letters + 1)
        ax.set_yticks(range(len(rows)), rows, fontsize=size)
        ax.set_xticks(range(len(columns)), columns, fontsize=size, rotation=90 * (longest > 2))
        ax.tick_params(pad=2, length=0)
        if spot.leftmost:
            ax.set_ylabel("true class")

    figure = draw_panels(
        [*matrices.values()], draw, columns=3 if count <= 10 else 2,
        widest=4.2 if count <= 10 else 6.0, height=lambda width: width,
        titles=[*matrices], title_pad=19,
        margins=Margins(left=0.25 + side, right=0.1, top=0.62, bottom=below + 0.95,
                        wgap=0.3, hgap=0.75),
    )  # fmt: skip
    label = "errors: share of the row's class given the column's class (%)"
    ticks = [0.0]
    for tick in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0):
        if tick <= highest and scale(tick) > scale(ticks[-1]) + 0.12:  # apart on the bar
            ticks.append(tick)
    colour_bar(figure, scale, COLOURS, label, left=0.25 + side, ticks=ticks)
    return figure


def _draw_matrix(ax: Axes, matrix: np.ndarray, scale: PowerNorm, letters: float) -> None:
    percent, diagonal = row_percent(matrix), np.eye(len(matrix), dtype=bool)
    wrong = ~diagonal & (percent > 0)
    colours = np.ones((*percent.shape, 4))  # white: no such mistake
    colours[wrong] = matplotlib.colormaps[COLOURS](scale(percent[wrong]))
    colours[diagonal] = to_rgba("#EEF0F3")
    ax.imshow(colours, aspect="auto")
    for (row, column), value in np.ndenumerate(percent):
        if wrong[row, column] or (diagonal[row, column] and not np.isnan(value)):
            ink = SOFT if row == column else ink_on(tuple(colours[row, column]))
            ax.text(column, row, short(value), ha="center", va="center", fontsize=letters,
                    color=ink)  # fmt: skip
    missed = matrix.sum() - np.trace(matrix)
    note = f"error {100 * missed / max(1, matrix.sum()):.2f} %"
    ax.text(0, 1.015, note, transform=ax.transAxes, fontsize=8.5, color=SOFT, va="bottom")
    frame_squares(ax, percent.shape, colour="#E3E6EA", width=0.6)


def short(percent: float) -> str:
    """Return at most three characters; a share reads 0 where it is 0, and only there."""
    if percent == 0 or percent >= 9.95:
        return f"{percent:.0f}"
    text = f"{percent:.1f}"
    return "<.1" if text == "0.0" else text.lstrip("0") if percent < 0.95 else text
