import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob
from robustloss.cells.weights import CellWeights
from robustloss.data.load import load_dataset
from robustloss.models.build import build_classifier
from robustloss.models.given import wrap_given
from robustloss.models.weight_files import load_weights, read_weights
from robustloss.runs.classifier import load_classifier
from robustloss.runs.preflight import check_names
from robustloss.runs.provenance import Start, provenance_of
from robustloss.runs.settings import RunSettings
from robustloss.runs.write import write_run
from robustloss.spec.data import DataSpec
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.storage import CorruptFile, read_json, write_json
from tests import given_models

HERE = str(Path(given_models.__file__).resolve())
SPEC = {
    "name": "given",
    "seeds": [3, 4],
    "data": {"name": "digits", "train_size": 60, "validation_size": 40, "test_size": 40},
    "model": {"backbone": "digits_cnn", "feature_dim": 4},
    "train": {"epochs": 1, "batch_size": 40, "precision": "float32"},
    "detection": {"fit_size": 50, "noise": False},
    "checks": {"images": 0},
    "attacks": [{"name": "fgsm", "eps": [0.1, 0.2]}],
}


def spec_of(*losses, **keys):
    return load_spec({**SPEC, "losses": list(losses), **keys})


@pytest.fixture(scope="module")
def digits():
    sizes = {key: SPEC["data"][key] for key in ("train_size", "validation_size", "test_size")}
    return load_dataset(DataSpec(name="digits", **sizes), quiet=True)


def computed(spec, dataset, folder):
    found = {}
    for cell in spec.cells():
        job = CellJob(spec, cell, folder, "cpu", None)
        assert run_cell(job, dataset, lambda event: None) is None
        found[cell.label] = json.loads((folder / cell.folder / "cell.json").read_text())
    return found


def key_of(spec, dataset, folder):
    return CellWeights(CellJob(spec, spec.cells()[0], folder, "cpu", None), dataset).key


def classifier(seed=0, dim=4):
    torch.manual_seed(seed)
    return build_classifier(
        {
            "loss": "lgm",
            "loss_params": {},
            "backbone": "digits_cnn",
            "backbone_params": {},
            "feature_dim": dim,
            "num_classes": 10,
            "image_shape": [1, 8, 8],
            "mean": [0.3],
            "std": [0.4],
        }
    )


def test_a_given_model_is_one_cell_and_a_trained_loss_one_a_seed():
    spec = spec_of({"name": "softmax"}, {"model": f"{HERE}:resnet"})
    assert [(c.label, c.seed) for c in spec.cells()] == [
        *(("Softmax", 3), ("Softmax", 4)),
        ("resnet", 3),
    ]
    assert [(c.label, c.seed) for c in spec.cells([9, 3])][-1] == ("resnet", 9)


def test_a_torchvision_model_a_plain_one_and_one_with_features_are_attacked_and_scored(
    digits, tmp_path
):
    spec = spec_of(
        {"model": f"{HERE}:resnet"}, {"model": f"{HERE}:plain"}, {"model": f"{HERE}:WithFeatures"}
    )
    check_names(spec, spec.cells(), digits)
    found = computed(spec, digits, tmp_path)
    scores = {k: {r["score"] for r in v["detection"]} for k, v in found.items()}
    of_logits = {"class_log_likelihood", "max_log_posterior", "max_logit", "energy"}
    assert scores["resnet"] == scores["plain"] == of_logits
    features = {"mahalanobis", "relative_mahalanobis", "knn", "gaussian_mixture", "feature_norm"}
    assert scores["WithFeatures"] == of_logits | features
    assert [found[k]["feature_dim"] for k in ("resnet", "WithFeatures")] == [0, 5]
    for content in found.values():
        assert len(content["rows"]) == 3
        assert all(0 <= row["error"] <= 1 for row in content["rows"])
    log = json.loads((tmp_path / "cells/plain/seed-3/train.json").read_text())
    assert (log["note"], log["curve"], log["steps"]) == ("given, not trained here", [], 0)


