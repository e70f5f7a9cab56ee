"""Every check both ways: numbers made to trigger it do, sound numbers do not."""

import numpy as np
import pytest

from robustloss.analysis.checks.catalogue import CHECKS, SIGNIFICANCE, better_rival, make_flag
from tests.evidence import (
    LABELS,
    PGD,
    PROBABILITIES,
    RISING,
    M,
    claimed,
    evidence,
    fired,
    of_outcome,
    of_probe,
    sound_probe,
)
from tests.outcomes import CELL, first, made

UNIT_EPS = {"unit_pgd_0_eps": np.array(0.1)}
TRIGGERED = {
    "zero_gradient": of_outcome(zero_gradient_fraction=0.02),
    "not_finite_gradient": of_probe(gradient_not_finite=first(1, M)),
    "margin_beats_cross_entropy": of_probe(wrong_margin=first(60, M)),
    "rescaled_logits_beat_cross_entropy": of_probe(
        wrong_rescaled=np.stack([first(52, M), first(60, M)])
    ),
    "one_step_beats_many": evidence([made("fgsm", 0.1, first(110)), PGD]),
    "error_falls_with_eps": evidence([PGD, made("pgd", 0.2, first(90))]),
    "noise_beats_attack": of_outcome(noise_wrong=first(110)),
    "black_box_beats_white_box": evidence([PGD, made("square", 0.1, first(105))]),
    "detector_too_good": claimed(20, 100),
    "radius_beyond_grey": evidence(
        [made("fmn", 0.1, first(90), radius=np.where(LABELS < 2, 0.6, 0.5))]
    ),
    "unbounded_attack_fails": of_probe(wrong_unbounded=first(98, M)),
    "loss_still_rising": of_probe(trace_pgd=RISING),
    "unit_test_failed": of_probe(unit_pgd_0=np.stack([first(90, M), first(0, M)]), **UNIT_EPS),
    "output_not_repeatable": of_probe(logits_again=sound_probe()["logits"] + 0.1 * np.eye(10)[0]),
    "too_few_draws": of_probe(eot_pgd=np.full(M, 0.25), eot_pgd_calls=np.array(2)),
    "output_depends_on_batch": of_probe(
        logits_halves=sound_probe()["logits"] + 0.1 * np.eye(10)[0]
    ),
    "output_is_probability": of_probe(logits=PROBABILITIES, logits_again=PROBABILITIES),
    "outside_ball_or_box": of_outcome(outside_fraction=0.005),
    "one_step_training_collapsed": evidence(validation_robust_error=0.5),
    "training_without_direction": evidence(zero_gradient_fraction=0.06),
}  # fmt: skip
PLACES = {
    "zero_gradient": ("pgd", 0.1),
    "one_step_beats_many": ("pgd", 0.1),
    "error_falls_with_eps": ("pgd", 0.2),
    "noise_beats_attack": ("pgd", 0.1),
    "black_box_beats_white_box": ("pgd", 0.1),
    "outside_ball_or_box": ("pgd", 0.1),
    "detector_too_good": ("any attack, L∞", 0.2),
    "loss_still_rising": ("pgd", None),
    "radius_beyond_grey": ("fmn", 0.5),
    "too_few_draws": ("pgd", None),
    "unit_test_failed": ("pgd", 0.1),
}
VALUES = {
    "zero_gradient": 0.02,
    "not_finite_gradient": 0.01,
    "margin_beats_cross_entropy": 0.1,
    "rescaled_logits_beat_cross_entropy": 0.1,
    "one_step_beats_many": 0.05,
    "error_falls_with_eps": 0.05,
    "noise_beats_attack": 0.05,
    "black_box_beats_white_box": 0.025,
    "detector_too_good": 0.4,
    "radius_beyond_grey": 0.095,  # the 19 of one class: those of the other may be spared
    "unbounded_attack_fails": 0.02,
    "unit_test_failed": 0.1,
    "output_is_probability": 1.0,
    "outside_ball_or_box": 0.005,
    "one_step_training_collapsed": 0.3,
    "training_without_direction": 0.06,
}


def test_every_check_is_proved():
    assert {*TRIGGERED, "transfer_beats_white_box"} == set(CHECKS)  # that one: test_transfer.py


