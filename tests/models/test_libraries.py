"""Whole models of torchvision, timm and transformers: in a spec, in memory, and what goes wrong."""

import json
import socket
import urllib.error

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

import robustloss
from robustloss.cli.cost import measure
from robustloss.data.load import load_dataset
from robustloss.models.build import build_classifier, build_with_weights
from robustloss.models.normalization import PREPROCESSOR, find_stated
from robustloss.progress import Silent
from robustloss.runs import runner
from robustloss.runs.preflight import find_remarks
from robustloss.seeding import using_seed
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.storage import CorruptFile, read_json, write_json

FGSM = [{"name": "fgsm", "eps": ["8/255"]}]
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """A folder with colour images of 16x16 pixels and 10 classes."""
    folder = tmp_path_factory.mktemp("colour")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(60) % 10
    np.savez(folder / "data.npz", x_train=pixels[:40], y_train=labels[:40], x_test=pixels[40:],
             y_test=labels[40:])  # fmt: skip
    return folder


def spec_of(colour, *losses, **keys):
    file = {"name": "arrays", "file": str(colour / "data.npz"), "validation_size": 10}
    tables = {"name": "given", "seeds": [3], "data": file, "losses": list(losses)}
    tables |= {"attacks": FGSM, "checks": {"images": 0}, "detection": {"noise": False}}
    return load_spec({**tables, **keys})


def preflight(colour, *losses, **keys):
    spec = spec_of(colour, *losses, **keys)
    return find_remarks(spec, spec.cells(), load_dataset(spec.data, quiet=True))


