"""Checks of a cell: attacks against each other and themselves, and how its training went."""

from collections.abc import Callable, Sequence

from robustloss.analysis.checks.catalogue import CHECKS, Evidence, better_rival, flag
from robustloss.analysis.outcomes import budgets, by_attack, wrong_within
from robustloss.results.schema import Row
from robustloss.spec.attack_kinds import Kind, attack_kind

# A one-step attack is no yardstick of robustness, and an adaptive one is not after the error.
MANY_STEPS: tuple[Kind, ...] = ("iterative", "minimum_norm", "ensemble")
WHITE_BOX: tuple[Kind, ...] = ("one_step", *MANY_STEPS)


def zero_gradient(evidence: Evidence) -> list[Row]:
    """The objective's input gradient is exactly 0 for more than 1 % of the images.

    By the attack's own word; where it does not tell (adapted attacks, a user's function) by the
    gradient of the cross-entropy in the probe.
    """
    limit = CHECKS["zero_gradient"].threshold
    flags = [
        flag("zero_gradient", evidence.cell, value, row["attack_label"], row["eps"])
        for row in evidence.rows
        if (value := row["zero_gradient_fraction"]) is not None and value > limit and row["eps"] > 0
    ]
    if evidence.probe and (value := float(evidence.probe["gradient_zero"].mean())) > limit:
        silent = {
            row["attack_label"]: row["attack"]
            for row in evidence.rows
            if row["zero_gradient_fraction"] is None and row["eps"] > 0
        }
        followers = ("one_step", "iterative", "ensemble", "other")
        flags += [
            flag("zero_gradient", evidence.cell, value, label)
            for label, attack in silent.items()
            if attack_kind(attack) in followers
        ]
    return flags


def outside_ball_or_box(evidence: Evidence) -> list[Row]:
    """An attack returned images outside ball or box; the harness brought them back."""
    return [
        flag("outside_ball_or_box", evidence.cell, value, row["attack_label"], row["eps"])
        for row in evidence.rows
        if (value := row["outside_fraction"] or 0.0) > CHECKS["outside_ball_or_box"].threshold
    ]


def error_falls_with_eps(evidence: Evidence) -> list[Row]:
    """An attack makes fewer images wrong than at a smaller eps, or than no attack at all."""
    flags = []
    for norm, all_eps in budgets(evidence.outcomes).items():
        for label, own in by_attack(evidence.outcomes, norm).items():
            for one in (one for one in own if one.eps in all_eps):
                smaller = {"0": evidence.clean.wrong}
                smaller |= {f"{less.eps:g}": less.wrong for less in own if less.eps < one.eps}
                gain = better_rival(one.wrong, smaller, CHECKS["error_falls_with_eps"].threshold)
                if gain:
                    flags.append(
                        flag(
                            "error_falls_with_eps",
                            evidence.cell,
                            gain.value,
                            label,
                            one.eps,
                            smaller=gain.rival,
                        )
                    )
    return flags


def one_step_beats_many(evidence: Evidence) -> list[Row]:
    """A one-step attack makes more images wrong than one of many steps at the same eps."""
    return _duels(evidence, "one_step_beats_many", ("one_step",), MANY_STEPS)


def black_box_beats_white_box(evidence: Evidence) -> list[Row]:
    """An attack without gradients makes more images wrong than every white-box attack.

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
    for norm, eps in ((n, eps) for n, found in budgets(evidence.outcomes).items() for eps in found):
        wrong = wrong_within(evidence.clean, evidence.outcomes, norm, eps)
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
                flags.append(flag(check, evidence.cell, gain.value, label, eps, rival=gain.rival))
    return flags


def one_step_training_collapsed(evidence: Evidence) -> list[Row]:
    """PGD makes far more validation images wrong than the one step that was trained against.

    Source: Wong et al., "Fast is better than free" (ICLR 2020), catastrophic overfitting.
    """
    one = evidence.training.get("validation_one_step_error")
    many = evidence.training.get("validation_robust_error")
    if one is None or many is None:
        return []
    return _of_training(evidence, "one_step_training_collapsed", many - one)


def training_without_direction(evidence: Evidence) -> list[Row]:
    """The inner maximisation of adversarial training had no gradient to follow."""
    still = evidence.training.get("zero_gradient_fraction")
    return _of_training(evidence, "training_without_direction", still or 0.0)


def _of_training(evidence: Evidence, check: str, value: float) -> list[Row]:
    return [flag(check, evidence.cell, value)] if value > CHECKS[check].threshold else []


RECORD_CHECKS: tuple[Callable[[Evidence], list[Row]], ...] = (
    zero_gradient,
    outside_ball_or_box,
    error_falls_with_eps,
    one_step_beats_many,
    black_box_beats_white_box,
    one_step_training_collapsed,
    training_without_direction,
)
