"""Forest plot: every loss minus the baseline, with what is shown and what is not."""

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.chapters.differences.comparison import Compared, Row
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import Margins, Spot, draw_grid
from robustloss.reports.drawing.style import BLUE, GREY, plain
from robustloss.reports.drawing.ticks import signed
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import eps_name

# metric: title, unit, what lies on the left and on the right of 0
_METRICS = {
    "error": ("error minus {}, points", 100.0, "← fewer", "more →"),
    "auroc_all": ("AUROC minus {}", 1.0, "← lower", "higher →"),
}

Differences = Mapping[tuple[str, float], Mapping[str, Row]]  # by metric and eps, then by loss


def plot_forest(scene: Scene) -> Iterator[Plot]:
    """Draw the differences to the baseline: a row of frames a metric, a column an eps.

    Nothing is drawn of a single loss or a run without comparisons.
    """
    found = Compared(scene)
    if not found.rows:
        return
    baseline, *others = found.labels
    differences: Differences = {
        (metric, e): {k: row for k in others if (row := found.get(metric, e, k, baseline))}
        for metric in _METRICS
        for e in (0.0, *scene.eps)
    }
    drawn = {label for own in differences.values() for label in own}
    left = [label for label in scene.labels if label not in drawn and label != baseline]
    shown = [
        f"{label} {eps_name(e)}: {metric} {100 * row['difference']:+.2g} points"
        if metric == "error"
        else f"{label} {eps_name(e)}: AUROC {row['difference']:+.3f}"
        for (metric, e), own in differences.items()
        for label, row in own.items()
        if row["shown"]
    ]
    yield Plot(
        f"forest-{scene.attack.slug}",
        _draw([label for label in others if label in drawn], baseline, differences),
        [row for own in differences.values() for row in own.values()],
        title=f"How far is each loss from {plain(baseline)}?",
        caption=f"Each loss minus {baseline}, with 95 % intervals: error in percentage points, and "
        f"AUROC over all attacked images. Filled: shown; hollow: not shown. {found.unit_words()} "
        "Each frame has its own axis."
        + (f" Without a comparison, for want of seeds: {', '.join(left)}." if left else ""),
        alt=f"Forest plot of differences to {baseline}. Shown: {'; '.join(shown) or 'none'}.",
    )


def _draw(others: Sequence[str], baseline: str, differences: Differences) -> Figure:
    """Draw a frame for each metric and eps, with a line for each of the other losses."""
    eps = list(dict.fromkeys(e for _, e in differences))

    def draw(ax: Axes, own: Mapping[str, Row], spot: Spot) -> None:
        _, unit, below, above = [*_METRICS.values()][spot.row]
        _draw_differences(ax, [own.get(label) for label in others], unit)
        named = spot.column == spot.row  # clean images have no AUROC: its row begins one further
        names = [plain(label, 26) if named else "" for label in others]
        ax.set_yticks(range(len(others)), names)
        ax.set_xlabel(f"{below}    {above}", fontsize=8)

    return draw_grid(
        [title.format(plain(baseline, 18)) for title, *_ in _METRICS.values()],
        [eps_name(e) for e in eps],
        [[differences[metric, e] or ("no number" if e else "") for e in eps]
         for metric in _METRICS],
        draw, widest=2.6, height=0.24 * len(others) + 0.3,
        handles=[
            Line2D([], [], marker="o", color=BLUE, lw=1.6, label="shown"),
            Line2D([], [], marker="o", color=GREY, mfc="white", lw=1.2, label="not shown"),
        ],
        margins=Margins(left=2.2, right=0.25, top=0.95, bottom=0.6, wgap=0.25, hgap=0.85),
    )  # fmt: skip


def _draw_differences(ax: Axes, rows: Sequence[Row | None], unit: float) -> None:
    """Draw a dot and its interval on each line; the axis is symmetric around 0."""
    ax.axvline(0, color="#444444", lw=0.9)
    reach = 0.0
    for y, row in enumerate(rows):
        if row is None:
            continue
        middle = unit * row["difference"]
        colour, width, fill = (BLUE, 1.6, BLUE) if row["shown"] else (GREY, 1.2, "white")
        ax.plot([middle], [y], "o", ms=5, color=colour, mfc=fill, zorder=3)
        reach = max(reach, abs(middle))
        if row["low"] is not None and row["high"] is not None:
            low, high = unit * row["low"], unit * row["high"]
            ax.hlines(y, low, high, color=colour, lw=width)
            reach = max(reach, abs(low), abs(high))
    end = 1.08 * reach or 1.0
    ax.set(xlim=(-end, end), ylim=(len(rows) - 0.5, -0.5))
    ax.xaxis.set_major_formatter(signed)
    ax.locator_params(axis="x", nbins=4)
    ax.grid(axis="x", color="#E4E1DB", lw=0.7)
