"""Loss against loss: which differences of a run are more than chance.

Two questions, two units. Within a seed the images are the unit: would these two networks differ on
other images? Over seeds the training is the unit: would the losses differ if both were trained
again? Only the second is about the losses, and it needs several seeds.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from robustloss.analysis.measures import combine, measure
from robustloss.analysis.outcomes import Curve, Outcome, group_by_attack, trace_curves
from robustloss.analysis.subjects import Place, Subject, see_cell, see_outcomes
from robustloss.metrics.bootstrap import draw_resamples
from robustloss.metrics.estimates import Estimate, compare, resample
from robustloss.metrics.intervals import t_interval
from robustloss.metrics.paired_tests import benjamini_hochberg, detectable_by_seeds, paired_t
from robustloss.results.compact.content import Baseline
from robustloss.results.finished_cell import Cell
from robustloss.results.schema import TABLES, WORST_CASE, Row, finite_or_null

LEVEL = 0.05
_PLACE = ("attack", "attack_label", "norm", "eps")
Measured = dict[str, dict[str, Estimate]]  # by loss, then by metric


def comparison_rows(
    cells: Sequence[Cell], resamples: int = 1000, beside: Baseline | None = None
) -> list[Row]:
    """Return a row for every pair of losses, on the clean images and under every attack.

    Metrics: the error, and of the likelihood detector the AUROC over all and over successful
    attacks, the undetected success at 5 % FPR and AUGRC. On the images of one seed errors are
    compared by McNemar's test, the other numbers by resampling the images, the same for both
    losses; where few images carry a difference, by Student's law with as few degrees of freedom.
    Over seeds the differences of equal seeds, which share initial weights and the order of the
    data, are compared by a paired t-test; where they agree in every seed, by the test over images.
    P-values are adjusted over all rows of one unit.

    Args:
        cells: of a run, all of the same test images.
        resamples: of the image bootstrap.
        beside: losses that were computed elsewhere, on the same test images; they come first. They
            are compared with those of the run and not with one another, or twenty of them would
            fill the table. Only seeds of the run are compared, so that all tests of a table have
            the same unit.

    Returns:
        Rows of the table `comparisons`; difference is A − B; `shown` is p_adjusted <= 0.05.
        `minimum_detectable` is the difference that would be shown with power 0.8, before
        adjustment. A number that one side does not have (no attack succeeded) gives no row.

    Raises:
        ValueError: cells of different test images.
    """
    others = beside.cells if beside else ()
    labels = [cell.label for cell in others] + [cell.label for cell in cells]
    labels, known = list(dict.fromkeys(labels)), {cell.label for cell in others}
    on_images: list[Row] = []
    for seed in sorted({cell.seed for cell in cells}):
        here = {cell.label: see_cell(cell) for cell in cells if cell.seed == seed}
        if beside is not None:
            here |= {c.label: see_outcomes(c, beside) for c in beside.cells if c.seed == seed}
        if len(here) < 2:
            continue
        drawn = None
        for place, measured in _measure_places(here):
            present = [label for label in labels if label in measured]
            drawn = drawn or draw_resamples(measured[present[0]]["error"].influence.size, resamples)
            again = {label: resample(own, drawn) for label, own in measured.items()}
            for a, b in itertools.combinations(present, 2):
                if {a, b} <= known:
                    continue
                names = {"unit": "images", "seed": seed, "label_a": a, "label_b": b} | place
                compared = _compare_on_images(measured[a], measured[b], again[a], again[b])
                on_images += [names | row for row in compared]
    same = ("label_a", "label_b", *_PLACE, "metric")
    groups: dict[tuple, list[Row]] = {}
    for row in on_images:
        groups.setdefault(tuple(row[name] for name in same), []).append(row)
    on_seeds: list[Row] = []
    for key, rows in groups.items():
        if len(rows) < 2 or any(row["difference"] is None for row in rows):
            continue  # without the seeds whose median lies beyond, the mean would mislead
        first, second = (np.array([row[name] for row in rows]) for name in ("value_a", "value_b"))
        numbers = {
            "unit": "seeds",
            "seed": None,
            "n": None,
            "n_seeds": len(rows),
            "value_a": float(first.mean()),
            "value_b": float(second.mean()),
        }
        on_seeds.append(
            dict(zip(same, key, strict=True)) | numbers | _over_seeds(first - second, rows)
        )
    return TABLES["comparisons"].arrange(_adjust(on_images) + _adjust(on_seeds))


def _over_seeds(differences: np.ndarray, rows: Sequence[Row]) -> Row:
    """Return the test and the interval of some seeds' differences.

    Differences that agree in every seed have no spread, so that a t-test takes one image more in
    each for certainty. They keep the test and the interval over images of the least certain seed.
    """
    mean, sd, low, high = t_interval(differences)
    if np.ptp(differences) <= 1e-12:  # but for rounding
        least = max(rows, key=lambda row: math.inf if row["p_value"] is None else row["p_value"])
        kept = ("difference", "low", "high", "test", "p_value", "minimum_detectable")
        return {name: least[name] for name in kept}
    return {
        "difference": mean,
        "low": low,
        "high": high,
        "test": "paired t",
        "p_value": finite_or_null(paired_t(differences)),
        "minimum_detectable": finite_or_null(detectable_by_seeds(sd, len(rows))),
    }


def _measure_places(subjects: Mapping[str, Subject]) -> Iterator[tuple[Row, Measured]]:
    """Give the clean pass, each attack at each eps, what combines attacks, and the curves.

    Args:
        subjects: by label, all of one seed. One attacked record is in memory at a time.
    """
    first, clean = next(iter(subjects)), {label: one.clean for label, one in subjects.items()}
    for label, one in subjects.items():
        if not np.array_equal(one.index, subjects[first].index):
            raise ValueError(f"{label} saw other test images than {first}.")
    yield clean[first].place, {k: measure(one, one) for k, one in clean.items()}
    having: dict[Place, list[str]] = {}  # which losses have a place
    for label, one in subjects.items():
        for place in one.attacked:
            having.setdefault(place, []).append(label)
    # Attacks on another score than the likelihood count only where attacks are combined.
    elsewhere = {attack for one in subjects.values() for attack in one.elsewhere}
    kept: dict[str, list[Outcome]] = {label: [] for label in subjects}
    for place, labels in having.items():
        measured = {}
        for label in labels:
            seen = subjects[label].attacked[place]()
            measured[label] = measure(clean[label], seen)
            seen = replace(seen, confidence=None, brier=None)
            kept[label].append(seen if seen.kind == "adaptive" else replace(seen, scores={}))
        if place[1] not in elsewhere:
            yield dict(zip(_PLACE, place, strict=True)), measured
    found: dict[tuple, dict[str, Outcome | Curve]] = {}
    for label, outcomes in kept.items():
        combined: list[Outcome | Curve] = [*combine(clean[label], outcomes)]
        for each in (*combined, *trace_curves(clean[label], outcomes)):
            if (
                each.attack == WORST_CASE["attack"]
                and len(group_by_attack(outcomes, each.norm)) < 2
            ):
                continue  # the curve of the one attack of the norm
            found.setdefault(tuple(each.place.values()), {})[label] = each
    for place, of in found.items():
        if place[1] in elsewhere:
            continue
        measured = {label: measure(clean[label], each) for label, each in of.items()}
        yield dict(zip(_PLACE, place, strict=True)), measured


def _compare_on_images(
    a: Mapping[str, Estimate],
    b: Mapping[str, Estimate],
    resampled_a: Mapping[str, np.ndarray],
    resampled_b: Mapping[str, np.ndarray],
) -> Iterator[Row]:
    """Give a row for each metric that both losses have; the unit is the image."""
    for metric, own in a.items():
        other = b.get(metric)
        if other is None or (own.beyond and other.beyond):
            continue
        found = compare(own, other, resampled_a.get(metric), resampled_b.get(metric))
        yield {
            "metric": metric,
            "n": own.influence.size,
            "n_seeds": 1,
            "value_a": finite_or_null(own.value),
            "value_b": finite_or_null(other.value),
            "difference": finite_or_null(found.difference),
            "low": finite_or_null(found.low),
            "high": finite_or_null(found.high),
            "test": found.test,
            "p_value": finite_or_null(found.p_value),
            "minimum_detectable": finite_or_null(found.minimum_detectable),
        }


def _adjust(rows: list[Row]) -> list[Row]:
    """Return the rows with their p-values adjusted for the number of them."""
    raw = [math.nan if row["p_value"] is None else row["p_value"] for row in rows]
    return [
        row | {"p_adjusted": finite_or_null(p), "shown": bool(p <= LEVEL)}
        for row, p in zip(rows, benjamini_hochberg(raw).tolist(), strict=True)
    ]
