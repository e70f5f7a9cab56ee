"""Checks of the probe: scales, near misses, and what counts as still rising."""

import numpy as np
import pytest

from robustloss.analysis.checks.from_probe import check_probe, late_gain, trace_name
from tests.evidence import PROBABILITIES, RISING, M, evidence, fired, of_probe, sound_probe
from tests.outcomes import first, made


def test_a_probe_must_be_complete():
    probe = sound_probe()
    check_probe(probe)
    del probe["wrong_margin"]
    with pytest.raises(ValueError, match="probe has no 'wrong_margin'; it holds"):
        check_probe(probe)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_repeatability_does_not_depend_on_the_scale_of_the_logits(scale):
    logits = sound_probe()["logits"] * scale
    noise = np.random.default_rng(1).normal(size=logits.shape) * scale
    for size, flags in ((1e-6, 0), (1e-2, 1)):
        found = fired(of_probe(logits=logits, logits_again=logits + size * noise))
        assert len(found.get("output_not_repeatable", ())) == flags


def test_logits_in_the_unit_interval_are_no_probabilities():
    logits = np.random.default_rng(0).random((M, 10))
    assert fired(of_probe(logits=logits, logits_again=logits)) == {}
    likelihoods = np.log(PROBABILITIES)  # a log-posterior has the gradients of logits
    assert fired(of_probe(logits=likelihoods, logits_again=likelihoods)) == {}


def test_the_trace_of_an_attack_is_found_by_its_label():
    assert trace_name("PGD (40 steps, 0.1)") == "trace_pgd_40_steps_0_1"
    one = made("pgd", 0.1, first(100), label="PGD-40")
    probe = sound_probe() | {"trace_pgd_40": RISING, "trace_pgd_40_eps": np.array(0.3)}
    (row,) = fired(evidence([one], probe=probe))["loss_still_rising"]
    assert (row["attack_label"], row["eps"]) == ("PGD-40", None)
    assert "PGD-40 did not fool at eps 0.3" in row["message"]
    # an attack that was not traced is not judged
    assert fired(evidence([made("pgd", 0.1, first(100), label="other")], probe=probe)) == {}


def test_steps_that_only_just_reach_the_border_rise_to_the_end_by_design():
    probe = sound_probe() | {"trace_mi": RISING, "trace_mi_eps": np.array(0.1)}
    assert fired(evidence([made("mifgsm", 0.1, first(100), label="MI")], probe=probe)) == {}


@pytest.mark.parametrize(
    ("trace", "gain"),
    [
        (np.linspace(-8, -4, 41), 0.25),  # a straight line
        (np.minimum(np.linspace(-8, 8, 41), -4), 0.0),  # arrived after a quarter
        (-4 - 4 * np.exp(-np.arange(41) / 10), (np.exp(-3) - np.exp(-4)) / (1 - np.exp(-4))),
        (np.full(41, -3.0), 0.0),  # nothing gained: not a matter of steps
        (-4 + np.resize([0.0, 1.0, 0.5], 41), 0.0),  # to and fro
        (np.linspace(-8, 1, 41), 0.0),  # fooled: more steps change nothing
        (np.array([-3.0, -2.0]), 1.0),  # one step only
    ],
)  # fmt: skip
def test_late_gain_by_hand(trace, gain):
    assert late_gain(trace[:, None] * np.ones(3)) == pytest.approx(gain)


def test_late_gain_counts_each_image_alike_and_no_fooled_one():
    line, level = np.linspace(-8, -4, 41), np.minimum(np.linspace(-8, 8, 41), -4)
    fooled = np.linspace(-1, 1, 41)
    assert late_gain(np.stack([line, 1000 * level, fooled], axis=1)) == pytest.approx(0.125)
    # one image in a hundred left is too few to change the error by more than that
    assert late_gain(np.stack([line, *[fooled] * 99], axis=1)) == 0
    assert late_gain(np.stack([line, line, *[fooled] * 98], axis=1)) == pytest.approx(0.25)
