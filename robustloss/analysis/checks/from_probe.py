"""Checks of the probe of a cell: what a few images tell about the model as a target.

The probe holds, for M images and T temperatures: labels (M,), eps (), logits and logits_again
(M,K) of two identical calls; gradient_zero and gradient_not_finite (M,) of the cross-entropy at
the clean image; wrong_cross_entropy, wrong_margin and wrong_rescaled (T,M) after the same short
PGD within eps, wrong_unbounded (M,) after PGD at eps 1, all bool; temperatures (T,); and for each
iterative attack trace_SLUG (S,M), the margin max over j != y of z_j - z_y after each step, with
trace_SLUG_eps (). Where a gradient is not finite nothing was tried: the arrays from wrong_ on are
absent, and their checks are not made. `unit_tests` has the arrays of attacks that prove themselves.
Of attacks that see the mean of several calls (eot) there are eot_SLUG (M,), the cosine between two
gradients of such means, and eot_SLUG_calls ().
A model whose code is not ours also has logits_halves (M,K),
of the same images shown one half after the other.
"""

from collections.abc import Callable, Mapping

import numpy as np

from robustloss.analysis.checks.catalogue import (
    CHECKS,
    Evidence,
    better_rival,
    flag_above,
    make_flag,
    percent,
)
from robustloss.analysis.checks.unit_tests import unit_test_failed
from robustloss.notation import eps_text
from robustloss.results.schema import Row
from robustloss.spec.text import identifier

# Their steps add up to eps, so they rise to the end by design, however many there are.
_JUST_REACHING = ("mifgsm",)
NAMES = ("labels", "eps", "logits", "logits_again", "gradient_zero", "gradient_not_finite")
# All or none: a gradient that is not finite ends the trials.
TRIALS = (
    "wrong_cross_entropy",
    "wrong_margin",
    "wrong_unbounded",
    "temperatures",
    "wrong_rescaled",
)


def trace_name(attack_label: str) -> str:
    """Return the name of the array that holds the trace of an attack: its slug as an identifier."""
    return f"trace_{identifier(attack_label)}"


def averaged_name(attack_label: str) -> str:
    """Return the name of the array of an attack that sees the mean of several calls (eot)."""
    return f"eot_{identifier(attack_label)}"


def check_probe(probe: Mapping[str, np.ndarray]) -> None:
    """Refuse a probe that lacks an array.

    Raises:
        ValueError: naming it.
    """
    wanted = NAMES if probe.keys().isdisjoint(TRIALS) else (*NAMES, *TRIALS)
    if missing := [name for name in wanted if name not in probe]:
        raise ValueError(f"probe has no {missing[0]!r}; it holds {sorted(probe)}.")


def not_finite_gradient(evidence: Evidence) -> list[Row]:
    """Flag a gradient of the cross-entropy that is NaN or infinite for some image."""
    value = float(evidence.probe["gradient_not_finite"].mean())
    return flag_above("not_finite_gradient", evidence, value)


def margin_beats_cross_entropy(evidence: Evidence) -> list[Row]:
    """Flag a loss where the same short PGD finds more on the logit margin than on cross-entropy."""
    if "wrong_margin" not in evidence.probe:
        return []
    rivals = {"margin": evidence.probe["wrong_margin"]}
    return _flag_rival("margin_beats_cross_entropy", evidence, rivals)


def rescaled_logits_beat_cross_entropy(evidence: Evidence) -> list[Row]:
    """Flag a loss where the same short PGD finds more on the cross-entropy of z / T."""
    if "wrong_rescaled" not in evidence.probe:
        return []
    temperatures = [f"{temperature:g}" for temperature in evidence.probe["temperatures"]]
    rivals = dict(zip(temperatures, evidence.probe["wrong_rescaled"], strict=True))
    return _flag_rival("rescaled_logits_beat_cross_entropy", evidence, rivals)


def _flag_rival(check: str, evidence: Evidence, rivals: Mapping[str, np.ndarray]) -> list[Row]:
    """Return a flag if a rival of the cross-entropy makes more images (N,) wrong, by its name."""
    gain = better_rival(evidence.probe["wrong_cross_entropy"], rivals, CHECKS[check].threshold)
    if gain is None:
        return []
    at = eps_text(float(evidence.probe["eps"]))
    return [make_flag(check, evidence.cell, gain.value, at=at, temperature=gain.rival)]


def unbounded_attack_fails(evidence: Evidence) -> list[Row]:
    """Flag a loss where PGD that may change every pixel at will leaves images correct."""
    if "wrong_unbounded" not in evidence.probe:
        return []
    value = float(1 - evidence.probe["wrong_unbounded"].mean())
    return flag_above("unbounded_attack_fails", evidence, value)


def output_not_repeatable(evidence: Evidence) -> list[Row]:
    """Flag a model that gives other logits when it is called again.

    Compared as unit vectors, so that the scale of the logits plays no part. Where attacks of the
    run see the mean of several calls (eot), and that mean judges, only the others are flagged.

    Source: check_randomized of AutoAttack (Croce and Hein 2020), and its threshold.
    """
    check, probe = "output_not_repeatable", evidence.probe
    value = _largest_difference(probe["logits"], probe["logits_again"])
    labels = dict.fromkeys(one.attack_label for one in evidence.outcomes)
    alone = [label for label in labels if averaged_name(label) not in probe]
    if len(alone) == len(labels):
        return flag_above(check, evidence, value)
    if value <= CHECKS[check].threshold:
        return []
    return [make_flag(check, evidence.cell, value, label) for label in alone]


