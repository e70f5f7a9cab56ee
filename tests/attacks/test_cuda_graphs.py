"""A replayed gradient is the gradient: the same attacked images, or it is not captured."""

import pytest
import torch
from torch import nn

from robustloss.attacks import AttackError, build_attack, cuda_graphs, harness, perturb
from robustloss.attacks.bounded.pgd import PGD
from robustloss.attacks.cuda_graphs import (
    MOST_GRAPHS,
    TRIALS,
    Replayer,
    _Call,
    find_replayer,
    is_transparent,
    keeping_graphs,
)
from robustloss.attacks.sealing import CountedModel
from tests.attacks.models import BinaryLinear

CPU = torch.device("cpu")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
ATTACKS = {
    "pgd": {"steps": 12, "restarts": 2},
    "mifgsm": {"steps": 12},
    "apgd_ce": {"steps": 20},
    "apgd_dlr": {"steps": 20, "targets": 2},
    "fmn": {"steps": 20},
}


def network(*more):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), *more,
        nn.Flatten(), nn.Linear(6 * 64, 5),
    ).eval()  # fmt: skip


def images(count=40):
    torch.manual_seed(1)
    return torch.rand(count, 1, 8, 8), torch.randint(0, 5, (count,))


def offered(model):
    """A replayer as it is on a GPU."""
    replayer = Replayer(model, CPU)
    replayer.reason, replayer._state = "", cuda_graphs._describe(model)
    return replayer


def replays(replayer):
    return any(call.graph is not None for call in replayer._calls.values())


class FakeGraph:
    """What a graph does to Python: nothing."""

    def replay(self):
        pass


def test_on_a_cpu_every_call_is_plain():
    replayer = Replayer(network(), CPU)
    counted = CountedModel(network(), 4, replayer)
    asked = []
    for _ in range(3 * TRIALS):
        replayer.call("kind", lambda x: (asked.append(len(x)), (x,))[1], counted, images()[0])
    assert asked == [40] * 3 * TRIALS
    assert replayer.reason == "not offered"
    assert not replays(replayer)


def test_only_modules_without_python_of_their_own_are_captured():
    assert is_transparent(network())
    assert not is_transparent(BinaryLinear())
    assert not is_transparent(nn.Sequential(network(), BinaryLinear()))
    hooked = network()
    handle = hooked[0].register_forward_hook(lambda *given: None)
    assert not is_transparent(hooked)
    handle.remove()
    assert is_transparent(hooked)
    hooked[2].forward = lambda images: images
    assert not is_transparent(hooked)
    assert not is_transparent(torch.fx.symbolic_trace(network()))
    assert not is_transparent(nn.DataParallel(network()))


class Redone:
    """A graph that computes its function again, as a GPU does."""

    def __init__(self, function, given, found):
        self.function, self.given, self.found = function, given, found

    def replay(self):
        for old, new in zip(self.found, self.function(*self.given), strict=True):
            old.copy_(new)


def pure(x):
    return 2 * x, (x > 0.5).flatten(1).sum(1)


@pytest.mark.parametrize("graph", [Redone, lambda *given: FakeGraph()], ids=["sound", "empty"])
def test_calls_give_the_same_whether_replayed_or_not(graph, monkeypatch):
    replayer = offered(network())
    counted = CountedModel(network(), 4, replayer)

    def measure(x):
        counted.forward_images += len(x)
        counted.backward_images += len(x)
        return pure(x)

    def capture(function, *given, device):
        found = function(*given)
        return found, graph(pure, given, found)

    monkeypatch.setattr(cuda_graphs, "capture", capture)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(cuda_graphs, "rehearse", lambda f, *given, **keys: (f(*given), ""))
    for number in range(1, 4 * TRIALS):
        x = torch.rand(5, 1, 8, 8)
        for found, expected in zip(
            replayer.call("kind", measure, counted, x), pure(x), strict=True
        ):
            assert torch.equal(found, expected)
        assert counted.forward_images == counted.backward_images == 5 * number
    assert replays(replayer) == (graph is Redone)
    assert ("differs" in replayer.reason) == (graph is not Redone)


def test_a_replay_counts_its_passes_and_hands_out_copies():
    replayer = offered(network())
    counted = CountedModel(network(), 4, replayer)
    x = images()[0]
    held = torch.arange(3.0)
    key = ("kind", (x.shape, x.stride(), x.dtype))
    known = _Call(TRIALS, FakeGraph(), (torch.zeros_like(x),), (held,), 40, 39)
    replayer._calls[key] = known
    (found,) = replayer.call("kind", lambda x: 1 / 0, counted, x)
    assert torch.equal(known.inputs[0], x)
    assert (counted.forward_images, counted.backward_images) == (40, 39)
    held.zero_()
    assert found.tolist() == [0.0, 1.0, 2.0]


