"""How well a mini-batch knows its class means, and how near the centers of a loss are to them."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from robustloss.reports.drawing.album import SPACE, Album
from robustloss.reports.drawing.legends import LINE, legend_below, legend_shape
from robustloss.reports.drawing.style import BLUE, GREEN, INK, panels, plain
from robustloss.reports.drawing.ticks import number, unlabelled
from robustloss.reports.reading.facts import in_widths, losses_with, rows
from robustloss.reports.reading.numbers import Numbers

_DOTS = (
    ("batch_mean_error", "mean of a mini-batch", "o", BLUE),
    ("centers_error", "center of the loss", "X", GREEN),
)


def add_center_estimates(album: Album, numbers: Numbers) -> None:
    """A dot plot, one line per loss, in units of the within-class distance."""
    labels = losses_with(numbers, "center_estimates")
    found = [_shares(numbers, label) for label in labels]
    if not any(shares for shares in found):
        return
    size = {int(r["batch_size"]) for k in labels for r in rows(numbers, "center_estimates", k)}
    batch = " or ".join(map(str, sorted(size)))
    album.add(
        "center-estimates",
        _draw(labels, found),
        [{"label": k, **{f"{key}_over_within_distance": v for key, v in shares.items()}}
         for k, shares in zip(labels, found, strict=True)],
        title="How well are the class means known?",
        caption="Distance to the true class means of the training features, as a share of the mean "
        "distance of an image to its own (1: no better than one image). Open bar: what is expected "
        f"of the mean of a class in a mini-batch of {batch} images, from the scatter alone; a dot "
        "off the bar would say that batches are not drawn as they should be. Cross: the centers "
        "that the loss itself keeps, which average over many batches and so should lie left of the "
        "dot; one to the right of it lags behind or is held elsewhere by the loss. Logarithmic "
        "axis, mean over seeds.",
        alt="Dot plot of the error of class means, in units of the within-class distance. "
        + "; ".join(_in_words(k, s) for k, s in zip(labels, found, strict=True)) + ".",
        section=SPACE,
    )  # fmt: skip


def _shares(numbers: Numbers, label: str) -> dict[str, float | None]:
    found = rows(numbers, "center_estimates", label)
    shares = {
        k: in_widths(found, k) for k in ("batch_mean_error", "expected_error", "centers_error")
    }
    return {k: None if v is None else v.mean for k, v in shares.items()} if found else {}


def _draw(labels: list[str], found: list[dict[str, float | None]]) -> Figure:
    handles = [Line2D([], [], ls="none", marker="|", ms=12, mew=1.5, color=INK, label="expected")]
    handles += [Line2D([], [], ls="none", marker=marker, ms=7, color=colour, label=name,
                       mec="white", mew=0.5) for key, name, marker, colour in _DOTS
                if any(shares.get(key) for shares in found)]  # fmt: skip
    left = 0.35 + 0.075 * max(len(plain(k, 26)) for k in labels)
    lines = legend_shape([str(h.get_label()) for h in handles], 6)[1]
    figure, axes = panels(1, 1, width=6.2, height=0.35 + 0.25 * len(labels), left=left, top=0.2,
                          bottom=0.7 + LINE * lines)  # fmt: skip
    ax = axes[0, 0]
    ax.set_xscale("log")
    for y, shares in enumerate(found):
        if (value := shares.get("expected_error")) is not None:
            ax.plot([value], [y], ls="none", marker="|", ms=13, mew=1.5, color=INK, zorder=2)
        for key, _, marker, colour in _DOTS:
            if (value := shares.get(key)) is not None and value > 0:
                ax.plot([value], [y], ls="none", marker=marker, ms=7, color=colour, mec="white",
                        mew=0.5, zorder=3)  # fmt: skip
    ax.axvline(1, color="#5B6470", lw=1, ls=(0, (1, 2)))
    ax.set_yticks(range(len(labels)), [plain(k, 26) for k in labels])
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_xlabel("distance to the true class mean ÷ within-class distance")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(number)
    ax.xaxis.set_minor_formatter(unlabelled)
    ax.grid(True)
    ax.tick_params(axis="y", length=0)
    legend_below(figure, handles, left=0.3)
    return figure


def _in_words(label: str, shares: dict[str, float | None]) -> str:
    parts = [f"{name} {shares[key]:.2f}" for key, name, *_ in _DOTS if shares.get(key) is not None]
    return f"{label}: {', '.join(parts) or 'nothing'}"