def test_a_spec_normalises_as_the_model_itself_would(digits, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Inside(nn.Module):\n"
        "    def __init__(self, mean=0.0, std=1.0):\n"
        "        super().__init__()\n"
        "        torch.manual_seed(0)\n"
        "        self.last, self.level, self.scale = nn.Linear(64, 10), mean, std\n"
        "    def features(self, images):\n"
        "        return ((images - self.level) / self.scale).flatten(1)[:, :9]\n"
        "    def forward(self, images):\n"
        "        return self.last(((images - self.level) / self.scale).flatten(1))\n"
    )
    model, values = f"{tmp_path}/mine.py:Inside", {"mean": [0.25], "std": [0.5]}
    spec = spec_of(
        {"model": model, "label": "inside", "params": {"mean": 0.25, "std": 0.5}},
        {"model": model, "label": "normalised", "normalize": values},
        {"model": model, "label": "plain"},
    )
    check_names(spec, spec.cells(), digits)
    found = computed(spec, digits, tmp_path / "run")
    numbers = {
        label: {name: [{**row, "label": ""} for row in content[name]] for name in
                ("rows", "detection")}
        for label, content in found.items()
    }  # fmt: skip
    assert numbers["inside"] == numbers["normalised"] != numbers["plain"]
    assert [found[label]["build"].get("normalize") for label in numbers] == [None, values, None]
    assert found["normalised"]["weights"] == found["plain"]["weights"]  # tensors of the model alone
    write_run(tmp_path / "run", spec, spec.cells(), [], provenance_of(
        RunSettings(spec, tmp_path / "run", "cpu", (3,)), spec, digits, Start()
    ))  # fmt: skip
    restored = load_classifier(tmp_path / "run", loss="normalised", seed=3, allow_plugins=True)
    stored = np.load(next(tmp_path.glob("run/cells/normalised/seed-3/none-0-*.npz")))["logits"]
    with torch.no_grad():
        np.testing.assert_allclose(restored(digits.test.batch(slice(None))), stored, atol=1e-6)
    path = tmp_path / "run/cells/normalised/seed-3/cell.json"
    cell = read_json(path, checked=True)
    for forged in (
        "imagenet",
        {"mean": [0.25], "std": [0.0]},
        {"mean": [0.1] * 9, "std": [1.0] * 9},
    ):
        content = {**cell, "build": {**cell["build"], "normalize": forged}}
        write_json(path, content, checked=True)
        with pytest.raises(CorruptFile, match="does not say how its network is built"):
            load_classifier(tmp_path / "run", loss="normalised", seed=3, allow_plugins=True)


def test_weights_from_a_safetensors_file_give_the_very_model(digits, tmp_path):
    model = classifier(seed=1)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "lgm.safetensors")
    spec = spec_of({"name": "lgm", "weights": str(tmp_path / "lgm.safetensors")})
    content = computed(spec, digits, tmp_path / "run")["L-GM"]
    assert content["density"]
    assert content["given"]
    assert content["feature_dim"] == 4
    images = digits.test.batch(slice(None))
    with torch.no_grad():
        wrong = (model.eval()(images).argmax(1) != digits.test.labels).float().mean().item()
    clean = next(row for row in content["rows"] if row["attack"] == "none")
    assert clean["error"] == pytest.approx(wrong, abs=1e-9)
    assert clean["seed"] == 3


def test_mean_and_std_come_from_the_data_where_the_file_has_none(tmp_path):
    model = classifier(seed=1)
    kept = {k: v for k, v in model.state_dict().items() if k not in ("mean", "std")}
    fresh = classifier(seed=2)
    load_weights(fresh, kept, "w")
    assert torch.equal(fresh.head.centers, model.head.centers)
    assert fresh.mean.item() == pytest.approx(0.3)


def test_a_changed_file_is_never_read_stale(digits, tmp_path):
    path = tmp_path / "w.safetensors"
    spec = spec_of({"name": "lgm", "weights": str(path)})
    keys = []
    for seed in (1, 2, 1):
        safetensors.torch.save_file(classifier(seed).state_dict(), path)
        keys.append(key_of(spec, digits, tmp_path))
    assert keys[0] == keys[2] != keys[1]


def test_the_source_of_a_factory_and_what_it_reads_decide_the_key(digits, tmp_path):
    source, bias = tmp_path / "mine.py", tmp_path / "bias.txt"
    text = (
        "import torch\nfrom torch import nn\nfrom pathlib import Path\n"
        "def make():\n    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        f"    torch.nn.init.constant_(model[1].bias, float(Path({str(bias)!r}).read_text()))\n"
        "    return model\n"
    )
    spec = spec_of({"model": f"{source}:make"})
    keys = []
    for value, comment in (("1", ""), ("2", ""), ("1", "# changed\n"), ("1", "")):
        bias.write_text(value)
        source.write_text(comment + text)
        keys.append(key_of(spec, digits, tmp_path))
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


