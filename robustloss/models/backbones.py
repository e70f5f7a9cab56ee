"""Networks that map normalised images (B,C,H,W) to features (B,D), built by name.

What builds a network takes image_shape, which is (C,H,W), and feature_dim, which is D.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from robustloss.attacks.plugins import check_parameters, did_you_mean, load_object
from robustloss.models.backbones_colour import ImageShape, cifar_cnn, resnet18_cifar, vgg13_cifar
from robustloss.models.factories import call_factory
from robustloss.models.libraries import build_from_library
from robustloss.models.merged import convolve_as_one
from robustloss.spec.prefixes import is_library_model, misplaced_rule


def build_backbone(
    name: str,
    *,
    image_shape: ImageShape,
    feature_dim: int,
    folders: Sequence[Path] = (),
    **params: object,
) -> nn.Module:
    """Build a backbone by name.

    Args:
        name: A key of BACKBONES, ``torchvision:NAME``, ``timm:NAME``, ``package.module:Class`` or
            ``path/file.py:Class``. A class or function of the user's is called with
            ``image_shape``, ``feature_dim`` and the parameters.
        image_shape: (C, H, W).
        feature_dim: Length D of the feature.
        folders: Where a ``file.py`` is looked for, before the working directory.
        params: Passed on to the backbone.

    Raises:
        ValueError: Unknown name or parameter, images that the network cannot take, or a network of
            the user's that cannot be built (PluginError: that cannot be imported).
    """
    given = {"image_shape": image_shape, "feature_dim": feature_dim}
    if is_library_model(name) and not misplaced_rule(name, "backbone"):
        if params:
            raise ValueError(f"{name} takes no parameters, got {sorted(params)}.")
        return _build_from_library(name, image_shape, feature_dim)
    if ":" in name:
        return call_factory(name, load_object(name, folders), params, given)
    if name not in BACKBONES:
        raise ValueError(
            f"backbone (={name!r}) must be one of {', '.join(BACKBONES)}, torchvision:NAME, "
            f"timm:NAME or module:Class{did_you_mean(name, BACKBONES)}"
        )
    check_parameters(BACKBONES[name], params, name, given)
    if min(image_shape[1:]) < (least := _LEAST_SIDES[name]):
        small = min(image_shape[1:]) >= _LEAST_SIDES["digits_cnn"]
        other = "as digits_cnn" if small else "as one of your own"
        raise ValueError(
            f"images of {image_shape[1]}x{image_shape[2]} pixels are too small for {name}, which "
            f"halves them down to nothing below {least}x{least}; choose a backbone for small "
            f"images, {other} (robustloss guide models)."
        )
    return BACKBONES[name](image_shape=image_shape, feature_dim=feature_dim, **params)


class LeNetPlus(nn.Sequential):
    """A stack that begins with two convolutions, which a CPU computes as one in float32.

    The outputs are those of layer after layer, up to rounding. A GPU, and bfloat16 with units for
    many channels, gain nothing by it.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) to features (B,D)."""
        first, second, *others = self
        on_cpu = images.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if not (on_cpu and _is_plain(first) and _is_plain(second)):
            return super().forward(images)
        hidden = convolve_as_one(images, first, second)
        for layer in others:
            hidden = layer(hidden)
        return hidden


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a layer is as it was built: no hook waits for its call, no bound on it."""
    return type(layer) is nn.Conv2d and not any(getattr(layer, hooks) for hooks in _HOOKS)


def lenet_plus(image_shape: ImageShape, feature_dim: int) -> nn.Module:
    """Build the 6-layer network of the GM-loss paper's released MNIST configuration.

    Of 28x28 images 1,152 units stand before the feature layer.

    Convolutions 5x5x32 (no padding), 3x3x32, two 3x3x64 and one 3x3x128, each group max-pooled
    and then passed through a PReLU with a slope per channel; a fully connected layer without an
    activation gives the feature. No non-linearity stands between paired convolutions, so that a CPU
    computes the first two as one.

    Source: Wan et al. 2018, examples/mnist/train_test.prototxt of the released code. We depart in
    the input scale (images in [0,1], standardised, instead of 1/256) and draw Xavier's uniform
    distribution from torch instead of Caffe.
    """
    channels = image_shape[0]
    layers = [
        nn.Conv2d(channels, 32, 5),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.PReLU(32),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.MaxPool2d(2),
        nn.PReLU(64),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.MaxPool2d(2),
        nn.PReLU(128),
        nn.Flatten(),
    ]
    return LeNetPlus(*_with_feature_layer(layers, image_shape, feature_dim))


def small_cnn(image_shape: ImageShape, feature_dim: int) -> nn.Module:
    """Build three 3x3 convolutions (32, 32, 64 channels) with PReLU and pooling; fast on a CPU."""
    layers = [
        nn.Conv2d(image_shape[0], 32, 3, stride=2, padding=1),
        nn.PReLU(32),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.PReLU(32),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.MaxPool2d(2),
        nn.PReLU(64),
        nn.Flatten(),
    ]
    return _with_feature_layer(layers, image_shape, feature_dim)


