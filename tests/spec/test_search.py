"""Searches: the values of every trial, where they go, and what is refused."""

import pytest

from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.spec.search import shared_search, trial_values
from tests.small_run import changed

GRID = {"alpha": [0.1, 0.3, 1.0], "lr": [0.01, 0.03]}


def spec_of(*searches, **keys):
    names = ("softmax", "lgm", "gm")
    losses = [
        {"name": name, **({"search": search} if search is not None else {})}
        for name, search in zip(names, searches, strict=False)
    ]
    return load_spec(changed(losses=losses, **keys))


def test_lists_make_every_combination_in_order():
    found = trial_values(GRID, None)
    assert found[:3] == [
        {"alpha": 0.1, "lr": 0.01},
        {"alpha": 0.1, "lr": 0.03},
        {"alpha": 0.3, "lr": 0.01},
    ]
    assert len(found) == 6


def test_fewer_trials_are_drawn_without_replacement_and_the_same_every_time():
    found = trial_values(GRID, 4)
    assert len({repr(each) for each in found}) == 4
    assert all(each in trial_values(GRID, None) for each in found)
    assert found == trial_values(GRID, 4)
    assert all(each in found for each in trial_values(GRID, 3))


def test_ranges_lie_within_their_ends_and_logarithmic_ones_spread_over_decades():
    search = {"lr": {"low": 1e-3, "high": 1.0, "log": True}, "alpha": {"low": 0.0, "high": 2.0}}
    found = trial_values(search, 300)
    assert all(1e-3 <= each["lr"] <= 1 and 0 <= each["alpha"] <= 2 for each in found)
    decades = [sum(10**-k <= each["lr"] < 10 ** (1 - k) for each in found) for k in (1, 2, 3)]
    assert min(decades) > 70  # 100 expected, standard deviation 8
    assert abs(sum(each["alpha"] for each in found) / 300 - 1) < 0.15
    assert len({each["lr"] for each in found}) > 250


def test_a_key_of_the_same_range_has_the_same_draws_for_every_loss():
    wide = {"low": 0.001, "high": 0.1, "log": True}
    first = trial_values({"lr": wide}, 5)
    second = trial_values({"alpha": [0.1, 1.0], "lr": wide}, 5)
    assert [each["lr"] for each in first] == [each["lr"] for each in second]


def test_keys_of_training_go_there_and_others_to_the_parameters():
    spec = spec_of({"lr": [0.02, 0.04], "weight_decay": [0.0, 0.1, 0.2]}, GRID)
    trials = spec.trials()
    assert [t.label for t in trials] == ["Softmax"] * 6 + ["L-GM"] * 6
    last = trials[-1]
    assert (last.number, last.train.lr, last.loss.params) == (6, 0.03, {"alpha": 1.0})
    assert last.loss.search == {}
    assert last.train.batch_size == spec.train.batch_size
    assert {trial.seed for trial in trials} == {0}
    assert len({trial.folder for trial in trials}) == 12


def test_trials_may_be_shorter_than_the_training():
    spec = spec_of({"lr": [0.02, 0.04]}, {"lr": [0.02, 0.04]}, tuning={"epochs": 1})
    assert {trial.train.epochs for trial in spec.trials()} == {1}
    tuned = spec.substitute({"Softmax": {"lr": 0.04}, "L-GM": {"lr": 0.02}})
    assert {cell.train.epochs for cell in tuned.cells()} == {spec.train.epochs} != {1}


@pytest.mark.parametrize(
    ("searches", "shared"),
    [
        ([{"lr": [0.1, 0.2]}, {"lr": [0.1, 0.2]}], {"lr": [0.1, 0.2]}),
        ([{"lr": [0.1, 0.2]}, {"lr": [0.1, 0.3]}], {}),
        ([{"alpha": [0.1, 0.2]}], {}),
        ([{}, {}], {}),
        ([], {}),
        ([{"lr": [0.1, 0.2]}, {}], {}),
    ],
)
def test_one_more_loss_is_tuned_alike_where_all_others_try_the_same_training(searches, shared):
    tuning = {"epochs": 1}
    tried = [{"search": search, "tuning": tuning} if search else None for search in searches]
    assert shared_search(tried) == (shared, tuning if shared else {})


