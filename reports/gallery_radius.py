"""Error against eps where a minimum-norm attack gives the whole curve."""

from collections.abc import Mapping

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.numbers import AttackInfo, Numbers
from robustloss.reports.radius_curves import (
    POINTS,
    RadiusCurve,
    RadiusPanel,
    curve_end,
    draw_radius_curves,
    error_curve,
)
from robustloss.reports.style import CROWD, Look
from robustloss.reports.tables_radius import minimum_norm
from robustloss.reports.views import Shown


def add_radius_curves(
    album: Album, numbers: Numbers, shown: Shown, looks: Mapping[str, Look]
) -> None:
    """One panel for each attack that looks for the smallest change."""
    grid = [_panel(numbers, shown, attack) for attack in numbers.attacks if attack.strengths
            and minimum_norm(numbers, attack)]  # fmt: skip
    if not any(panel.curves for panel in grid):
        return
    album.add(
        "error-vs-radius",
        draw_radius_curves(grid, looks),
        _rows(grid),
        title="Error against the smallest change that fools",
        caption="A minimum-norm attack gives every image its radius, so its error is known at "
        "every eps: the curve is the share of images with a radius of at most eps, mean over "
        "seeds; clean mistakes have radius 0. The curve farther to the right belongs to the loss "
        f"that is harder to fool. The median radius is read off where a curve crosses 50 %."
        f"{_worst_words(grid)} Each axis ends where the slowest curve does.",
        alt=f"Rising curves of error against eps, one line per loss. {_in_words(grid)}",
    )


def _worst_words(grid: list[RadiusPanel]) -> str:
    if max(len(panel.curves) for panel in grid) > CROWD:
        return " The worst case over all attacks is in the tables."
    return (
        " Open markers: the worst case over all attacks of the norm, with its 95 % interval; one "
        "above the curve says that another attack found more."
    )


def _panel(numbers: Numbers, shown: Shown, attack: AttackInfo) -> RadiusPanel:
    radii = {label: shown.radii(label, attack) for label in numbers.labels}
    known = {label: by_seed for label, by_seed in radii.items() if by_seed}
    end = curve_end(list(known.values()))
    x = np.linspace(0, end, POINTS)
    curves = [
        RadiusCurve(label, x, error_curve(by_seed, x), _median(numbers, label, attack),
                    _worst(numbers, label, attack))
        for label, by_seed in known.items()
    ]  # fmt: skip
    return RadiusPanel(attack.label, attack.axis, curves, end)


def _median(numbers: Numbers, label: str, attack: AttackInfo) -> float | None:
    found = numbers.get(label, attack.label, None, "median_radius")
    return found.mean if found else None


def _worst(
    numbers: Numbers, label: str, attack: AttackInfo
) -> list[tuple[float, float, float, float]]:
    out = []
    for case in numbers.worst_cases:
        for eps in case.strengths if case.norm == attack.norm else ():
            if found := numbers.get(label, case.label, eps, "error"):
                low = found.mean if found.low is None else found.low
                high = found.mean if found.high is None else found.high
                out.append((eps, 100 * found.mean, 100 * low, 100 * high))
    return out


def _rows(grid: list[RadiusPanel]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for panel in grid:
        for curve in panel.curves:
            place = {"panel": panel.title, "label": curve.label}
            rows += [
                place | {"kind": "curve", "eps": float(x), "error_percent": float(y)}
                for x, y in zip(curve.x, curve.y, strict=True)
            ]
            rows += [
                place | {"kind": "worst case", "eps": eps, "error_percent": error}
                for eps, error, _, _ in curve.worst
            ]
    return rows


def _in_words(grid: list[RadiusPanel]) -> str:
    parts = []
    for panel in grid:
        medians = [f"{c.label} {c.median:.3g}" for c in panel.curves if c.median is not None]
        parts.append(f"{panel.title}, median radius: {', '.join(medians) or 'none'}")
    return "; ".join(parts) + "."