def digits_cnn(image_shape: ImageShape, feature_dim: int) -> nn.Module:
    """Build two 3x3 convolutions (32, 64 channels) with PReLU and pooling, for 8x8 images."""
    layers = [
        nn.Conv2d(image_shape[0], 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.PReLU(32),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.MaxPool2d(2),
        nn.PReLU(64),
        nn.Flatten(),
    ]
    return _with_feature_layer(layers, image_shape, feature_dim)


def _with_feature_layer(
    layers: list[nn.Module], image_shape: ImageShape, feature_dim: int
) -> nn.Sequential:
    """Close a stack with the linear feature layer and draw every weight by Xavier's rule."""
    with torch.no_grad():
        width = nn.Sequential(*layers)(torch.zeros(1, *image_shape)).shape[1]
    network = nn.Sequential(*layers, nn.Linear(width, feature_dim))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "lenet_plus": lenet_plus,
    "small_cnn": small_cnn,
    "digits_cnn": digits_cnn,
    "cifar_cnn": cifar_cnn,
    "vgg13_cifar": vgg13_cifar,
    "resnet18_cifar": resnet18_cifar,
}
MERGED_VERSIONS = {"lenet_plus": 1}
"""Networks that a CPU computes otherwise in float32; raise when that gives other outputs."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Pixels of height and width that each needs, or its pooling leaves nothing.
_LEAST_SIDES = {
    "lenet_plus": 12,
    "small_cnn": 7,
    "digits_cnn": 4,
    "cifar_cnn": 4,
    "vgg13_cifar": 4,
    "resnet18_cifar": 8,
}


class LibraryBackbone(nn.Module):
    """A network of torchvision or timm whose last linear layer gives the feature.

    Args:
        network: Of a library, with as many outputs as the feature has numbers.
        repeats: How often it is shown the channels of an image: 3 for grey ones.

    Attributes:
        last: Name of the last linear layer; "" where there is none.
        frozen: Whether only that layer learns.
    """

    def __init__(self, network: nn.Module, repeats: int) -> None:
        super().__init__()
        self.network = network
        self.repeats = repeats
        linear = [name for name, each in network.named_modules() if isinstance(each, nn.Linear)]
        self.last = linear[-1] if linear else ""
        self.frozen = False

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) to features (B,D); one channel is shown three times."""
        return self.network(images.repeat(1, self.repeats, 1, 1) if self.repeats > 1 else images)

    def freeze(self) -> None:
        """Let only the last layer learn."""
        self.frozen = True
        self.network.requires_grad_(False)
        self.network.get_submodule(self.last).requires_grad_(True)

    def train(self, mode: bool = True) -> "LibraryBackbone":
        """Set the mode of training; layers that are frozen keep their running statistics."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
            self.network.get_submodule(self.last).train(mode)
        return self


def _build_from_library(name: str, image_shape: ImageShape, feature_dim: int) -> nn.Module:
    """Build ``torchvision:NAME`` or ``timm:NAME`` with random weights and feature_dim outputs."""
    if image_shape[0] not in (1, 3):
        raise ValueError(f"{name} takes 1 or 3 channels, the images have {image_shape[0]}.")
    # GoogLeNet and Inception return auxiliary outputs in training mode, which no loss here reads.
    odd = name.partition(":")[2] in ("googlenet", "inception_v3")
    extra = {"aux_logits": False, "init_weights": True} if odd and name.startswith("torchv") else {}
    network = build_from_library(name, extra, feature_dim, None)
    _check_takes(name, network, image_shape)
    # torchvision starts the last layer of its ViTs at 0. Logits may start at 0; features may not:
    # no pair of equal ones has a gradient, and the gradient of a normalised one has no bound.
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1:]
    for layer in last:
        if not layer.weight.is_meta and not bool(layer.weight.any()):
            nn.init.xavier_uniform_(layer.weight)
    return LibraryBackbone(network, repeats=3 // image_shape[0])


def _check_takes(name: str, network: nn.Module, image_shape: ImageShape) -> None:
    """Show the network one image, without memory or arithmetic: some take large ones only."""
    was_training = network.training
    images = torch.empty(1, 3, *image_shape[1:], device="meta")
    shapes = {
        key: torch.empty_like(value, device="meta") for key, value in network.state_dict().items()
    }
    try:
        with torch.no_grad():
            torch.func.functional_call(network.eval(), shapes, (images,))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".!")
        raise ValueError(
            f"{name} cannot take images of {image_shape[1]}x{image_shape[2]} pixels: "
            f"{reason}. Its usual size is 224x224 (inception_v3: 299x299); image_folder resizes to "
            "image_size."
        ) from error
    finally:
        network.train(was_training)