def vit(folder, mean=0.5, **keys):
    """Save a small image classifier of transformers with its image processor."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=32, image_size=16, patch_size=8, **{"num_labels": 10, **keys}
    )
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(folder)
    processor = {"do_normalize": True, "image_mean": [mean] * 3, "image_std": [0.5] * 3}
    (folder / PREPROCESSOR).write_text(json.dumps(processor | {"rescale_factor": 1 / 255}))
    return model


class Inside(nn.Module):
    """A network that normalises its images itself and returns logits alone."""

    def __init__(self, network, mean, std):
        super().__init__()
        self.network = network
        self.level = torch.tensor(mean).view(3, 1, 1)
        self.scale = torch.tensor(std).view(3, 1, 1)

    def forward(self, images):
        found = self.network((images - self.level) / self.scale)
        return found if isinstance(found, torch.Tensor) else found.logits


def build(library, folder):
    """Return a trained network, and the keys of the spec that name it."""
    torch.manual_seed(0)
    if library == "torchvision":
        model, path = torchvision.models.resnet18(num_classes=10), folder / "w.safetensors"
        safetensors.torch.save_file(model.state_dict(), path)
        named = {"model": "torchvision:resnet18", "weights": str(path)}
        return model, {**named, "normalize": "imagenet"}
    if library == "timm":
        timm = pytest.importorskip("timm")
        model = timm.create_model("resnet10t", num_classes=10)
        path = folder / "w.pth"
        torch.save({"model": model.state_dict(), "epoch": 3}, path)
        return model, {"model": "timm:resnet10t", "weights": str(path), "normalize": "weights"}
    model = type(vit(folder / "vit")).from_pretrained(folder / "vit")
    return model, {"model": f"transformers:{folder / 'vit'}", "normalize": "weights"}


@pytest.mark.filterwarnings("ignore::robustloss.losses.feasibility.LossWarning")
@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers"])
def test_a_network_of_a_library_has_the_numbers_of_one_that_normalises_inside(
    colour, tmp_path, library
):
    model, keys = build(library, tmp_path)
    spec = spec_of(colour, {**keys, "label": "given"})
    outcome = runner.run(spec, out=tmp_path / "run", plugins=False, device="cpu")
    assert outcome.exit_code == 0
    run = robustloss.load_run(outcome.path)
    values = HALF if library == "transformers" else robustloss.spec.losses.IMAGENET
    dataset = load_dataset(spec.data, quiet=True)
    images, labels = dataset.test.batch(slice(None)), dataset.test.labels
    checked = dataset.validation.batch(slice(None)), dataset.validation.labels

    def evaluate(network, **normalize):
        asked = {"attacks": FGSM, "seeds": [3]}
        return robustloss.evaluate(
            {"given": network}, images, labels, asked, checks=False, noise=False,
            validation=checked, progress=Silent(), device="cpu", **normalize,
        )  # fmt: skip

    inside = evaluate(Inside(model.eval(), **values))
    outside = evaluate(model, normalize=keys["normalize"])
    errors = [(row["attack"], row["error"], row["auroc_all"]) for row in inside.rows]
    for each in (outside, run):
        assert [(row["attack"], row["error"], row["auroc_all"]) for row in each.rows] == errors
    page = (outcome.path / "report/index.html").read_text()
    if library != "torchvision":
        source = "its pretrained_cfg says" if library == "timm" else f"its {PREPROCESSOR} says"
        assert source in page
    if library == "transformers":
        assert "its output is an ImageClassifierOutput, whose logits are taken" in page
    restored = robustloss.load_classifier(outcome.path, loss="given", seed=3)
    with torch.no_grad():
        expected = Inside(model, **values)(images)
        torch.testing.assert_close(restored(images), expected, atol=1e-5, rtol=1e-5)
    # Forged: a network that would fill the memory.
    path = outcome.path / "cells/given/seed-3/cell.json"
    cell = read_json(path, checked=True)
    forged = {**cell["build"], "loss_params": {"num_classes": 10**11}}
    write_json(path, {**cell, "build": forged}, checked=True)
    if library != "transformers":
        with pytest.raises(CorruptFile, match="holds no weights of this network: too few"):
            robustloss.load_classifier(outcome.path, loss="given", seed=3)


def test_the_step_in_l2_is_that_of_the_pixels_not_of_the_normalised_images():
    """Of w.(x - mean)/std the steepest direction in pixels is w/std, and eps is in pixel units."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    images, labels = 0.4 + 0.2 * torch.rand(6, 3, 2, 2), torch.zeros(6, dtype=torch.int64)
    std = torch.tensor([0.1, 0.5, 1.0])
    run = robustloss.models.given.wrap_given(
        model, (3, 2, 2), normalize={"mean": [0.5] * 3, "std": std.tolist()}
    )
    attack = robustloss.attacks.build_attack(
        "pgd", norm="l2", objective="margin", steps=1, random_start=False, step_size=1.0
    )
    found = robustloss.attacks.perturb(attack, run, images, labels, eps=[0.05]).adv_inputs[0]
    weight = (model[1].weight[1] - model[1].weight[0]).detach().view(3, 4) / std.view(3, 1)
    step = 0.05 * weight.flatten() / weight.norm()
    torch.testing.assert_close((found - images).flatten(1), step.expand(6, -1), atol=1e-6, rtol=0)


