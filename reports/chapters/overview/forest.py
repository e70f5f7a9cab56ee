"""Forest plot: every loss's difference to the first one, with what is shown and what is not."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.chapters.overview.comparison import Row, eps_of, rows_of_unit
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.frames import Margins, Spot, draw_grid
from robustloss.reports.drawing.style import BLUE, GREY, plain
from robustloss.reports.drawing.ticks import signed
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.scene import chosen_eps
from robustloss.reports.words import eps_name

# metric: title, unit, what lies on the left and on the right of 0
_METRICS = {
    "error": ("error, percentage points", 100.0, "fewer errors", "more errors"),
    "auroc_all": ("AUROC of the likelihood", 1.0, "lower", "higher"),
}


Differences = Mapping[tuple[str, float], Mapping[str, Row]]  # by metric and eps, then by loss


def add_forest(album: Album, numbers: Numbers, attack: AttackInfo) -> None:
    """Add the differences to the first loss: a column a metric, a block of rows an eps.

    Args:
        album: Takes the figure; none for a single loss or a run without comparisons.
        numbers: Of the run.
        attack: Under which the losses are compared.
    """
    reference, *others = numbers.labels or [""]
    comparisons = numbers.run.comparisons
    rows, unit = rows_of_unit(
        [row for row in comparisons if row["attack_label"] in (attack.label, "none")]
    )
    found = differences_to(reference, rows, others, (0.0, *chosen_eps(attack)))
    seen = {label for own in found.values() for label in own}
    if not seen:
        return
    left = [label for label in others if label not in seen]
    shown = [
        f"{label} {eps_name(e)}: {metric} {100 * row['difference']:+.2g} points"
        if metric == "error"
        else f"{label} {eps_name(e)}: AUROC {row['difference']:+.3f}"
        for (metric, e), own in found.items()
        for label, row in own.items()
        if row["shown"]
    ]
    over = (
        f"over {rows[0]['n_seeds']} training seeds, in pairs of equal seeds."
        if unit == "seeds"
        else "over the test images of one training seed: another training would give other "
        "networks, and that is not in these intervals."
    )
    album.add(
        f"forest-{attack.slug}",
        draw_forest([label for label in others if label in seen], reference, found),
        [row for own in found.values() for row in own.values()],
        title=f"How far is each loss from {plain(reference)}?",
        caption=f"Difference to {reference} (each loss less {reference}) with its 95 % interval, "
        f"{over} Filled: shown, after adjustment for the number of comparisons. Hollow: no "
        "difference shown, which does not mean that there is none. An interval is of its own "
        "difference alone, so it may leave out 0 where nothing is shown. Each column has one "
        "horizontal axis for its rows of one eps."
        + (f" Without a comparison, for want of seeds: {', '.join(left)}." if left else ""),
        alt=f"Forest plot of differences to {reference}. Shown: {'; '.join(shown) or 'none'}.",
        section=attack.label,
    )


def differences_to(
    reference: str, rows: Sequence[Row], others: Sequence[str], eps: Sequence[float]
) -> Differences:
    """Return each loss less the reference, turned round where it is stored the other way.

    Args:
        reference: Label of the loss that all are compared with.
        rows: Of `comparisons`, of one attack.
        others: Labels of the other losses, in the order wanted.
        eps: Those wanted.
    """
    known: dict[tuple, Row] = {}
    for row in rows:
        pair = row["label_a"], row["label_b"]
        if pair[0] == reference:
            low, high = (None if row[k] is None else -row[k] for k in ("high", "low"))
            turned = {"label_a": pair[1], "label_b": reference, "value_a": row["value_b"],
                      "value_b": row["value_a"], "difference": -row["difference"],
                      "low": low, "high": high}  # fmt: skip
            row = dict(row) | turned
        if reference in pair:
            known.setdefault((row["metric"], eps_of(row), row["label_a"]), dict(row))
    return {
        (metric, e): {k: known[metric, e, k] for k in others if (metric, e, k) in known}
        for metric in _METRICS
        for e in eps
    }


def draw_forest(others: Sequence[str], reference: str, found: Differences) -> Figure:
    """Draw a panel for each metric and eps, with a row for each loss.

    Args:
        others: Labels of the losses that are compared.
        reference: Label of the loss that they are compared with.
        found: The differences.
    """
    eps = list(dict.fromkeys(e for _, e in found))

    def draw(ax: Axes, own: Mapping[str, Row], spot: Spot) -> None:
        _, unit, below, above = [*_METRICS.values()][spot.column]
        _draw_differences(ax, [own.get(label) for label in others], unit)
        ax.set_yticks(range(len(others)), [plain(k, 26) for k in others])
        if spot.lowest:
            words = f"← {below}     less {plain(reference, 16)}     {above} →"
            ax.set_xlabel(words, fontsize=8.5)

    return draw_grid(
        [eps_name(e) for e in eps],
        [title for title, *_ in _METRICS.values()],
        [
            [found[metric, e] or ("no number" if e else "clean images are not attacked")
             for metric in _METRICS]
            for e in eps
        ],
        draw, widest=3.6, height=0.24 * len(others) + 0.3,
        handles=[
            Line2D([], [], marker="o", color=BLUE, lw=1.6, label="shown"),
            Line2D([], [], marker="o", color=GREY, mfc="white", lw=1.2,
                   label="no difference shown"),
        ],
        margins=Margins(left=2.2, right=0.25, top=0.85, bottom=0.75, wgap=0.45, hgap=0.55),
    )  # fmt: skip


def _draw_differences(ax: Axes, rows: Sequence[Row | None], unit: float) -> None:
    """Draw a dot and its interval in each row; the axis is symmetric around 0."""
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
    ax.locator_params(axis="x", nbins=5)
    ax.grid(axis="x", color="#E4E1DB", lw=0.7)
