"""AUROC of the likelihood against eps: of the attack, and of as much noise as a control."""

import math
from collections.abc import Iterator
from dataclasses import replace

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
from robustloss.reports.reading.detected import LIKELIHOOD
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import Estimate

# population: title of its frame, name of its line, and its look
_POPULATIONS = {
    "all": ("AUROC, all attacked images", "all attacked images", Look(ADVERSARIAL, "o", "-")),
    "successful": ("AUROC, successful attacks", "successful attacks",
                   Look(ADVERSARIAL, "^", (0, (2, 1.5)))),
    "noise": ("AUROC, noise control", "noise control", Look(GREY, "s", (0, (5, 1.5)))),
}  # fmt: skip


def plot_areas(scene: Scene) -> Iterator[Plot]:
    """Draw one frame a loss with a line a population; of a crowd, one a population, a line a loss.

    Nothing is drawn of an attack that has no numbers of detection.
    """
    numbers, attack, labels = scene.numbers, scene.attack, scene.labels
    lines: dict[str, list[Line]] = {}
    for population in _POPULATIONS:

        def get(label: str, eps: float, population: str = population) -> Estimate | None:
            return numbers.detected.get(label, attack.label, eps, LIKELIHOOD, population)

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
    names = {name: look for _, name, look in _POPULATIONS.values()}
    ends = [
        f"{panel.title}: " + ", ".join(f"{line.label} {line.y[-1]:.3f}" for line in panel.lines
                                       if not math.isnan(line.y[-1]))
        for panel in of_losses
    ]  # fmt: skip
    if len(labels) > CROWD:
        figure = draw_curves(grid, looks(labels))
    else:
        figure = draw_curves(of_losses, names, columns=columns_of(len(of_losses)))
    noise = (
        "Noise control: random noise as large as the attack's change of each image; where it "
        "lies as high as the attack, the detector notices changed pixels, not the attack. "
    )
    yield Plot(
        f"detection-vs-eps-{attack.slug}",
        figure,
        curve_numbers(grid),
        title="Does the likelihood give the attack away?",
        caption="AUROC of the likelihood against eps. Below 0.5 (dotted) attacked images look more "
        "typical than clean ones. Successful attacks are images that were right and became wrong, "
        "against the clean images that are right. "
        f"{noise if 'noise' in lines else ''}{band_words(numbers)} A one-step attack overshoots "
        "at a large eps: its rising AUROC is no safety.",
        alt=f"Line charts of AUROC against eps. At the largest eps, {'; '.join(ends)}.",
    )