def test_searches_of_other_lengths_are_not_shared():
    tried = [{"search": {"lr": [0.1, 0.2]}, "tuning": {"epochs": n}} for n in (1, 2)]
    assert shared_search(tried) == ({}, {})


def test_substitute_puts_the_chosen_values_in_place_of_the_search():
    spec = spec_of({"lr": [0.02, 0.04]}, {"alpha": [0.1, 0.3]})
    tuned = spec.substitute({"Softmax": {"lr": 0.04}, "L-GM": {"alpha": 0.3}})
    assert [cell.train.lr for cell in tuned.cells([0])] == [0.04, 0.02]
    assert tuned.losses[1].params == {"alpha": 0.3}
    assert tuned.trials() == ()


@pytest.mark.parametrize(
    ("searches", "keys", "message"),
    [
        (({"lr": [0.1, 0.2]}, {"alpha": [0.1]}), {},
         r"losses\[1\].search .* has 1 combinations, losses\[0\].search has 2: every loss gets "
         r"the same number of trials. List as many, or write \[tuning\] trials = 1"),
        (({"lr": [0.1, 0.2]}, None), {}, r"losses\[1\].search .*must be given: every loss gets"),
        (({"lr": {"low": 0.1, "high": 1}},), {}, r"has a range.*Write \[tuning\] trials = 10"),
        (({"lr": [0.1, 0.2]},), {"tuning": {"trials": 3}}, r"has 2 combinations, fewer than "),
        ((None,), {"tuning": {"trials": 3}}, r"tuning.trials \(=3\) needs losses with search"),
        ((None,), {"tuning": {"epochs": 3}}, r"tuning.epochs \(=3\) needs losses with search"),
        ((None,), {"tuning": {"choose": "first"}}, r'tuning.choose \(="first"\) needs losses with'),
        (({"lr": {"low": 0.1, "high": 1}},), {"tuning": {"choose": "first", "trials": 3}},
         r'tuning.choose \(="first"\) needs lists: the values of a range have no order'),
        (({"lr": [0.1]},), {"tuning": {"choose": "last"}}, "tuning.choose"),
        (({"epochs": [1, 2]},), {"tuning": {"epochs": 1}}, r"tuning.epochs \(=1\) is how long"),
        (({"lr": []},), {}, r"losses\[0\].search.lr \(=\[\]\) must be a list of values"),
        (({"lr": 0.1},), {}, r"losses\[0\].search.lr \(=0.1\) must be a list of values"),
        (({"lr": [0.1, 0.1]},), {}, "lists a value twice"),
        (({"lr": [0.1, -1.0]},), {}, r"losses\[0\].search.lr \(=-1.0\) is no value of train.lr"),
        (({"lr": {"low": 1, "high": 0.1}},), {}, "must have low below high"),
        (({"a": {"low": 0, "high": 1, "log": True}},), {}, "must have low above 0"),
        (({"a": {"low": 0, "top": 1}},), {}, "must have low and high"),
        (({"a": [*range(400)], "b": [*range(400)]},), {"tuning": {"trials": 5}}, "160,000 combin"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_made_is_told(searches, keys, message):
    with pytest.raises(SpecError, match=message):
        spec_of(*searches, **keys)


def test_what_is_searched_cannot_stand_in_params_too():
    loss = {"name": "lgm", "params": {"alpha": 1.0}, "search": {"alpha": [0.1]}}
    with pytest.raises(SpecError, match=r"search.alpha .* stands in params too"):
        load_spec(changed(losses=[loss]))


def test_given_models_take_no_part_in_the_tuning():
    losses = [{"name": "softmax", "search": {"lr": [0.1, 0.2]}}, {"model": "mine.py:make"}]
    spec = load_spec(changed(losses=losses))
    assert [trial.label for trial in spec.trials()] == ["Softmax"] * 2


def test_the_shipped_spec_gives_four_losses_nine_trials_each():
    trials = load_spec("mnist-tuned").trials()
    counts = {label: sum(t.label == label for t in trials) for label in {t.label for t in trials}}
    assert counts == {"Softmax": 9, "Center": 9, "GM": 9, "L-GM": 9}


@pytest.mark.parametrize("key", ["name", "folders", "feature_dim", "num_classes"])
def test_what_robustloss_decides_itself_is_not_searched(key):
    with pytest.raises(SpecError, match=rf"losses\[0\].search.{key} .*cannot stand in search"):
        spec_of({key: ["a", "b"]})
