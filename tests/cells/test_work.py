"""The work of a cell: passes counted before they are made."""

import time

import pytest
import torch
from torch import nn

from robustloss.attacks import Queries, build_attack
from robustloss.attacks.harness import iter_perturb
from robustloss.cells import work
from robustloss.data.images import Dataset, ImageSet
from robustloss.spec.load import load_spec

PGD = {"name": "pgd", "params": {"steps": 10}, "eps": [0.1, 0.2]}  # 22 forward, 21 back


def counted(attacks, images=100, validation=50, **tables):
    spec = load_spec(
        {
            "name": "work",
            "data": {"name": "digits"},
            "losses": [{"name": "softmax"}],
            "attacks": attacks,
            **tables,
        }
    )
    test, other, train = (
        ImageSet(torch.zeros((n, 1, 2, 2), dtype=torch.uint8), torch.zeros(n, dtype=torch.int64),
                 torch.arange(n), 16.0)
        for n in (images, validation, 10)
    )  # fmt: skip
    dataset = Dataset(
        name="digits", num_classes=2, class_names=("0", "1"), mean=(0.0,), std=(1.0,),
        train=train, validation=other if validation else test, test=test, checksum="",
        training_checksum="",
    )  # fmt: skip
    built = [build_attack(each.name, **each.params) for each in spec.attacks]
    return spec, built, dataset


def test_passes_are_counted_step_by_step_and_rise_to_one():
    found = work.count_work(*counted([PGD, {"name": "fgsm", "eps": [0, 0.1]}]))
    assert dict(found.steps) == {
        "reference": Queries(60, 0),
        # 4 looks, five trials of 10 steps and one of 50 with two more passes each, and the path
        "checks": Queries(100 * (4 + 5 * 12 + 52 + 12), 100 * (1 + 50 + 50 + 11)),
        "crops": Queries(0, 0),
        "clean": Queries(100, 0),
        "attack PGD": Queries(100 * (1 + 2 * 11 + 2), 100 * 21),
        "attack FGSM": Queries(100 * 2, 100),
        "noise": Queries(300, 0),
        "outside": Queries(0, 0),
        "shifts": Queries(0, 0),
    }
    assert found.attacks == 100 * (25 + 21 + 3)
    shares = [found.fraction(step, done) for step in found.steps for done in (0.0, 0.5, 1.0)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    # A pass back is one of forward and back, which the second number gives.
    only = work.Work({"a": Queries(10, 4)})
    assert only.seconds(1.0, 3.0) == 6 * 1.0 + 4 * 3.0


def test_clean_images_pass_once_where_they_give_the_thresholds_too():
    found = work.count_work(*counted([PGD], validation=0))
    assert (found.steps["reference"], found.steps["clean"]) == (Queries(10, 0), Queries(100, 0))
    assert next(iter(found.steps)) == "clean"


@pytest.mark.parametrize(("images", "tried"), [(10, 0), (100, 3), (1000, 31), (10_000, 200)])
def test_trial_attacks_take_at_most_a_sixth_of_the_attacks(images, tried):
    spec, built, dataset = counted([PGD], images=images)
    assert work.choose_check_images(spec, built, dataset) == tried
    spec, built, dataset = counted([PGD], images=images, checks={"images": max(tried, 1)})
    found = work.count_work(spec, built, dataset)
    if tried:
        assert sum(found.steps["checks"]) <= found.attacks / 6
    beside = found.passes - found.attacks - sum(found.steps["reference"])
    assert beside <= found.attacks or not tried


def test_one_gradient_and_its_noise_leave_little_room_for_trial_attacks():
    attacks = [{"name": "fgsm", "eps": [0.1, 0.2]}]
    # A sixth of 4 passes an image; a trial without a path takes 217.
    assert work.choose_check_images(*counted(attacks, images=1000)) == 1000 * 4 // 6 // 217
    assert work.choose_check_images(*counted(attacks, images=200)) == 0
    spec, built, dataset = counted(attacks, images=1000, checks={"images": 0})
    assert work.choose_check_images(spec, built, dataset) == 0


def test_the_cost_of_an_attack_that_says_nothing_is_a_gradient_a_budget(tmp_path):
    (tmp_path / "own.py").write_text("def mine(model, inputs, labels, eps):\n    return inputs\n")
    name = f"{tmp_path}/own.py:mine"
    found = work.count_work(*counted([PGD, {"name": name, "label": "mine", "eps": [0.1, 0.2]}]))
    assert found.unknown == ("mine",)
    assert found.steps["attack mine"] == Queries(100 * 4, 200)


def test_an_attack_tells_of_its_passes_within_a_batch():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    inputs, labels, sent = torch.rand(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64), []
    attack = build_attack("pgd", steps=3)
    list(iter_perturb(attack, model, inputs, labels, eps=[0.1], batch_size=4, on_pass=sent.append))
    # The gradient at the image, three of the path, its last point: 4 images, then 2.
    assert sent == [0, 4, 8, 12, 16, 0, 2, 4, 6, 8]


def test_timed_passes_are_positive_and_leave_the_random_numbers_alone():
    _, _, dataset = counted([PGD])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)
            self.head = type("Head", (), {"num_classes": 2})

        def forward(self, images):
            return self.linear(images.flatten(1)) + 0 * torch.rand(1)

        def outputs(self, images):
            return None, self(images), self(images)

    with torch.random.fork_rng():
        model = Model().eval()
    forward, gradient = work.time_passes(model, dataset.test)
    assert forward > 0
    assert gradient > 0
    assert torch.equal(torch.rand(1), expected)