def test_load_classifier_gives_a_given_model_back_only_if_its_code_is_allowed(digits, tmp_path):
    from robustloss.runs import write

    spec = spec_of({"model": f"{HERE}:plain"})
    cells = spec.cells()
    assert run_cell(CellJob(spec, cells[0], tmp_path, "cpu", None), digits, lambda event: None) is (
        None
    )
    settings = RunSettings(spec, tmp_path, "cpu", (3,))
    provenance = provenance_of(settings, spec, digits, Start())
    write.write_run(tmp_path, spec, cells, [], provenance)
    with pytest.raises(ValueError, match="executes it with your rights"):
        load_classifier(tmp_path, loss="plain", seed=3)
    model = load_classifier(tmp_path, loss="plain", seed=3, allow_plugins=True)
    stored = np.load(next(tmp_path.glob("cells/plain/seed-3/none-0-*.npz")))["logits"]
    with torch.no_grad():
        np.testing.assert_allclose(model(digits.test.batch(slice(None))), stored, atol=1e-6)
    # Forged: a prefix of ours, for a file that somebody has put into the run folder.
    (tmp_path / "pml.py").write_text("raise SystemExit('executed')")
    path = tmp_path / "cells/plain/seed-3/cell.json"
    cell = read_json(path, checked=True)
    rest = {
        "backbone": "digits_cnn",
        "backbone_params": {},
        "feature_dim": 4,
        "mean": [],
        "std": [],
    }
    for change in (
        {"factory": "pml:evil", "backbone": 7},
        {**rest, "backbone": "pml:evil"},
        {**rest, "loss": "torchattacks:evil", "backbone": "pml:evil"},
    ):
        kept = {key: value for key, value in cell["build"].items() if key != "factory"}
        write_json(path, {**cell, "build": {**kept, **change}}, checked=True)
        for allow in (False, True):
            with pytest.raises(CorruptFile, match=r'begins with "(pml|torchattacks):", which'):
                load_classifier(tmp_path, loss="plain", seed=3, allow_plugins=allow)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"params": {"outputs": 7}}, r"losses\[0\].model .*plain\): the model must return logits "
         r"of shape \(B, K\) = \(4, 10\), got \(4, 7\)"),
        ({"params": {"probabilities": True}}, "returns probabilities"),
        ({"params": {"width": 3}}, "unknown parameter"),
        ({"normalize": "imagenet"}, r"losses.0..normalize.mean \(=.* must have one number"),
        ({"model": "torchvision.models:resnet18", "params": {"num_classes": 10}},
         r"fails on images of shape \(4, 1, 8, 8\).*They have 1 channel and 8x8 pixels"),
        ({"model": f"{HERE}:torch"}, "must be a function or class that returns a torch.nn.Module"),
        ({"model": f"{HERE}:nothing"}, "has no 'nothing'"),
        ({"weights": "absent.safetensors"}, r"losses\[0\].weights \(=absent.safetensors\): there"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_anything_is_computed(digits, loss, message):
    spec = spec_of({"model": f"{HERE}:plain", **loss})
    with pytest.raises(SpecError, match=message):
        check_names(spec, spec.cells(), digits)


ODD_STATES = {
    "a number as a name": ({3: torch.ones(2)}, "It has 3, a int, for a Tensor"),
    "no name": ({None: torch.ones(2)}, "It has None, a NoneType, for a Tensor"),
    "no tensor": ({"w": 3.0}, "It has 'w', a str, for a float"),
    "no values": (
        {"w": torch.ones(2, device="meta")},
        "'w', which is no ordinary tensor .device meta",
    ),
    "sparse": ({"w": torch.eye(3).to_sparse()}, "'w', which is no ordinary tensor .*to_dense"),
    "nested": (
        {"w": torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged)},
        "'w', which is no ordinary tensor|is not loaded",
    ),
    "a list": ([torch.ones(2)], "must hold a state dict"),
    "one tensor": (torch.ones(2), "must hold a state dict"),
}


@pytest.mark.parametrize("kind", ODD_STATES)
@pytest.mark.filterwarnings("ignore")
def test_an_odd_state_dict_is_told(digits, tmp_path, kind):
    state, message = ODD_STATES[kind]
    torch.save(state, tmp_path / "odd.pt")
    spec = spec_of({"name": "lgm", "weights": str(tmp_path / "odd.pt")})
    with pytest.raises(SpecError, match=message):
        check_names(spec, spec.cells(), digits)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.complex64])
