"""Rounding attacked images to 8 bits without leaving the ball."""

import pytest
import torch

from robustloss.attacks.ball import distance, to_8bit

LEVELS = torch.arange(256)


def on_grid(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 5, 5), generator=generator).float() / 255


def attacked(inputs: torch.Tensor, eps: float, norm: str) -> torch.Tensor:
    delta = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(9))
    if norm == "linf":
        return (inputs + eps * delta.sign()).clamp(0, 1)
    delta = eps * delta / distance(delta, norm).view(-1, 1, 1, 1)
    return (inputs + delta).clamp(0, 1)


@pytest.mark.parametrize(
    ("norm", "eps"),
    [("linf", e) for e in (0.1, 8 / 255, 0.0301, 1e-4)]
    + [("l2", 0.5), ("l2", 0.02), ("l1", 4.0), ("l1", 0.1)],
)
def test_rounded_images_are_levels_inside_the_ball(norm, eps):
    inputs = on_grid(50, 0)
    rounded = to_8bit(attacked(inputs, eps, norm), inputs, eps, norm)
    levels = 255 * rounded.double()
    assert (levels - levels.round()).abs().max() < 1e-4
    assert rounded.min() >= 0
    assert rounded.max() <= 1
    assert distance((rounded - inputs).double(), norm).max() <= eps + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nearest_level_is_taken_where_the_ball_allows(norm):
    inputs = on_grid(50, 1)
    inside = (inputs + 0.3 / 255).clamp(0, 1)  # a ball of radius 1 is far from binding
    assert torch.equal(to_8bit(inside, inputs, 1.0, norm), inputs)
    nearly = (inputs + 0.7 / 255).clamp(0, 1)
    expected = ((255 * inputs + 1).clamp(max=255) / 255).round(decimals=6)
    torch.testing.assert_close(to_8bit(nearly, inputs, 1.0, norm), expected, atol=2e-6, rtol=0)


def test_level_beyond_the_budget_is_taken_towards_the_image():
    inputs = torch.full((1, 1, 1, 2), 100 / 255)
    adv_inputs = inputs + torch.tensor([0.7, -0.7]) / 255
    assert torch.equal(to_8bit(adv_inputs, inputs, 0.7 / 255, "linf"), inputs)
    # 8/255 as a float is a level: rounding must not fall one short of it.
    eps = 8 / 255
    exact = to_8bit((inputs + eps).clamp(0, 1), inputs, eps, "linf")
    assert torch.equal((255 * exact).round(), torch.full_like(exact, 108.0))


def test_levels_stay_bit_for_bit():
    inputs = on_grid(20, 2)
    for eps, norm in ((0.0, "linf"), (0.1, "linf"), (0.5, "l2")):
        assert torch.equal(to_8bit(inputs, inputs, eps, norm), inputs)
    assert torch.equal(
        to_8bit((LEVELS / 255).view(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), 1.0, "linf"),
        (LEVELS / 255).view(1, 1, 16, 16),
    )