def test_sound_numbers_raise_no_flag():
    assert fired(evidence()) == {}


@pytest.mark.parametrize("check", TRIGGERED)
def test_numbers_made_for_a_check_trigger_it_and_no_other(check):
    found = fired(TRIGGERED[check])
    assert set(found) == {check}
    (row,) = found[check]
    assert (row["loss"], row["label"], row["seed"]) == ("lgm", "L-GM", 3)
    assert (row["attack_label"], row["eps"]) == PLACES.get(check, (None, None))
    assert row["value"] > row["threshold"] == CHECKS[check].threshold
    if check in VALUES:
        assert row["value"] == pytest.approx(VALUES[check])
    assert ", ".join(row) == (
        "check, loss, label, seed, attack_label, eps, value, threshold, message"
    )


@pytest.mark.parametrize("check", CHECKS)
def test_a_message_explains_names_and_helps(check):
    if check in TRIGGERED:
        (row,) = fired(TRIGGERED[check])[check]
        assert CHECKS[check].remedy.replace("{rival}", "square") in row["message"]
        assert " %" in row["message"]
        assert row["attack_label"] is None or row["attack_label"] in row["message"]
        assert "{" not in row["message"].replace("{ objective", "").replace("{ eot", "")


def test_messages_by_hand():
    (row,) = fired(TRIGGERED["one_step_beats_many"])["one_step_beats_many"]
    assert row["message"].startswith(
        "The error under fgsm, one step, is higher by 5.0 % of the images than under pgd, "
    )
    (row,) = fired(TRIGGERED["rescaled_logits_beat_cross_entropy"]).popitem()[1]
    assert "At eps 0.1 " in row["message"]
    assert "divided by 100:" in row["message"]
    (row,) = fired(TRIGGERED["error_falls_with_eps"])["error_falls_with_eps"]
    assert "lower by 5.0 % of the images than at the smaller eps (0.1)" in row["message"]
    assert make_flag("zero_gradient", CELL, 0.25)["value"] == 0.25


# ---- comparisons on the same images


def test_a_gain_must_exceed_the_threshold_and_chance():
    own = first(100)
    assert better_rival(own, {"a": first(105)}, 0.002) == ("a", 0.025)
    # four images more than nothing: p = 1/16
    assert better_rival(own, {"a": first(104)}, 0.002) is None
    # plenty of evidence for a difference that does not matter
    big = first(1000, 100_000)
    assert better_rival(big, {"a": first(1500, 100_000)}, 0.01) is None
    assert better_rival(big, {"a": first(2000, 100_000)}, 0.01) is None
    assert better_rival(big, {"a": first(2500, 100_000)}, 0.01) == ("a", 0.015)


def test_the_same_net_gain_on_other_images_is_no_evidence():
    # 105 against 100 wrong; in the second case they share none, and it is a toss of 205 coins
    own, rival = first(100, 400), first(105, 400)
    assert better_rival(own, {"a": rival}, 0.01) == ("a", 0.0125)
    assert better_rival(own, {"a": rival[::-1]}, 0.01) is None


def test_the_best_of_many_rivals_needs_more_evidence():
    own, rivals = first(100), {"a": first(105), "b": first(90), "c": first(80)}
    assert better_rival(own, {"a": rivals["a"]}, 0.01) is not None  # p = 1/32
    assert better_rival(own, rivals, 0.01) is None  # 3/32
    assert better_rival(own, rivals | {"a": first(107)}, 0.01) == ("a", 0.035)
    assert better_rival(own, {}, 0.01) is None


def test_equally_good_attacks_are_rarely_told_apart():
    rng = np.random.default_rng(0)
    false = sum(
        better_rival(rng.random(200) < 0.5, {"a": rng.random(200) < 0.5}, 0.0) is not None
        for _ in range(2000)
    )
    assert false / 2000 <= SIGNIFICANCE


def test_clean_training_raises_no_flag_of_its_training():
    for line in ({}, {"validation_robust_error": None, "validation_one_step_error": 0.1}):
        given = evidence()
        object.__setattr__(given, "training", line)
        assert fired(given) == {}