def test_weights_of_another_kind_of_numbers_are_refused(digits, tmp_path, dtype):
    state = classifier().state_dict()
    name = next(key for key in state if key.endswith("weight"))
    kind = str(dtype).replace(".", r"\.")
    for changed in (dtype, torch.float64, torch.bfloat16):
        path = tmp_path / "w.safetensors"
        safetensors.torch.save_file({**state, name: state[name].to(changed)}, path)
        spec = spec_of({"name": "lgm", "weights": str(path)})
        if changed == dtype:
            with pytest.raises(SpecError, match=f"{name} is {kind} in the file and torch.float32"):
                check_names(spec, spec.cells(), digits)
        else:
            check_names(spec, spec.cells(), digits)


def test_weights_that_do_not_fit_are_told_by_name_and_shape(digits, tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(classifier(dim=6).state_dict(), path)
    spec = spec_of({"name": "lgm", "weights": str(path)})
    with pytest.raises(SpecError, match=r"is \(6, 256\) in the file and \(4, 256\) here"):
        check_names(spec, spec.cells(), digits)
    spec = spec_of({"name": "softmax", "weights": str(path)}, model={"backbone": "digits_cnn",
                                                                    "feature_dim": 6})  # fmt: skip
    with pytest.raises(SpecError, match=r"it lacks head\.linear.*nothing here is called head"):
        check_names(spec, spec.cells(), digits)


class _Runs:
    def __reduce__(self):
        return print, ("executed",)


def test_torch_files_are_read_without_running_what_is_in_them(tmp_path, capsys):
    good, bad, other = (tmp_path / name for name in ("good.pt", "bad.pth", "model.onnx"))
    state = classifier().state_dict()
    torch.save({"state_dict": state}, good)
    assert read_weights(good).keys() == state.keys()
    torch.save({"a": _Runs()}, bad)
    with pytest.raises(ValueError, match="holds more than tensors"):
        read_weights(bad)
    assert "executed" not in capsys.readouterr().out
    other.write_bytes(b"")
    with pytest.raises(ValueError, match="must end in"):
        read_weights(other)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"abc")
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_weights(damaged)


def test_weights_that_do_not_fit_into_memory_are_told(tmp_path, monkeypatch):
    def fail(path):
        raise MemoryError

    (tmp_path / "w.safetensors").touch()
    monkeypatch.setattr(safetensors.torch, "load_file", fail)
    with pytest.raises(ValueError, match="do not fit into memory"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_pointer_of_git_lfs_is_told_with_its_remedy(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=r"is a pointer of Git LFS.* git lfs pull"):
        read_weights(path)


def test_a_checkpoint_is_told_what_to_take_out_of_it(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"epoch": 3, "best": classifier().state_dict(), "optimizer": {"state": {}}}, path)
    with pytest.raises(ValueError, match=r"with epoch, best, optimizer.* torch.save.checkpoint"):
        read_weights(path)


def test_maps_called_features_as_in_torchvision_are_no_features():
    import torchvision

    model = torchvision.models.squeezenet1_1(num_classes=10)
    assert wrap_given(model, (3, 32, 32)).head.feature_dim == 0


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "lgm", "model": "a.py:b"}, r"losses\[0\].name \(=\"lgm\"\) must be left out"),
        ({"name": "given"}, 'needs model = "package.module:factory"'),
        ({"model": "nonsense"}, r"losses\[0\].model \(=\"nonsense\"\) must be a table of keys"),
        ({"model": 3}, "must be a table"),
        ({"name": "lgm", "normalize": "imagenet"}, r"losses.0..normalize .* is for a whole model"),
        (
            {"model": "a.py:b", "normalize": {"mean": [0.5], "std": [0]}},
            r"losses.0..normalize.std.0. \(=0\) must lie in .0, 1.",
        ),
        ({"model": "a.py:b", "train": {"lr": 0.1}}, "is not for a model that is not trained here"),
        ({"name": "lgm", "weights": "w.pt", "search": {"lr": [0.1]}}, "is not for a model that is"),
    ],
)
def test_a_spec_says_what_a_given_model_cannot_have(loss, message):
    with pytest.raises(SpecError, match=message):
        spec_of(loss)


def test_no_plugins_refuses_a_whole_model(tmp_path):
    from robustloss.runs import runner

    spec = spec_of({"model": f"{HERE}:plain"})
    with pytest.raises(SpecError, match=r"losses\[0\].model = .*given_models.py:plain"):
        runner.run(spec, out=tmp_path / "run", plugins=False)
    assert not (tmp_path / "run").exists()
