"""The fall of the detector when the attack knows it, as a figure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.chapters.detection.adaptive import BEST, guarded
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import ADVERSARIAL, INK, NORMAL, SOFT, plain
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import eps_name


@dataclass(frozen=True)
class Fall:
    """AUROC at one eps of one loss; None where there is no number."""

    name: str
    start: float | None  # under the naive attack that the arrow starts from
    naive: Sequence[float]  # under each other naive attack
    adaptive: Sequence[float]
    best: float | None  # of the adaptive ones, image by image


def plot_falls(numbers: Numbers) -> Iterator[Plot]:
    """Draw one figure for each norm with an adaptive attack."""
    for found in guarded(numbers):
        start, bests = found.start, found.of_kind(BEST)
        if start is None or not bests:
            continue
        rows = []
        grid: dict[str, list[Fall]] = {label: [] for label in numbers.labels}
        for label, eps in product(numbers.labels, found.eps):
            areas = {
                rival: area.mean
                for rival in found.rivals
                if (area := found.get(label, rival, eps, "auroc_all"))
            }
            naive = [y for rival, y in areas.items() if rival.kind == "naive" and rival != start]
            adaptive = [y for rival, y in areas.items() if rival.kind == "adaptive"]
            grid[label].append(
                Fall(eps_name(eps), areas.get(start), naive, adaptive, areas.get(bests[0]))
            )
            rows += [
                {"label": label, "eps": eps, "attack_label": rival.label, "kind": rival.kind,
                 "auroc_all": areas.get(rival)}
                for rival in found.rivals
            ]  # fmt: skip
        words = [
            f"{label} from {falls[-1].start:.2f} to {falls[-1].best:.2f}"
            for label, falls in grid.items()
            if falls[-1].start is not None and falls[-1].best is not None
        ]
        yield Plot(
            f"adaptive-fall-{found.norm}",
            draw_falls([*grid.items()], start.label),
            rows,
            title=f"The detector falls when the attack knows it, {found.norm_name}",
            caption="How far AUROC falls when the attack knows the detector. Grey: attacks that "
            f"only want a wrong class; the arrow starts at {start.label}. Orange: adaptive "
            "attacks, which want a wrong class that also looks likely; the diamond takes the best "
            "of them for each image. Left of the dotted line attacked images look more typical "
            "than clean ones. All attacked images, means over seeds.",
            alt=f"Arrows from the AUROC under {start.label} to that under the best adaptive "
            f"attack, one panel per loss. At {eps_name(found.eps[-1])}: {', '.join(words)}.",
        )


def draw_falls(grid: Sequence[tuple[str, Sequence[Fall]]], start: str) -> Figure:
    """Draw the panels; every axis runs from 0 to 1.

    Args:
        grid: Losses with their eps, smallest first.
        start: Label of the naive attack that the arrows start from.
    """
    most = max(len(falls) for _, falls in grid)

    def draw(ax: Axes, falls: Sequence[Fall], spot: Spot) -> None:
        _draw(ax, falls, most)
        ax.tick_params(labelleft=spot.leftmost)

    def mark(label: str, marker: str, **look: object) -> Line2D:
        return Line2D([], [], ls="none", marker=marker, label=label, **look)  # type: ignore[arg-type]

    handles = [mark(f"naive: {plain(start)}", "o", ms=7, color=NORMAL)]
    if any(fall.naive for _, falls in grid for fall in falls):
        handles.append(mark("other naive attacks", "o", ms=5, mfc="white", mec=NORMAL))
    handles += [
        mark("each adaptive attack", "|", ms=11, mew=1.6, color=ADVERSARIAL),
        mark("best adaptive, per image", "D", ms=6.5, color=ADVERSARIAL),
        Line2D([], [], color=SOFT, lw=1, ls=(0, (1, 2)), label="guessing"),
    ]
    cells = [falls if any(fall.best is not None for fall in falls) else "no numbers for this loss"
             for _, falls in grid]  # fmt: skip
    return draw_panels(
        cells, draw, columns=4, widest=4.4, height=0.42 + 0.52 * most,
        titles=[label for label, _ in grid], legend=Names(handles),
        margins=Margins(left=0.85, wgap=0.35),
    )  # fmt: skip


def _draw(ax: Axes, falls: Sequence[Fall], most: int) -> None:
    ax.axvline(0.5, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for y, fall in enumerate(falls):
        ax.plot(fall.naive, [y] * len(fall.naive), ls="none", marker="o", ms=5, mfc="white",
                mec=NORMAL, mew=1.1, zorder=3)  # fmt: skip
        ax.plot(fall.adaptive, [y] * len(fall.adaptive), ls="none", marker="|", ms=11, mew=1.6,
                color=ADVERSARIAL, zorder=3)  # fmt: skip
        start, end = fall.start, fall.best
        if start is None or end is None:
            continue
        # both ends with their numbers, and an arrow where there is room between them
        if abs(start - end) > 0.03:
            ax.annotate("", (end, y), (start, y), zorder=2,
                        arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.1,
                                    "shrinkA": 4, "shrinkB": 5})  # fmt: skip
        ax.plot([start], [y], marker="o", ms=7, color=NORMAL, mec="white", mew=0.6, zorder=4)
        ax.plot([end], [y], marker="D", ms=6.5, color=ADVERSARIAL, mec="white", mew=0.6, zorder=5)
        close = abs(start - end) < 0.14
        for x, side in ((start, 1), (end, -1)):
            # two decimals, or three where two would read as perfect
            text = f"{x:.2f}" if 0.005 <= x < 0.995 or x in (0, 1) else f"{x:.3f}"
            shift = side * (9 if close else 0) * (1 if start >= end else -1)
            ax.annotate(text, (x, y), xytext=(shift, 6), textcoords="offset points", fontsize=8,
                        ha="right" if x > 0.93 and not close else "left" if x < 0.07 else "center",
                        va="bottom", color=INK)  # fmt: skip
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(most - 0.45, -0.75)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    ax.set_yticks(range(len(falls)), [fall.name for fall in falls])
    ax.set_xlabel("AUROC, all attacked images")
    ax.grid(True, axis="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