def too_few_draws(evidence: Evidence) -> list[Row]:
    """Flag attacks on the mean of several calls whose gradient is still mostly chance.

    At a cosine of 1/2 between two such gradients chance is as long as what they have in common.
    """
    check, flags = "too_few_draws", []
    for label in dict.fromkeys(one.attack_label for one in evidence.outcomes):
        if (name := averaged_name(label)) in evidence.probe:
            value = 1 - float(evidence.probe[name].mean())
            calls, cosine = f"{evidence.probe[f'{name}_calls']}", percent(1 - value)
            if value > CHECKS[check].threshold:
                flags.append(
                    make_flag(check, evidence.cell, value, label, calls=calls, cosine=cosine)
                )
    return flags


def output_depends_on_batch(evidence: Evidence) -> list[Row]:
    """Flag a model that gives an image other logits among other images.

    As in `output_not_repeatable`, which says the same of a random model.
    """
    repeats = _largest_difference(evidence.probe["logits"], evidence.probe["logits_again"])
    limit = CHECKS["output_not_repeatable"].threshold
    if "logits_halves" not in evidence.probe or repeats > limit:
        return []
    value = _largest_difference(evidence.probe["logits"], evidence.probe["logits_halves"])
    return flag_above("output_depends_on_batch", evidence, value)


def _largest_difference(*answers: np.ndarray) -> float:
    """Return the largest distance of two (M,K) logits of one image, each scaled to length 1."""
    one, other = (
        logits / (np.linalg.norm(logits, axis=1, keepdims=True) + 1e-10)
        for logits in (each.astype(np.float64) for each in answers)
    )
    return float(np.linalg.norm(one - other, axis=1).max())


def output_is_probability(evidence: Evidence) -> list[Row]:
    """Flag a model whose outputs lie in [0, 1] and sum to 1 for most images.

    Source: check_range_output of AutoAttack (Croce and Hein 2020), and its tolerance.
    """
    logits = evidence.probe["logits"].astype(np.float64)
    inside = (logits > -1e-5).all(axis=1) & (logits < 1 + 1e-5).all(axis=1)
    value = float((inside & (np.abs(logits.sum(axis=1) - 1) < 1e-5)).mean())
    return flag_above("output_is_probability", evidence, value)


def loss_still_rising(evidence: Evidence) -> list[Row]:
    """Flag attacks that still gained in the last quarter of their steps on images not fooled.

    Where it did fool, more steps change no error, and one image in a hundred left is too few to
    matter. On networks of 8x8 digits PGD of 5 to 100 steps has at most 3 %, steps that do not
    reach the border of the ball have 25 %.
    """
    check, flags = "loss_still_rising", []
    for label, attack in {one.attack_label: one.attack for one in evidence.outcomes}.items():
        name = trace_name(label)
        if name not in evidence.probe or attack in _JUST_REACHING:
            continue
        # A trace begins with the margin of the clean images.
        logits = evidence.probe["logits"].astype(np.float64)
        labels = evidence.probe["labels"][:, None]
        true = np.take_along_axis(logits, labels, axis=1)[:, 0]
        np.put_along_axis(logits, labels, -np.inf, axis=1)
        trace = np.vstack([logits.max(axis=1) - true, evidence.probe[name]])
        value = late_gain(trace)
        if value > CHECKS[check].threshold:
            at = eps_text(float(evidence.probe[f"{name}_eps"]))
            flags.append(make_flag(check, evidence.cell, value, label, at=at))
    return flags


def late_gain(trace: np.ndarray) -> float:
    """Return the share of an attack's whole gain that came in the last quarter of its steps.

    A straight line gives about 1/4, a curve that has levelled off 0. Each image that is not
    fooled counts alike, however large its logits; only the best margin so far counts, so that a
    path that swings to and fro about its end has levelled off.

    Args:
        trace: (1 + S, M) margin, positive where fooled: without an attack, then after each step.

    Returns:
        In [0, 1]; 0 if all but 1 % of the images are fooled, or if nothing was gained.
    """
    best = np.maximum.accumulate(trace.astype(np.float64), axis=0)
    left = best[:, best[-1] <= 0]
    if left.shape[1] <= 0.01 * trace.shape[1]:
        return 0.0
    quarter = max(1, (len(trace) - 1) // 4)
    whole, late = left[-1] - left[0], left[-1] - left[-1 - quarter]
    return float(np.divide(late, whole, out=np.zeros_like(late), where=whole > 0).mean())


PROBE_CHECKS: tuple[Callable[[Evidence], list[Row]], ...] = (
    not_finite_gradient,
    margin_beats_cross_entropy,
    rescaled_logits_beat_cross_entropy,
    unbounded_attack_fails,
    output_not_repeatable,
    too_few_draws,
    output_depends_on_batch,
    output_is_probability,
    loss_still_rising,
    unit_test_failed,
)
