"""Criteria of logits and labels as heads: which are taken, how, and what is said of the others."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustloss.cells import keys
from robustloss.losses import build_loss, find_loss
from robustloss.losses.contract.check import check_loss
from robustloss.training import captured_step, objective
from tests.losses.toy_inputs import D, K, head, inputs

OWN = '''
import torch
from torch import nn
from torch.nn import functional as F
from robustloss.losses.softmax import SoftmaxHead

def focal(logits, labels, *, gamma=2.0):
    """Focal loss, one number per image."""
    of_label = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -((1 - of_label.exp()) ** gamma) * of_label

def mean_focal(logits, labels, gamma=2.0):
    return focal(logits, labels, gamma=gamma).mean()

def total_by_branches(logits, labels):
    return sum((row.logsumexp(0) - row[y]) * (2.0 if row[y] > 0 else 1.0)
               for row, y in zip(logits, labels))

def weighted(logits, labels, weight: torch.Tensor | None = None):
    return F.cross_entropy(logits, labels, weight, reduction="none")

class Tempered(nn.Module):
    def __init__(self, num_classes, start=1.0):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(start))
        self.register_buffer("shift", torch.zeros(num_classes))
    def forward(self, logits, labels):
        return F.cross_entropy(logits / self.temperature + self.shift, labels)

def compares(logits, labels):
    return F.cross_entropy(logits - logits.mean(0), labels)
def compares_rows(logits, labels):
    return F.cross_entropy(logits - logits.mean(0), labels, reduction="none")
def per_class(logits, labels):
    return logits.log_softmax(1)
def cut_off(logits, labels):
    return F.cross_entropy(logits.detach(), labels)
def counts(logits, labels):
    return (logits.argmax(1) != labels).sum()
def of_posteriors(logits, labels):
    return -logits.gather(1, labels[:, None])[:, 0].log()
def text(logits, labels):
    return "loss"
class Plain:
    def __call__(self, logits, labels):
        return focal(logits, labels)
instance = nn.CrossEntropyLoss()
'''


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return lambda name: f"criterion:{tmp_path / 'own.py'}:{name}"


def terms(built, spread=1.0):
    features, labels = inputs(spread=spread)
    return built.loss(features, labels, progress=0.5).classification


def test_cross_entropy_of_torch_is_softmax_bit_for_bit():
    softmax = head("softmax")
    for name in ("torch.nn:CrossEntropyLoss", "torch.nn.functional:cross_entropy"):
        built = head(f"criterion:{name}")
        assert torch.equal(built.linear.weight, softmax.linear.weight)
        assert torch.equal(terms(built), terms(softmax))
        assert torch.equal(built.class_vectors(), softmax.class_vectors())


@pytest.mark.parametrize(("mine", "way"), [("focal", "whole"), ("mean_focal", "vmap")])
def test_ours_and_theirs_are_the_same_loss(own, mine, way):
    built = head(own(mine), gamma=1.5)
    assert built.way == way
    torch.testing.assert_close(terms(built), terms(head("focal", gamma=1.5)))


def test_a_criterion_that_decides_by_values_is_computed_in_a_loop(own):
    built = head(own("total_by_branches"))
    assert built.way == "loop"
    features, labels = inputs()
    logits = built.logits(features)
    twice = 1.0 + (logits.gather(1, labels[:, None])[:, 0] > 0).double()
    wanted = twice * F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(terms(built), wanted)


@pytest.mark.parametrize("name", ["torch.nn:CrossEntropyLoss", "torch.nn.functional:cross_entropy"])
def test_class_weights_may_be_a_list(own, name):
    for each in (f"criterion:{name}", own("weighted")):
        built = head(each, weight=[1.0, 2.0, 4.0])
        features, labels = inputs()
        plain = F.cross_entropy(built.logits(features), labels, reduction="none")
        torch.testing.assert_close(terms(built), plain * torch.tensor([1.0, 2, 4])[labels])


def test_parameters_of_a_criterion_are_trained_and_saved(own):
    built = head(own("Tempered"), start=2.0)
    features, labels = inputs()
    wanted = F.cross_entropy(built.logits(features) / 2.0, labels, reduction="none")
    torch.testing.assert_close(terms(built), wanted)
    assert any(p is built.criterion.temperature for p in built.parameter_groups(0.1)[0]["params"])
    assert built.criterion.temperature.grad is None
    other = head(own("Tempered"), seed=1)
    other.load_state_dict(built.state_dict())
    assert torch.equal(terms(other), terms(built))


@pytest.mark.parametrize(
    "name",
    [
        *("torch.nn:CrossEntropyLoss", "torch.nn:MultiMarginLoss"),
        *("torch.nn.functional:cross_entropy", "torch.nn.functional:multi_margin_loss"),
    ],
)
def test_criteria_of_torch_keep_the_contract(name):
    assert [c.detail for c in check_loss(f"criterion:{name}") if not c.passed] == []


@pytest.mark.parametrize("name", ["focal", "mean_focal", "total_by_branches", "Tempered"])
def test_own_criteria_keep_the_contract(own, name):
    assert [c.detail for c in check_loss(own(name)) if not c.passed] == []


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "torch.nn:CrossEntropy",
            {},
            "must name a loss of torch.nn, .*did you mean 'CrossEntropyL",
        ),
        ("torch.nn:Linear", {}, "must name a loss of torch.nn, as CrossEntropyLoss"),
        ("torch.nn.functional:softmax", {}, "must name a loss of torch.nn.functional"),
        ("torch.nn:BCEWithLogitsLoss", {}, r"int64 labels \(B,\)\. For targets of another form"),
        ("torch.nn:MSELoss", {}, "the criterion failed: RuntimeError"),
        ("torch.nn:NLLLoss", {}, "falls without end .*CrossEntropyLoss in place of NLLLoss"),
        ("torch.nn:CrossEntropyLoss", {"reduction": "sum"}, "reduction: unknown parameter"),
        ("torch.nn:CrossEntropyLoss", {"wieght": 1}, "did you mean 'weight'"),
        ("focal", {}, "must have the form 'criterion:torch.nn:NAME'"),
        ("no_such_package.losses:Focal", {}, "no module 'no_such_package.losses'"),
        ("pml:ArcFaceLoss", {}, "'pml:' stands for a package, and not here"),
        ("criterion:torch.nn:CrossEntropyLoss", {}, "'criterion:' stands for a package"),
        ("torch.hub:load", {}, "the criterion failed|could not be built|missing"),
    ],
)
def test_what_is_no_criterion_is_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        build_loss(f"criterion:{name}", feature_dim=D, num_classes=K, **params)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("compares", "the criterion compares images.*Write it as a loss head"),
        ("compares_rows", "the criterion compares images"),
        ("per_class", r"returned shape \(5, 3\) for 5 images.*sum over the classes"),
        ("cut_off", "not connected to the logits: look for detach, argmax"),
        ("counts", "returned torch.int64, not a floating tensor"),
        ("of_posteriors", "not finite at logits between -2 and 2.*not probabilities"),
        ("text", "returned str, not a floating tensor"),
        ("Plain", "must be a class of torch.nn.Module or a function.*but it is a class Plain"),
        ("instance", "but it is a CrossEntropyLoss"),
        ("SoftmaxHead", "is a loss head: leave out 'criterion:'"),
        ("focl", "has no 'focl'; did you mean 'focal'"),
    ],
)
def test_a_wrong_criterion_of_ones_own_gets_the_remedy(own, name, message):
    with pytest.raises(ValueError, match=message):
        build_loss(own(name), feature_dim=D, num_classes=K)


def test_building_draws_no_random_numbers_of_its_own(own):
    torch.manual_seed(0)
    build_loss("softmax", feature_dim=D, num_classes=K)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    with torch.no_grad():
        build_loss(own("mean_focal"), feature_dim=D, num_classes=K)
    assert torch.equal(torch.rand(3), wanted)


def test_source_decides_the_key(own, tmp_path):
    first = keys.plugin_digest(own("focal"), tmp_path)
    assert first == keys.plugin_digest(own("focal").removeprefix("criterion:"), tmp_path)
    (tmp_path / "own.py").write_text(OWN + "\n# changed")
    assert keys.plugin_digest(own("focal"), tmp_path) != first
    assert keys.plugin_digest("criterion:torch.nn:CrossEntropyLoss", tmp_path).startswith("torch 2")


def test_only_steps_of_torch_s_criteria_may_be_captured(own):
    theirs = find_loss("criterion:torch.nn:CrossEntropyLoss")(D, K)
    assert captured_step.has_own_phase(theirs)
    assert not captured_step.has_own_phase(find_loss(own("focal"))(D, K))
    assert not objective.is_known(nn.ModuleDict({"head": find_loss(own("focal"))(D, K)}))
