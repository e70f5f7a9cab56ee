"""Which losses have not learnt, by the counts of clean images alone."""

import pytest

from robustloss.metrics.intervals import wilson
from robustloss.results.numbers import describe_unlearnt, find_unlearnt


def results(*cells, classes=10, given=(), order=()):
    """Results of clean passes: label, seed, wrong images, images."""
    rows = []
    for label, seed, wrong, n in cells:
        low, high = wilson(wrong, n)
        counts = {"n": n, "error": wrong / n, "error_low": low, "error_high": high}
        rows.append({"label": label, "seed": seed, "attack": "none", "eps": 0.0} | counts)
        rows.append({**rows[-1], "attack": "fgsm", "eps": 0.3, "error": 1.0, "error_low": 0.99})
    data = {"class_names": [str(k) for k in range(classes)]}
    losses = [{"label": label, "model": "mine.py:net"} for label in given]
    losses += [{"label": label} for label in order]
    return {"provenance": {"data": data, "spec": {"losses": losses}}, "rows": rows}


def test_losses_that_guess_are_named_with_both_errors_and_the_remedy():
    found = results(("Softmax", 0, 2, 100), ("L-GM", 0, 87, 100))
    assert describe_unlearnt(found) == [
        "L-GM has not learnt: clean error 87 %, guessing is 90 %. Lower train.lr or train longer."
    ]
    found = results(("A", 0, 80, 100), ("B", 0, 3, 100), ("B", 7, 89, 100), ("Mine", 0, 90, 100),
                    given=["Mine"], order=["Learnt", "B", "A"])  # fmt: skip
    losses, models = describe_unlearnt(found)
    assert losses.startswith("B (seed 7) and A have not learnt: clean error 80 to 89 %, guessing")
    assert models.startswith("Mine has not learnt: clean error 90 %")
    assert "train.lr" not in models


@pytest.mark.parametrize(
    ("wrong", "n", "classes", "named"),
    [
        (72, 100, 10, False),  # its interval reaches below 67.5 %
        (720, 1000, 10, True),
        (18, 20, 10, True),
        (3, 4, 10, False),  # too few images to tell
        (50, 100, 2, True),
        (600, 1000, 100, False),  # hard data: far better than guessing
        (0, 100, 1, False),
    ],
)
def test_the_whole_interval_lies_above_three_quarters_of_guessing(wrong, n, classes, named):
    assert bool(find_unlearnt(results(("A", 0, wrong, n), classes=classes))[0]) is named


def test_a_run_that_does_not_say_how_many_classes_there_are_names_nothing():
    found = results(("A", 0, 90, 100))
    del found["provenance"]["data"]
    assert describe_unlearnt(found) == []
