"""The control of detection: is it the attack that is noticed, or that pixels were changed?"""

import math

from robustloss.reports.chapters.detection.detected import LIKELIHOOD, Detected, interval_words
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.curves import Panel, curve_numbers, draw_curves, lines_of
from robustloss.reports.drawing.style import ADVERSARIAL, GREY, Look
from robustloss.reports.reading.numbers import AttackInfo, Numbers

ATTACK, NOISE = "attack", "noise of the same size"
LOOKS = {ATTACK: Look(ADVERSARIAL, "o", "-"), NOISE: Look(GREY, "s", (0, (5, 1.5)))}
POPULATIONS = {ATTACK: "all", NOISE: "noise"}


def add_control(album: Album, numbers: Numbers, found: Detected, attack: AttackInfo) -> None:
    """AUROC of the likelihood on attacked images and on as much noise, one frame a loss."""
    grid: list[Panel] = []
    for label in numbers.labels:
        lines = lines_of(
            [*POPULATIONS],
            attack.strengths,
            lambda name, eps, label=label: found.get(  # type: ignore[misc]
                label, attack.label, eps, LIKELIHOOD, POPULATIONS[name]
            ),
            1.0,
        )
        if any(line.label == NOISE for line in lines):
            grid.append(
                Panel(
                    label, attack.axis, "AUROC" if len(grid) % 3 == 0 else "", lines,
                    y_range=(0.0, 1.005), reference=0.5, reference_label="guessing",
                )
            )  # fmt: skip
    if not grid:
        return
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
        f"largest eps, {'; '.join(_ends(panel) for panel in grid)}.",
        section=attack.label,
    )  # fmt: skip


def _ends(panel: Panel) -> str:
    parts = [f"{line.label} {line.y[-1]:.3f}" for line in panel.lines if not math.isnan(line.y[-1])]
    return f"{panel.title}: {', '.join(parts)}"
