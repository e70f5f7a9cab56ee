"""How well a mini-batch knows its class means, and how near the centers of a loss are to them."""

from collections.abc import Iterator, Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import BLUE, GREEN, INK, SOFT, panels, plain
from robustloss.reports.drawing.ticks import number, unlabelled
from robustloss.reports.reading.facts import by_loss, in_widths
from robustloss.reports.reading.numbers import Numbers

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
        _draw(found),
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


def _draw(found: Mapping[str, Shares]) -> Figure:
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
