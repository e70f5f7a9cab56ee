"""Which classes are taken for which, clean and under attack: matrices, or a table of pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robustloss.reports.drawing.album import SPACE, Album
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.squares import colour_bar, frame_squares
from robustloss.reports.drawing.style import INK, plain
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import class_names
from robustloss.reports.reading.featured import featured
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.views import Shown, View

MOST_PAIRS = 20

MOST_CLASSES = 20  # more do not fit as numbers in a matrix
COLOURS = "YlOrRd"
SOFT = "#5B6470"


def passes(numbers: Numbers) -> list[tuple[AttackInfo | None, float]]:
    """The clean pass, and the first featured attack at a middle eps."""
    found: list[tuple[AttackInfo | None, float]] = [(None, 0.0)]
    for attack in featured(numbers)[:1]:
        found.append((attack, attack.strengths[(len(attack.strengths) - 1) // 2]))
    return found


def counts(
    numbers: Numbers, shown: Shown, label: str, attack: AttackInfo | None, eps: float
) -> np.ndarray | str:
    """(K, K) true class by predicted class of one model, or why there is none."""
    view = shown.clean(label) if attack is None else shown.attacked(label, attack, eps)
    if not isinstance(view, View):
        return view
    return confusion(view.labels, view.predictions, numbers.classes or 1)


def add_confusions(album: Album, numbers: Numbers, shown: Shown) -> None:
    """Matrices of up to twenty classes."""
    if not numbers.classes or numbers.classes > MOST_CLASSES:
        return
    for attack, eps in passes(numbers):
        found = {k: counts(numbers, shown, k, attack, eps) for k in numbers.labels}
        cells = [_cell(label, value) for label, value in found.items()]
        if not all(cell.gap for cell in cells):
            _add(album, numbers, shown, attack, eps, cells)


@dataclass(frozen=True)
class Confusion:
    """One loss: (K, K) share in percent of row class's images that were given the column class."""

    title: str
    percent: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    note: str = ""
    gap: str = ""


def _cell(label: str, found: np.ndarray | str) -> Confusion:
    if isinstance(found, str):
        return Confusion(label, gap=found)
    wrong = found.sum() - np.trace(found)
    note = f"error {100 * wrong / max(1, found.sum()):.2f} %"
    return Confusion(label, row_percent(found), note)


def _add(
    album: Album, numbers: Numbers, shown: Shown, attack: AttackInfo | None, eps: float,
    cells: list[Confusion],
) -> None:  # fmt: skip
    where = "clean" if attack is None else f"{attack.label}, eps {eps:.4g}"
    names = class_names(numbers)
    album.add(
        "confusion-clean" if attack is None else f"confusion-{attack.slug}",
        draw_confusions(cells, names),
        [{"label": c.title, "true_class": i, "predicted_class": j, "percent": float(p)}
         for c in cells if not c.gap for (i, j), p in np.ndenumerate(c.percent)],
        title=f"Which classes are taken for which: {where}",
        caption="Each row is a true class and adds up to 100 %; the column says what its images "
        "are taken for. Numbers are percent of the row, empty is none. The diagonal, the share "
        "that is right, is grey: colour shows errors only, on one scale for all losses of this "
        f"figure, steeper for small shares. {shown.words(numbers.labels)}",
        alt=f"Confusion matrices, {where}. Largest error of each loss: "
        + "; ".join(_largest(c, names) for c in cells if not c.gap) + ".",
        section=SPACE,
    )  # fmt: skip


def _largest(cell: Confusion, names: list[str]) -> str:
    errors = cell.percent.copy()
    np.fill_diagonal(errors, -1)
    i, j = np.unravel_index(np.nanargmax(errors), errors.shape)
    if errors[i, j] <= 0 or not off_diagonal(cell.percent).size:
        return f"{cell.title}: none"
    return f"{cell.title}: {names[i]} taken for {names[j]}, {errors[i, j]:.1f} %"


def confusion_tables(numbers: Numbers, shown: Shown) -> list[Table]:
    """For more than twenty classes: the pairs that are most confused, over the losses."""
    if not numbers.classes or numbers.classes <= MOST_CLASSES:
        return []
    out = []
    for attack, eps in passes(numbers):
        found = {
            k: value for k in numbers.labels
            if not isinstance(value := counts(numbers, shown, k, attack, eps), str)
        }  # fmt: skip
        if found:
            out.append(_pairs(numbers, shown, attack, eps, found))
    return out


