"""The networks for CIFAR: their size as counted by hand, their features, their refusals."""

import pytest
import torch
from torch import nn

from robustloss.models.backbones import build_backbone

SHAPE = (3, 32, 32)


def build(name, feature_dim, shape=SHAPE, **params):
    torch.manual_seed(0)
    return build_backbone(name, image_shape=shape, feature_dim=feature_dim, **params)


def count(network):
    return sum(p.numel() for p in network.parameters())


def convolutions(widths, channels=3):
    """Weights of 3x3 convolutions without bias, and scale and shift of their normalisations."""
    total = 0
    for width in widths:
        total += 9 * channels * width + 2 * width
        channels = width
    return total


def test_vgg13_is_the_papers_stack():
    network = build("vgg13_cifar", 384)
    assert count(network) == convolutions([96] * 5 + [192] * 4 + [384] * 4)
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 13
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.03}
    assert count(build("vgg13_cifar", 10)) == count(network) + 384 * 10 + 10


def test_resnet18_has_the_published_size():
    # 11,173,962 with its layer for ten classes (kuangliu/pytorch-cifar), which has 512 * 10 + 10
    assert count(build("resnet18_cifar", 512)) == 11_173_962 - 5_130
    assert count(build("resnet18_cifar", 10)) == 11_173_962


def test_cifar_cnn_has_two_convolutions_and_two_linear_layers():
    wanted = 75 * 32 + 64 + 25 * 32 * 64 + 128 + 64 * 8 * 8 * 256 + 256 + 256 * 100 + 100
    assert count(build("cifar_cnn", 100)) == wanted


def test_feature_scale_multiplies_the_first_features_of_cifar_cnn():
    plain, small = build("cifar_cnn", 128), build("cifar_cnn", 128, feature_scale=0.1)
    images = torch.rand(4, *SHAPE)
    torch.testing.assert_close(small(images), 0.1 * plain(images))
    for scale in (0, -1.0, float("inf"), float("nan"), "0.1", True):
        with pytest.raises(ValueError, match=r"feature_scale .* must be a finite number above 0"):
            build("cifar_cnn", 8, feature_scale=scale)


@pytest.mark.parametrize("shape", [SHAPE, (1, 28, 28), (3, 40, 33)])
@pytest.mark.parametrize("name", ["vgg13_cifar", "resnet18_cifar", "cifar_cnn"])
def test_each_image_has_its_own_features_and_a_gradient(name, shape):
    network = build(name, 7, shape).eval()
    images = torch.rand(3, *shape, requires_grad=True)
    features = network(images)
    assert features.shape == (3, 7)
    torch.testing.assert_close(network(images[:1]), features[:1], rtol=1e-4, atol=1e-4)
    (slope,) = torch.autograd.grad(features[0].sum(), images)
    assert slope[0].abs().sum() > 0
    assert slope[1:].abs().sum() == 0


@pytest.mark.parametrize(
    ("name", "side"), [("vgg13_cifar", 3), ("resnet18_cifar", 7), ("cifar_cnn", 3)]
)
def test_images_that_are_too_small_are_refused(name, side):
    with pytest.raises(ValueError, match=rf"images of {side}x9 pixels are too small for {name}"):
        build(name, 8, (3, side, 9))
    with pytest.raises(ValueError, match="choose a backbone for small images, as one of your own"):
        build(name, 8, (3, 1, 9))
    assert build(name, 8, (3, side + 1, 9)).eval()(torch.rand(1, 3, side + 1, 9)).shape == (1, 8)


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "resnet101", "vgg16_bn", "densenet121", "mobilenet_v3_small"),
        *("efficientnet_b0", "vit_b_16", "googlenet", "inception_v3"),
    ],
)
def test_models_of_torchvision_give_features_of_the_asked_dimension(name):
    side = 299 if name == "inception_v3" else 224
    with torch.device("meta"):
        network = build_backbone(f"torchvision:{name}", image_shape=(3, side, side), feature_dim=6)
        for model in (network.train(), network.eval()):
            assert model(torch.empty(2, 3, side, side)).shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "side", "reason"),
    [
        ("vit_b_16", 32, "Expected 224 but got 32"),
        ("inception_v3", 64, "Kernel size can't be greater"),
        ("vgg16_bn", 8, "Output size is too small"),
    ],
)
def test_images_that_a_model_of_torchvision_cannot_take_are_refused(name, side, reason):
    message = rf"torchvision:{name} cannot take images of {side}x{side} pixels: .*{reason}"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build_backbone(f"torchvision:{name}", image_shape=(1, side, side), feature_dim=6)


def test_trying_a_size_leaves_a_model_of_torchvision_as_it_was():
    import torchvision

    torch.manual_seed(0)
    ours = build_backbone("torchvision:resnet18", image_shape=SHAPE, feature_dim=6)
    after = torch.rand(1)
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=6)
    assert torch.equal(after, torch.rand(1))
    assert ours.training
    assert all(module.training for module in ours.modules())
    for mine, plain in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(mine, plain)


def test_a_vision_transformer_does_not_start_with_equal_features():
    # torchvision starts its last layer at 0: pair losses would have no gradient, ever
    torch.manual_seed(0)
    network = build_backbone("torchvision:vit_b_32", image_shape=(3, 224, 224), feature_dim=6)
    images = torch.rand(2, 3, 224, 224, requires_grad=True)
    first, second = network.eval()(images)
    assert (first - second).norm() > 0
    (slope,) = torch.autograd.grad((first - second).square().sum(), images)
    assert slope.isfinite().all()
    assert (slope != 0).float().mean() > 0.99
