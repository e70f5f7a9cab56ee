"""Two convolutions computed as one: the same outputs and gradients, to rounding."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from robustloss.models.backbones import build_backbone
from robustloss.models.merged import convolve_as_one
from robustloss.models.spectral import bound_layers


@pytest.fixture
def pair():
    """Returns two convolutions in float64, whose biases are not 0."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 5), nn.Conv2d(4, 3, 3, padding=1)).double()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(11, 8), (5, 7), (5, 5), (6, 6)])
def test_outputs_and_gradients_are_those_of_the_two(pair, size, layout):
    """Down to an output of one pixel, every place of which is at the edge."""
    images = torch.rand(3, 2, *size, dtype=torch.float64).contiguous(memory_format=layout)
    images.requires_grad_()
    pair.to(memory_format=layout)
    needed = [images, *pair.parameters()]
    two, one = pair(images), convolve_as_one(images, *pair)
    weights = torch.rand_like(two)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-14)
    wanted = torch.autograd.grad((two * weights).sum(), needed)
    for ours, theirs in zip(
        torch.autograd.grad((one * weights).sum(), needed), wanted, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradients_can_be_differentiated_again(pair):
    images = torch.rand(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    pair.requires_grad_(False)
    assert gradcheck(lambda images: convolve_as_one(images, *pair).square().sum(), images)
    assert gradgradcheck(lambda images: convolve_as_one(images, *pair).square().sum(), images)


def test_lenet_plus_computes_as_its_layers_do():
    network = build_backbone("lenet_plus", image_shape=(1, 28, 28), feature_dim=5)
    network.to(memory_format=torch.channels_last)
    images = torch.rand(2, 1, 28, 28)
    one_by_one = nn.Sequential(*network)
    torch.testing.assert_close(network(images), one_by_one(images), rtol=0, atol=1e-5)
    assert not torch.equal(network(images), one_by_one(images))  # it is another computation
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(images), one_by_one(images))


def test_layers_with_hooks_or_bounds_are_called():
    network = build_backbone("lenet_plus", image_shape=(1, 14, 14), feature_dim=5).eval()
    images, called = torch.rand(2, 1, 14, 14), []
    hook = network[1].register_forward_hook(lambda *_: called.append("second"))
    network(images)
    hook.remove()
    network(images)
    assert called == ["second"]
    bound_layers(network, 1.0, (1, 14, 14))
    assert torch.equal(network(images), nn.Sequential(*network)(images))
