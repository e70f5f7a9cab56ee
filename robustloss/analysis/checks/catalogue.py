"""Checks of the numbers themselves: which of them could be an artefact of the attack?

A check looks at stored numbers only and gives flags, rows of results.json that the report prints
as marks. A comparison of two attacks is made on the same images: it fires when the net gain in
error exceeds its threshold and a one-sided sign test on the images where the two differ has
p < 0.05, divided by the number of rivals tried. So with 200 images, where one image is already
0.5 %, at least five must differ, all to one side. Beyond that, many checks on many cells are not
corrected for their number: a flag is a reason to look, and the absence of one no proof.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from robustloss.analysis.outcomes import Outcome
from robustloss.metrics.intervals import sign_test
from robustloss.results.schema import Row, cell_place

SIGNIFICANCE = 0.05


class Check(NamedTuple):
    """When a check fires, why it matters, and what to do.

    Attributes:
        threshold: a value above it is flagged; a share of images, unless the explanation says so.
        explanation: one sentence; {value} and the names of the attacks are filled in.
        remedy: one sentence.
    """

    threshold: float
    explanation: str
    remedy: str


CHECKS: dict[str, Check] = {
    "zero_gradient": Check(
        0.01,
        "The input gradient is exactly 0 for {value} of the images: {attack} had no direction "
        "there, and the error may be too low.",
        'Add an attack with params = { objective = "margin" }, which does not saturate.',
    ),
    "not_finite_gradient": Check(
        0.0,
        "The input gradient of the cross-entropy is NaN or infinite for {value} of the images: "
        "an attack that follows it is lost there, and its error may be too low.",
        "Look for an overflow, a root of 0 or a division by 0 in the backbone and the loss head.",
    ),
    "margin_beats_cross_entropy": Check(
        0.01,
        "At eps {at} the error under a short PGD is higher by {value} of the images on the "
        "logit margin than on cross-entropy, which saturates here: attacks that climb it may "
        "miss errors.",
        'Judge by attacks with params = { objective = "margin" }.',
    ),
    "rescaled_logits_beat_cross_entropy": Check(
        0.01,
        "At eps {at} the error under a short PGD on cross-entropy is higher by {value} of the "
        "images with the logits divided by {temperature}: their scale hides the gradient, and "
        "attacks that climb cross-entropy may miss errors.",
        'Judge by attacks with params = { objective = "margin" }, which no scale changes.',
    ),
    "one_step_beats_many": Check(
        0.01,
        "The error under {rival}, one step, is higher by {value} of the images than under "
        "{attack}, whose error is therefore too low.",
        "Give it more steps or restarts, or another step size.",
    ),
    "error_falls_with_eps": Check(
        0.01,
        "The error under {attack} is lower by {value} of the images than at the smaller eps "
        "({smaller}), although the larger ball holds the smaller one: it is too low here.",
        "Give the attack more steps, and read the worst case over attacks.",
    ),
    "noise_beats_attack": Check(
        0.01,
        "The error under noise as large as the changes of {attack} is higher by {value} of the "
        "images than under {attack} itself: the attack finds less than chance does.",
        "Look for a wrong sign or a cut gradient in the attack or the model, and read the worst "
        "case.",
    ),
    "black_box_beats_white_box": Check(
        0.002,
        "The error under {rival}, which sees no gradient, is higher by {value} of the images than "
        "under {attack}: something hides the gradient, and the error is too low.",
        "Read the worst case, give {rival} more queries, and look for what hides the gradient.",
    ),
    "transfer_beats_white_box": Check(
        0.01,
        "Images that {attack} made on {rival} raise the error by {value} of the images over those "
        "that it made on this very model: something hides the gradient, and the error is too low.",
        'Add an attack with params = { objective = "margin" } and a black-box attack.',
    ),
    "unbounded_attack_fails": Check(
        0.01,
        "PGD that may change every pixel at will (eps 1) leaves {value} of the images correct, "
        "where it should leave none: it does not see how the model decides.",
        "Take no error of this loss for robustness before black-box attacks have confirmed it.",
    ),
    "radius_beyond_grey": Check(
        0.01,
        "{attack} found nothing within 0.5 for images of several classes. Grey (0.5 in every "
        "pixel) lies that near to every image and has one class, so it fools all but one class: "
        "for at least {value} of the images the radius is too large.",
        'Use the attack "fab", or give it more steps, and read the errors at each eps.',
    ),
    "loss_still_rising": Check(
        0.1,
        "On images that {attack} did not fool at eps {at}, {value} of all that it gained came in "
        "the last quarter of its steps: it was not done, and the error may be too low.",
        "Give it more steps.",
    ),
    "unit_test_failed": Check(
        0.05,
        "{attack} fails on {value} of the networks that are known to be breakable{how}: it is too "
        "weak for this model, and the error may be too low.",
        "Look for a wrong sign or a cut gradient, and give the attack more steps, restarts or "
        "another step size, until it passes.",
    ),
    "detector_too_good": Check(
        0.1,
        "The robust error with detection under {attack} at eps {at} is {implied}. The error of the "
        "network alone at half the eps is {found}, higher by {value} of the images. By theory "
        "(Tramèr 2022) this implies a far more robust classifier, so it is likelier that no attack "
        "tried the detector hard enough.",
        "Add an attack that knows the detector, or give it more steps.",
    ),
    "output_not_repeatable": Check(
        1e-4,
        "Two identical calls of the model differ by {value} of the length of the logits: a random "
        "model shows an attack one draw of its gradient, and the error may be too low.",
        "Switch the randomness off in evaluation. If it is the defence, attack and judge the mean "
        "of many calls: params = { eot = 20 } in an attack that follows gradients.",
    ),
    "too_few_draws": Check(
        0.5,
        "Two gradients of {attack}, each of the mean of {calls} calls of the model, agree by "
        "{cosine} (mean cosine): chance decides the direction, and the error may be too low.",
        "Raise eot.",
    ),
    "output_depends_on_batch": Check(
        0.01,
        "The logits of an image change by {value} of their length when other images stand beside "
        "it: its error, clean and attacked, depends on the size and the order of the batches.",
        "Let batch normalisation use its running statistics in eval mode, and look for other means "
        "over the batch.",
    ),
    "output_is_probability": Check(
        0.5,
        "For {value} of the images the model's outputs lie in [0, 1] and sum to 1: they are "
        "probabilities already, and the softmax of an attack flattens their gradient.",
        "Let the loss head return logits.",
    ),
    "outside_ball_or_box": Check(
        0.0,
        "For {value} of the images {attack} returned something outside the ball or the box; "
        "brought back it may fool no more, and the error may be too low.",
        "Check that the attack clips, and that it measures eps in pixel units.",
    ),
    "one_step_training_collapsed": Check(
        0.25,
        "The network was trained against one step, and PGD on the validation images raises the "
        "error by {value} of them over that step (catastrophic overfitting): its errors under "
        "attacks of one step say nothing.",
        'Train with attack = "pgd", or with a shorter step_size.',
    ),
    "training_without_direction": Check(
        0.05,
        "In adversarial training the first gradient of what the attack climbs was exactly 0 for "
        "{value} of the images of the epoch that was kept: they were learnt where the attack "
        "began, not where it would have led.",
        'Train with adversarial = { objective = "margin", ... }, which does not saturate.',
    ),
}


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the checks of one cell look at.

    Attributes:
        cell: "loss", "label" and "seed".
        clean: the clean pass.
        outcomes: every attack at every eps, of the same images in the same order.
        probe: the arrays of probe-KEY.npz, or nothing.
        training: the line of the learning curve at which the weights stood, or nothing.
        validation_scores: (V,) of clean validation images, by name of a score that the passes have
            too; they set the thresholds.
        labels: (N,) true class of each image, or nothing.
    """

    cell: Mapping[str, Any]
    clean: Outcome
    outcomes: Sequence[Outcome]
    probe: Mapping[str, np.ndarray]
    training: Mapping[str, Any] = field(default_factory=dict)
    validation_scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: np.ndarray | None = None