def _pairs(
    numbers: Numbers, shown: Shown, attack: AttackInfo | None, eps: float,
    found: dict[str, np.ndarray],
) -> Table:  # fmt: skip
    names = class_names(numbers)
    shares = {label: row_percent(value) for label, value in found.items()}
    average = np.nan_to_num(np.nanmean(np.stack(list(shares.values())), axis=0))
    np.fill_diagonal(average, 0)
    order = np.argsort(-average, axis=None, kind="stable")[:MOST_PAIRS]
    rows, data = [], []
    for place in order:
        i, j = (int(k) for k in np.unravel_index(place, average.shape))
        if average[i, j] <= 0:
            break
        own = {label: float(value[i, j]) for label, value in shares.items()}
        top, low = max(own, key=own.__getitem__), min(own, key=own.__getitem__)
        rows.append(
            [Entry(names[i]), Entry(names[j]), Entry(f"{average[i, j]:.1f}"),
             Entry(f"{own[low]:.1f} ({low})"), Entry(f"{own[top]:.1f} ({top})")]
        )  # fmt: skip
        data += [
            {"true_class": names[i], "predicted_class": names[j], "label": label,
             "share": value / 100, "count": int(found[label][i, j])}
            for label, value in own.items()
        ]  # fmt: skip
    where = "clean" if attack is None else f"{attack.label}, eps {eps:.4g}"
    return Table(
        "confused-clean" if attack is None else f"confused-{attack.slug}",
        f"Most confused classes: {where}",
        f"Of {numbers.classes} classes the {MOST_PAIRS} pairs with the highest share of images of "
        "the true class that are taken for the other, mean over losses; in percent of the true "
        f"class's images. The CSV has every loss. {shown.words(numbers.labels)}",
        ["true class", "taken for", "mean over losses", "lowest", "highest"],
        rows,
        data,
        left=2,
        section=SPACE,
    )


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """(K, K) counts: true class by predicted class."""
    flat = np.bincount(labels * classes + predictions, minlength=classes**2)
    return flat.reshape(classes, classes)


def row_percent(counts: np.ndarray) -> np.ndarray:
    """Percent of each row; a class without images has NaN."""
    total = counts.sum(1, keepdims=True).astype(float)
    return np.divide(100.0 * counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def off_diagonal(percent: np.ndarray) -> np.ndarray:
    """The errors only."""
    return percent[~np.eye(len(percent), dtype=bool)]


def draw_confusions(cells: Sequence[Confusion], names: Sequence[str]) -> Figure:
    """One matrix per loss; one colour scale for all, of errors only.

    Args:
        cells: One per loss.
        names: Of the K classes.
    """
    count = len(names)
    words = [plain(name, 11) for name in names]
    longest = max(len(word) for word in words)
    side = 0.24 + 0.062 * longest
    below = 0.1 + (0.062 * longest if longest > 2 else 0.16)
    highest = max((np.nanmax(off_diagonal(c.percent)) for c in cells if not c.gap), default=1.0)
    scale = PowerNorm(0.5, 0, max(float(highest), 0.1))

    def draw(ax: Axes, cell: Confusion, spot: Spot) -> None:
        _draw(ax, cell, words, scale, letters=min(8.5, 72 * spot.width / count / 2.9))
        if spot.leftmost:
            ax.set_ylabel("true class")

    figure = draw_panels(
        [cell.gap or cell for cell in cells],
        draw,
        columns=3 if count <= 10 else 2,
        widest=4.2 if count <= 10 else 6.0,
        height=lambda width: width,
        titles=[cell.title for cell in cells],
        title_pad=19,
        margins=Margins(
            left=0.25 + side,
            right=0.1,
            top=0.62,
            bottom=below + 0.95,
            wgap=0.2 + side,
            hgap=below + 0.72,
        ),
    )
    label = "errors: share of the row's class given the column's class (%)"
    colour_bar(figure, scale, COLOURS, label, left=0.25 + side)
    return figure


def _draw(
    ax: Axes, cell: Confusion, words: Sequence[str], scale: PowerNorm, letters: float
) -> None:
    errors = cell.percent.copy()
    np.fill_diagonal(errors, np.nan)
    errors[errors <= 0] = np.nan  # white: no such mistake
    ax.imshow(errors, cmap=COLOURS, norm=scale, aspect="auto")
    for (row, column), value in np.ndenumerate(cell.percent):
        if np.isnan(value) or (row != column and value <= 0):
            continue
        if row == column:
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="#EEF0F3", lw=0))
        dark = row != column and scale(value) > 0.62
        colour = "#8A93A0" if row == column else "white" if dark else INK
        ax.text(column, row, short(value), ha="center", va="center", fontsize=letters, color=colour)
    ax.text(0, 1.015, cell.note, transform=ax.transAxes, fontsize=8.5, color=SOFT, va="bottom")
    turn = 90 if max(len(word) for word in words) > 2 else 0
    ax.set_xticks(range(len(words)), list(words), rotation=turn, fontsize=min(8, letters + 1))
    ax.set_yticks(range(len(words)), list(words), fontsize=min(8, letters + 1))
    frame_squares(ax, cell.percent.shape, colour="#E3E6EA", width=0.6)
    ax.tick_params(pad=2)


def short(percent: float) -> str:
    """At most three characters; a share reads 0 where it is 0, and only there."""
    if percent == 0 or percent >= 9.95:
        return f"{percent:.0f}"
    text = f"{percent:.1f}"
    return "<.1" if text == "0.0" else text.lstrip("0") if percent < 0.95 else text
