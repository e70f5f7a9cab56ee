"""Feature norms and gradients of the training images."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator

from robustloss.reports.drawing.album import SPACE, Album
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import (
    BLUE,
    NORMAL,
    columns_of,
)
from robustloss.reports.drawing.ticks import power, unlabelled
from robustloss.reports.reading.facts import mean, rows
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Shown

GROUPS = 15


def add_norms(album: Album, numbers: Numbers, shown: Shown) -> None:
    """One panel per loss whose gradients are stored."""
    cells = [_norms(numbers, shown, label) for label in numbers.labels]
    drawn = [cell for cell in cells if not cell.gap]
    if not drawn:
        return
    album.add(
        "norms",
        draw_norms(cells),
        [{"label": c.title, "norm": n, "gradient_5": a, "gradient_50": b, "gradient_95": d}
         for c in drawn for n, a, b, d in c.groups().tolist()],
        title="Feature norm, and the gradient left at it",
        caption="How hard the finished loss (classification and regulariser, full margin) still "
        "pulls at the features of training images, against how long the feature is; groups of "
        "equally many images, logarithmic axis. Grey, without a scale of its own: how the norms "
        "are distributed. Losses that normalise features give short ones the larger gradient, as "
        "1/norm; a softmax gives it to what is near a boundary, which is where norms are small; "
        "distance losses pull at what is far from its center. Rank correlation (Spearman) of the "
        "two above each panel; an image whose gradient is exactly 0 lies at the lower end. "
        f"{shown.words(numbers.labels)}",
        alt="Gradient size against feature norm, one panel per loss. "
        + "; ".join(f"{c.title}: {c.note}" for c in drawn) + ".",
        section=SPACE,
    )  # fmt: skip


@dataclass(frozen=True)
class Norms:
    """One loss.

    Attributes:
        norms, gradients: (N,) of training images.
        note: One line above the panel.
        gap: Why there is nothing to draw.
    """

    title: str
    norms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    gradients: np.ndarray = field(default_factory=lambda: np.zeros(0))
    note: str = ""
    gap: str = ""

    def groups(self) -> np.ndarray:
        """(G, 4): median norm, and 5 %, 50 % and 95 % of the gradient, in groups of equal size."""
        return norm_groups(self.norms, self.gradients)


def _norms(numbers: Numbers, shown: Shown, label: str) -> Norms:
    known = shown.space(label)
    if isinstance(known, str):
        return Norms(label, gap=known)
    if known.norms is None or known.gradients is None:
        return Norms(label, gap="no gradients stored")
    gradients = np.asarray(known.gradients, float)
    fine = np.isfinite(gradients) & np.isfinite(known.norms)
    if not fine.any():
        return Norms(label, gap="no finite gradient")
    seed = shown.cells[label].seed
    found = mean(rows(numbers, "geometry", label, split="train", seed=seed),
                 "gradient_norm_correlation", least=-1.0)  # fmt: skip
    note = "rank correlation n/a" if found is None else f"rank correlation {found.mean:.2f}"
    zero = float((gradients == 0).mean())
    note += f", {100 * zero:.0f} % zero" if zero >= 0.005 else ""
    return Norms(label, known.norms[fine], gradients[fine], note.replace("-", "−"))


def norm_groups(norms: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """(G, 4) median norm and 5, 50, 95 % quantiles of the gradient, by groups of equal size."""
    order = np.argsort(norms, kind="stable")
    parts = [p for p in np.array_split(order, min(GROUPS, max(1, len(norms) // 8))) if p.size]
    return np.array(
        [[np.median(norms[p]), *np.quantile(gradients[p], (0.05, 0.5, 0.95))] for p in parts]
    )


def draw_norms(cells: Sequence[Norms]) -> Figure:
    """One panel per loss: gradient against norm, the histogram of norms below it."""

    def draw(ax: Axes, cell: Norms, spot: Spot) -> None:
        _draw(ax, cell)
        if spot.leftmost:
            ax.set_ylabel("gradient size", labelpad=2)
        if spot.lowest:
            ax.set_xlabel("feature norm")

    handles = [
        Line2D([], [], color=BLUE, lw=1.8, label="gradient, median"),
        Patch(facecolor=BLUE, alpha=0.25, label="5 to 95 % of images"),
        Patch(facecolor=NORMAL, label="norms (histogram)"),
    ]
    return draw_panels(
        [cell.gap or cell for cell in cells],
        draw,
        columns=columns_of(len(cells)),
        widest=3.4,
        height=lambda width: 0.95 * width,
        titles=[cell.title for cell in cells],
        title_pad=15,
        legend=Names(handles),
        margins=Margins(left=0.68, right=0.1, top=0.5, bottom=0.62, wgap=0.5, hgap=0.8),
    )


def _draw(ax: Axes, cell: Norms) -> None:
    ax.text(0, 1.015, cell.note, transform=ax.transAxes, fontsize=7.5, color="#5B6470",
            va="bottom")  # fmt: skip
    found = cell.groups()
    positive = found[:, 1:][found[:, 1:] > 0]
    low, high = np.quantile(cell.norms, (0.002, 0.998))
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    below = ax.inset_axes((0, 0, 1, 0.26))
    below.hist(
        np.clip(cell.norms, low, high), bins=np.linspace(low, high, 31).tolist(), color=NORMAL
    )
    below.set_xlim(low, high)
    below.set_axis_off()
    below.set_zorder(-1)
    ax.patch.set_alpha(0)
    if positive.size:
        floor = max(float(positive.min()), float(positive.max()) * 1e-6)
        top = float(positive.max())
        clipped = np.maximum(found[:, 1:], floor)
        ax.set_yscale("log")
        ax.fill_between(found[:, 0], clipped[:, 0], clipped[:, 2], color=BLUE, alpha=0.25, lw=0)
        ax.plot(found[:, 0], clipped[:, 1], color=BLUE, lw=1.8)
        span = np.log10(top / floor) + 0.3
        ax.set_ylim(10 ** (np.log10(floor) - 0.45 * span), top * 10 ** (0.06 * span))
        decades = max(1, int(np.ceil(1.5 * span / 5)))
        ax.yaxis.set_major_locator(LogLocator(base=10.0**decades, numticks=7))
        ax.yaxis.set_minor_formatter(unlabelled)
        ax.yaxis.set_minor_locator(LogLocator(base=10.0, subs=(), numticks=2))
        ax.yaxis.set_major_formatter(power)
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    ax.tick_params(labelsize=7, length=2, pad=1.5)
