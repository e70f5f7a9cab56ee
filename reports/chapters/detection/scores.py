"""Which score tells attacked from clean: AUROC against eps, and losses by scores."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.curves import (
    NAN,
    Panel,
    band_words,
    curve_numbers,
    draw_curves,
    lines_of,
)
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.squares import colour_bar, frame_squares, hatch_square, ink_on
from robustloss.reports.drawing.style import ADVERSARIAL, BLUE, CROWD, looks, plain
from robustloss.reports.reading.detected import POPULATION_WORDS, Detected
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import Estimate, eps_name
from robustloss.spec.detection import score_words

ACROSS = 2  # panels in a row: ten scores need half a page
LEGEND = " †: a check fired for this loss, and its numbers may be artefacts."
# white is guessing; blue, attacked images look odd; orange, they look more typical than clean ones
COLOURS = LinearSegmentedColormap.from_list("auroc", [ADVERSARIAL, "#FFFFFF", BLUE])
LETTER = 0.07  # inches
OWN = "own attack"  # stands where a population does
PANEL_WORDS = {
    "successful": "Successful attacks (right before, now wrong) are compared with the clean images "
    "that are right.",
    OWN: "In the second table each score is judged under the adaptive attack that aims at it "
    "and leaves the lowest AUROC.",
}


@dataclass(frozen=True)
class _Heat:
    """AUROC of losses by scores, at one eps over one population.

    Attributes:
        eps: Of the attack.
        population: Which attacked images; OWN: all, under the attack on the very score.
        names: Of the losses; a † where a check doubts the attack.
        areas: A row a loss, a column a score; None is a gap.
    """

    eps: float
    population: str
    names: Sequence[str]
    areas: Sequence[Sequence[Estimate | None]]

    @property
    def title(self) -> str:
        """What stands above the panel."""
        words = POPULATION_WORDS | {OWN: "each score under an attack on it"}
        return f"{eps_name(self.eps)}: {words[self.population]}"

    @property
    def values(self) -> np.ndarray:
        """(L, S) means; NaN is a gap."""
        return np.array([[area.mean if area else NAN for area in row] for row in self.areas])


def plot_score_curves(scene: Scene) -> Iterator[Plot]:
    """Draw AUROC against eps, one frame a score, one line a loss; nothing with a single score."""
    found, attack, grid = scene.numbers.detected, scene.attack, []
    for score in found.scores:
        get = partial(found.at, attack.label, score, "successful")
        if lines := lines_of(scene.labels, attack.strengths, get, 1.0):
            name = score_words(score)
            grid.append(Panel(name, attack.axis, "AUROC", lines, reference_label="guessing"))
    if len(grid) < 2:
        return
    crowd = len(scene.labels) > CROWD
    heights = [y for panel in grid for line in panel.lines for y in (line.y if crowd else line.low)]
    lowest = min(y for y in heights if not math.isnan(y))
    bottom = max(0.0, min(0.9, math.floor(10 * lowest) / 10))  # the tenth below everything drawn
    reference = 0.5 if bottom < 0.5 else None
    aimed = found.adapted(attack.label)
    blind = ", ".join(score_words(k) for k in found.scores if aimed.get(k) is False)
    spared = f" This attack did not try to deceive {blind}: high values prove nothing there."
    grid = [replace(panel, y_range=(bottom, 1.005), reference=reference) for panel in grid]
    ends = []
    for panel in grid:
        last = {line.label: line.points[-1][1] for line in panel.lines if line.points}
        ends.append(f"{panel.title}: " + ", ".join(f"{k} {area:.3f}" for k, area in last.items()))
    yield Plot(
        f"scores-vs-eps-{attack.slug}",
        draw_curves(grid, looks(scene.labels)),
        curve_numbers(grid),
        title="Which score gives the attack away?",
        caption="AUROC of each detection score against eps: successful attacks against the clean "
        f"images that are right. The vertical axes begin at {bottom:g}. "
        f"{band_words(scene.numbers)}{spared if blind else _spared(found)}",
        alt="Line charts of AUROC against eps, one per score, one line per loss. At the largest "
        f"eps, {'; '.join(ends)}.",
    )  # fmt: skip


def plot_score_heat(scene: Scene) -> Iterator[Plot]:
    """Draw losses by scores at the largest eps; the file of numbers has every population."""
    found, labels, name = scene.numbers.detected, scene.labels, scene.attack.label
    eps = scene.attack.strengths[-1]
    over = ", mean over seeds" if len(scene.numbers.seeds) > 1 else ""
    scores = [s for s in found.scores if any(found.get(k, name, eps, s, "all") for k in labels)]
    if len(scores) < 2:
        return
    names = [f"{label} †" if scene.flags(label, eps) else label for label in labels]
    grid = [
        _Heat(eps, population, names,
              [[found.get(k, name, eps, score, population) for score in scores] for k in labels])
        for population in found.populations
    ]  # fmt: skip
    shown = ["all", "successful"]
    last = found.last_attacked(scene.attack.strengths)
    if last and not any(found.adapted(name).values()):
        own = [[found.own_attack(k, score, last) for score in scores] for k in labels]
        grid.append(_Heat(last, OWN, names, [[pair and pair[1] for pair in row] for row in own]))
        shown = ["all", OWN]
    drawn = [heat for heat in grid if heat.population in shown]
    rows = [
        {"eps": heat.eps, "population": heat.population, "label": label, "score": score,
         "auroc": area.mean if area else NAN, "low": area.low if area else None,
         "high": area.high if area else None, "n_seeds": area.n_seeds if area else 0}
        for heat in grid
        for label, row in zip(labels, heat.areas, strict=True)
        for score, area in zip(scores, row, strict=True)
    ]  # fmt: skip
    bests = []
    for heat in drawn:
        known = [(k, row) for k, row in zip(names, heat.values, strict=True)
                 if not np.isnan(row).all()]  # fmt: skip
        each = [f"{k} best with {score_words(scores[int(np.nanargmax(row))])} {np.nanmax(row):.3f}"
                for k, row in known]  # fmt: skip
        bests.append(f"{heat.title}: {', '.join(each) or 'no numbers'}")
    marked = any("†" in name for name in names)
    yield Plot(
        f"scores-heat-{scene.attack.slug}",
        _draw_heat(drawn, [score_words(k) for k in scores]),
        rows,
        title="How well does each score notice the attack?",
        caption=f"AUROC of each detection score{over}. Blue: attacked images look less "
        "typical than clean ones; orange: more typical; white: guessing; hatched: no number. "
        f"{PANEL_WORDS[shown[1]]} The CSV has the other populations too.{_spared(found)}"
        f"{LEGEND if marked else ''}",
        alt=f"Tables of AUROC as coloured squares, losses by scores. {'; '.join(bests)}.",
    )


def _spared(found: Detected) -> str:
    """Return which scores no adaptive attack of the run aims at, as a caption ends."""
    names = ", ".join(score_words(score) for score in found.spared)
    return f" Not attacked by an adaptive attack: {names}." if names else ""


def _draw_heat(grid: Sequence[_Heat], scores: Sequence[str]) -> Figure:
    """Draw the panels, which have one shape, over one colour bar."""
    letters = max(len(plain(name, 26)) for heat in grid for name in heat.names)
    left = 0.3 + LETTER * letters
    words = [plain(name, 26) for name in scores]

    def draw(ax: Axes, heat: _Heat, spot: Spot) -> None:
        ax.set_title(heat.title, fontweight="normal", pad=4)
        ax.imshow(heat.values, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(heat.values):
            if np.isnan(value):
                hatch_square(ax, row, column)
            else:
                ax.text(column, row, short_area(value), ha="center", va="center", fontsize=8,
                        color=ink_on(COLOURS(value)))  # fmt: skip
        columns = words if spot.lowest else []  # each tick costs as much as a curve
        names = [plain(name, 26) for name in heat.names] if spot.leftmost else []
        ax.set_xticks(range(len(columns)), columns, rotation=90, va="top")
        ax.set_yticks(range(len(names)), names)
        frame_squares(ax, heat.values.shape)

    figure = draw_panels(
        grid,
        draw,
        columns=ACROSS,
        widest=0.72 * len(scores),
        height=0.25 * max(len(heat.names) for heat in grid),
        margins=Margins(left=left, right=0.15, wgap=0.25, hgap=0.42,
                        bottom=0.95 + LETTER * max(len(word) for word in words)),
    )  # fmt: skip
    colour_bar(
        figure, Normalize(0, 1), COLOURS, "AUROC against clean images", left=left, widest=3.6,
        ticks=[0, 0.25, 0.5, 0.75, 1],
    )  # fmt: skip
    return figure


def short_area(value: float) -> str:
    """Return three digits without the leading 0; a value that is not 1 never reads as 1."""
    if value == 1:
        return "1"
    return f"{min(max(value, 0.0), 0.9994):.3f}"[1:] if value < 0.9995 else ">.999"
