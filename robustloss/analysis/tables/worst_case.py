"""The per-image worst case over attacks, and the error curve of each attack in three numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustloss.analysis.outcomes import (
    Outcome,
    error_columns,
    find_radius,
    find_wrong,
    group_by_attack,
    list_budgets,
)
from robustloss.results.schema import TABLES, WORST_CASE, Row, cell_place, finite_or_null


def worst_case_rows(
    cell: Mapping[str, Any], clean: Outcome, outcomes: Sequence[Outcome]
) -> list[Row]:
    """Return the error where each image meets the attack that suits it best.

    An image counts if it is wrong under any attack of the norm that has a record at this eps or
    a radius within it, or without an attack. Never the minimum over mean errors: another image
    may fall to another attack.

    Args:
        cell: "loss", "label" and "seed".
        clean: the clean pass.
        outcomes: every attack at every eps, of the same images in the same order.

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
            rows.append(row | error_columns(np.any([clean.wrong, *wrong.values()], axis=0)))
    return rows


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
    rows = []
    for norm, all_eps in list_budgets(outcomes).items():
        eps_max = max(all_eps, default=0.0)
        attacks = group_by_attack(outcomes, norm)
        for label, own in attacks.items():
            radius = find_radius(own)
            if radius is not None:
                numbers = radius_numbers(np.where(clean.wrong, 0.0, radius), eps_max)
            else:
                wrong_at = {one.eps: one.wrong for one in own if one.eps > 0}
                numbers = _fixed_eps_numbers(clean.wrong, wrong_at, eps_max)
            name = {"attack": own[0].attack, "attack_label": label}
            rows.append(name | numbers | {"norm": norm, "eps_max": eps_max})
        if any(find_radius(own) is not None for own in attacks.values()):
            # The smallest perturbation of any attack: a radius, or the eps of a record.
            smallest = np.where(clean.wrong, 0.0, np.inf)
            for own in attacks.values():
                if (radius := find_radius(own)) is not None:
                    smallest = np.minimum(smallest, radius)
                for one in own:
                    smallest = np.minimum(smallest, np.where(one.wrong, one.eps, np.inf))
            numbers = radius_numbers(smallest, eps_max)
        else:
            wrong_at = {
                eps: np.any([clean.wrong, *find_wrong(clean, outcomes, norm, eps).values()], axis=0)
                for eps in all_eps
            }
            numbers = _fixed_eps_numbers(clean.wrong, wrong_at, eps_max)
        rows.append(WORST_CASE | numbers | {"norm": norm, "eps_max": eps_max})
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
    half = float(eps[0]) if errors[0] >= 0.5 else None
    for i in range(1, len(eps)):
        if half is None and errors[i] >= 0.5:  # the curve crosses 1/2 before eps[i]
            share = (0.5 - errors[i - 1]) / (errors[i] - errors[i - 1])
            half = float(eps[i - 1] + share * (eps[i] - eps[i - 1]))
    return {
        "median_radius": None,
        "eps_at_50_error": half,
        "area_under_error_curve": area,
    }


def _fixed_eps_numbers(
    clean_wrong: np.ndarray, wrong_at: Mapping[float, np.ndarray], eps_max: float
) -> Row:
    """Return the numbers of a curve from the images (N,) that are wrong at each eps, rising."""
    wrongs = [clean_wrong, *wrong_at.values()]
    numbers = curve_numbers([0.0, *wrong_at], [float(wrong.mean()) for wrong in wrongs], eps_max)
    return numbers | {"n_found": int(np.any(wrongs, axis=0).sum())}
