"""Curves of detection: AUROC against eps, and error against the share of images accepted."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from robustloss.metrics.intervals import wilson
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.curves import (
    Line,
    Panel,
    band_words,
    curve_numbers,
    draw_curves,
    lines_of,
)
from robustloss.reports.drawing.style import ADVERSARIAL, CROWD, GREY, Look, columns_of, looks
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import View
from robustloss.reports.words import eps_name
from robustloss.spec.detection import LIKELIHOOD

NOISE = (
    "Noise control: random noise as large as the attack's change of each image; where it lies as "
    "high as the attack, the detector notices changed pixels, not the attack. "
)
# population: title of its frame, name of its line, and its look
_POPULATIONS = {
    "all": ("AUROC, all attacked images", "all attacked images", Look(ADVERSARIAL, "o", "-")),
    "successful": ("AUROC, successful attacks", "successful attacks",
                   Look(ADVERSARIAL, "^", (0, (2, 1.5)))),
    "noise": ("AUROC, noise control", "noise control", Look(GREY, "s", (0, (5, 1.5)))),
}  # fmt: skip


def plot_areas(scene: Scene) -> Iterator[Plot]:
    """Draw a frame a loss with a line a population; of a crowd, a population with a line a loss."""
    numbers, attack, labels = scene.numbers, scene.attack, scene.labels
    lines: dict[str, list[Line]] = {}
    for population in _POPULATIONS:
        get = partial(numbers.detected.at, attack.label, LIKELIHOOD, population)
        if own := lines_of(labels, attack.strengths, get, 1.0):
            lines[population] = own
    if not lines:
        return
    lowest = min((y for own in lines.values() for line in own for _, y in line.points), default=1.0)
    # a panel for each population: it is drawn of a crowd, and its numbers are written of all
    grid = [
        Panel(_POPULATIONS[p][0], attack.axis, "AUROC", own,
              (0.45 if lowest >= 0.49 else 0.0, 1.01), reference=0.5)
        for p, own in lines.items()
    ]  # fmt: skip
    of_losses = [
        replace(
            grid[0], title=label, y_label="" if i % columns_of(len(labels)) else "AUROC",
            lines=[replace(line, label=_POPULATIONS[p][1])
                   for p, own in lines.items() for line in own if line.label == label],
        )
        for i, label in enumerate(labels)
    ]  # fmt: skip
    ends = [
        f"{panel.title}: " + ", ".join(f"{line.label} {line.y[-1]:.3f}" for line in panel.lines
                                       if not math.isnan(line.y[-1]))
        for panel in of_losses
    ]  # fmt: skip
    if len(labels) > CROWD:
        figure = draw_curves(grid, looks(labels))
    else:
        own_looks = {name: look for _, name, look in _POPULATIONS.values()}
        figure = draw_curves(of_losses, own_looks, columns=columns_of(len(of_losses)))
    yield Plot(
        f"detection-vs-eps-{attack.slug}",
        figure,
        curve_numbers(grid),
        title="Does the likelihood give the attack away?",
        caption="AUROC of the likelihood against eps; dotted: 0.5, guessing. "
        "Successful attacks are images that were right and became wrong, "
        "against the clean images that are right. "
        f"{NOISE if 'noise' in lines else ''}{band_words(numbers)} A one-step attack overshoots "
        "at a large eps, so its AUROC may rise.",
        alt=f"Line charts of AUROC against eps. At the largest eps, {'; '.join(ends)}.",
    )


LEAST = 0.02  # of so few images the error says nothing
POINTS = 60


def plot_coverage(scene: Scene) -> Iterator[Plot]:
    """Draw the error among the accepted images as the detector rejects the lowest scores."""
    passes = [("clean images", [(k, scene.shown.clean(k)) for k in scene.labels])]
    passes += [(eps_name(e), [(k, scene.views[k, e]) for k in scene.labels]) for e in scene.eps]
    grid: list[Panel] = []
    ends = []
    for title, views in passes:
        lines = [_line(label, view) for label, view in views if isinstance(view, View)]
        # the curves decide, not the wide bands of the first few images; 0 is always in sight
        highest = max((y for line in lines for y in line.y), default=1.0)
        top = min(1.25 * highest, 102.0) or 1.0
        y_label = "error of those" if len(grid) % 2 == 0 else ""
        grid.append(Panel(title, "images accepted", y_label, lines, (-0.03 * top, top),
                          percent=True, x_percent=True))  # fmt: skip
        halves = [line.y[min(int(np.searchsorted(line.x, 50)), len(line.x) - 1)] for line in lines]
        words = [f"{line.label} {half:.3g} %" for line, half in zip(lines, halves, strict=True)]
        ends += [f"{title}: {', '.join(words)}"] if lines else []
    if not any(panel.lines for panel in grid[1:]):
        return
    band = "Bands are pointwise 95 % Wilson intervals over images. "
    yield Plot(
        f"coverage-{scene.attack.slug}",
        draw_curves(grid, looks(scene.labels), columns=2),
        curve_numbers(grid),
        title="What is gained by rejecting: error against coverage",
        caption="Error among the accepted images, as the detector rejects more of the least likely "
        "(to the left). A good detector falls towards the left; a flat curve rejects right and "
        "wrong answers alike; one that rises to the left finds wrong answers more typical. All "
        "images of a frame are attacked, except in the first. Each frame has its own vertical "
        f"axis. {band if len(scene.labels) <= CROWD else ''}{scene.words()}",
        alt="Line charts of the error among accepted images against the share accepted. Error of "
        f"the half with the highest likelihood, {'; '.join(ends)}.",
    )


def _line(label: str, view: View) -> Line:
    coverage, wrong = risk(view.score, view.wrong)
    # at most so many points, spread evenly, the last always among them
    wanted = np.linspace(LEAST, 1.0, POINTS)
    at = np.unique(np.minimum(np.searchsorted(coverage, wanted - 1e-12), coverage.size - 1))
    accepted = np.rint(coverage[at] * view.n).astype(int)
    bounds = [wilson(int(w), int(n)) for w, n in zip(wrong[at], accepted, strict=True)]
    low, high = (tuple(100.0 * bound[end] for bound in bounds) for end in (0, 1))
    return Line(label, tuple(100.0 * coverage[at]), tuple(100.0 * wrong[at] / accepted), low, high)


def risk(scores: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the operating points of accepting the highest scores; ties are accepted together.

    Args:
        scores: (N,) higher is accepted first.
        wrong: (N,) bool.

    Returns:
        Share accepted (U,), rising to 1, and how many of those are wrong (U,).

    Source: El-Yaniv and Wiener 2010.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    return (last + 1) / scores.size, np.cumsum(wrong[order])[last]
