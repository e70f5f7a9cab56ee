"""AUROC and undetected success against eps."""

import math
from collections.abc import Mapping

from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.curves import (
    Line,
    Panel,
    band_words,
    curve_numbers,
    draw_curves,
    in_words,
    lines_of,
)
from robustloss.reports.drawing.style import CROWD, Look
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate


def add_detection_curves(
    album: Album, numbers: Numbers, attack: AttackInfo, looks: Mapping[str, Look]
) -> None:
    """Draw AUROC of both populations and undetected success against eps, for one attack.

    Args:
        album: Takes the figure.
        numbers: Of the run.
        attack: Nothing is drawn where it has no numbers of detection.
        looks: Look of every loss.
    """
    grid = _panels(numbers, attack)
    if not any(panel.lines for panel in grid):
        return
    cut = grid[0].y_range is not None and grid[0].y_range[0] > 0
    start = " The AUROC axes start at 0.45, just below guessing." if cut else ""
    bands = (
        "Bands are 95 % t-intervals over training seeds; of one seed alone the AUROC has an "
        "interval over test images, and the share fooled and not noticed has none."
    )
    album.add(
        f"detection-vs-eps-{attack.slug}",
        draw_curves(grid, looks),
        curve_numbers(grid),
        title="Does the likelihood give the attack away?",
        caption="First: AUROC over all attacked images, failed attacks included (1 means that "
        "every attacked image has a lower likelihood than every clean one, 0.5 is guessing). "
        "Second: only images that were right and became wrong, against all clean images that "
        "are right. Third, and the only panel that compares losses fairly: the share of "
        "initially correct images that are fooled and still pass a threshold that rejects 5 % "
        "of clean validation images; lower is better, and the axis ends just above the highest "
        f"curve.{start} {band_words(numbers) if len(numbers.labels) > CROWD else bands} "
        "A one-step attack overshoots, so do not read a rise of AUROC with eps as "
        "safety.",
        alt="Three line charts against eps, one line per loss. AUROC over all attacked images: "
        f"{in_words(grid[0], '')} Fooled and not noticed: {in_words(grid[2], ' %')}",
        section=attack.label,
    )


def _panels(numbers: Numbers, attack: AttackInfo) -> list[Panel]:
    def lines(metric: str, unit: float = 1.0) -> list[Line]:
        def get(label: str, eps: float) -> Estimate | None:
            return numbers.get(label, attack.label, eps, metric)

        return lines_of(numbers.labels, attack.strengths, get, unit)

    every, successful = lines("auroc_all"), lines("auroc_successful")
    missed = lines("undetected_success_at_5fpr", 100.0)
    areas = [y for line in [*every, *successful] for y in line.y if not math.isnan(y)]
    area_range = (0.45 if min(areas, default=1.0) >= 0.49 else 0.0, 1.01)
    guessing = (0.5, "no better than guessing")
    highest = max((y for line in missed for y in line.y if not math.isnan(y)), default=0.0)
    top = min(100.0, max(1.0, 1.3 * highest))
    return [
        Panel("AUROC, all attacked images", attack.axis, "AUROC", every, area_range, *guessing),
        Panel("AUROC, successful attacks only", attack.axis, "", successful, area_range, *guessing),
        Panel("Fooled and not noticed", attack.axis, "share of images", missed, (0.0, top),
              percent=True),
    ]  # fmt: skip
