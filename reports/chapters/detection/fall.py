"""The fall of the detector when the attack knows it, as a figure."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.chapters.detection.adaptive import BEST, Guarded, Rival, guarded
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import ADVERSARIAL, INK, NORMAL, plain
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import eps_name

SOFT = "#5B6470"


def add_falls(album: Album, numbers: Numbers) -> None:
    """One figure for each norm with an adaptive attack."""
    for found in guarded(numbers):
        if found.of_kind("naive") and found.of_kind(BEST):
            _add(album, found)


def _add(album: Album, found: Guarded) -> None:
    grid = [
        (label, [_fall(found, label, eps) for eps in found.eps]) for label in found.numbers.labels
    ]
    start = found.of_kind("naive")[0].label
    album.add(
        f"adaptive-fall-{found.norm}",
        draw_falls(grid, start),
        _rows(found),
        title=f"The detector falls when the attack knows it, {found.norm_name}",
        caption=f"AUROC of the likelihood at the predicted class, over all attacked images. Grey: "
        f"under {start} and the other attacks that only want a wrong class. Orange: under attacks "
        "that want a wrong class that is also likely; the diamond takes the best of them image by "
        "image. Left of the dotted line attacked images look more typical than clean ones. An "
        "arrow that is long says that the high AUROC on its right was owed to an attack that did "
        "not try. Mean over seeds; intervals are in the table.",
        alt=f"Arrows from the AUROC under {start} to that under the best adaptive attack, one "
        f"panel per loss. {_in_words(found)}",
    )


@dataclass(frozen=True)
class Fall:
    """One eps of one loss.

    Attributes:
        name: Of the eps.
        naive: AUROC of each naive attack, the one to start from first.
        adaptive: AUROC of each adaptive attack.
        best: AUROC under the best of them, image by image; None where there is none.
    """

    name: str
    naive: Sequence[float]
    adaptive: Sequence[float]
    best: float | None


def _fall(found: Guarded, label: str, eps: float) -> Fall:
    def values(kind: str) -> list[float]:
        known = [found.get(label, rival, eps, "auroc_all") for rival in found.of_kind(kind)]
        return [value.mean for value in known if value]

    best = values(BEST)
    return Fall(eps_name(eps), values("naive"), values("adaptive"), best[0] if best else None)


def _rows(found: Guarded) -> list[dict[str, object]]:
    def auroc(label: str, rival: Rival, eps: float) -> float | None:
        value = found.get(label, rival, eps, "auroc_all")
        return value.mean if value else None

    return [
        {"label": label, "eps": eps, "attack_label": rival.label, "kind": rival.kind,
         "auroc_all": auroc(label, rival, eps)}
        for label in found.numbers.labels
        for eps in found.eps
        for rival in found.rivals
    ]  # fmt: skip


def _in_words(found: Guarded) -> str:
    eps = found.eps[-1]
    parts = []
    for label in found.numbers.labels:
        fall = _fall(found, label, eps)
        if fall.naive and fall.best is not None:
            parts.append(f"{label} from {fall.naive[0]:.2f} to {fall.best:.2f}")
    return f"At {eps_name(eps)}: {', '.join(parts)}."


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

    return draw_panels(
        [
            "no numbers for this loss" if all(fall.best is None for fall in falls) else falls
            for _, falls in grid
        ],
        draw,
        columns=4,
        widest=4.4,
        height=0.42 + 0.52 * most,
        titles=[label for label, _ in grid],
        legend=Names(
            _handles(start, more=any(len(f.naive) > 1 for _, falls in grid for f in falls))
        ),
        margins=Margins(left=0.85, wgap=0.35),
    )


def _draw(ax: Axes, falls: Sequence[Fall], most: int) -> None:
    ax.axvline(0.5, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for y, fall in enumerate(falls):
        others = fall.naive[1:]
        ax.plot(others, [y] * len(others), ls="none", marker="o", ms=5, mfc="white", mec=NORMAL,
                mew=1.1, zorder=3)  # fmt: skip
        ax.plot(fall.adaptive, [y] * len(fall.adaptive), ls="none", marker="|", ms=11, mew=1.6,
                color=ADVERSARIAL, zorder=3)  # fmt: skip
        if fall.naive and fall.best is not None:
            _arrow(ax, y, fall.naive[0], fall.best)
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(most - 0.45, -0.75)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    ax.set_yticks(range(len(falls)), [fall.name for fall in falls])
    ax.set_xlabel("AUROC, all attacked images")
    ax.grid(True, axis="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _arrow(ax: Axes, y: int, start: float, end: float) -> None:
    if abs(start - end) > 0.03:
        ax.annotate("", (end, y), (start, y), zorder=2,
                    arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.1,
                                "shrinkA": 4, "shrinkB": 5})  # fmt: skip
    ax.plot([start], [y], marker="o", ms=7, color=NORMAL, mec="white", mew=0.6, zorder=4)
    ax.plot([end], [y], marker="D", ms=6.5, color=ADVERSARIAL, mec="white", mew=0.6, zorder=5)
    close = abs(start - end) < 0.14
    for x, text, side in ((start, _short(start), 1), (end, _short(end), -1)):
        shift = side * (9 if close else 0) * (1 if start >= end else -1)
        ax.annotate(text, (x, y), xytext=(shift, 6), textcoords="offset points", fontsize=8,
                    ha="right" if x > 0.93 and not close else "left" if x < 0.07 else "center",
                    va="bottom", color=INK)  # fmt: skip


def _handles(start: str, *, more: bool) -> list[Line2D]:
    def mark(label: str, marker: str, **look: object) -> Line2D:
        return Line2D([], [], ls="none", marker=marker, label=label, **look)  # type: ignore[arg-type]

    out = [mark(f"naive: {plain(start)}", "o", ms=7, color=NORMAL)]
    if more:
        out.append(mark("other naive attacks", "o", ms=5, mfc="white", mec=NORMAL))
    return [
        *out,
        mark("each adaptive attack", "|", ms=11, mew=1.6, color=ADVERSARIAL),
        mark("best of adaptive, per image", "D", ms=6.5, color=ADVERSARIAL),
        Line2D([], [], color=SOFT, lw=1, ls=(0, (1, 2)), label="guessing"),
    ]


def _short(auroc: float) -> str:
    """Two decimals, or three where two would read as perfect."""
    return f"{auroc:.2f}" if 0.005 <= auroc < 0.995 or auroc in (0, 1) else f"{auroc:.3f}"
