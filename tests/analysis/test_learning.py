"""Which losses have not learnt, by the counts of clean images alone."""

import inspect

import pytest

from robustloss.analysis.learning import ANNEALED, describe_unlearnt, find_unlearnt
from robustloss.losses import LOSSES
from robustloss.metrics.intervals import wilson


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
    assert models.startswith("Mine may miss its normalisation: clean error 90 %, guessing is 90 %.")
    assert 'normalize = "imagenet"' in models
    assert "train.lr" not in models


def test_a_model_that_is_normalised_or_of_this_project_has_other_causes():
    found = results(*((label, 0, 90, 100) for label in "ABC"))
    normalize = {"mean": [0.5], "std": [0.5]}
    found["provenance"]["spec"]["losses"] = [
        {"label": "A", "model": "mine.py:net", "normalize": normalize},
        {"label": "B", "name": "lgm", "weights": "own.pt"},
        {"label": "C", "name": "lgm"},
    ]
    trained, given = describe_unlearnt(found)
    assert trained.startswith("C has not learnt")
    assert given.startswith("A and B do no better than guessing: clean error 90 %")
    assert "their weights" in given


def test_guessing_the_largest_class_is_guessing():
    found = results(("A", 0, 24, 100))  # [0.17, 0.33]
    assert describe_unlearnt(found) == []
    found["provenance"]["data"]["test_class_counts"] = [300, 50, 50]
    assert describe_unlearnt(found)[0].startswith(
        "A has not learnt: clean error 24 %, guessing is 25 %."
    )


@pytest.mark.parametrize(
    ("wrong", "n", "classes", "named"),
    [
        (72, 100, 10, False),  # its interval reaches below 67.5 %, and not up to 90 %
        (17, 20, 10, True),  # up to 95 %
        (30, 100, 2, False),
        (42, 100, 2, True),  # up to 51.8 %
        (720, 1000, 10, True),
        (18, 20, 10, True),
        (3, 4, 10, False),  # too few images to tell
        (50, 100, 2, True),
        (600, 1000, 100, False),  # hard data: far better than guessing
        (0, 100, 1, False),
    ],
)
def test_the_interval_reaches_guessing_or_lies_above_three_quarters_of_it(wrong, n, classes, named):
    assert bool(find_unlearnt(results(("A", 0, wrong, n), classes=classes))[0]) is named


def trained(found, steps, **names):
    """Results of losses that were trained for so many steps of 256 images, 3 epochs."""
    table = {"batch_size": 256, "epochs": 3}
    labels = dict.fromkeys(row["label"] for row in found["rows"])
    losses = [{"label": label, "name": names.get(label, "softmax")} for label in labels]
    found["provenance"]["spec"] = {"train": table, "losses": losses}
    found["training"] = [
        {"label": row["label"], "seed": row["seed"], "steps": steps, "epochs": 3}
        for row in found["rows"]
        if row["attack"] == "none"
    ]
    return found


def test_few_steps_are_told_with_the_keys_that_make_more():
    found = results(("Softmax", 0, 50, 1000), ("A", 0, 400, 1000), ("B", 0, 160, 1000))
    names = {"A": "a_softmax", "B": "arcface"}
    assert describe_unlearnt(trained(found, 27, **names)) == [
        "A and B are weakly trained: clean error 16 to 40 % after 27 steps. Write "
        "train.batch_size = 32 (about 216 steps) or train.epochs = 56 (500 steps or more). In few "
        "steps the margin comes too fast. For a weaker one, which the notes from training then "
        "tell: params = { anneal_min = 20.0 } of A."
    ]
    found["provenance"]["spec"]["losses"][1]["params"] = {"anneal_min": 20.0}
    assert "anneal_min" not in describe_unlearnt(found)[0]
    found["provenance"]["spec"]["losses"][1]["train"] = {"batch_size": 32}
    assert "Write train.epochs = 56" in describe_unlearnt(found)[0]
    for row in found["training"]:
        row["adversarial"] = {"attack": "pgd"}  # which raises the clean error by itself
    assert describe_unlearnt(found) == []
    assert describe_unlearnt(trained(found, 500)) == []
    guessing = trained(results(("A", 0, 88, 100), ("B", 0, 5, 100)), 27)
    assert describe_unlearnt(guessing) == [
        "A has not learnt: clean error 88 %, guessing is 90 %. Lower train.lr, or take more steps "
        "than 27: train.batch_size = 32 (about 216 steps) or train.epochs = 56 (500 steps or more)."
    ]


def test_losses_of_a_reference_are_not_told_to_train_longer():
    found = trained(results(("Mine", 0, 160, 1000), ("R", 0, 170, 1000), ("Q", 0, 50, 1000)), 27)
    assert describe_unlearnt(found)[0].startswith("Mine and R are weakly trained: clean error 16 ")
    found["provenance"]["reference"] = {"labels": ["R", "Q"]}
    (line,) = describe_unlearnt(found)
    assert line.startswith("Mine is weakly trained: clean error 16 % after 27 steps. Write ")
    found = trained(results(("Mine", 0, 880, 1000), ("R", 0, 890, 1000), ("Q", 0, 50, 1000)), 27)
    found["provenance"]["reference"] = {"labels": ["R", "Q"]}
    mine, other = describe_unlearnt(found)
    assert mine.startswith(
        "Mine has not learnt: clean error 88 %, guessing is 90 %. Lower train.lr"
    )
    assert other == (
        "R has not learnt: clean error 89 %, guessing is 90 %. Comparisons with untrained networks "
        "say little."
    )


def test_a_seed_that_has_learnt_clears_a_loss_of_few_steps():
    found = results(("A", 0, 400, 1000), ("A", 1, 30, 1000), ("B", 0, 50, 1000))
    assert describe_unlearnt(trained(found, 27)) == []


@pytest.mark.parametrize("name", LOSSES)
def test_losses_with_an_annealed_margin_are_known(name):
    annealed = "anneal_min" in inspect.signature(LOSSES[name]).parameters
    assert (name in ANNEALED) is annealed


def test_a_run_that_does_not_say_how_many_classes_there_are_names_nothing():
    found = results(("A", 0, 90, 100))
    del found["provenance"]["data"]
    assert describe_unlearnt(found) == []
