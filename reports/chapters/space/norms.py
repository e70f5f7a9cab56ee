"""Norms and gradients of features, and how well batches and centers know the class means."""

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
from robustloss.reports.drawing.style import (
    BLUE,
    GREEN,
    INK,
    NORMAL,
    SOFT,
    columns_of,
    panels,
    plain,
    write_above,
)
from robustloss.reports.drawing.ticks import number, power, unlabelled
from robustloss.reports.reading.facts import by_loss, in_widths, mean, rows
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


_DOTS = (
    ("batch_mean_error", "mean of a mini-batch", "o", BLUE),
    ("centers_error", "center of the loss", "X", GREEN),
)
_ERRORS = ("batch_mean_error", "expected_error", "centers_error")
Shares = Mapping[str, float | None]  # the errors of one loss


def plot_center_estimates(numbers: Numbers) -> Iterator[Plot]:
    """Draw a dot plot, one line per loss, in units of the within-class distance."""
    every = by_loss(numbers, "center_estimates")
    found: dict[str, Shares] = {
        label: {key: e.mean if (e := in_widths(own, key)) else None for key in _ERRORS}
        for label, own in every.items()
    }
    if not found:
        return
    sizes = {int(row["batch_size"]) for own in every.values() for row in own}
    batch = " or ".join(map(str, sorted(sizes)))
    words = []
    for label, shares in found.items():
        dots = [f"{name} {shares[k]:.2f}" for k, name, *_ in _DOTS if shares[k] is not None]
        words.append(f"{label}: {', '.join(dots) or 'nothing'}")
    yield Plot(
        "center-estimates",
        _draw_dots(found),
        [{"label": k, **{f"{key}_over_within_distance": v for key, v in shares.items()}}
         for k, shares in found.items()],
        title="How well are the class means known?",
        caption="Distance of mini-batch means and of a loss's centers to the true class means, "
        "as a share of the distance of a single image. Bar: what scatter alone predicts for a "
        f"class's mean in a mini-batch of {batch}; the dot should lie on it. Cross: the centers "
        "that the loss keeps; they average over many batches, so right of the dot they lag behind "
        "or are held elsewhere. Logarithmic axis, mean over seeds.",
        alt="Dot plot of the error of class means, in units of the within-class distance. "
        + "; ".join(words) + ".",
    )  # fmt: skip


def _draw_dots(found: Mapping[str, Shares]) -> Figure:
    handles = [Line2D([], [], ls="none", marker="|", ms=12, mew=1.5, color=INK, label="expected")]
    handles += [Line2D([], [], ls="none", marker=marker, ms=7, color=colour, label=name,
                       mec="white", mew=0.5) for key, name, marker, colour in _DOTS
                if any(shares[key] for shares in found.values())]  # fmt: skip
    labels, legend = [plain(label, 26) for label in found], Names(handles)
    left = 0.35 + 0.075 * max(map(len, labels))
    figure, axes = panels(1, 1, width=6.2, height=0.35 + 0.25 * len(labels), left=left, top=0.2,
                          bottom=0.7 + legend.room(6.0, 0.0))  # fmt: skip
    ax = axes[0, 0]
    ax.set_xscale("log")
    for y, shares in enumerate(found.values()):
        if (value := shares["expected_error"]) is not None:
            ax.plot([value], [y], ls="none", marker="|", ms=13, mew=1.5, color=INK, zorder=2)
        for key, _, marker, colour in _DOTS:
            if (value := shares[key]) is not None and value > 0:
                ax.plot([value], [y], ls="none", marker=marker, ms=7, color=colour, mec="white",
                        mew=0.5, zorder=3)  # fmt: skip
    ax.axvline(1, color=SOFT, lw=1, ls=(0, (1, 2)))
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_xlabel("distance to the true class mean ÷ within-class distance")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(number)
    ax.xaxis.set_minor_formatter(unlabelled)
    ax.grid(True)
    ax.tick_params(axis="y", length=0)
    legend.draw(figure, 0.3)
    return figure