def test_named_weights_of_torchvision_say_their_normalisation(tmp_path, monkeypatch):
    """The file lies where torchvision keeps what it has fetched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    model = torchvision.models.squeezenet1_1().eval()
    torch.save(model.state_dict(), folder / weights.url.rpartition("/")[2])
    network = {"factory": "torchvision:squeezenet1_1", "loss_params": {}, "num_classes": 1000,
               "image_shape": [3, 32, 32]}  # fmt: skip
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = Inside(model, **robustloss.spec.losses.IMAGENET)(images)
        for name in ("DEFAULT", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1"):
            build = {**network, "normalize": "weights", "weights": name}
            found = build_with_weights(name, build)
            torch.testing.assert_close(found(images), expected)
            assert "mean 0.485, 0.456, 0.406" in " ".join(found.remarks)
        # Restored from a run: the weights come later, and are not fetched for it.
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
        assert build_classifier(build).mean.flatten().tolist() == pytest.approx(
            [0.485, 0.456, 0.406]
        )
        plain = build_with_weights(None, network)
        assert plain.remarks == ("its weights are random, because the spec names none",)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(ValueError, match=r"got \(4, 1000\). 1,000 outputs are the classes of"):
            build_with_weights("DEFAULT", {**network, "num_classes": 10})


def test_what_is_said_and_not_used_is_a_remark(colour, tmp_path):
    vit(tmp_path / "vit")
    found = preflight(
        colour, {"model": f"transformers:{tmp_path}/vit"}, {"model": "torchvision:resnet18"}
    )
    assert f"its {PREPROCESSOR} says mean 0.5, 0.5, 0.5, std 0.5, 0.5, 0.5, and it gets" in found[1]
    assert found[2:] == [
        "losses[1] (resnet18): its weights are random, because the spec names none."
    ]
    assert (
        preflight(colour, {"model": f"transformers:{tmp_path}/vit", "normalize": HALF}) == found[:1]
    )


def test_what_the_hub_says_of_a_model_is_read_from_what_is_kept_of_it(monkeypatch, tmp_path):
    model = vit(tmp_path / "vit")
    from huggingface_hub import constants

    kept = tmp_path / "hub/models--some--vit"
    (kept / "snapshots/0123").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("0123")
    (kept / "snapshots/0123" / PREPROCESSOR).write_text(
        (tmp_path / "vit" / PREPROCESSOR).read_text()
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model.name_or_path = "some/vit"
    assert str(find_stated(model)) == "mean 0.5, 0.5, 0.5, std 0.5, 0.5, 0.5"
    for name in ("some/other", "", "../vit", "a b c"):
        model.name_or_path = name
        assert find_stated(model) is None


def test_random_weights_are_those_of_the_seed(colour):
    network = {"factory": "torchvision:resnet18", "loss_params": {}, "num_classes": 10,
               "image_shape": [3, 16, 16]}  # fmt: skip
    weights = []
    for seed in (1, 1, 2):
        with using_seed("weights", seed):
            weights.append(build_with_weights(None, network).model.fc.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


TORCHVISION = [
    ({"model": "torchvision:resnet81"}, "no classification model 'resnet81'; did you mean 'resn"),
    ({"model": "torchvision:resnet18", "weights": "IMAGENET1K_V9"},
     r"weights \(=\"IMAGENET1K_V9\"\) are not weights of torchvision:resnet18, which has DEF"),
    ({"model": "torchvision:resnet18", "weights": "ResNet50_Weights.IMAGENET1K_V1"},
     "are not weights of torchvision:resnet18"),
    ({"model": "torchvision:resnet18", "weights": "none.pth"}, "there is no such file"),
    ({"model": "torchvision:resnet18", "params": {"num_classes": 7}},
     r"\(B, K\) = \(4, 10\), got \(4, 7\). Give it one output"),
    ({"model": "torchvision:resnet18", "params": {"width": 7}}, "unexpected keyword .*'width'"),
    ({"model": "torchvision:resnet18", "params": {"progress": True}}, "progress: unknown"),
    ({"model": "torchvision:resnet18", "normalize": "weights"},
     r'normalize \(="weights"\): the model \(=ResNet\) does not say'),
    ({"model": "torchvision:vit_b_32"}, "Wrong image height! Expected 224 but got 16"),
    ({"model": "torchvision:"}, "must be a table of keys"),
    ({"model": "net/model.safetensors"}, r"is a file of weights. Write weights = \"net/model"),
    ({"model": "tochvision:resnet18"}, "there is no module 'tochvision'"),
]  # fmt: skip
TIMM = [
    ({"model": "timm:resnet10x"}, "timm has no model 'resnet10x'; did you mean 'resnet1"),
    ({"model": "timm:resnet18.none"}, "the tag 'none' is not of timm:resnet18, which has DEF"),
    ({"model": "timm:resnet18", "weights": "resnet50.a1_in1k"},
     r'weights \(="resnet50.a1_in1k"\) is not of timm:resnet18'),
    ({"model": "timm:vit_tiny_patch16_224"},
     r"timm made it for images of \(3, 224, 224\); for others it takes in_chans, and many"),
    ({"model": "timm:resnet10t", "params": {"in_chans": 1}}, "timm made it for"),
    ({"model": "timm:resnet10t", "params": {"checkpoint_path": "w.pth"}},
     r"timm:resnet10t.checkpoint_path: names weights, which the key weights does"),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "message"), TORCHVISION)
def test_what_torchvision_cannot_be_asked_for_is_told(colour, loss, message):
    with pytest.raises(SpecError, match=message):
        preflight(colour, loss)


@pytest.mark.parametrize(("loss", "message"), TIMM)
def test_what_timm_cannot_be_asked_for_is_told(colour, loss, message):
    pytest.importorskip("timm")
    with pytest.raises(SpecError, match=message):
        preflight(colour, loss)


def test_a_network_of_timm_takes_other_images_where_it_is_told_to(colour):
    pytest.importorskip("timm")
    size = {"img_size": 16, "patch_size": 8}
    found = preflight(colour, {"model": "timm:vit_tiny_patch16_224", "params": size})
    assert "its weights are random" in found[0]
    assert "its pretrained_cfg says mean 0.5, 0.5, 0.5, std 0.5, 0.5, 0.5, and it gets" in found[1]


def test_a_folder_of_transformers_that_is_none_is_told(colour, tmp_path):
    transformers = pytest.importorskip("transformers")
    name = f"transformers:{tmp_path}"
    with pytest.raises(SpecError, match=r"there is no folder with a config.json at"):
        preflight(colour, {"model": name})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SpecError, match="transformers cannot load an image classifier from"):
        preflight(colour, {"model": name})
    vit(tmp_path)
    with pytest.raises(SpecError, match=r'weights \(="DEFAULT"\): the folder of transformers:'):
        preflight(colour, {"model": name, "weights": "DEFAULT"})
    with pytest.raises(SpecError, match=r"params .* is not for transformers"):
        preflight(colour, {"model": name, "params": {"num_labels": 10}})
    (tmp_path / PREPROCESSOR).write_text(json.dumps({"rescale_factor": 1 / 127.5}))
    with pytest.raises(SpecError, match=r"rescale_factor \(=0.0078.* must be 1/255"):
        preflight(colour, {"model": name})
    vit(tmp_path, num_channels=1)
    with pytest.raises(SpecError, match="configuration says num_channels 1 and image_size 16"):
        preflight(colour, {"model": name})
    config = vit(tmp_path).config
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(SpecError, match=r"lack classifier.bias, classifier.weight"):
        preflight(colour, {"model": name})


def test_show_fetches_no_weights(colour, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    spec = spec_of(
        colour,
        {"model": "torchvision:shufflenet_v2_x0_5", "weights": "DEFAULT", "normalize": "weights"},
    )
    timing = measure(spec, spec.cells(), load_dataset(spec.data, quiet=True), budget=0.1)
    assert timing.seconds


def test_weights_that_cannot_be_fetched_are_told(colour, monkeypatch, tmp_path):
    def fail(*args, **keys):
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(
        SpecError, match=r"torchvision could not fetch https://.*not known.*Put that"
    ):
        preflight(colour, {"model": "torchvision:resnet18", "weights": "DEFAULT"})


def test_weights_of_timm_that_cannot_be_fetched_are_told(colour, monkeypatch, tmp_path):
    pytest.importorskip("timm")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        SpecError, match="timm could not fetch those of resnet18 from the Hugging Face"
    ):
        preflight(colour, {"model": "timm:resnet18", "weights": "DEFAULT"})


@pytest.mark.parametrize(("name", "extra"), [("timm:resnet18", "timm"), ("transformers:x", "hf")])
def test_an_absent_library_is_told_with_its_extra(colour, monkeypatch, tmp_path, name, extra):
    import sys

    monkeypatch.setitem(sys.modules, name.partition(":")[0], None)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=rf"need the package .*pip install 'robustloss\[{extra}\]'"):
        preflight(colour, {"model": name})
