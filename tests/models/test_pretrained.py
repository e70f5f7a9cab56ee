"""Trained weights that training starts from: which are taken, how images reach them."""

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from robustloss.models.backbones import build_backbone
from robustloss.models.pretrained import load_pretrained
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.classifier import load_classifier
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import Counted

NAME = "torchvision:shufflenet_v2_x0_5"
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
pytestmark = pytest.mark.usefixtures("no_report")


def network(seed=1, classes=7):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torchvision.models.shufflenet_v2_x0_5(num_classes=classes).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Colour and grey images of 32x32 pixels, and trained weights of a network of 7 classes."""
    folder = tmp_path_factory.mktemp("pretrained")
    rng = np.random.default_rng(0)
    for name, channels in (("colour", 3), ("grey", 1)):
        pixels = rng.integers(0, 256, (60, channels, 32, 32), dtype=np.uint8)
        labels = np.arange(60) % 2
        np.savez(folder / f"{name}.npz", x_train=pixels[:40], y_train=labels[:40],
                 x_test=pixels[40:], y_test=labels[40:])  # fmt: skip
    safetensors.torch.save_file(network().state_dict(), folder / "trained.safetensors")
    return folder


def spec_of(folder, *, images="colour", loss=None, **model):
    tables = {
        "name": "pretrained",
        "data": {"name": "arrays", "file": f"{images}.npz", "layout": "nchw"},
        "model": {"backbone": NAME, "feature_dim": 5, **model},
        "train": {"epochs": 1, "batch_size": 20, "precision": "float32"},
        "checks": {"images": 0},
        "detection": {"noise": False, "fit_size": 10},
        "losses": [loss or {"name": "lgm"}],
        "attacks": [{"name": "fgsm", "eps": ["8/255"]}],
    }
    return load_spec(tables, folder=folder)


@pytest.mark.parametrize("images", ["colour", "grey"])
@pytest.mark.parametrize("freeze", [False, True])
def test_training_starts_from_the_weights_and_their_normalisation(folder, tmp_path, images, freeze):
    keys = {"weights": "trained.safetensors", "normalize": "imagenet", "freeze": freeze}
    runner.run(spec_of(folder, images=images, **keys), out=tmp_path / "run")
    model = load_classifier(tmp_path / "run", loss="L-GM", seed=0)  # without the file beside it
    (log,) = load_run(tmp_path / "run").training
    assert f"began with the weights trained.safetensors of {NAME}" in log["note"]
    trained, start = model.backbone.network.state_dict(), network().state_dict()
    same = [key for key in start if not key.startswith("fc.") and "num_batches" not in key]
    assert all(torch.equal(trained[key], start[key]) for key in same) == freeze
    assert trained["fc.weight"].shape == (5, 1024)
    # The start itself, as a network of torchvision sees normalised images in three channels.
    pixels = torch.rand(4, 3 if images == "colour" else 1, 32, 32)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in IMAGENET)
    inner = network(classes=5)
    inner.load_state_dict(trained)
    expected = inner.eval()((pixels.expand(-1, 3, -1, -1) - mean) / std)
    assert torch.allclose(model.features(pixels), expected, atol=1e-5)


def test_other_weights_are_another_training_and_the_same_ones_none(folder, tmp_path, monkeypatch):
    for name in ("colour.npz", "trained.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    spec = spec_of(tmp_path, weights="trained.safetensors", normalize="data", freeze=True)
    counted = Counted(monkeypatch)
    for _ in range(2):
        runner.run(spec, out=tmp_path / "run")
    assert counted.trained == 1
    safetensors.torch.save_file(network(2).state_dict(), tmp_path / "trained.safetensors")
    runner.run(spec, out=tmp_path / "run")
    assert counted.trained == 2


def test_named_weights_bring_their_normalisation(folder, tmp_path, monkeypatch):
    whole = torchvision.models.shufflenet_v2_x0_5().eval()
    url = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT.url
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(whole.state_dict(), tmp_path / "hub/checkpoints" / url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("fetched"))
    runner.run(spec_of(folder, weights="DEFAULT", freeze=True), out=tmp_path / "run")
    model = load_classifier(tmp_path / "run", loss="L-GM", seed=0)
    assert model.mean.flatten().tolist() == pytest.approx(IMAGENET[0])
    found = model.backbone.network.conv1[0].weight
    assert torch.equal(found, whole.conv1[0].weight)


def test_a_network_of_an_earlier_run_is_a_start_too(folder, tmp_path):
    first = runner.run(spec_of(folder, backbone="small_cnn"), out=tmp_path / "first").path
    (file,) = first.glob("cells/*/*/model-*.safetensors")
    keys = {"backbone": "small_cnn", "weights": str(file), "normalize": "data"}
    loss = {"name": "softmax", "train": {"lr": 1e-9}}  # learns nothing
    runner.run(spec_of(folder, loss=loss, **keys), out=tmp_path / "second")
    before = load_classifier(first, loss="L-GM", seed=0)
    after = load_classifier(tmp_path / "second", loss="Softmax", seed=0)
    images = torch.rand(4, 3, 32, 32)
    assert torch.allclose(before.features(images), after.features(images), atol=1e-4)


def test_timm_has_backbones_and_their_weights():
    timm = pytest.importorskip("timm")
    name = "timm:mobilenetv3_small_050"
    backbone = build_backbone(name, image_shape=(1, 32, 32), feature_dim=4).eval()
    whole = timm.create_model("mobilenetv3_small_050", pretrained=False).eval()
    path = "weights.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        from robustloss.models import pretrained

        patch.setattr(pretrained, "_read", lambda *_: whole.state_dict())
        load_pretrained(backbone, name, path)
    images = torch.rand(2, 1, 32, 32)
    body = whole.forward_head(whole.forward_features(images.repeat(1, 3, 1, 1)), pre_logits=True)
    expected = backbone.network.classifier(body)
    assert torch.allclose(backbone(images), expected, atol=1e-5)


OWN = {"weights": "trained.safetensors", "normalize": "data"}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"weights": "DEFULT"}, r"DEFULT.* are not weights of torchvision:shuff.*DEFAULT"),
        ({"weights": "none.pt", "normalize": "data"}, "=none.pt.: there is no such file"),
        ({"weights": "trained.safetensors"}, r"normalize must be given with the file.*imagenet"),
        (OWN | {"normalize": "weights"}, "do not say with which mean"),
        (OWN | {"normalize": {"mean": [0.5] * 2, "std": [1] * 2}},
         "must have one number for each channel of the images, 3"),
        ({"weights": "./colour.npz", "normalize": "data"}, "a file that ends in .safetensors"),
        ({"weights": "bad.pt", "normalize": "data"}, r"weights \(=bad.pt\).*damaged"),
        (OWN | {"backbone": "torchvision:resnet18"},
         "do not fit: .*it lacks .*nothing here is called"),
        ({"weights": "DEFAULT", "backbone": "small_cnn"}, "only torchvision: and timm: have names"),
        (OWN | {"backbone": "small_cnn"},
         "do not fit"),
        (OWN | {"backbone": "small_cnn",
          "freeze": True}, "freeze .* is for a network of torchvision: or timm:"),
        ({"weights": "a.pt", "normalize": "data", "backbone": "torchvision:googlenet"},
         "changes its images first"),
        ({"freeze": True}, r"freeze \(=True\) needs weights.*DEFAULT"),
        ({"normalize": "imagenet"}, "normalize .*needs weights"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_a_start_are_told_before_training(folder, tmp_path, model, said):
    (folder / "bad.pt").write_bytes(b"PK no zip")
    torch.save({"x": torch.zeros(1)}, folder / "a.pt")
    with pytest.raises(SpecError, match=said) as caught:
        runner.run(spec_of(folder, **model), out=tmp_path / "run")
    assert str(caught.value).startswith("model (for losses[0]): ") or "needs weights" in said
    assert str(caught.value).count("\n") < 3
    assert not (tmp_path / "run" / "cells").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"weights": 3}, r"model.weights \(=3\) must be text"),
        ({"normalize": "imagnet"}, r'model.normalize .*must be "imagenet"'),
        ({"freeze": "yes"}, r"model.freeze .*must be true or false"),
    ],
)
def test_a_wrong_key_is_told_as_the_spec_is_read(folder, model, said):
    with pytest.raises(SpecError, match=said):
        spec_of(folder, **model)
