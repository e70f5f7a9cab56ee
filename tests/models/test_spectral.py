"""Bounds on the spectral norm of layers: the norm of the whole map, by its matrix."""

from functools import partial

import pytest
import torch
from torch import nn

from robustloss.models.build import build_classifier
from robustloss.models.spectral import bound_layers

BUILD = {
    "loss": "softmax",
    "loss_params": {},
    "backbone": "digits_cnn",
    "backbone_params": {},
    "feature_dim": 4,
    "num_classes": 10,
    "image_shape": [1, 8, 8],
    "mean": [0.3],
    "std": [0.3],
}


def norm_of(layer, shape):
    """Return the largest singular value of the layer's linear part, from its full matrix."""
    zero = torch.zeros(1, *shape)
    matrix = torch.func.jacrev(layer)(zero).reshape(layer(zero).numel(), zero.numel())
    return float(torch.linalg.matrix_norm(matrix, 2))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (partial(nn.Conv2d, 2, 3, 3, padding=1), (2, 6, 6)),
        (partial(nn.Conv2d, 4, 6, 3, stride=2, groups=2, dilation=2, bias=False), (4, 9, 7)),
        (partial(nn.Linear, 12, 5), (12,)),
    ],
)
@torch.no_grad()
def test_the_norm_of_the_map_meets_the_bound(build, shape):
    torch.manual_seed(0)
    layer = build()
    before = layer.weight.clone()
    layer.weight *= 4.0 / norm_of(layer, shape)
    network = nn.Sequential(layer)
    bound_layers(network, 3.0, shape)
    network.train()
    for _ in range(300):
        network(torch.zeros(1, *shape))
    network.eval()
    assert norm_of(layer, shape) == pytest.approx(3.0, rel=1e-3)
    # What is within the bound stays as it is.
    layer.parametrizations.weight.original.copy_(before * 2.0 / norm_of(layer, shape))
    network.train()(torch.zeros(1, *shape))
    assert torch.equal(layer.weight, layer.parametrizations.weight.original)


def test_a_bounded_network_trains_and_comes_back_from_its_state():
    torch.manual_seed(0)
    model = build_classifier({**BUILD, "spectral": 0.5}).train()
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    model.head.loss(model.features(images), labels, progress=0.0).classification.mean().backward()
    weights = {name for name, p in model.named_parameters() if name.endswith("weight.original")}
    layers = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weights) == len(layers) > 2
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    twin = build_classifier({**BUILD, "spectral": 0.5})
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval()(images), model.eval()(images))
    # In eval mode nothing moves, so that attacks of any length see one network.
    assert torch.equal(model(images), model(images))


def test_layers_that_cannot_be_bounded_are_refused():
    with pytest.raises(ValueError, match="needs a backbone with convolutions or linear layers"):
        bound_layers(nn.Flatten(), 3.0, (1, 4, 4))
    with pytest.raises(ValueError, match="only for convolutions that pad with zeros"):
        bound_layers(nn.Conv2d(1, 2, 3, padding="same"), 3.0, (1, 4, 4))
