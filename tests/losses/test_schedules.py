"""Schedules of margins and weights."""

import pytest

from robustloss.losses.schedules import schedule_factor

UNTIL = 0.225


def test_constant_is_always_full():
    assert [schedule_factor("constant", p, UNTIL) for p in (0.0, 0.1, 1.0)] == [1.0, 1.0, 1.0]


def test_linear_grows_from_0_and_stays_full():
    values = [schedule_factor("linear", p, 0.4) for p in (0.0, 0.1, 0.2, 0.4, 1.0)]
    assert values == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0])


@pytest.mark.parametrize(
    ("step", "alpha"),
    [(0, 0.001), (1499, 0.001), (1500, 0.01), (2999, 0.01), (3000, 0.1), (4499, 0.1), (4500, 1.0)],
)
def test_steps_are_those_of_the_released_mnist_run(step, alpha):
    """STEPUP: 0.001, times 10 every 1,500 of 20,000 steps, at most 1."""
    assert schedule_factor("steps", step / 20000, UNTIL) == pytest.approx(alpha)


@pytest.mark.parametrize("schedule", ["constant", "linear", "steps"])
def test_ends_full_and_never_falls(schedule):
    for until in (0.0, 0.3, 1.0):
        values = [schedule_factor(schedule, i / 200, until) for i in range(201)]
        assert values == sorted(values)
        assert values[-1] == 1.0
        assert min(values) >= 0.0


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_progress_outside_0_1_is_refused(progress):
    with pytest.raises(ValueError, match=r"progress \(=.*\) must lie in \[0, 1\]"):
        schedule_factor("linear", progress, UNTIL)
