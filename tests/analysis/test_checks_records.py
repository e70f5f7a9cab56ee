"""Checks of attacks against each other: who is held against whom, and at which limit."""

import numpy as np

from tests.evidence import M, N, evidence, fired, of_outcome, sound_probe
from tests.outcomes import first, made


def test_one_percent_of_zero_gradients_is_the_limit_and_eps_0_is_no_attack():
    assert fired(of_outcome(zero_gradient_fraction=0.01)) == {}
    assert fired(of_outcome(zero_gradient_fraction=1.0, eps=0.0)) == {}


def test_attacks_that_do_not_tell_are_judged_by_the_probe():
    probe = sound_probe() | {"gradient_zero": first(30, M)}
    attacks = ("torchattacks:PGD", "mine:attack", "square", "cw", "pgd")
    outcomes = [
        made(name, eps, first(100), zero_gradient_fraction=0.0 if name == "pgd" else None)
        for name in attacks
        for eps in (0.1, 0.2)
    ]
    found = fired(evidence(outcomes, probe))
    # Square follows no gradient, CW not that of the cross-entropy, PGD has told
    assert [(row["attack_label"], row["eps"], row["value"]) for row in found["zero_gradient"]] == [
        ("torchattacks:PGD", None, 0.3), ("mine:attack", None, 0.3)
    ]  # fmt: skip
    assert fired(evidence(outcomes)) == {}


def test_each_attack_of_many_steps_is_held_against_the_best_one_step_attack():
    outcomes = [
        made("fgsm", 0.1, first(90)),
        made("torchattacks:FFGSM", 0.1, first(110)),
        made("pgd", 0.1, first(100)),
        made("mifgsm", 0.1, first(150)),
        made("cw", 0.1, first(99), radius=np.full(N, 0.1)),
        made("fgsm", 2.0, first(200), label="FGM", norm="l2"),  # another norm
        made("adaptive_joint", 0.1, first(20)),  # not after the error
        made("square", 0.1, first(30)),
    ]
    found = fired(evidence(outcomes))
    assert set(found) == {"one_step_beats_many"}
    names = [row["attack_label"] for row in found["one_step_beats_many"]]
    assert names == ["pgd", "cw"]
    assert all("FFGSM" in row["message"] for row in found["one_step_beats_many"])


def test_a_black_box_must_beat_the_strongest_white_box_attack():
    square = made("square", 0.1, first(120))
    weak, strong = made("fgsm", 0.1, first(60)), made("pgd", 0.1, first(110))
    exact = made("cw", 0.3, first(150), radius=np.where(first(150), 0.1, 0.2))
    assert fired(evidence([square, weak, made("pgd", 0.1, first(130))])) == {}
    found = fired(evidence([square, weak, strong]))["black_box_beats_white_box"]
    assert [row["attack_label"] for row in found] == ["fgsm", "pgd"]
    # CW has no record at 0.1, but its radii say that it fools more there than Square
    assert fired(evidence([square, weak, strong, exact])) == {}
    assert fired(evidence([square, made("adaptive_joint", 0.1, first(20))])) == {}


def test_an_error_below_the_clean_error_has_fallen_too():
    (row,) = fired(evidence([made("pgd", 0.1, first(10))], clean=first(20)))["error_falls_with_eps"]
    assert (row["eps"], row["value"]) == (0.1, 0.05)
    assert "smaller eps (0)" in row["message"]


def test_the_error_is_held_against_the_highest_at_any_smaller_eps():
    outcomes = [
        made("pgd", eps, first(k)) for eps, k in ((0.1, 50), (0.2, 100), (0.3, 60), (0.4, 90))
    ]
    found = fired(evidence(outcomes))["error_falls_with_eps"]
    assert [(row["eps"], row["value"]) for row in found] == [(0.3, 0.2), (0.4, 0.05)]
    assert all("smaller eps (0.2)" in row["message"] for row in found)


def test_noise_that_fools_a_few_more_images_by_chance_is_no_flag():
    """500 attacks that do what noise does: the threshold and the sign test keep to 5 %."""
    rng = np.random.default_rng(0)
    flags = 0
    for _ in range(500):
        wrong = rng.random((2, N)) < 0.3
        flags += bool(fired(evidence([made("pgd", 0.1, wrong[0], noise_wrong=wrong[1])])))
    assert 0 < flags <= 0.05 * 500
