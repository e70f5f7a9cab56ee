"""Every built-in loss trains 2-D features of real MNIST images for 200 steps without a NaN."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from robustloss.data.files import DataError
from robustloss.data.load import load_dataset
from robustloss.losses import LOSSES, build_loss
from robustloss.losses.base import LossHead
from robustloss.spec.data import DataSpec
from robustloss.training.batches import balanced_batches, shuffled_batches

STEPS, BATCH, LR = 200, 64, 0.02
# Margins that ten classes can meet in the plane, at scales that ten classes need.
PARAMS = {
    "cosface": {"scale": 15.0, "margin": 0.15},
    "arcface": {"scale": 15.0, "margin_rad": 0.3},
    "fnorm_sphereface": {"scale": 15.0},
    "l2_softmax": {"radius": 16.0},
}


@pytest.fixture(scope="module")
def mnist():
    try:
        data = load_dataset(
            DataSpec(name="mnist", train_size=4000, test_size=10), download=False, quiet=True
        )
    except DataError as error:
        pytest.skip(f"no MNIST here: {error}")
    return data.train


def positions(head: LossHead, labels: torch.Tensor) -> Iterator[torch.Tensor]:
    for epoch in range(1 + STEPS * BATCH // len(labels)):
        if head.batching == "balanced":
            yield from balanced_batches(labels, 10, BATCH, seed=0, epoch=epoch)
        else:
            yield from shuffled_batches(len(labels), BATCH, seed=0, epoch=epoch)


@pytest.mark.parametrize("name", LOSSES)
def test_no_nan_in_200_steps_in_the_plane(mnist, name):
    torch.manual_seed(0)
    head = build_loss(name, feature_dim=2, num_classes=10, **PARAMS.get(name, {}))
    layers = nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 64), nn.PReLU(), nn.Linear(64, 64), nn.PReLU()),
        nn.Linear(64, 2),
    )
    head.start(torch.bincount(mnist.labels, minlength=10))
    groups = [{"params": list(layers.parameters()), "lr": LR}, *head.parameter_groups(LR)]
    optimizer = torch.optim.SGD(
        [group for group in groups if group["params"]], lr=LR, momentum=0.9, weight_decay=5e-4
    )
    found = []
    for step, chosen in zip(range(STEPS), positions(head, mnist.labels), strict=False):
        features, labels = layers(mnist.batch(chosen) - 0.13), mnist.labels[chosen]
        terms = head.loss(features, labels, progress=step / STEPS)
        loss = (terms.classification + terms.regulariser).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*layers.parameters(), *head.parameters()], 2.0)
        optimizer.step()
        head.after_step(features.detach(), labels)
        # At full margin, so that the numbers of the first and the last steps are of one loss.
        with torch.no_grad():
            full = head.loss(features.detach(), labels, progress=1.0)
        found.append(float((full.classification + full.regulariser).mean()))
    assert len(found) == STEPS
    assert torch.tensor(found).isfinite().all()
    assert all(value.isfinite().all() for value in (*layers.parameters(), *head.parameters()))
    first, last = (sum(part) / 10 for part in (found[:10], found[-10:]))
    assert last < first
