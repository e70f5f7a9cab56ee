"""Which score tells attacked from clean: AUROC against eps, and losses by scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from robustloss.reports.chapters.detection.detected import (
    POPULATION_WORDS,
    Detected,
    score_words,
)
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.curves import (
    Panel,
    band_words,
    curve_numbers,
    draw_curves,
    lines_of,
)
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.squares import colour_bar, frame_squares, hatch_square, ink_on
from robustloss.reports.drawing.style import ADVERSARIAL, BLUE, CROWD, Look, plain
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate, eps_name

NAN = math.nan
ACROSS = 2  # panels in a row: ten scores need half a page
LEGEND = " †: a check fired for this loss, and its numbers may be artefacts."

NOISE = (
    " Where noise as large as the attack's change is as blue as the attack, the score notices "
    "changed pixels, not the attack."
)

# white is guessing; blue, attacked images look odd; orange, they look more typical than clean ones
COLOURS = LinearSegmentedColormap.from_list("auroc", [ADVERSARIAL, "#FFFFFF", BLUE])
LETTER = 0.07  # inches


@dataclass(frozen=True)
class ScoreHeat:
    """AUROC of losses by scores, at one eps over one population.

    Attributes:
        eps, population: Of every number.
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
        return f"{eps_name(self.eps)}: {POPULATION_WORDS[self.population]}"

    @property
    def values(self) -> np.ndarray:
        """(L, S) means; NaN is a gap."""
        return np.array([[area.mean if area else NAN for area in row] for row in self.areas])


def add_score_curves(
    album: Album, numbers: Numbers, found: Detected, attack: AttackInfo, looks: Mapping[str, Look]
) -> None:
    """Draw AUROC against eps, one frame a score, one line a loss; nothing with a single score.

    Args:
        album: Takes the figure.
        numbers: Of the run.
        found: Its table `detection`.
        attack: Told from clean images by the scores.
        looks: Look of every loss.
    """
    grid = []
    for score in found.scores:

        def get(label: str, eps: float, score: str = score) -> Estimate | None:
            return found.get(label, attack.label, eps, score, "successful")

        if lines := lines_of(numbers.labels, attack.strengths, get, 1.0):
            name = score_words(score)
            grid.append(Panel(name, attack.axis, "AUROC", lines, reference_label="guessing"))
    if len(grid) < 2:
        return
    crowd = len(numbers.labels) > CROWD
    heights = [y for panel in grid for line in panel.lines for y in (line.y if crowd else line.low)]
    lowest = min(y for y in heights if not math.isnan(y))
    bottom = max(0.0, min(0.9, math.floor(10 * lowest) / 10))  # the tenth below everything drawn
    grid = [
        replace(p, y_range=(bottom, 1.005), reference=0.5 if bottom < 0.5 else None)
        for p in grid
    ]  # fmt: skip
    album.add(
        f"scores-vs-eps-{attack.slug}",
        draw_curves(grid, looks),
        curve_numbers(grid),
        title="Which score gives the attack away?",
        caption="AUROC of each detection score against eps: successful attacks against the clean "
        f"images that are right. The vertical axes begin at {bottom:g}. {band_words(numbers)} "
        + _unadapted(found, attack),
        alt="Line charts of AUROC against eps, one per score, one line per loss. At the largest "
        f"eps, {'; '.join(_ends(panel) for panel in grid)}.",
    )  # fmt: skip


def _unadapted(found: Detected, attack: AttackInfo) -> str:
    aimed = found.adapted(attack.label)
    blind = ", ".join(score_words(k) for k in found.scores if aimed.get(k) is False)
    if not blind:
        return ""
    return f"This attack did not try to deceive {blind}: high values prove nothing there."


def _ends(panel: Panel) -> str:
    parts = []
    for line in panel.lines:
        known = [y for y in line.y if not math.isnan(y)]
        parts += [f"{line.label} {known[-1]:.3f}"] if known else []
    return f"{panel.title}: {', '.join(parts)}"


def add_score_heat(album: Album, numbers: Numbers, found: Detected, attack: AttackInfo) -> None:
    """Draw losses by scores at the largest eps; the file of numbers has every population.

    Args:
        album: Takes the figure.
        numbers: Of the run.
        found: Its table `detection`.
        attack: Told from clean images by the scores.
    """
    eps = attack.strengths[-1]
    scores = [
        score for score in found.scores
        if any(found.get(label, attack.label, eps, score, "all") for label in numbers.labels)
    ]  # fmt: skip
    if len(scores) < 2:
        return
    names = [f"{k} †" if numbers.flags(k, attack.label, eps) else k for k in numbers.labels]
    grid = [
        ScoreHeat(eps, population, names, [
            [found.get(k, attack.label, eps, score, population) for score in scores]
            for k in numbers.labels
        ])
        for population in found.populations
    ]  # fmt: skip
    drawn = [heat for heat in grid if heat.population in ("all", "successful")]
    marked = any("†" in name for name in names)
    album.add(
        f"scores-heat-{attack.slug}",
        draw_score_heat(drawn, [score_words(k) for k in scores], ACROSS),
        _heat_numbers(grid, numbers.labels, scores),
        title="How well does each score notice the attack?",
        caption="AUROC of each detection score, mean over seeds. Blue: attacked images look less "
        "typical than clean ones; orange: more typical; white: guessing; hatched: no number. "
        "Successful attacks (right, now wrong) stand against the clean images that are right. "
        "Failed attacks and noise of the same size are in the file of numbers."
        + (LEGEND if marked else ""),
        alt="Tables of AUROC as coloured squares, losses by scores. "
        f"{'; '.join(_best(heat, scores) for heat in drawn)}.",
    )


def _heat_numbers(
    grid: Sequence[ScoreHeat], labels: Sequence[str], scores: Sequence[str]
) -> list[dict[str, object]]:
    return [
        {"eps": heat.eps, "population": heat.population, "label": label, "score": score,
         "auroc": area.mean if area else NAN, "low": area.low if area else None,
         "high": area.high if area else None, "n_seeds": area.n_seeds if area else 0}
        for heat in grid
        for label, row in zip(labels, heat.areas, strict=True)
        for score, area in zip(scores, row, strict=True)
    ]  # fmt: skip


def _best(heat: ScoreHeat, scores: Sequence[str]) -> str:
    parts = []
    for name, row in zip(heat.names, heat.values, strict=True):
        if not np.isnan(row).all():
            at = int(np.nanargmax(row))
            parts.append(f"{name} best with {score_words(scores[at])} {row[at]:.3f}")
    return f"{heat.title}: {', '.join(parts) or 'no numbers'}"


def draw_score_heat(grid: Sequence[ScoreHeat], scores: Sequence[str], across: int) -> Figure:
    """Draw the panels in rows of ``across`` over one colour bar.

    Args:
        grid: Panels of one shape; None leaves its place empty.
        scores: Names of the columns.
        across: Panels in a row.
    """
    letters = max(len(plain(name, 26)) for heat in grid for name in heat.names)
    left = 0.3 + LETTER * letters
    words = [plain(name, 26) for name in scores]

    def draw(ax: Axes, heat: ScoreHeat, spot: Spot) -> None:
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
        columns=across,
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
