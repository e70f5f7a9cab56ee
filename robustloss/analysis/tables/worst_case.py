"""The per-image worst case over attacks, and the error curve of each attack in three numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustloss.analysis.detection.compute import ROW_SCORE
from robustloss.analysis.outcomes import (
    Outcome,
    error_columns,
    find_undefended,
    find_unnoticed,
    find_wrong,
    group_by_attack,
    list_budgets,
    trace_curves,
)
from robustloss.analysis.tables.optimality import NAMES, optimality_columns
from robustloss.metrics.estimates import crossing_interval, find_crossing
from robustloss.metrics.intervals import median_interval, wilson
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.results.schema import TABLES, Row, cell_place, finite_or_null


def worst_case_rows(
    cell: Mapping[str, Any],
    clean: Outcome,
    outcomes: Sequence[Outcome],
    validation_scores: np.ndarray | None = None,
) -> list[Row]:
    """Return the error where each image meets the attack that suits it best.

    An image counts if it is wrong under any attack of the norm that has a record at this eps or
    a radius within it, or without an attack. Never the minimum over mean errors: another image
    may fall to another attack.

    Args:
        cell: "loss", "label" and "seed".
        clean: the clean pass.
        outcomes: every attack at every eps, of the same images in the same order.
        validation_scores: (V,) `ROW_SCORE` of clean validation images, which sets the thresholds;
            the outcomes hold it too. Without it nothing is said of what is noticed.

    Returns:
        One row per norm and eps > 0.

    Source: mean over x of max over attacks (Carlini et al. 2019, "On evaluating adversarial
        robustness", section 4).
    """
    rows = []
    for norm, all_eps in list_budgets(outcomes).items():
        for eps in all_eps:
            wrong = find_wrong(clean, outcomes, norm, eps)
            strongest = max(wrong, key=lambda label: wrong[label].sum())  # the first of equals
            row = cell_place(cell) | {
                "norm": norm,
                "eps": eps,
                "attacks": list(wrong),
                "strongest": strongest,
                "strongest_error": float(wrong[strongest].mean()),
            }
            row |= error_columns(np.any([clean.wrong, *wrong.values()], axis=0))
            if validation_scores is not None:
                row |= _unnoticed_columns(clean, outcomes, norm, eps, validation_scores)
            rows.append(row)
    return rows


def _unnoticed_columns(
    clean: Outcome,
    outcomes: Sequence[Outcome],
    norm: str,
    eps: float,
    validation_scores: np.ndarray,
) -> Row:
    """Return who is fooled and unnoticed by any attack, and the robust error with detection."""
    found: Row = {}
    right = ~clean.wrong
    for percent in (1, 5):
        threshold = threshold_at_fpr(validation_scores, percent / 100)
        unnoticed = find_unnoticed(outcomes, norm, eps, ROW_SCORE, threshold)
        undefended = find_undefended(clean, outcomes, norm, eps, ROW_SCORE, threshold)
        for name, hits in (
            (f"undetected_success_at_{percent}fpr", unnoticed[right]),
            (f"robust_error_with_detection_at_{percent}fpr", undefended),
        ):
            low, high = wilson(int(hits.sum()), hits.size) if hits.size else (None, None)
            found |= {name: float(hits.mean()) if hits.size else None}
            found |= {f"{name}_low": low, f"{name}_high": high}
    return found


def radii_rows(cell: Mapping[str, Any], clean: Outcome, outcomes: Sequence[Outcome]) -> list[Row]:
    """Return each attack's error curve in numbers: radius, eps where half the images fall, area.

    A minimum-norm attack gives every image its radius, so its curve is exact at every eps. The
    curve of an attack with fixed eps is known at those eps only and straight between them. The
    worst case of a norm with a minimum-norm attack is exact too: each image has the smallest
    perturbation that any attack found for it, a radius or the eps of a record. It uses no
    straight lines, so an attack with few and large eps may seem to do better than it. Images that
    are wrong without an attack have radius 0.

    Args:
        cell: "loss", "label" and "seed".
        clean: the clean pass.
        outcomes: every attack at every eps, of the same images in the same order.

    Returns:
        One row per attack and one for the worst case of each norm. `eps_max`, where the area
        ends, is the norm's largest eps.
    """
    budgets, rows = list_budgets(outcomes), []
    compared = {
        norm: optimality_columns(clean.wrong, group_by_attack(outcomes, norm)) for norm in budgets
    }
    for curve in trace_curves(clean, outcomes):
        eps_max = max(budgets[curve.norm], default=0.0)
        median = math.nan, math.nan
        if curve.radius is not None:
            numbers = radius_numbers(curve.radius, eps_max)
            half = median = median_interval(curve.radius)
        else:
            errors = curve.wrong.mean(axis=1).tolist()
            numbers = curve_numbers(curve.eps.tolist(), errors, eps_max)
            numbers["n_found"] = int(curve.wrong.any(axis=0).sum())
            half = crossing_interval(curve.eps, curve.wrong)
        for metric, ends in (("median_radius", median), ("eps_at_50_error", half)):
            low, high = map(finite_or_null, ends)
            numbers |= {f"{metric}_low": low, f"{metric}_high": high}
        name = {key: getattr(curve, key) for key in ("attack", "attack_label", "norm")}
        against = compared[curve.norm].get(curve.attack_label, dict.fromkeys(NAMES))
        rows.append(name | numbers | {"eps_max": eps_max} | against)
    place = cell_place(cell) | {"n": clean.wrong.size}
    return TABLES["radii"].arrange(place | row for row in rows)


def radius_numbers(radius: np.ndarray, eps_max: float) -> Row:
    """Return the exact error curve of known radii: error(eps) is the share of radii <= eps.

    Args:
        radius: (N,) each image's smallest known perturbation, inf where there is none.
        eps_max: where the area ends, >= 0.

    Returns:
        `n_found`; `median_radius`, null when half the radii are inf; `eps_at_50_error`, the
        smallest eps with an error of 1/2 or more, null when there is none; and
        `area_under_error_curve`, the mean error over [0, eps_max] in [0, 1], null at eps_max 0.
    """
    radius = np.sort(radius.astype(np.float64))
    caught = np.maximum(eps_max - radius, 0.0)  # length of [0, eps_max] on which an image is wrong
    return {
        "n_found": int(np.isfinite(radius).sum()),
        "median_radius": finite_or_null(float(np.median(radius))),
        "eps_at_50_error": finite_or_null(float(radius[(radius.size - 1) // 2])),
        "area_under_error_curve": float(caught.mean() / eps_max) if eps_max > 0 else None,
    }


def curve_numbers(eps: Sequence[float], errors: Sequence[float], eps_max: float) -> Row:
    """Return an error curve known at some eps only, straight between them, level after the last.

    Args:
        eps: increasing, from 0.
        errors: as fractions, the first without an attack.
        eps_max: where the area ends, >= the last eps.

    Returns:
        As `radius_numbers`, but for `n_found`; `median_radius` is null: no image has a radius.
    """
    area = None
    if eps_max > 0:
        widths = np.diff([*eps, eps_max])
        heights = np.array([*errors, errors[-1]])
        area = float(np.sum(widths * (heights[:-1] + heights[1:]) / 2) / eps_max)
    half = float(find_crossing(np.asarray(eps), np.asarray(errors)))
    return {
        "median_radius": None,
        "eps_at_50_error": finite_or_null(half),
        "area_under_error_curve": area,
    }