class Gain(NamedTuple):
    """By how much the best rival is better, as a share of the images."""

    rival: str
    value: float


def better_rival(
    wrong: np.ndarray, rivals: Mapping[str, np.ndarray], threshold: float
) -> Gain | None:
    """Return the rival with the greatest net gain in error, if it is beyond threshold and chance.

    Args:
        wrong: (N,) bool, images that the attack in question makes wrong.
        rivals: (N,) bool each, by name, for the same images in the same order.
        threshold: a share of the images, in [0, 1].

    Returns:
        The rival and its gain; None if no rival gains more than the threshold, or if the sign
        test on the discordant images has p * len(rivals) >= 0.05.
    """
    if not rivals:
        return None
    nets = {name: int(rival.sum()) - int(wrong.sum()) for name, rival in rivals.items()}
    best = max(nets, key=lambda name: nets[name])
    gained, lost = rivals[best] & ~wrong, wrong & ~rivals[best]
    if nets[best] / wrong.size <= threshold:
        return None
    if sign_test(int(gained.sum()), int(lost.sum())) * len(rivals) >= SIGNIFICANCE:
        return None
    return Gain(best, nets[best] / wrong.size)


def make_flag(
    check: str,
    cell: Mapping[str, Any],
    value: float,
    attack_label: str | None = None,
    eps: float | None = None,
    **words: str,
) -> Row:
    """Return a row of `flags`.

    Args:
        check: key of `CHECKS`.
        cell: "loss", "label" and "seed".
        value: what was measured, above the threshold.
        attack_label: of the attack whose numbers are doubtful; None for every number of the loss.
        eps: at which they are; None for every eps.
        **words: what stands in for the names in the explanation.
    """
    threshold, explanation, remedy = CHECKS[check]
    words = {"attack": attack_label or "", "value": percent(value), **words}
    return {
        "check": check,
        **cell_place(cell),
        "attack_label": attack_label,
        "eps": eps,
        "value": value,
        "threshold": threshold,
        "message": _fill(f"{explanation} {remedy}", words),
    }


def flag_above(check: str, evidence: Evidence, value: float) -> list[Row]:
    """Return a flag on every number of the loss if the value is above the check's threshold.

    Args:
        check: key of `CHECKS`.
        evidence: of the cell.
        value: what was measured.
    """
    return [make_flag(check, evidence.cell, value)] if value > CHECKS[check].threshold else []


def percent(share: float) -> str:
    """Return a share as a person reads it: "12.5 %", "0.01 %"."""
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else f"{100 * share:.1g} %"


def _fill(text: str, words: Mapping[str, str]) -> str:
    """Return the text with the words in place of their names in braces."""
    # not str.format: the remedies show TOML, which has braces of its own
    for name, word in words.items():
        text = text.replace(f"{{{name}}}", word)
    return text
