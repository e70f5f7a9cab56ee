"""The control of detection: is it the attack that is noticed, or that pixels were changed?"""

import math

from robustloss.reports.chapters.detection.detected import LIKELIHOOD, Detected, interval_words
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.curves import Panel, curve_numbers, draw_curves, lines_of
from robustloss.reports.drawing.style import ADVERSARIAL, GREY, Look
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate

ATTACK, NOISE = "attack", "noise of the same size"
LOOKS = {ATTACK: Look(ADVERSARIAL, "o", "-"), NOISE: Look(GREY, "s", (0, (5, 1.5)))}
POPULATIONS = {ATTACK: "all", NOISE: "noise"}


def add_control(album: Album, numbers: Numbers, found: Detected, attack: AttackInfo) -> None:
    """Draw AUROC of the likelihood on attacked images and on as much noise, one frame a loss.

    Args:
        album: Takes the figure.
        numbers: Of the run.
        found: Its table `detection`.
        attack: Nothing is drawn where no loss saw noise of its size.
    """
    grid: list[Panel] = []
    for label in numbers.labels:

        def get(name: str, eps: float, label: str = label) -> Estimate | None:
            return found.get(label, attack.label, eps, LIKELIHOOD, POPULATIONS[name])

        lines = lines_of([*POPULATIONS], attack.strengths, get, 1.0)
        if any(line.label == NOISE for line in lines):
            y_label = "AUROC" if len(grid) % 3 == 0 else ""
            grid.append(Panel(label, attack.axis, y_label, lines, (0.0, 1.005), 0.5, "guessing"))
    if not grid:
        return
    ends = [
        f"{panel.title}: " + ", ".join(f"{line.label} {line.y[-1]:.3f}" for line in panel.lines
                                       if not math.isnan(line.y[-1]))
        for panel in grid
    ]  # fmt: skip
    behind = [r for k in numbers.labels for e in attack.strengths for p in POPULATIONS.values()
              for r in found.rows(k, attack.label, e, LIKELIHOOD, p)]  # fmt: skip
    album.add(
        f"control-{attack.slug}",
        draw_curves(grid, LOOKS),
        curve_numbers(grid),
        title="Is it the attack that is noticed, or any change of pixels?",
        caption="AUROC of the log-likelihood at the predicted class, for all attacked images and, "
        "as a control, for the same images with random noise that is as large, image by image, as "
        "what the attack did. Both are set against all clean images. Where the two lines meet, the "
        "detector notices that pixels were changed, not that somebody attacked; where noise stays "
        "near 0.5, it is the attack that is noticed; noise below 0.5 makes images look more "
        "typical than they were. "
        + interval_words(behind).replace("Intervals", "Bands"),
        alt="Line charts of AUROC against eps, one per loss, of the attack and of noise. At the "
        f"largest eps, {'; '.join(ends)}.",
        section=attack.label,
    )  # fmt: skip
