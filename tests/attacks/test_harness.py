import weakref

import pytest
import torch
from torch import Tensor, nn

from robustloss.attacks import ATTACKS, Attack, build_attack, iter_perturb, perturb
from robustloss.attacks.ball import distance, project
from robustloss.attacks.base import NORMS
from tests.attacks.models import (
    BinaryLinear,
    Made,
    classes,
    convolutional,
    gaussians,
    images,
    noisy,
)

# What an attack promises does not depend on how long it runs: short forms of the long ones.
SHORT = {
    "cw": {"steps": 30, "search_steps": 3},
    "apgd_ce": {"steps": 10, "restarts": 2},
    "apgd_dlr": {"steps": 10, "targets": 3},
    "adaptive_joint": {"steps": 5, "weights": (0.5, 2.0)},
    "adaptive_selective": {"steps": 5},
    "adaptive_orthogonal": {"steps": 5},
    "adaptive_matching": {"steps": 5, "targets": 2},
    "confidence": {"steps": 5},
    "fab": {"steps": 5},
    "fmn": {"steps": 5},
    "square": {"queries": 50},
}
# Other people's code, for which the batch decides the result: tests/attacks/test_autoattack.py.
ADAPTED = {"autoattack"}
SHORT_ATTACKS = [
    build_attack(name, **SHORT.get(name, {})) for name in ATTACKS if name not in ADAPTED
]


def subject(attack: Attack) -> nn.Module:
    """A model that has what the attack needs."""
    return gaussians() if attack.needs == "likelihood" else convolutional()


def shifted(scale: float) -> Made:
    """Go `scale` times as far as allowed, all pixels up."""
    return Made(lambda model, x, y, eps, noise: torch.stack([x + scale * e for e in eps]))


# --- box and ball ---------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [0.5, 1.0, 50.0, -1e30])
def test_box_and_ball_hold_whatever_comes_back(norm: str, scale: float) -> None:
    attack = shifted(scale)
    attack.norm = norm
    eps = [0.3, 0.0, 8 / 255, 1.0]
    found = perturb(attack, BinaryLinear(), images(), classes(k=2), eps=eps, batch_size=9)
    assert found.adv_inputs.shape == (4, 64, 1, 6, 6)
    assert found.adv_inputs.min() >= 0
    assert found.adv_inputs.max() <= 1
    for adv_inputs, budget in zip(found.adv_inputs, eps, strict=True):
        assert distance(adv_inputs - images(), norm).max() <= budget + 1e-6  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_moves_no_image_that_is_inside_and_is_nearest_on_the_ball(norm) -> None:
    inside = images(seed=6).square()  # squares use all bits, so that a detour would round
    assert torch.equal(
        project(inside, images().square(), float(norm == "linf") or 6.0, norm), inside
    )
    inputs = images(low=0.4, high=0.6)
    inside = inputs + 0.1 * (2 * images(seed=5) - 1)
    # Outside the ball, box not binding: the closed forms clip(delta) and delta · eps / ‖delta‖.
    delta = (inside - inputs).double()
    if norm == "linf":
        expected = delta.clamp(-0.05, 0.05)
    else:
        expected = delta * 0.05 / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    found = project(inside, inputs, 0.05, norm).double() - inputs.double()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-7)


def test_outside_tells_who_left() -> None:
    def do(model, inputs, labels, eps, noise) -> Tensor:
        out = inputs.expand(len(eps), *inputs.shape).clone()
        out[1, 0, 0, 0, 0] += 0.2 + 1e-5  # the ball, at the second eps only
        out[1, 1, 0, 0, 0] += 0.2  # inside
        out[0, 2, 0, 0, 0] = -1e-5  # the box
        out[0, 3, 0, 0, 0] = 1 + 1e-5
        return out

    inputs = images(5, low=0.3, high=0.7)
    inputs[2, 0, 0, 0], inputs[3, 0, 0, 0] = 0.0, 1.0
    found = perturb(Made(do), BinaryLinear(), inputs, classes(5, k=2), eps=[0.1, 0.2])
    assert found.outside.tolist() == [True, False, True, True, False]


@pytest.mark.parametrize("attack", SHORT_ATTACKS, ids=lambda a: a.name)
def test_eps_zero_returns_the_inputs_bit_for_bit(attack) -> None:
    args = (attack, subject(attack), images(), classes())
    assert torch.equal(perturb(*args, eps=[0.1, 0.0]).adv_inputs[1], images())
    alone = perturb(*args, eps=[0.0])
    assert torch.equal(alone.adv_inputs, images().unsqueeze(0))


def test_attack_is_asked_once_for_each_positive_eps() -> None:
    asked = []

    def do(model, inputs, labels, eps, noise) -> Tensor:
        asked.append(eps)
        return torch.stack([inputs + e for e in eps])

    eps = [0.2, 0.0, 0.1, 0.2]
    found = perturb(Made(do), BinaryLinear(), images(), classes(k=2), eps=eps)
    assert asked == [(0.2, 0.1)]
    assert torch.equal(found.adv_inputs[0], found.adv_inputs[3])
    assert torch.equal(found.adv_inputs[2], (images() + 0.1).clamp(0, 1))


