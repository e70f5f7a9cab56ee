"""Curves of a run: error against eps, detection against eps."""

import math
from collections.abc import Callable, Mapping, Sequence

from robustloss.reports.album import Album
from robustloss.reports.curves import Line, Panel, curve_numbers, draw_curves
from robustloss.reports.featured import featured
from robustloss.reports.numbers import AttackInfo, Estimate, Numbers
from robustloss.reports.style import CROWD, Look

NAN = math.nan
Get = Callable[[str, float], Estimate | None]


OTHERS = "the other attacks"  # heading of what is folded away


def add_error_curves(album: Album, numbers: Numbers, looks: Mapping[str, Look]) -> None:
    """Error against eps, one panel per attack; of many attacks the less telling are set aside."""
    shown = [a.label for a in featured(numbers)]
    attacks = [a for a in numbers.attacks if not shown or a.label in shown or not a.strengths]
    others = [a for a in numbers.attacks if a not in attacks]
    grid = [_error_panel(numbers, attack) for attack in (*numbers.worst_cases, *attacks)]
    if not any(panel.lines for panel in grid):
        return
    several = (
        " The worst case counts an image as an error if any of the attacks of that norm fools it."
        if numbers.worst_cases
        else ""
    )
    set_aside = f" The other {len(others)} attacks have their own figure below." if others else ""
    album.add(
        "error-vs-eps",
        draw_curves(grid, looks),
        curve_numbers(grid),
        title="Error against eps",
        caption="How often each loss is wrong as the attacker may change every pixel by more. "
        "Lower is better; eps 0 is the clean test set, and clean mistakes count as errors."
        f"{several} {_band_words(numbers)}{_guess_words(numbers)} A line that stays low under one "
        f"attack only says that this attack did not find the errors.{set_aside}",
        alt="Line chart of error in percent against eps, one line per loss: "
        + _in_words(grid[0], "%"),
    )
    if others:
        _add_other_curves(album, numbers, others, looks)


def _add_other_curves(
    album: Album, numbers: Numbers, others: Sequence[AttackInfo], looks: Mapping[str, Look]
) -> None:
    grid = [_error_panel(numbers, attack) for attack in others]
    album.add(
        "error-vs-eps-others",
        draw_curves(grid, looks),
        curve_numbers(grid),
        title="Error against eps under the other attacks",
        caption=f"As the figure above. {_band_words(numbers)}{_guess_words(numbers)}",
        alt="Line charts of error in percent against eps, one panel per attack, one line per "
        f"loss. {grid[0].title}: {_in_words(grid[0], '%')}",
        section=OTHERS,
    )


def _guess_words(numbers: Numbers) -> str:
    if not numbers.classes:
        return ""
    share = 100 * (1 - 1 / numbers.classes)
    return f" The dotted line is guessing among {numbers.classes} classes ({share:.3g} %)."


def _band_words(numbers: Numbers) -> str:
    if len(numbers.labels) > CROWD:
        return (
            "Losses are named in the order in which their lines end; intervals are in the tables."
        )
    if len(numbers.seeds) > 1:
        return f"The band is a 95 % t-interval over up to {len(numbers.seeds)} training seeds."
    return "The band is a 95 % Wilson interval over test images; there is one training seed only."


def _error_panel(numbers: Numbers, attack: AttackInfo) -> Panel:
    eps = numbers.error_eps(attack)
    chance = 100 * (1 - 1 / numbers.classes) if numbers.classes else None
    return Panel(
        title=attack.label,
        x_label=attack.axis,
        y_label="error",
        lines=_lines(numbers.labels, eps, lambda k, e: numbers.error(k, attack, e), 100.0),
        y_range=(0.0, 100.0),
        reference=chance,
        reference_label="guessing",
        percent=True,
    )


def _lines(labels: Sequence[str], eps: Sequence[float], get: Get, unit: float) -> list[Line]:
    lines = []
    for label in labels:
        found = [get(label, e) for e in eps]
        if any(found):
            y = [unit * f.mean if f else NAN for f in found]
            low = [unit * f.low if f and f.low is not None else v for f, v in zip(found, y)]  # noqa: B905
            high = [unit * f.high if f and f.high is not None else v for f, v in zip(found, y)]  # noqa: B905
            lines.append(Line(label, tuple(eps), tuple(y), tuple(low), tuple(high)))
    return lines


def add_detection_curves(
    album: Album, numbers: Numbers, attack: AttackInfo, looks: Mapping[str, Look]
) -> None:
    """AUROC of both populations and undetected success against eps, for one attack."""
    grid = _detection_panels(numbers, attack)
    if not any(panel.lines for panel in grid):
        return
    cut = grid[0].y_range is not None and grid[0].y_range[0] > 0
    start = " The AUROC axes start at 0.45, just below guessing." if cut else ""
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
        f"curve.{start} {_band_words_detection(numbers)} "
        "A one-step attack overshoots, so do not read a rise of AUROC with eps as "
        "safety.",
        alt="Three line charts against eps, one line per loss. AUROC over all attacked images: "
        f"{_in_words(grid[0], '')} Fooled and not noticed: {_in_words(grid[2], ' %')}",
        section=attack.label,
    )


def _band_words_detection(numbers: Numbers) -> str:
    if len(numbers.labels) > CROWD:
        return _band_words(numbers)
    return (
        "Bands are 95 % t-intervals over training seeds; of one seed alone the AUROC has an "
        "interval over test images, and the share fooled and not noticed has none."
    )


def _detection_panels(numbers: Numbers, attack: AttackInfo) -> list[Panel]:
    def lines(metric: str, unit: float = 1.0) -> list[Line]:
        return _lines(
            numbers.labels,
            attack.strengths,
            lambda k, e: numbers.get(k, attack.label, e, metric),
            unit,
        )

    every, successful = lines("auroc_all"), lines("auroc_successful")
    missed = lines("undetected_success_at_5fpr", 100.0)
    floor = 0.45 if min(_heights([*every, *successful]), default=1.0) >= 0.49 else 0.0
    top = min(100.0, max(1.0, 1.3 * max(_heights(missed), default=0.0)))

    def area(title: str, found: list[Line]) -> Panel:
        return Panel(
            title,
            attack.axis,
            "AUROC" if found is every else "",
            found,
            (floor, 1.01),
            reference=0.5,
            reference_label="no better than guessing",
        )

    return [
        area("AUROC, all attacked images", every),
        area("AUROC, successful attacks only", successful),
        Panel(
            "Fooled and not noticed",
            attack.axis,
            "share of images",
            missed,
            (0.0, top),
            percent=True,
        ),
    ]


def _heights(lines: Sequence[Line]) -> list[float]:
    return [y for line in lines for y in line.y if not math.isnan(y)]


def _in_words(panel: Panel, unit: str) -> str:
    parts = []
    for line in panel.lines:
        known = [(x, y) for x, y in zip(line.x, line.y, strict=True) if not math.isnan(y)]
        if known:
            (x0, y0), (x1, y1) = known[0], known[-1]
            parts.append(
                f"{line.label} from {y0:.3g}{unit} at eps {x0:g} to {y1:.3g}{unit} at eps {x1:g}"
            )
    return "; ".join(parts) + "."
