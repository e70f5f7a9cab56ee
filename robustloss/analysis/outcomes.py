"""What several attacks on the same images did, side by side: right or wrong, radius, scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustloss.metrics.intervals import wilson
from robustloss.results.records import Record
from robustloss.results.schema import WORST_CASE, Row, aims_at_label
from robustloss.spec.attack_kinds import Kind, attack_kind
from robustloss.spec.detection import LIKELIHOOD


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is kept of one record, so that all attacks of a cell fit in memory at once.

    Attributes:
        attack: name of the attack; "none" for the clean pass.
        attack_label: its name in tables.
        norm: of eps and radius; None for the clean pass.
        eps: budget.
        wrong: (N,) bool, the attacked image is classified wrongly.
        radius: (N,) smallest perturbation found, of minimum-norm attacks; inf where none.
        scores: (N,) float64 each, by name of the score.
        zero_gradient_fraction: share of the images whose first gradient is exactly 0; None where
            the attack does not say.
        outside_fraction: share of the images that the attack returned outside ball or box; None
            where it was not looked at.
        accepted: (N,) bool, the likelihood reaches the threshold that rejects 5 % of the clean
            validation images; None where it was not looked at.
        confidence: (N,) posterior of the predicted class; None likewise.
        brier: (N,) Brier score of each image; None likewise.
        aim: the score that the attack deceives; None where it knows no detector.
        noise_wrong: (N,) bool, the image under noise of the attack's size is classified wrongly;
            None without the control.
    """

    attack: str
    attack_label: str
    norm: str | None
    eps: float
    wrong: np.ndarray
    radius: np.ndarray | None
    scores: Mapping[str, np.ndarray]
    zero_gradient_fraction: float | None = None
    outside_fraction: float | None = None
    accepted: np.ndarray | None = None
    confidence: np.ndarray | None = None
    brier: np.ndarray | None = None
    aim: str | None = None
    noise_wrong: np.ndarray | None = None

    @property
    def kind(self) -> Kind:
        """Kind of the attack, by its name."""
        return attack_kind(self.attack)

    @property
    def place(self) -> Row:
        """The columns that name it in a table."""
        return {name: getattr(self, name) for name in ("attack", "attack_label", "norm", "eps")}


def reduce_record(
    entry: Mapping[str, Any],
    record: Record,
    scores: Mapping[str, np.ndarray],
    noise_wrong: np.ndarray | None = None,
) -> Outcome:
    """Return what is kept of a record.

    Args:
        entry: "attack", "attack_label", "norm" and "eps", as in the list of cell.json; "score" of
            an attack that aims at another than the likelihood.
        record: with finite numbers.
        scores: (N,) of the record, by name, to keep.
        noise_wrong: see `Outcome`.
    """
    return Outcome(
        attack=entry["attack"],
        attack_label=entry["attack_label"],
        norm=entry["norm"],
        eps=float(entry["eps"]),
        wrong=~record.correct,
        radius=record.radius,
        scores=dict(scores),
        zero_gradient_fraction=flagged_share(record.zero_gradient),
        outside_fraction=flagged_share(record.outside),
        aim=entry.get("score", LIKELIHOOD if attack_kind(entry["attack"]) == "adaptive" else None),
        noise_wrong=noise_wrong,
    )


def flagged_share(flags: np.ndarray | None) -> float | None:
    """Return the share of images (N,) that are flagged, or None without flags."""
    return None if flags is None else float(flags.mean())


def error_columns(wrong: np.ndarray) -> Row:
    """Return the columns n, error, error_low and error_high from which images (N,) are wrong."""
    count = int(wrong.sum())
    low, high = wilson(count, wrong.size)
    return {"n": wrong.size, "error": count / wrong.size, "error_low": low, "error_high": high}


def group_by_attack(outcomes: Sequence[Outcome], norm: str | None) -> dict[str, list[Outcome]]:
    """Return the outcomes of a norm by attack label, those of each attack sorted by eps.

    Args:
        outcomes: of any attacks; the labels keep their order. Those that do not aim at the label
            are left out.
        norm: of eps.
    """
    found: dict[str, list[Outcome]] = {}
    for one in outcomes:
        if one.norm == norm and aims_at_label(one.attack):
            found.setdefault(one.attack_label, []).append(one)
    return {label: sorted(own, key=lambda one: one.eps) for label, own in found.items()}


def find_radius(outcomes: Sequence[Outcome]) -> np.ndarray | None:
    """Return the radii (N,) of one attack, the same in all its records; None where it has none."""
    return next((one.radius for one in outcomes if one.radius is not None), None)


