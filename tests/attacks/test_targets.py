"""Which wrong classes a targeted attack aims at first, with few classes and with a thousand."""

import pytest
import torch
from torch import nn

from robustloss.attacks import PluginError, build_attack, perturb
from robustloss.attacks.objectives import choose_targets, wrong_classes

NORMS = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}  # the dual norm of each


class ManyClasses(nn.Module):
    """Linear logits: class 1 is the likeliest of the wrong ones, class 7 by far the nearest."""

    threshold = -1e9

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        steepness = torch.rand(classes, generator=generator) + 0.1
        steepness[1], steepness[7] = 0.1, 10.0
        weight = torch.randn(classes, 16, generator=generator) * steepness.unsqueeze(1)
        weight[0] = 0.0
        self.register_buffer("weight", weight)
        # On grey images class 0 leads by .501 over class 1, by .502 over class 2, and so on.
        lead = torch.tensor([0.0, *(0.5 + 0.001 * k for k in range(1, classes))])
        self.register_buffer("bias", -lead - 0.5 * weight.sum(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.get_buffer("weight").T + self.get_buffer("bias")

    def joint(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self(images), self(images)

    def distances(self, norm: str) -> torch.Tensor:
        """Exact distances (K,) of a grey image to where each class overtakes class 0."""
        logits = self(torch.full((1, 1, 4, 4), 0.5))[0]
        normals = self.get_buffer("weight") - self.get_buffer("weight")[0]
        far = (logits[0] - logits) / torch.linalg.vector_norm(normals, NORMS[norm], dim=1)
        far[0] = torch.inf
        return far


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("norm", NORMS)
def test_nearest_boundaries_come_first(classes, norm):
    model = ManyClasses(classes)
    point = torch.full((3, 1, 4, 4), 0.5, requires_grad=True)
    logits, labels = model(point), torch.zeros(3, dtype=torch.int64)
    chosen = choose_targets(logits, point, labels, 5, norm, "distance")
    likely = wrong_classes(logits, labels, 100)
    assert torch.equal(choose_targets(logits, point, labels, 5, norm, "logit"), likely[:, :5])
    far = model.distances(norm)[likely[0]]
    assert chosen.tolist() == 3 * [likely[0, far.argsort()[:5]].tolist()]
    # Most likely is not nearest, else the order would say nothing.
    assert chosen[0].tolist() != likely[0, :5].tolist()


@pytest.mark.parametrize("name", ["apgd_dlr", "adaptive_selective"])
@pytest.mark.parametrize("classes", [100, 1000])
def test_one_target_is_enough_where_it_is_the_nearest_one(name, classes):
    """At an eps between the distances of the nearest and of the most likely class."""
    model, labels = ManyClasses(classes), torch.zeros(4, dtype=torch.int64)
    images = torch.full((4, 1, 4, 4), 0.5)
    far = model.distances("linf")
    nearest, likeliest = far.min(), far[model(images)[0].topk(2).indices[1]]
    assert (far.argmin(), likeliest > 5 * nearest) == (7, True)
    attacks = {
        order: build_attack(name, targets=1, order=order, steps=10)
        for order in ("logit", "distance")
    }
    found = {
        order: perturb(attack, model, images, labels, eps=[1.2 * float(nearest)])
        for order, attack in attacks.items()
    }
    fooled = {order: each.success.tolist() for order, each in found.items()}
    assert fooled == {"logit": [[False] * 4], "distance": [[True] * 4]}
    # One more backward pass for each class that is looked at, a hundred at most.
    most = attacks["distance"].passes(1).backward
    assert found["distance"].queries.backward <= 4 * most
    assert most - attacks["logit"].passes(1).backward == 100


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "apgd_dlr",
            {"order": "margin"},
            r"order \(='margin'\) must be one of 'logit', 'distance'",
        ),
        ("adaptive_joint", {"order": 3}, "must be one of 'logit', 'distance'"),
        ("adaptive_matching", {"order": "distance"}, "must be one of 'mean'"),
        ("apgd_ce", {"order": "distance"}, "unknown parameter"),
    ],
)
def test_unknown_orders_are_refused(name, params, message):
    with pytest.raises(PluginError, match=message):
        build_attack(name, **params)
