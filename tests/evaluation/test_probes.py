"""The trial attacks: each question answered by a model whose answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from robustloss.analysis.checks.from_probe import NAMES, check_probe
from robustloss.attacks import build_attack
from robustloss.data.images import ImageSet
from robustloss.evaluation.probes import TEMPERATURES, Traced, is_traceable, probe_arrays

N, K = 40, 3


class Linear(nn.Module):
    """Logits of three classes, linear in the image; scale saturates the cross-entropy."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(36, K, generator=generator))
        self.scale = scale

    def forward(self, images):
        return self.scale * (images.flatten(1) - 0.5) @ self.get_buffer("weight")


class Flat(Linear):
    """Grey levels: no gradient anywhere, though the classes change with the image."""

    def forward(self, images):
        return super().forward((4 * images).round() / 4)


class Noisy(Linear):
    def forward(self, images):
        logits = super().forward(images)
        return logits + 0.1 * torch.randn_like(logits)


class Broken(Linear):
    """A square root at 0: the gradient of the first image is infinite times 0."""

    def forward(self, images):
        return (
            super().forward(images) + (images.flatten(1)[:, :1] - images.flatten(1)[:, :1]).sqrt()
        )


def photos(model) -> ImageSet:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(64, 192, (N, 1, 6, 6), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        labels = model(images.float() / 255).argmax(1)
    labels[:4] = (labels[:4] + 1) % K  # four clean mistakes
    return ImageSet(images, labels, torch.arange(N), 255.0)


def margins_at(model, images: ImageSet, eps: float) -> np.ndarray:
    """The largest margin in the ball of a linear model, box not binding, in closed form."""
    weight = model.get_buffer("weight").double()
    logits = model(images.batch(slice(None))).double()
    best = []
    for z, y in zip(logits, images.labels, strict=True):
        others = [
            float(z[k] - z[y])
            + model.scale * eps * float((weight[:, k] - weight[:, y]).abs().sum())
            for k in range(K)
            if k != int(y)
        ]
        best.append(max(others))
    return np.array(best)


def test_sound_model_answers_every_question_well():
    model = Linear()
    images = photos(model)
    found = probe_arrays(model, images, eps=0.02)
    assert np.array_equal(found["labels"], images.labels.numpy())
    assert np.array_equal(found["logits"], found["logits_again"])
    assert found["wrong_clean"].sum() == 4
    assert not found["gradient_zero"].any()
    assert not found["gradient_not_finite"].any()
    assert found["wrong_unbounded"].all()
    # PGD is exact on a linear model: what can be fooled is fooled, by either objective.
    reachable = margins_at(model, images, 0.02) > 0
    assert 4 < reachable.sum() < N
    assert np.array_equal(found["wrong_margin"], reachable)
    assert (found["wrong_cross_entropy"] == reachable).mean() > 0.9
    assert found["wrong_rescaled"].shape == (len(TEMPERATURES), N)
    assert found["eps"] == 0.02


def test_saturated_cross_entropy_stands_still_and_rescaled_logits_do_not():
    model = Linear(scale=1000.0)
    found = probe_arrays(model, photos(model), eps=0.05)
    right = ~found["wrong_clean"]
    assert found["gradient_zero"][right].mean() > 0.8
    assert found["wrong_margin"].mean() > found["wrong_cross_entropy"].mean() + 0.3
    assert found["wrong_rescaled"].mean(1).max() > found["wrong_cross_entropy"].mean() + 0.3


def test_flat_model_is_not_fooled_without_a_budget():
    model = Flat()
    found = probe_arrays(model, photos(model), eps=0.05)
    assert found["gradient_zero"].all()
    assert np.array_equal(found["wrong_unbounded"], found["wrong_clean"])


def test_random_model_answers_differently():
    model = Noisy()
    found = probe_arrays(model, photos(Linear()), eps=0.05)
    assert not np.array_equal(found["logits"], found["logits_again"])
    again = probe_arrays(Noisy(), photos(Linear()), eps=0.05)
    assert np.array_equal(found["logits_again"], again["logits_again"])  # seeded all the same


def test_gradient_that_is_not_finite_is_told_and_ends_the_trials():
    model = Broken()
    found = probe_arrays(model, photos(Linear()), eps=0.05)
    assert found["gradient_not_finite"].all()
    assert "wrong_margin" not in found
    check_probe(found)


def test_model_without_any_gradient_is_not_tried():
    class Detached(Linear):
        def forward(self, images):
            return super().forward(images.detach())

    found = probe_arrays(Detached(), photos(Linear()), eps=0.05)
    assert found["gradient_zero"].all()
    assert found.keys() == {*NAMES, "wrong_clean"}
    check_probe(found)


@pytest.mark.parametrize("restarts", [1, 3])
def test_trace_is_the_margin_along_the_path(restarts):
    model = Linear()
    images = photos(model)
    attack = build_attack("pgd", objective="margin", steps=5, restarts=restarts)
    found = probe_arrays(model, images, eps=0.02, traced=(Traced("trace_pgd_m", attack, 0.03),))
    trace = found["trace_pgd_m"]
    # The image, the gradients of the path, its end: restarts are cut to one path.
    assert trace.shape == (1 + 5 + 1, N)
    assert found["trace_pgd_m_eps"] == 0.03
    clean = found["logits"]
    others = np.where(np.arange(K) == found["labels"][:, None], -np.inf, clean).max(1)
    own = clean[np.arange(N), found["labels"]]
    np.testing.assert_allclose(trace[0], others - own, atol=1e-5)
    # A step may commit to the wrong one of two classes: most paths end at the optimum.
    short = margins_at(model, images, 0.03) - trace[-1]
    assert short.min() > -1e-4
    assert (short < 1e-4).mean() >= 0.9


def test_traceable_are_the_attacks_that_walk_one_path():
    names = ("fgsm", "pgd", "mifgsm", "deepfool", "cw")
    assert [is_traceable(build_attack(name)) for name in names] == [False, True, True, False, False]
