"""Classifier, backbones and weight files."""

import pytest
import torch
from torch import nn

from robustloss.attacks import sealing
from robustloss.losses import build_loss
from robustloss.models.backbones import BACKBONES, build_backbone
from robustloss.models.build import build_classifier
from robustloss.models.classifier import Classifier
from robustloss.models.weight_files import load_tensors, save_tensors
from robustloss.storage import CorruptFile

BUILD = {
    "loss": "lgm",
    "loss_params": {"alpha": 1.0},
    "backbone": "digits_cnn",
    "backbone_params": {},
    "feature_dim": 5,
    "num_classes": 3,
    "image_shape": [1, 8, 8],
    "mean": [0.3],
    "std": [0.2],
}


def test_normalisation_lives_inside():
    backbone = nn.Flatten()
    head = build_loss("softmax", feature_dim=8, num_classes=3)
    images = torch.rand(4, 2, 2, 2)
    model = Classifier(backbone, head, mean=(0.1, 0.2), std=(0.5, 0.25))
    by_hand = torch.stack([(images[:, 0] - 0.1) / 0.5, (images[:, 1] - 0.2) / 0.25], dim=1)
    torch.testing.assert_close(model.features(images), by_hand.flatten(1))


def test_forward_joint_and_outputs_agree():
    model = build_classifier(BUILD).eval()
    images = torch.rand(6, 1, 8, 8)
    features, logits, likelihood = model.outputs(images)
    assert torch.equal(model(images), logits)
    assert torch.equal(model.features(images), features)
    for ours, theirs in zip(model.joint(images), (logits, likelihood), strict=True):
        assert torch.equal(ours, theirs)


def test_many_images_go_through_the_network_in_pieces_and_come_out_the_same(monkeypatch):
    model = build_classifier(BUILD).eval()
    monkeypatch.setattr(sealing, "PIXELS_AT_ONCE", 100 * 64)
    images = torch.rand(301, 1, 8, 8, requires_grad=True)
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, words: seen.append(len(words[0])))

    def passed():
        logits = model(images)
        return logits.detach(), *torch.autograd.grad(logits.logsumexp(1).sum(), images)

    pieces = passed()
    assert seen == [101, 100, 100]
    monkeypatch.setattr(sealing, "PIXELS_AT_ONCE", 1000 * 64)
    for one, other in zip(passed(), pieces, strict=True):
        torch.testing.assert_close(other, one)
    seen.clear()
    monkeypatch.setattr(sealing, "PIXELS_AT_ONCE", 64)  # some go together
    model(images[:20])
    assert seen == [20]
    seen.clear()
    model.train()(images[:250])  # batch normalisation takes the statistics of the whole batch
    assert seen == [250]


@pytest.mark.parametrize("name", [*BACKBONES, "torchvision:resnet18"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_backbone_gives_features(name, channels):
    shape = (channels, 32, 28)
    backbone = build_backbone(name, image_shape=shape, feature_dim=7)
    assert backbone(torch.rand(2, *shape)).shape == (2, 7)


def test_lenet_plus_is_the_released_network():
    backbone = build_backbone("lenet_plus", image_shape=(1, 28, 28), feature_dim=100)
    kinds = [type(layer).__name__ for layer in backbone]
    group = ["Conv2d", "Conv2d", "MaxPool2d", "PReLU"]
    assert kinds == [*group, *group, "Conv2d", "MaxPool2d", "PReLU", "Flatten", "Linear"]
    assert backbone[-1].in_features == 1152  # 28 -> 24 -> 12 -> 6 -> 3, times 128
    convolutions = (5 * 5 * 32 + 32) + (9 * 32 * 32 + 32) + (9 * 32 * 64 + 64)
    convolutions += (9 * 64 * 64 + 64) + (9 * 64 * 128 + 128)
    slopes, feature = 32 + 64 + 128, 1152 * 100 + 100
    assert sum(p.numel() for p in backbone.parameters()) == convolutions + slopes + feature


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("lenet", {}, "did you mean 'lenet_plus'"),
        ("torchvision:resnet19", {}, "no classification model 'resnet19'"),
        ("lenet_plus", {"width": 3}, "lenet_plus.width: unknown parameter. It takes none"),
        ("torchvision:resnet18", {"width": 3}, "takes no parameters"),
        ("collections:UserDict", {}, "must return a torch.nn.Module, got UserDict"),
    ],
)
def test_bad_backbones_are_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, image_shape=(1, 28, 28), feature_dim=4, **params)


def test_images_too_small_are_refused():
    with pytest.raises(ValueError, match="8x8 pixels are too small"):
        build_backbone("lenet_plus", image_shape=(1, 8, 8), feature_dim=4)


def test_two_channels_are_refused_by_torchvision():
    with pytest.raises(ValueError, match="takes 1 or 3 channels, the images have 2"):
        build_backbone("torchvision:resnet18", image_shape=(2, 32, 32), feature_dim=4)


def test_wrong_features_are_told_with_both_shapes():
    head = build_loss("softmax", feature_dim=5, num_classes=3)
    model = Classifier(nn.Flatten(), head, mean=(0.0,), std=(1.0,))
    with pytest.raises(ValueError, match=r"\(4, 5\), got \(4, 64\)"):
        model(torch.rand(4, 1, 8, 8))


def test_weights_come_back_bit_for_bit(tmp_path):
    model = build_classifier(BUILD).to(memory_format=torch.channels_last)
    path = tmp_path / "model.safetensors"
    name = save_tensors(path, model.state_dict(), {"epochs": 3})
    tensors, meta = load_tensors(path)
    assert meta == {"epochs": 3, "tensors": name}
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[k], v) for k, v in model.state_dict().items())
    again = tmp_path / "again.safetensors"
    for _ in range(20):  # several metadata entries would come in another order each time
        save_tensors(again, tensors, {"epochs": 3})
        assert again.read_bytes() == path.read_bytes()


def test_no_damaged_weight_file_is_used(tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"w": torch.arange(6.0), "n": torch.tensor(3)}, {"epochs": 3})
    whole = path.read_bytes()
    used = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            tensors, meta = load_tensors(path)
        except CorruptFile:
            continue
        used.append((place, tensors, meta))
    # JSON blanks may change without changing what is said; any change of content must not pass.
    for place, tensors, meta in used:
        assert torch.equal(tensors["w"], torch.arange(6.0)), place
        assert tensors["n"] == 3, place
        assert meta["epochs"] == 3, place
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptFile, match=r"model\.safetensors is damaged"):
            load_tensors(path)
