"""What alpha does to the margin of L-GM (Figure 2 of the paper): circles, and one closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.style import BLUE, INK, ORANGE, panels, plain
from robustloss.reports.ticks import percent


@dataclass(frozen=True)
class Measured:
    """Margin over distance of the class means of one loss: nearest pair, lowest, highest pair."""

    label: str
    alpha: float
    nearest: float
    low: float
    high: float


def own_boundary(alpha: float) -> float:
    """Where (1+alpha) d_a = d_b on the segment from a to b, as a share of its length."""
    return 1 / (1 + np.sqrt(1 + alpha))


def margin_share(alpha: np.ndarray | float) -> np.ndarray | float:
    """Margin over distance of the centers: between the two boundaries of training."""
    return 1 - 2 * own_boundary(alpha)  # type: ignore[arg-type]


def apollonius(alpha: float) -> tuple[float, float]:
    """Center (on the line from a=0 to b=1) and radius of the circle (1+alpha) d_a = d_b.

    All points whose distances to a and b have the ratio 1 : sqrt(1+alpha); alpha > 0.
    """
    return -1 / alpha, float(np.sqrt(1 + alpha)) / alpha


def draw_alpha(
    alphas: Sequence[float], points: np.ndarray, classes: np.ndarray, measured: Sequence[Measured]
) -> Figure:
    """Boundaries between two centers at (0, 0) and (1, 0), and the margin against alpha.

    Args:
        alphas: Rising; 0 gives the straight line.
        points: (N, 2) training images in units of the distance of the centers; may be empty.
        classes: (N,) 0 for the class of the left center, 1 for the right.
        measured: Of the losses of the run.
    """
    figure, axes = panels(1, 2, width=4.5, height=3.9, left=0.55, wgap=0.85, top=0.45, bottom=1.0)
    left, right = axes[0]
    _circles(left, alphas, points, classes)
    _share(right, alphas, measured)
    return figure


def _tone(alphas: Sequence[float], alpha: float) -> tuple[float, float, float, float]:
    place = list(alphas).index(alpha) / max(1, len(alphas) - 1)
    return matplotlib.colormaps["viridis"](0.85 * (1 - place))


def _circles(ax: Axes, alphas: Sequence[float], points: np.ndarray, classes: np.ndarray) -> None:
    ax.set_title("Where training calls the two classes equal")
    if len(points):
        colours = np.where(classes == 0, BLUE, ORANGE)
        ax.scatter(
            points[:, 0], points[:, 1], s=5, c=colours, alpha=0.35, linewidths=0, rasterized=True
        )
    ax.plot([0, 1], [0, 0], ls="none", marker="X", ms=9, mfc="white", mec=INK, zorder=6)
    for alpha in alphas:
        tone = _tone(alphas, alpha)
        if alpha == 0:
            ax.axvline(0.5, color=tone, lw=1.8)
            continue
        center, radius = apollonius(alpha)
        reach = np.arcsin(min(1.0, 0.95 / radius))
        angle = np.linspace(-reach, reach, 181)
        x, y = center + radius * np.cos(angle), radius * np.sin(angle)
        ax.plot(x, y, color=tone, lw=1.8)
        ax.plot(1 - x, y, color=tone, lw=1.8, ls=(0, (4, 1.6)))
    ax.set_xlim(-0.42, 1.42)
    ax.set_ylim(-0.8, 0.8)
    ax.set_aspect("equal")
    ax.set_xlabel("distance of the two centers = 1")
    handles = [Line2D([], [], color=_tone(alphas, a), lw=1.8, label=f"alpha {a:g}") for a in alphas]
    handles += [
        Line2D([], [], color=INK, lw=1.4, label="true class left"),
        Line2D([], [], color=INK, lw=1.4, ls=(0, (4, 1.6)), label="true class right"),
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.06, -0.12), ncols=3,
              fontsize=8.5)  # fmt: skip


def _share(ax: Axes, alphas: Sequence[float], measured: Sequence[Measured]) -> None:
    ax.set_title("Width of the margin")
    end = 1.15 * max(1.0, *alphas, *(m.alpha for m in measured))
    x = np.linspace(0, end, 300)
    share = 100 * margin_share(x)
    ax.plot(x, share, color=INK, lw=1.6, label="closed form: 1 − 2/(1+√(1+alpha))")
    for alpha in alphas:
        tone = _tone(alphas, alpha)
        ax.plot([alpha], [100 * float(margin_share(alpha))], marker="o", ms=4.5, color=tone,
                zorder=3)  # fmt: skip
    for m in measured:
        ax.plot([m.alpha] * 2, [100 * m.low, 100 * m.high], color="#D55E00", lw=1.4, zorder=4)
        ax.plot([m.alpha], [100 * m.nearest], marker="D", ms=6, mfc="white", mec="#D55E00",
                mew=1.5, zorder=5)  # fmt: skip
        ax.annotate(plain(m.label, 24), (m.alpha, 100 * m.nearest),
                    xytext=(-9 if m.alpha > 0.8 * end else 9, -4 if m.alpha > 0.8 * end else -11),
                    textcoords="offset points", fontsize=8.5,
                    ha="right" if m.alpha > 0.8 * end else "left")  # fmt: skip
    ax.set_xlim(-0.02 * end, end)
    ax.set_ylim(min(-1.5, *(100 * m.low - 2 for m in measured)) if measured else -1.5, None)
    ax.set_xlabel("alpha")
    ax.set_ylabel("margin, share of the distance")
    ax.yaxis.set_major_formatter(percent)
    ax.grid(True)
    if measured:
        ax.plot([], [], ls="none", marker="D", ms=6, mfc="white", mec="#D55E00", mew=1.5,
                label="measured, nearest pair (line: all pairs)")  # fmt: skip
    ax.legend(loc="upper left", bbox_to_anchor=(-0.06, -0.12), fontsize=8.5)
