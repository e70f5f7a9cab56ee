"""A trained loss as it is compared with others: what every attack did to each test image.

It comes from a cell of a run, whose records are loaded one at a time, or from the outcomes that a
compact file keeps. What compares losses sees no difference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from robustloss.analysis.detection.scores import class_log_likelihood
from robustloss.analysis.outcomes import Outcome, reduce_record
from robustloss.metrics import calibration
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.results.compact.content import Baseline, CellOutcomes, PassOutcome
from robustloss.results.finished_cell import Cell
from robustloss.results.records import Record, validation_record
from robustloss.spec.detection import LIKELIHOOD

Place = tuple[str, str, str | None, float]
"""Attack, label of the attack, norm, eps > 0."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One loss and one seed.

    Attributes:
        index: (N,) positions of the test images in the original file.
        clean: what happened to the clean images.
        attacked: what gives the outcome of each attack at each eps > 0.
        elsewhere: labels of the attacks that aim at another score than the likelihood.
    """

    index: np.ndarray
    clean: Outcome
    attacked: Mapping[Place, Callable[[], Outcome]]
    elsewhere: frozenset[str]


def see_cell(cell: Cell) -> Subject:
    """Return a finished cell as it is compared; attacked records are loaded when asked for.

    Args:
        cell: of a run.
    """
    validation = class_log_likelihood(validation_record(cell.reference()))
    threshold, record = threshold_at_fpr(validation, 0.05), cell.record()
    clean, *entries = sorted(
        (e for e in cell.files["records"] if e["attack"] == "none" or e["eps"] > 0),
        key=lambda entry: entry["attack"] != "none",
    )

    def load(entry: Mapping[str, Any]) -> Outcome:
        return _observe(entry, cell.record(entry["attack_label"], entry["eps"]), threshold)

    return Subject(
        index=record.index,
        clean=_observe(clean, record, threshold),
        attacked={
            (e["attack"], e["attack_label"], e["norm"], float(e["eps"])): partial(load, e)
            for e in entries
        },
        elsewhere=frozenset(e["attack_label"] for e in entries if "score" in e),
    )


def _observe(entry: Mapping[str, Any], record: Record, threshold: float) -> Outcome:
    """Return what measures need of a record; scores below the threshold are rejected."""
    likelihood = class_log_likelihood(record)
    return replace(
        reduce_record(entry, record, {LIKELIHOOD: likelihood}),
        accepted=likelihood >= threshold,
        confidence=calibration.confidence_of(record.logits),
        brier=calibration.brier_scores(record.logits, record.labels),
    )


def see_outcomes(cell: CellOutcomes, beside: Baseline) -> Subject:
    """Return a cell of a compact file as it is compared; it has no confidences.

    Args:
        cell: of the file.
        beside: the file.
    """
    scored = [one for one in cell.passes[1:] if one.scores is not None]
    return Subject(
        index=beside.index,
        clean=as_outcome(cell.clean),
        attacked={
            (one.attack, one.attack_label, one.norm, one.eps): partial(
                as_outcome, one, cell.radii.get(one.attack_label)
            )
            for one in scored
        },
        elsewhere=frozenset(
            attack["label"]
            for attack in (beside.provenance.get("spec") or {}).get("attacks") or ()
            if (attack.get("params") or {}).get("score", LIKELIHOOD) != LIKELIHOOD
        ),
    )


def as_outcome(one: PassOutcome, radius: np.ndarray | None = None) -> Outcome:
    """Return a pass of a compact file as measures see it.

    Args:
        one: the pass.
        radius: (N,) what the attack found, of a minimum-norm attack.
    """
    return Outcome(
        **one.place,
        wrong=one.wrong,
        radius=radius,
        scores={} if one.scores is None else {LIKELIHOOD: one.scores.astype(np.float64)},
        accepted=one.accepted,
    )