def test_the_graph_used_longest_ago_makes_room():
    replayer = offered(network())
    counted = CountedModel(network(), 4, replayer)
    given = [torch.zeros(n, 1) for n in range(1, MOST_GRAPHS + 1)]
    for x in given:
        key = ("kind", (x.shape, x.stride(), x.dtype))
        replayer._calls[key] = _Call(TRIALS, FakeGraph(), (x.clone(),), (x,), 0, 0)
    replayer.call("kind", lambda x: 1 / 0, counted, given[0])
    replayer._make_room()
    left = [key[1][0][0] for key in replayer._calls]
    assert left == [*range(3, MOST_GRAPHS + 1), 1]


def test_so_many_graphs_are_kept():
    replayer = offered(network())
    for number in range(3 * MOST_GRAPHS):
        replayer._make_room()
        replayer._calls[number] = _Call(graph=FakeGraph())
        assert len(replayer._calls) == min(number + 1, MOST_GRAPHS)


@pytest.mark.parametrize("change", ["replace", "train", "setting", "hook"])
def test_a_model_that_is_another_by_now_is_noticed(change):
    model = nn.Sequential(network(), nn.LeakyReLU(0.1)).eval()
    replayer = offered(model)
    replayer._calls["kind"] = _Call(graph=FakeGraph())
    replayer.renew()
    assert replays(replayer)
    if change == "replace":
        model[1] = nn.LeakyReLU(0.1)
    elif change == "train":
        model[0][1].train()
    elif change == "setting":
        model[1].negative_slope = 0.2
    else:
        model[1].register_forward_hook(lambda *given: None)
    replayer.renew()
    assert not replays(replayer)


class Counting(nn.Linear):
    """Torch's with Python of the user's."""


def test_what_hides_python_of_others_is_found():
    assert is_transparent(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    assert not is_transparent(nn.utils.parametrizations.weight_norm(Counting(3, 3)))
    assert is_transparent(nn.TransformerEncoderLayer(4, 1))
    assert not is_transparent(nn.TransformerEncoderLayer(4, 1, activation=lambda x: x))
    sparse = nn.Linear(3, 3)
    sparse.weight = nn.Parameter(sparse.weight.detach().to_sparse())
    assert not is_transparent(sparse)
    patched = network()
    patched.joint = lambda images: images
    assert not is_transparent(patched)
    handle = nn.modules.module.register_module_forward_hook(lambda *given: None)
    try:
        assert not is_transparent(network())
    finally:
        handle.remove()
    assert is_transparent(network())


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 64).to_sparse())

    def forward(self, x):
        return torch.sparse.mm(self.weight, x.flatten(1).T).T


def test_a_model_with_sparse_weights_is_attacked_plainly():
    made = perturb(build_attack("pgd", steps=20), Sparse(), *images(), eps=[0.1])
    assert not made.outside.any()


class Twice(PGD):
    """An attack of the user's."""


def test_only_long_attacks_of_our_own_are_captured(monkeypatch):
    asked = []
    monkeypatch.setattr(harness, "find_replayer", lambda *given: asked.append(given))
    attacks = (build_attack("fgsm"), build_attack("pgd", steps=3), Twice(steps=40))
    for attack in (*attacks, lambda model, x, y, eps: x):
        perturb(attack, network(), *images(), eps=[0.1])
    assert asked == []
    perturb(build_attack("pgd", steps=20), network(), *images(), eps=[0.1])
    assert len(asked) == 1


class TurnsNaN(nn.Module):
    """Finite logits, and gradients that are NaN from some pass on."""

    def __init__(self, last):
        super().__init__()
        self.inner, self.left = network(), last

    def forward(self, x):
        if x.requires_grad:
            self.left -= 1
            x = x.view_as(x)
            if self.left < 0:
                x.register_hook(lambda gradient: gradient * float("nan"))
        return self.inner(x)


@pytest.mark.parametrize("name", ["pgd", "mifgsm", "apgd_ce", "apgd_dlr"])
def test_a_gradient_that_turns_nan_on_the_way_is_told(name):
    with pytest.raises(AttackError, match="gradient is NaN"):
        perturb(build_attack(name, steps=20), TurnsNaN(6), *images(), eps=[0.1])


