"""Checks of a cell: attacks against each other and themselves, and how its training went."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from robustloss.analysis.checks.catalogue import (
    CHECKS,
    Evidence,
    better_rival,
    flag_above,
    make_flag,
    percent,
)
from robustloss.analysis.outcomes import (
    find_half,
    find_radius,
    find_undefended,
    find_wrong,
    group_by_attack,
    list_budgets,
)
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.notation import eps_text
from robustloss.results.numbers import combined_label
from robustloss.results.schema import ANY_ATTACK, Row
from robustloss.spec.attack_kinds import Kind

# A one-step attack is no yardstick of robustness, and an adaptive one is not after the error.
MANY_STEPS: tuple[Kind, ...] = ("iterative", "minimum_norm", "ensemble")
WHITE_BOX: tuple[Kind, ...] = ("one_step", *MANY_STEPS)
GREY = 0.5  # the pixel that is no farther than this from every other
_ROUNDING = 1e-5  # of a radius in float32


def zero_gradient(evidence: Evidence) -> list[Row]:
    """Flag attacks whose objective has an input gradient of exactly 0 for more than 1 % of images.

    By the attack's own word; where it does not say (adapted attacks, a user's function) by the
    gradient of the cross-entropy in the probe.
    """
    check, cell = "zero_gradient", evidence.cell
    limit = CHECKS[check].threshold
    attacked = [one for one in evidence.outcomes if one.eps > 0]
    flags = [
        make_flag(check, cell, share, one.attack_label, one.eps)
        for one in attacked
        if (share := one.zero_gradient_fraction or 0.0) > limit
    ]
    if evidence.probe and (value := float(evidence.probe["gradient_zero"].mean())) > limit:
        followers = ("one_step", "iterative", "ensemble", "other")
        silent = dict.fromkeys(
            one.attack_label
            for one in attacked
            if one.zero_gradient_fraction is None and one.kind in followers
        )
        flags += [make_flag(check, cell, value, label) for label in silent]
    return flags


def outside_ball_or_box(evidence: Evidence) -> list[Row]:
    """Flag attacks that returned images outside ball or box; the harness brought them back."""
    check = "outside_ball_or_box"
    return [
        make_flag(check, evidence.cell, value, one.attack_label, one.eps)
        for one in evidence.outcomes
        if (value := one.outside_fraction or 0.0) > CHECKS[check].threshold
    ]


def error_falls_with_eps(evidence: Evidence) -> list[Row]:
    """Flag attacks that make fewer images wrong than at a smaller eps, or than no attack at all."""
    check, flags = "error_falls_with_eps", []
    for norm, all_eps in list_budgets(evidence.outcomes).items():
        for label, own in group_by_attack(evidence.outcomes, norm).items():
            for one in (one for one in own if one.eps in all_eps):
                smaller = {"0": evidence.clean.wrong}
                smaller |= {eps_text(less.eps): less.wrong for less in own if less.eps < one.eps}
                if gain := better_rival(one.wrong, smaller, CHECKS[check].threshold):
                    words = {"smaller": gain.rival}
                    flags.append(
                        make_flag(check, evidence.cell, gain.value, label, one.eps, **words)
                    )
    return flags


def noise_beats_attack(evidence: Evidence) -> list[Row]:
    """Flag attacks that make fewer images wrong than noise of their size, which aims at nothing.

    Source: Carlini et al. 2019, "On evaluating adversarial robustness", its list of sanity tests.
    """
    check, flags = "noise_beats_attack", []
    for one in evidence.outcomes:
        rivals = {} if one.noise_wrong is None else {"noise": one.noise_wrong}
        if gain := better_rival(one.wrong, rivals, CHECKS[check].threshold):
            flags.append(make_flag(check, evidence.cell, gain.value, one.attack_label, one.eps))
    return flags


def one_step_beats_many(evidence: Evidence) -> list[Row]:
    """Flag attacks of many steps that a one-step attack beats at the same eps."""
    return _duels(evidence, "one_step_beats_many", ("one_step",), MANY_STEPS)


def black_box_beats_white_box(evidence: Evidence) -> list[Row]:
    """Flag white-box attacks that an attack without gradients beats, if it beats all of them.

    The strongest white-box attack must be beaten; then each that is beaten is flagged. The
    threshold is AutoAttack's.

    Source: check_square_sr of AutoAttack (Croce and Hein 2020), on paired images.
    """
    return _duels(
        evidence, "black_box_beats_white_box", ("black_box",), WHITE_BOX, strongest_first=True
    )


def _duels(
    evidence: Evidence,
    check: str,
    rival_kinds: Sequence[Kind],
    kinds: Sequence[Kind],
    strongest_first: bool = False,
) -> list[Row]:
    """Flags of every recorded attack of some kinds that a rival of other kinds beats."""
    kind = {one.attack_label: one.kind for one in evidence.outcomes}
    limit = CHECKS[check].threshold
    flags = []
    for norm, eps in (
        (n, eps) for n, found in list_budgets(evidence.outcomes).items() for eps in found
    ):
        wrong = find_wrong(evidence.clean, evidence.outcomes, norm, eps)
        rivals = {label: w for label, w in wrong.items() if kind[label] in rival_kinds}
        own = {label: w for label, w in wrong.items() if kind[label] in kinds}
        if not rivals or not own:
            continue
        strongest = max(own.values(), key=lambda w: w.sum())
        if strongest_first and not better_rival(strongest, rivals, limit):
            continue
        recorded = {o.attack_label for o in evidence.outcomes if (o.norm, o.eps) == (norm, eps)}
        for label in (label for label in own if label in recorded):
            if gain := better_rival(own[label], rivals, limit):
                flags.append(
                    make_flag(check, evidence.cell, gain.value, label, eps, rival=gain.rival)
                )
    return flags


def radius_beyond_grey(evidence: Evidence) -> list[Row]:
    """Flag L-inf radii above 0.5 that cannot be right, at eps 0.5.

    The image that is 0.5 in every pixel lies within 0.5 of every image of the box. The model sees
    it as one class, so images of every other class have a radius of at most 0.5.
    """
    check, flags = "radius_beyond_grey", []
    for label, own in group_by_attack(evidence.outcomes, "linf").items():
        if evidence.labels is None or (radius := find_radius(own)) is None:
            continue
        beyond = evidence.labels[~evidence.clean.wrong & (radius > GREY + _ROUNDING)]
        spared = np.bincount(beyond).max(initial=0)  # at most: images of the class of grey
        value = float(beyond.size - spared) / radius.size
        if value > CHECKS[check].threshold:
            flags.append(make_flag(check, evidence.cell, value, label, GREY))
    return flags


def one_step_training_collapsed(evidence: Evidence) -> list[Row]:
    """Flag training against one step if PGD makes far more validation images wrong than that step.

    Source: Wong et al., "Fast is better than free" (ICLR 2020), catastrophic overfitting.
    """
    one = evidence.training.get("validation_one_step_error")
    many = evidence.training.get("validation_robust_error")
    if one is None or many is None:
        return []
    return flag_above("one_step_training_collapsed", evidence, many - one)


def training_without_direction(evidence: Evidence) -> list[Row]:
    """Flag adversarial training whose inner maximisation had no gradient to follow."""
    still = evidence.training.get("zero_gradient_fraction")
    return flag_above("training_without_direction", evidence, still or 0.0)


def detector_too_good(evidence: Evidence) -> list[Row]:
    """Flag a detector that implies a far more robust classifier than the network it stands on.

    Compares, image by image, the robust error with detection at an eps with the error of the
    network alone at half of it, each over all attacks.

    Source: Tramèr, "Detecting adversarial examples is (nearly) as hard as classifying them" (ICML
        2022), who doubts by this 12 of 14 published detectors.
    """
    check, flags = "detector_too_good", []
    clean, outcomes = evidence.clean, evidence.outcomes
    for norm, budgets in list_budgets(outcomes).items():
        for eps, (score, scores) in product(budgets, evidence.validation_scores.items()):
            if (half := find_half(eps, budgets)) is None:
                continue
            threshold = threshold_at_fpr(scores, 0.05)
            undefended = find_undefended(clean, outcomes, norm, eps, score, threshold)
            wrong = np.any([clean.wrong, *find_wrong(clean, outcomes, norm, half).values()], axis=0)
            if gain := better_rival(undefended, {"alone": wrong}, CHECKS[check].threshold):
                words = {"at": eps_text(eps), "implied": percent(float(undefended.mean())),
                         "found": percent(float(wrong.mean()))}  # fmt: skip
                label = combined_label(ANY_ATTACK["attack_label"], norm)
                flags.append(make_flag(check, evidence.cell, gain.value, label, eps, **words))
    return flags


RECORD_CHECKS: tuple[Callable[[Evidence], list[Row]], ...] = (
    zero_gradient,
    outside_ball_or_box,
    error_falls_with_eps,
    noise_beats_attack,
    one_step_beats_many,
    black_box_beats_white_box,
    detector_too_good,
    radius_beyond_grey,
    one_step_training_collapsed,
    training_without_direction,
)
