"""Networks for small colour images: CIFAR's 32x32, and anything large enough for their pooling.

What builds a network takes image_shape, which is (C,H,W), and feature_dim, which is D.
"""

import torch
from torch import Tensor, nn

ImageShape = tuple[int, int, int]


def vgg13_cifar(image_shape: ImageShape, feature_dim: int) -> nn.Module:
    """Build the 13-convolution network of the GM-loss paper's released CIFAR-100 configuration.

    3x3 convolutions of 96; 96, 96, 96, 96; pool; 192 four times; pool; 384 four times, each without
    a bias and followed by batch normalisation and ReLU; the global average of the last is the
    feature, 384 non-negative numbers. Another `feature_dim` adds a linear layer.

    Source: Wan et al. 2018, examples/cifar100/simple/trainval.prototxt. Caffe keeps 0.97 of its
    moving averages at a step, which is torch's momentum 0.03.
    """
    widths = (96, 96, 96, 96, 96, 0, 192, 192, 192, 192, 0, 384, 384, 384, 384)
    layers: list[nn.Module] = []
    channels = image_shape[0]
    for width in widths:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, momentum=0.03),
            nn.ReLU(inplace=True),
        ]
        channels = width
    return _close([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], channels, feature_dim)


class _Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, values: Tensor) -> Tensor:
        """Map (B,C,H,W) to (B,width,H/stride,W/stride)."""
        return torch.relu(self.inner(values) + self.shortcut(values))


def resnet18_cifar(image_shape: ImageShape, feature_dim: int) -> nn.Module:
    """Build ResNet-18 for 32x32 images: a 3x3 stem without pooling; 512 features, non-negative.

    Another `feature_dim` adds a linear layer.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, with the stem that
        the field uses on CIFAR (kuangliu/pytorch-cifar).
    """
    layers: list[nn.Module] = [
        nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
    ]
    channels = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_Block(channels, width, stride), _Block(width, width, 1)]
        channels = width
    return _close([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], channels, feature_dim)


def cifar_cnn(
    image_shape: ImageShape, feature_dim: int, *, feature_scale: float = 1.0
) -> nn.Module:
    """Build a compact network for a CPU: two 5x5 convolutions (32, 64 channels), two linear layers.

    Each convolution is batch-normalised, rectified and pooled by 2; the first linear layer has 256
    rectified units, the second gives the feature, without an activation.

    Args:
        image_shape: (C, H, W).
        feature_dim: D.
        feature_scale: factor on the first weights of the second linear layer, above 0. A first
            feature is about 16 long at 1, far from the centers of a Gaussian mixture, which start
            with length 1: the first steps of L-GM then kill the rectified units, and every image
            gets the same feature. 0.1 lets it learn.
    """
    if type(feature_scale) not in (int, float) or not 0 < feature_scale < float("inf"):
        raise ValueError(f"feature_scale (={feature_scale}) must be a finite number above 0.")
    layers: list[nn.Module] = []
    channels = image_shape[0]
    for width in (32, 64):
        layers += [
            nn.Conv2d(channels, width, 5, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        channels = width
    flat = channels * (image_shape[1] // 4) * (image_shape[2] // 4)
    layers += [nn.Flatten(), nn.Linear(flat, 256), nn.ReLU(inplace=True)]
    last = nn.Linear(256, feature_dim)
    network = _draw_weights(nn.Sequential(*layers, last))
    with torch.no_grad():
        last.weight.mul_(feature_scale)
    return network


def _close(layers: list[nn.Module], width: int, feature_dim: int) -> nn.Module:
    """Add a linear layer where the features are of another dimension, and draw all weights."""
    last = [] if feature_dim == width else [nn.Linear(width, feature_dim)]
    return _draw_weights(nn.Sequential(*layers, *last))


def _draw_weights(network: nn.Module) -> nn.Module:
    """Draw every weight by He's rule for rectified units (Caffe's msra); biases start at 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