# --- batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [*SHORT_ATTACKS, Made(noisy)], ids=lambda a: a.name)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_batch_size_and_order_do_not_change_results(attack, size: int) -> None:
    model, inputs, labels, eps = subject(attack), images(), classes(), [0.05, 0.2]
    whole = perturb(attack, model, inputs, labels, eps=eps, seed=3).adv_inputs
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    mixed = perturb(
        attack, model, inputs[order], labels[order], eps=eps, seed=3, batch_size=size, index=order
    ).adv_inputs
    # Float noise may flip the sign of a gradient that is nearly 0.
    assert ((mixed - whole[:, order]).abs() > 1e-6).double().mean() < 0.002
    model.eval()
    for left, right in zip(mixed, whole[:, order], strict=True):
        assert torch.equal(model(left).argmax(dim=1), model(right).argmax(dim=1))


def test_seed_and_index_decide_the_noise() -> None:
    args = (Made(noisy), convolutional(), images(8), classes(8))
    first = perturb(*args, eps=[0.2]).adv_inputs
    assert torch.equal(perturb(*args, eps=[0.2], index=range(8)).adv_inputs, first)  # type: ignore[arg-type]
    assert not torch.equal(perturb(*args, eps=[0.2], seed=1).adv_inputs, first)
    moved = perturb(*args, eps=[0.2], index=torch.arange(1, 9)).adv_inputs
    assert (moved != first).flatten(2).any(dim=2).all()


@pytest.mark.parametrize("attack", [*SHORT_ATTACKS, Made(noisy)], ids=lambda a: a.name)
def test_another_eps_changes_no_result(attack) -> None:
    args = (attack, subject(attack), images(), classes())
    together = perturb(*args, eps=[0.3, 0.1, 0.2]).adv_inputs
    assert torch.equal(perturb(*args, eps=[0.2]).adv_inputs[0], together[2])


@pytest.mark.parametrize("attack", SHORT_ATTACKS, ids=lambda a: a.name)
def test_stated_passes_are_never_exceeded(attack) -> None:
    eps = [0.05, 0.0, 0.2]
    spent = perturb(attack, subject(attack), images(), classes(), eps=eps).queries
    most = attack.passes(2)
    assert 0 < spent.forward <= 64 * most.forward
    assert spent.backward <= 64 * most.backward


def test_iter_perturb_gives_the_same_in_parts() -> None:
    args = (build_attack("fgsm"), convolutional(), images(), classes())
    whole = perturb(*args, eps=[0.1, 0.2], batch_size=10)
    parts = list(iter_perturb(*args, eps=[0.1, 0.2], batch_size=10))
    assert [part.adv_inputs.shape[1] for part in parts] == [10] * 6 + [4]
    assert torch.equal(torch.cat([part.adv_inputs for part in parts], dim=1), whole.adv_inputs)
    flags = [part.zero_gradient for part in parts if part.zero_gradient is not None]
    assert torch.equal(torch.cat(flags), whole.zero_gradient)
    assert sum(part.queries.forward for part in parts) == whole.queries.forward == 64


def test_iter_perturb_holds_one_batch_at_a_time() -> None:
    alive: list[weakref.ref] = []

    def do(model, inputs, labels, eps, noise) -> Tensor:
        assert sum(ref() is not None for ref in alive) <= 1  # the part that the caller still holds
        out = inputs.unsqueeze(0) + 0.0
        alive.append(weakref.ref(out))
        return out

    for _ in iter_perturb(
        Made(do), BinaryLinear(), images(), classes(k=2), eps=[0.1], batch_size=8
    ):
        pass
    assert len(alive) == 8


def test_iter_perturb_refuses_before_the_first_batch() -> None:
    with pytest.raises(ValueError, match="pixel units"):
        iter_perturb(build_attack("fgsm"), BinaryLinear(), images(), classes(k=2), eps=[8])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_move_to_the_model_and_results_come_back() -> None:
    args = (images(), classes(k=2))
    on_cpu = perturb(Made(noisy), BinaryLinear(), *args, eps=[0.1])
    on_cuda = perturb(Made(noisy), BinaryLinear().cuda(), *args, eps=[0.1], batch_size=10)
    assert on_cuda.adv_inputs.device.type == on_cuda.outside.device.type == "cpu"
    torch.testing.assert_close(on_cuda.adv_inputs, on_cpu.adv_inputs, rtol=0, atol=1e-6)
    (part,) = iter_perturb(Made(noisy), BinaryLinear().cuda(), *args, eps=[0.1])
    assert part.adv_inputs.device.type == "cuda"
