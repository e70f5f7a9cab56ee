"""Feature norms and gradients of the training images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator

from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import BLUE, NORMAL, columns_of, write_above
from robustloss.reports.drawing.ticks import power, unlabelled
from robustloss.reports.reading.facts import mean, rows
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import minus

GROUPS = 15


def plot_norms(numbers: Numbers) -> Iterator[Plot]:
    """Draw a panel per loss whose gradients are stored."""
    cells = {label: _norms(numbers, label) for label in numbers.labels}
    drawn = {label: cell for label, cell in cells.items() if isinstance(cell, Norms)}
    if not drawn:
        return
    yield Plot(
        "norms",
        _draw(cells),
        [{"label": label, "norm": n, "gradient_5": a, "gradient_50": b, "gradient_95": d}
         for label, cell in drawn.items() for n, a, b, d in cell.groups.tolist()],
        title="Which features does the loss still pull at?",
        caption="Gradient of the finished loss at the features of training images, against the "
        "length of the feature (its norm). Losses that normalise features pull at short ones, as "
        "1/norm; softmax pulls near a boundary, where norms are small; distance losses pull at "
        "what is far from its center. Groups of equally many images, logarithmic axis; a gradient "
        "of exactly 0 lies at the lower end. Grey: the distribution of the norms. Above each "
        f"panel: Spearman's rank correlation of the two. {numbers.shown.words(numbers.labels)}",
        alt="Gradient size against feature norm, one panel per loss. "
        + "; ".join(f"{label}: {cell.note}" for label, cell in drawn.items()) + ".",
    )  # fmt: skip


@dataclass(frozen=True)
class Norms:
    """What one panel shows."""

    norms: np.ndarray  # (N,) of training images
    groups: np.ndarray  # (G, 4), see `norm_groups`
    note: str  # one line above the panel


def _norms(numbers: Numbers, label: str) -> Norms | str:
    """Return what the panel of a loss shows, or why it is empty."""
    known = numbers.shown.space(label)
    if isinstance(known, str):
        return known
    if known.norms is None or known.gradients is None:
        return "no gradients stored"
    gradients = np.asarray(known.gradients, float)
    fine = np.isfinite(gradients) & np.isfinite(known.norms)
    if not fine.any():
        return "no finite gradient"
    seed = numbers.shown.cells[label].seed
    found = mean(rows(numbers, "geometry", label, split="train", seed=seed),
                 "gradient_norm_correlation", least=-1.0)  # fmt: skip
    note = "rank correlation n/a" if found is None else f"rank correlation {found.mean:.2f}"
    zero = float((gradients == 0).mean())
    note += f", {100 * zero:.0f} % zero" if zero >= 0.005 else ""
    groups = norm_groups(known.norms[fine], gradients[fine])
    return Norms(known.norms[fine], groups, minus(note))


def norm_groups(norms: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return (G, 4): median norm, and 5, 50, 95 % quantiles of the gradient, in equal groups.

    Args:
        norms, gradients: (N,) of training images.
    """
    order = np.argsort(norms, kind="stable")
    parts = [p for p in np.array_split(order, min(GROUPS, max(1, len(norms) // 8))) if p.size]
    return np.array(
        [[np.median(norms[p]), *np.quantile(gradients[p], (0.05, 0.5, 0.95))] for p in parts]
    )


def _draw(cells: Mapping[str, Norms | str]) -> Figure:
    """Draw a panel per loss: gradient against norm, the histogram of norms below it."""
    handles = [
        Line2D([], [], color=BLUE, lw=1.8, label="gradient, median"),
        Patch(facecolor=BLUE, alpha=0.25, label="5 to 95 % of images"),
        Patch(facecolor=NORMAL, label="norms (histogram)"),
    ]
    return draw_panels(
        [*cells.values()], _draw_norms, columns=columns_of(len(cells)), widest=3.4,
        height=lambda width: 0.95 * width, titles=[*cells], title_pad=15, legend=Names(handles),
        margins=Margins(left=0.68, right=0.1, top=0.5, bottom=0.62, wgap=0.5, hgap=0.8),
    )  # fmt: skip


def _draw_norms(ax: Axes, cell: Norms, spot: Spot) -> None:
    write_above(ax, cell.note)
    found = cell.groups
    positive = found[:, 1:][found[:, 1:] > 0]
    low, high = np.quantile(cell.norms, (0.002, 0.998))
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    below = ax.inset_axes((0, 0, 1, 0.26))
    bins = np.linspace(low, high, 31).tolist()
    below.hist(np.clip(cell.norms, low, high), bins=bins, color=NORMAL)
    below.set_xlim(low, high)
    below.set_axis_off()
    below.set_zorder(-1)
    ax.patch.set_alpha(0)
    if positive.size:
        top = float(positive.max())
        floor = max(float(positive.min()), top * 1e-6)
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
    if spot.leftmost:
        ax.set_ylabel("gradient size", labelpad=2)
    if spot.lowest:
        ax.set_xlabel("feature norm")