def test_weights_that_moved_are_noticed():
    model = network()
    replayer = offered(model)
    replayer._calls["kind"] = _Call(graph=FakeGraph())
    replayer.renew()
    assert replays(replayer)
    model[0].weight.data.add_(1.0)  # in place: a graph reads the new values
    replayer.renew()
    assert replays(replayer)
    model[0].weight.data = model[0].weight.data.clone()
    replayer.renew()
    assert not replays(replayer)


def test_graphs_are_kept_for_the_next_call_where_that_is_asked():
    model, other = network(), network()
    assert find_replayer(model, CPU) is not find_replayer(model, CPU)
    with keeping_graphs():
        first = find_replayer(model, CPU)
        assert find_replayer(model, CPU) is first
        assert find_replayer(other, CPU) is not first
        with keeping_graphs():
            assert find_replayer(model, CPU) is not first
        assert find_replayer(model, CPU) is first
    assert find_replayer(model, CPU) is not first


def test_a_hook_that_comes_later_ends_the_replays():
    model = network()
    replayer = offered(model)
    replayer._calls["kind"] = _Call(graph=FakeGraph())
    model[0].register_forward_hook(lambda *given: None)
    replayer.renew()
    assert not replays(replayer)
    assert replayer.reason


@pytest.fixture
def replayers(monkeypatch):
    """The replayers that are made from here on."""
    made = []

    class Kept(Replayer):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(cuda_graphs, "Replayer", Kept)
    return made


@on_gpu
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_replayed_attacks_give_the_images_of_plain_ones(name, norm, replayers, monkeypatch):
    attack = build_attack(name, norm=norm, **ATTACKS[name])
    model = network().cuda()
    eps = [0.05, 0.1] if norm == "linf" else [0.3, 0.6]
    # eight batches, so that one gradient a batch is replayed too
    made = perturb(attack, model, *images(160), eps=eps, batch_size=20)
    monkeypatch.setattr(cuda_graphs, "LARGEST", 0)
    plain = perturb(attack, model, *images(160), eps=eps, batch_size=20)
    assert replays(replayers[0]), replayers[0].reason
    assert not replays(replayers[1])
    torch.testing.assert_close(made.adv_inputs, plain.adv_inputs, rtol=0, atol=1e-5)
    assert made.queries == plain.queries
    assert torch.equal(made.zero_gradient, plain.zero_gradient)


@on_gpu
def test_weights_changed_between_batches_are_seen(replayers, monkeypatch):
    def attacked():
        model = network().cuda()
        found = []
        attack = build_attack("pgd", steps=20)
        for part in harness.iter_perturb(attack, model, *images(60), eps=[0.1], batch_size=20):
            found.append(part.adv_inputs)
            with torch.no_grad():
                model[-1].weight.data = -model[-1].weight.data
        return torch.cat(found, dim=1)

    made = attacked()
    monkeypatch.setattr(cuda_graphs, "LARGEST", 0)
    torch.testing.assert_close(made, attacked(), rtol=0, atol=1e-5)
    assert replays(replayers[0])


class Waiting(nn.ReLU):
    """Torch's as far as its module says; it waits for the device."""

    def forward(self, x):
        assert float(x.sum()) < 1e9
        return super().forward(x)


class Drawing(nn.ReLU):
    def forward(self, x):
        return super().forward(x) + 1e-6 * torch.rand_like(x)


@on_gpu
@pytest.mark.parametrize(("module", "reason"), [(Waiting, "waits"), (Drawing, "random")])
def test_what_a_graph_would_leave_out_keeps_calls_plain(module, reason, replayers, monkeypatch):
    monkeypatch.setattr(module, "__module__", "torch.nn")
    attack = build_attack("pgd", steps=20)
    perturb(attack, network(module()).cuda(), *images(), eps=[0.1])
    assert reason in replayers[0].reason


@on_gpu
@pytest.mark.parametrize("name", ["pgd", "apgd_ce"])
def test_nan_is_still_told(name):
    model = network().cuda()
    with torch.no_grad():
        model[-1].bias[0] = float("nan")
    with pytest.raises(AttackError, match="NaN"):
        perturb(build_attack(name, steps=20), model, *images(), eps=[0.1])


@on_gpu
def test_large_batches_stay_plain(replayers, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "LARGEST", 40 * 64 - 1)
    perturb(build_attack("pgd", steps=20), network().cuda(), *images(), eps=[0.1])
    assert not replays(replayers[0])
