"""Which score tells attacked from clean: AUROC against eps, and losses by scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.curves import Line, Panel, curve_numbers, draw_curves
from robustloss.reports.detected import POPULATION_WORDS, Detected, interval_words, score_words
from robustloss.reports.numbers import AttackInfo, Numbers
from robustloss.reports.scene import chosen_eps, eps_name
from robustloss.reports.score_heat import ScoreHeat, draw_score_heat
from robustloss.reports.style import CROWD, Look

NAN = math.nan
ACROSS = 2  # panels in a row: ten scores need half a page
LEGEND = (
    " A † beside a loss: a check found signs that this attack, not the loss, made the number look "
    "good."
)


def add_score_curves(
    album: Album, numbers: Numbers, found: Detected, attack: AttackInfo, looks: Mapping[str, Look]
) -> None:
    """AUROC against eps, one frame a score, one line a loss; nothing with a single score."""
    grid = [
        Panel(
            score_words(score), attack.axis, "AUROC", lines, reference_label="guessing"
        )
        for score in found.scores
        if (lines := _lines(numbers, found, attack, score))
    ]  # fmt: skip
    if len(grid) < 2:
        return
    crowd = len(numbers.labels) > CROWD
    bottom = _bottom([y for p in grid for k in p.lines for y in (k.y if crowd else k.low)])
    grid = [
        replace(p, y_range=(bottom, 1.005), y_label="AUROC" if i % (2 if crowd else 3) == 0 else "",
                reference=0.5 if bottom < 0.5 else None)
        for i, p in enumerate(grid)
    ]  # fmt: skip
    rows = [r for r in numbers.run.detection if r["attack_label"] == attack.label and r["eps"] > 0]
    album.add(
        f"scores-vs-eps-{attack.slug}",
        draw_curves(grid, looks),
        curve_numbers(grid),
        title="Which score gives the attack away?",
        caption="AUROC of each detection score against eps: the images that were right and became "
        "wrong, against all clean images that are right. 1 means that every one of them has a "
        "lower score than every clean image, 0.5 is guessing, less means that they look more "
        f"typical than clean ones. All frames have one vertical axis, from {bottom:g}. A score "
        "that a loss does not have is left out, and so is an eps at which no attack succeeded. "
        + ("Intervals are in the table of scores. " if crowd else
           interval_words(rows).replace("Intervals", "Bands") + " ")
        + _unadapted(found, attack),
        alt="Line charts of AUROC against eps, one per score, one line per loss. At the largest "
        f"eps, {'; '.join(_ends(panel) for panel in grid)}.",
        section=attack.label,
    )  # fmt: skip


def _bottom(heights: Sequence[float]) -> float:
    """The tenth below everything drawn."""
    low = min(y for y in heights if not math.isnan(y))
    return max(0.0, min(0.9, math.floor(10 * low) / 10))


def _lines(numbers: Numbers, found: Detected, attack: AttackInfo, score: str) -> list[Line]:
    lines = []
    for label in numbers.labels:
        some = [found.get(label, attack.label, e, score, "successful") for e in attack.strengths]
        if any(some):
            y = tuple(s.mean if s else NAN for s in some)
            low = tuple(s.low if s and s.low is not None else v for s, v in zip(some, y))  # noqa: B905
            high = tuple(s.high if s and s.high is not None else v for s, v in zip(some, y))  # noqa: B905
            lines.append(Line(label, attack.strengths, y, low, high))
    return lines


def _ends(panel: Panel) -> str:
    parts = []
    for line in panel.lines:
        known = [y for y in line.y if not math.isnan(y)]
        parts += [f"{line.label} {known[-1]:.3f}"] if known else []
    return f"{panel.title}: {', '.join(parts)}"


def _unadapted(found: Detected, attack: AttackInfo) -> str:
    aimed = found.adapted(attack.label)
    blind = [score_words(k) for k in found.scores if aimed.get(k) is False]
    if not blind:
        return ""
    return (
        f"This attack did not try to deceive {', '.join(blind)}: high values prove nothing there."
    )


def add_score_heat(album: Album, numbers: Numbers, found: Detected, attack: AttackInfo) -> None:
    """Losses by scores: AUROC of every population, at up to four eps; of a crowd at the largest."""
    strengths = chosen_eps(attack)
    if len(numbers.labels) > CROWD:
        strengths = strengths[-1:]
    own = [score for score in found.scores if any(
        found.get(label, attack.label, eps, score, "all")
        for label in numbers.labels for eps in strengths
    )]  # fmt: skip
    if len(own) < 2:
        return
    populations = found.populations
    grid: list[ScoreHeat | None] = []
    rows = []
    for eps in strengths:
        grid += [None] * (len(grid) % ACROSS)  # every eps begins a row
        for population in populations:
            some = [[found.get(k, attack.label, eps, score, population) for score in own]
                    for k in numbers.labels]  # fmt: skip
            values = np.array([[s.mean if s else NAN for s in row] for row in some])
            names = [k + (" †" if numbers.flags(k, attack.label, eps) else "")
                     for k in numbers.labels]  # fmt: skip
            title = f"{eps_name(eps)}: {POPULATION_WORDS[population]}"
            grid.append(ScoreHeat(title, values, names))
            rows += [
                {"eps": eps, "population": population, "label": k, "score": score,
                 "auroc": s.mean if s else NAN, "low": s.low if s else None,
                 "high": s.high if s else None, "n_seeds": s.n_seeds if s else 0}
                for k, row in zip(numbers.labels, some, strict=True)
                for score, s in zip(own, row, strict=True)
            ]  # fmt: skip
    album.add(
        f"scores-heat-{attack.slug}",
        draw_score_heat(grid, [score_words(k) for k in own], ACROSS),
        rows,
        title="Losses by scores",
        caption="AUROC of each score for each loss, mean over seeds (intervals are in the table of "
        "scores and in the file of numbers). “All” sets every attacked image against every clean "
        "one; “successful” the images that were right and became wrong, and “failed” those that "
        "stayed right, against all clean images that are right."
        + _noise_words(populations)
        + " Blue: attacked images look less typical than clean ones; white: guessing; orange: they "
        "look more typical. Hatched: the loss has no such score, or no image is in the population."
        + (LEGEND if any("†" in k for heat in grid if heat for k in heat.rows) else ""),
        alt="Tables of AUROC as coloured squares, losses by scores. "
        + "; ".join(_best(heat, own) for heat in grid[-len(populations) :] if heat)
        + ".",
        section=attack.label,
    )


def _noise_words(populations: list[str]) -> str:
    if "noise" not in populations:
        return ""
    return (
        " “Noise” sets clean images with random noise of the same size against clean ones: where "
        "it is as blue as the attack, the score notices that pixels were changed, not that "
        "somebody attacked."
    )


def _best(heat: ScoreHeat, scores: list[str]) -> str:
    parts = []
    for name, row in zip(heat.rows, heat.values, strict=True):
        if not np.isnan(row).all():
            at = int(np.nanargmax(row))
            parts.append(f"{name} best with {score_words(scores[at])} {row[at]:.3f}")
    return f"{heat.title}: {', '.join(parts) or 'no numbers'}"