def test_the_clock_stands_still_while_others_compute_and_goes_on_in_sleep(monkeypatch):
    now = iter([10.0, 10.5, 11.0, 12.0])
    texts = iter(["9 1000000000 1", "9 2000000000 1", "9 2000000000 1", ""])

    class Told:
        def read_text(self, **how):
            return next(texts)

    monkeypatch.setattr(work.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(work, "_SCHEDULED", Told())
    assert work.read_clock() == 11.0 - 2.0  # it was interrupted twice between two readings
    assert work.read_clock() == 12.0  # nobody counts
    monkeypatch.undo()
    started = work.read_clock()
    time.sleep(0.05)
    assert work.read_clock() - started > 0.04


@pytest.mark.parametrize(
    ("first", "second", "each"),
    [
        (0.3, 1.0, 0.2 / 100 + 0.1),  # 0.2 s a call, 0.1 s an image
        (0.1, 0.8, 0.1),  # a call costs nothing
        (0.5, 0.4, 0.4 / 8 / 4),  # noise: not below a quarter of what the larger batch took
    ],
)
def test_an_image_of_a_batch_bears_its_share_of_the_call(first, second, each):
    assert work._divide_time(1, first, 8, second, 100) == pytest.approx(each)
    assert work._divide_time(8, first, 8, second, 100) == pytest.approx(second / 8)


def test_attacks_that_prove_themselves_are_counted_at_each_budget():
    fgsm = {"name": "fgsm", "eps": [0, 0.1]}
    plain = work.count_work(*counted([PGD, fgsm])).steps["checks"]
    spec, built, dataset = counted([PGD, fgsm], checks={"unit_test": True})
    assert [(t.label, e.eps) for t, e in work.list_tested(spec, built)] == [
        ("PGD", 0.1), ("PGD", 0.2), ("FGSM", 0.1)
    ]  # fmt: skip
    found = work.count_work(spec, built, dataset).steps["checks"]
    # 999 points inside, the image, one point that is looked at twice, 200 more; then each attack
    assert found.forward - plain.forward == 100 * (2 * (1202 + 12 + 1) + 1 + 1)
    assert found.backward - plain.backward == 100 * (2 * 11 + 1)
