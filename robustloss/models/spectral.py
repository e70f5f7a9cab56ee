"""Layers that stretch no difference by more than a bound: spectral normalisation of a backbone.

With bounded layers far images cannot collapse to near features, which a density over the features
needs. DDU (Mukhoti et al., CVPR 2023) fits one on such a network trained with softmax.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

_FIRST_ITERATIONS = 15  # of the power method, before training; then one a step


class SpectralBound(nn.Module):
    """Divide a weight by as much as its spectral norm exceeds the bound.

    The norm is that of the layer as a map of its inputs: for a convolution not that of the
    flattened kernel, which may be several times smaller. The power method follows it, with one
    iteration each time the weight is used in training. In eval mode its vectors stand still.

    Args:
        layer: A convolution in two dimensions, or a linear layer, as it was built.
        inputs: What it was given for one image, (1, ...).
        bound: The most that the spectral norm may be, above 0.

    Source: Gouk et al., Regularisation of Neural Networks by Enforcing Lipschitz Continuity, 2021,
        algorithm 2; the soft bound is that of DDU.
    """

    left: Tensor
    right: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear, inputs: Tensor, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.shape = tuple(inputs.shape)
        self.convolution = (
            {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
            if isinstance(layer, nn.Conv2d)
            else None
        )
        weight = layer.weight.detach()
        self.register_buffer("right", F.normalize(torch.randn(self.shape).flatten(), dim=0))
        self.register_buffer("left", F.normalize(self._map(weight, self.right), dim=0))
        for _ in range(_FIRST_ITERATIONS):
            self._iterate(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the layer uses, of the shape of the trained one."""
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self._iterate(weight)
            # Copies: the next step moves the vectors, and the graph of this one may need them.
            norm = torch.dot(self.left.clone(), self._map(weight, self.right.clone()))
        return weight / torch.clamp(norm / self.bound, min=1.0)

    def _iterate(self, weight: Tensor) -> None:
        weight = weight.detach()
        with torch.enable_grad():  # the adjoint of a linear map is its backward pass
            right = self.right.clone().requires_grad_()
            (back,) = torch.autograd.grad(self._map(weight, right), right, self.left)
        self.right.copy_(F.normalize(back, dim=0))
        self.left.copy_(F.normalize(self._map(weight, self.right), dim=0))

    def _map(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """Return what the layer makes of flat inputs without its bias, flat."""
        images = inputs.view(self.shape)
        if self.convolution is None:
            return F.linear(images, weight).flatten()
        return F.conv2d(images, weight, **self.convolution).flatten()


def bound_layers(backbone: nn.Module, bound: float, image_shape: tuple[int, int, int]) -> None:
    """Bound the spectral norm of every convolution and linear layer of a backbone, in place.

    Batch normalisation is not bounded.

    Args:
        backbone: New, on the CPU. Its layers are found, and their inputs seen, in a pass of an
            empty image; a layer that this does not reach stays as it is.
        bound: Above 0.
        image_shape: (C,H,W) of what it takes.

    Raises:
        ValueError: It has no such layer, or one that pads with other values than 0.
    """
    seen: dict[nn.Module, Tensor] = {}
    layers = [each for each in backbone.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [
        each.register_forward_pre_hook(lambda layer, inputs: seen.setdefault(layer, inputs[0][:1]))
        for each in layers
    ]
    was_training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, *image_shape))
    finally:
        backbone.train(was_training)
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ValueError(
            f"spectral (={bound:g}) needs a backbone with convolutions or linear layers. Take the "
            "key out."
        )
    for layer, inputs in seen.items():
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if isinstance(layer, nn.Conv2d) and (
            layer.padding_mode != "zeros" or isinstance(layer.padding, str)
        ):
            raise ValueError(
                f"spectral (={bound:g}) is not for {layer}: only for convolutions that pad with "
                "zeros, by a number. Take the key out."
            )
        parametrize.register_parametrization(
            layer, "weight", SpectralBound(layer, inputs, bound), unsafe=True
        )
