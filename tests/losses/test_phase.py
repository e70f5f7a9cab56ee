"""At equal phases a loss must be the same function, or a recorded training step is a wrong one."""

import pytest
import torch

from robustloss.losses import LOSSES, build_loss
from robustloss.losses.base import LossHead

D, K, N = 6, 4, 16
PROGRESS = torch.linspace(0, 1, 41).tolist()
SCHEDULED = [
    ("gm", {"likelihood_weight_schedule": "linear"}),
    ("lgm", {"alpha_schedule": "steps"}),
    ("lgm", {"alpha_schedule": "linear", "likelihood_weight_schedule": "steps"}),
    ("l_softmax", {"margin": 3}),
    ("a_softmax", {"margin": 4}),
    ("triplet", {"mining": "batch_hard", "hard_from": 0.3}),
]
CASES = [*((name, {}) for name in LOSSES), *SCHEDULED]


def losses_and_phases(name, params):
    torch.manual_seed(0)
    head = build_loss(name, feature_dim=D, num_classes=K, **params).double()
    head.start(torch.tensor([5, 6, 7, 8]))
    features = torch.randn(N, D, dtype=torch.float64)
    labels = torch.arange(N) % K
    values = [torch.stack(head.loss(features, labels, progress=p)).sum(0) for p in PROGRESS]
    return values, [head.phase(p) for p in PROGRESS]


@pytest.mark.parametrize(("name", "params"), CASES)
def test_equal_phases_mean_equal_losses(name, params):
    values, phases = losses_and_phases(name, params)
    for before, after, a, b in zip(values, values[1:], phases, phases[1:], strict=False):
        if a == b:
            assert torch.equal(before, after)


@pytest.mark.parametrize(("name", "params"), SCHEDULED)
def test_a_schedule_changes_the_phase(name, params):
    values, phases = losses_and_phases(name, params)
    assert len(set(phases)) > 1
    assert not torch.equal(values[0], values[-1])


@pytest.mark.parametrize("name", LOSSES)
def test_every_built_in_loss_tells_its_phase(name):
    assert LOSSES[name].phase is not LossHead.phase