def list_budgets(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Return the eps > 0 of every norm that has an attack on the label, sorted; maybe none."""
    own = [one for one in outcomes if aims_at_label(one.attack)]
    norms = sorted({one.norm for one in own if one.norm is not None})
    return {
        norm: sorted({one.eps for one in own if one.norm == norm and one.eps > 0}) for norm in norms
    }


@dataclass(frozen=True, eq=False)
class Curve:
    """The error of an attack, or of the worst case of a norm, against eps, image by image.

    Attributes:
        attack: name of the attack; "worst_case".
        attack_label: its name in tables.
        norm: of eps.
        eps: (E,) float64, rising from 0: where images were attacked.
        wrong: (E,N) bool, the images that are wrong at each; those without an attack first.
        radius: (N,) each image's smallest known perturbation, 0 where it is wrong without one, inf
            where none is known; None where no minimum-norm attack took part.
    """

    attack: str
    attack_label: str
    norm: str
    eps: np.ndarray
    wrong: np.ndarray
    radius: np.ndarray | None

    @property
    def place(self) -> Row:
        """The columns that name it in a table; the eps of a whole curve is null."""
        named = {name: getattr(self, name) for name in ("attack", "attack_label", "norm")}
        return named | {"eps": None}


def trace_curves(clean: Outcome, outcomes: Sequence[Outcome]) -> list[Curve]:
    """Return the curve of each attack, then that of the worst case, norm by norm.

    The worst case of a norm with a minimum-norm attack is exact: each image has the smallest
    perturbation that any attack found for it, a radius or the eps of a record.

    Args:
        clean: the clean pass.
        outcomes: every attack at every eps, of the same images in the same order.
    """
    curves = []
    for norm, all_eps in list_budgets(outcomes).items():
        smallest, known = np.where(clean.wrong, 0.0, np.inf), False
        for label, own in group_by_attack(outcomes, norm).items():
            attacked = {one.eps: one.wrong for one in own if one.eps > 0}
            eps, wrong = np.array([0.0, *attacked]), np.stack([clean.wrong, *attacked.values()])
            if (radius := find_radius(own)) is not None:
                radius, known = np.where(clean.wrong, 0.0, radius), True
                smallest = np.minimum(smallest, radius)
            for one in own:
                smallest = np.minimum(smallest, np.where(one.wrong, one.eps, np.inf))
            curves.append(Curve(own[0].attack, label, norm, eps, wrong, radius))
        worst = [
            np.any([clean.wrong, *find_wrong(clean, outcomes, norm, eps).values()], axis=0)
            for eps in all_eps
        ]
        curves.append(
            Curve(
                attack=WORST_CASE["attack"],
                attack_label=WORST_CASE["attack_label"],
                norm=norm,
                eps=np.array([0.0, *all_eps]),
                wrong=np.stack([clean.wrong, *worst]),
                radius=smallest if known else None,
            )
        )
    return curves


def find_wrong(
    clean: Outcome, outcomes: Sequence[Outcome], norm: str | None, eps: float
) -> dict[str, np.ndarray]:
    """Return which images each attack of a norm makes wrong within a budget.

    Args:
        clean: the clean pass; its mistakes are within every budget of a minimum-norm attack.
        outcomes: every attack at every eps.
        norm: of the budget.
        eps: the budget, > 0.

    Returns:
        (N,) bool by attack label: its record at this eps, or else radius <= eps. An attack with
        neither is left out.
    """
    found = {}
    for label, own in group_by_attack(outcomes, norm).items():
        recorded = [one.wrong for one in own if one.eps == eps]
        radius = find_radius(own)
        if recorded:
            found[label] = recorded[0]
        elif radius is not None:
            # a radius is a float32, and so is the eps that the attack's images are held to
            found[label] = clean.wrong | (radius <= radius.dtype.type(eps))
    return found


def find_unnoticed(
    outcomes: Sequence[Outcome], norm: str, eps: float, score: str, threshold: float
) -> np.ndarray:
    """Return the images (N,) of which some attack's copy at an eps is wrong and accepted.

    An attack without a record at this eps made no copy for it whose score is known.

    Args:
        outcomes: every attack at every eps, with the score; at least one has this norm and eps.
        norm: of the eps.
        eps: the budget.
        score: by which the detector judges.
        threshold: accepted is what scores at it or above.
    """
    here = [one for one in outcomes if (one.norm, one.eps) == (norm, eps)]
    return np.any([one.wrong & (one.scores[score] >= threshold) for one in here], axis=0)


def find_undefended(
    clean: Outcome,
    outcomes: Sequence[Outcome],
    norm: str,
    eps: float,
    score: str,
    threshold: float,
) -> np.ndarray:
    """Return the images (N,) that count in the robust error with detection.

    An image counts if it is wrong or rejected as it is, or if some attack's copy within the eps,
    made for this or for a smaller one, is wrong and accepted. If that holds for a share of the
    images under every possible attack, there is a classifier without rejection whose robust error
    at half the eps is no larger: it gives an image the class of any accepted image within half the
    eps. Around an image that does not count, what is accepted within the eps has the right class,
    and the image itself is accepted. The search takes unlimited time.

    Args:
        clean: the clean pass, with the score.
        outcomes: as in `find_unnoticed`.
        norm: likewise.
        eps: likewise.
        score: likewise.
        threshold: likewise.

    Source: Tramèr, "Detecting adversarial examples is (nearly) as hard as classifying them" (ICML
        2022, arXiv:2107.11630).
    """
    within = sorted({one.eps for one in outcomes if one.norm == norm and 0 < one.eps <= eps})
    passed = [find_unnoticed(outcomes, norm, each, score, threshold) for each in within]
    return np.any([clean.wrong, clean.scores[score] < threshold, *passed], axis=0)


def find_half(eps: float, budgets: Sequence[float]) -> float | None:
    """Return the budget that is half of another one, but for rounding; None where there is none."""
    return next((each for each in budgets if math.isclose(each, eps / 2, rel_tol=1e-9)), None)
