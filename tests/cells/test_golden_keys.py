"""The file names of stored runs, pinned: a run that somebody has must stay valid.

A file's name holds a key, a digest of everything that decides its content. Here a small run of
every kind is made, and the names of its files are compared with golden_keys.json, which was written
before the modules were moved into packages.

The names are the same on every machine, because nothing that enters a key is measured here:
training is replaced by exact weights (`exact_training`), images are the bundled digits or come from
an integer formula, torch has one thread on the CPU, precision is named, and every package that
attacks or losses are taken from says that it is version "0".

A failure means that stored runs are not found again. Where that is intended (a VERSION was raised),
write the file anew and read its diff:  python -m tests.cells.test_golden_keys
"""

import importlib.metadata
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import robustloss
from robustloss import storage
from robustloss.cells import keys
from robustloss.cells.jobs import CellJob
from robustloss.cells.weights import CellWeights
from robustloss.data import outside
from robustloss.data.load import load_dataset
from robustloss.losses import LOSSES, build_loss
from robustloss.models.backbones import BACKBONES, build_backbone
from robustloss.models.given import build_given
from robustloss.models.weight_files import tensor_digest
from robustloss.progress import Silent
from robustloss.runs import runner
from robustloss.runs.executors import alone
from robustloss.spec import search
from robustloss.spec.load import load_spec
from robustloss.spec.text import slug
from robustloss.spec.training import AdversarialSpec, TrainSpec
from robustloss.training import log, processes, train

GOLDEN = Path(__file__).with_name("golden_keys.json")

BASE = {
    "data": {"name": "digits", "train_size": 40, "validation_size": 20, "test_size": 20},
    "model": {"backbone": "digits_cnn", "feature_dim": 3},
    "train": {
        "epochs": 1,
        "batch_size": 20,
        "precision": "float32",
        "lr": 0.25,
        "max_grad_norm": False,  # the default when the file was written
    },
    "detection": {"fit_size": 30, "noise": False, "scores": ["class_log_likelihood"]},
    "checks": {"images": 0},
    "losses": [{"name": "lgm", "label": "L-GM (alpha 0.5)", "params": {"alpha": 0.5}}],
    "attacks": [{"name": "fgsm", "eps": [0, "1/10"]}],
}
FOLDER = {"name": "image_folder", "folder": "pictures", "image_size": 8, "resize": 11}
# None of these is computed with anything but its name and parameters in the key, so one step does.
ATTACKS = [
    {"name": "fgsm", "label": "FGSM, margin", "params": {"objective": "margin"}, "eps": ["8/255"]},
    {"name": "pgd", "params": {"steps": 1}, "eps": [0.1], "batch_size": 7},
    {"name": "pgd", "label": "PGD L2", "params": {"steps": 1, "norm": "l2"}, "eps": [0.5, 2]},
    {"name": "apgd_ce", "params": {"steps": 1}, "eps": [0.1]},
    {"name": "square", "params": {"queries": 2}, "eps": [0.1]},
    {"name": "deepfool", "params": {"steps": 1}, "eps": [0, 1]},
    {"name": "adaptive_joint", "params": {"steps": 1}, "eps": [0.1]},
    {"name": "adaptive_matching", "params": {"steps": 1}, "eps": [0.1]},
    {"name": "torchattacks:PGD", "params": {"steps": 1}, "eps": [0.1], "batch_size": 10},
    {"name": "golden_attack.py:nudge", "params": {"sign": -1}, "eps": [0.1], "batch_size": 10},
]
RUNS = {
    "losses": {
        "seeds": [0, 7],
        "report": {"baseline": "my own", "highlight": ["gm"], "all": True},  # in no key
        "losses": [
            {"name": "softmax"},
            {"name": "gm", "params": {"covariance": "diagonal"}, "train": {"augment": "shift"}},
            {"name": "arcface", "model": {"feature_dim": 12}},
            {"name": "triplet", "train": {"precision": "bfloat16", "optimizer": "adam"}},
            {
                "name": "golden_loss.py:Scaled",
                "label": "my own",
                "params": {"scale": 2.0},
                "model": {"backbone": "golden_backbone.py:Flat", "params": {"bias": False}},
            },
        ],
    },
    "attacks": {
        "seeds": [3],
        "attacks": ATTACKS,
        "checks": {"images": 8},
        "detection": {"fit_size": 30},
    },
    "scores": {
        "detection": {
            "fit_size": 20,
            "scores": ["max_logit", "mahalanobis", "knn", "golden_score.py:highest"],
        },
    },
    "outside": {
        "data": {**BASE["data"], "train_size": 20, "classes": [5, 1, 0]},
        "outside": [
            {"name": "uniform_noise", "images": 12, "label": "Noise"},
            {"name": "held_out_classes", "images": 12},
            {"name": "image_folder", "folder": "others"},
        ],
    },
    "folder": {
        "data": {**FOLDER, "ten_crop": True, "class_fractions": [1, 0.5, 1]},
        "attacks": [{"name": "fgsm", "eps": ["8/255"], "eight_bit": True}],
    },
    "tuning": {
        "losses": [
            {"name": "softmax", "search": {"lr": [0.125, 0.25]}},
            {"name": "lgm", "search": {"alpha": {"low": 0.1, "high": 1.0, "log": True}}},
        ],
        "tuning": {"trials": 2},
        "attacks": [{"name": "fgsm", "eps": [0.1], "params": {"objective": "margin"}}],
    },
    "adversarial": {
        "losses": [
            {"name": "softmax", "train": {"adversarial": {"eps": "1/10"}}},
            {
                "name": "lgm",
                "train": {"adversarial": {"attack": "trades", "eps": 0.1, "select": "robust"}},
            },
        ],
    },
    "transfer": {
        "losses": [{"name": "softmax"}, *BASE["losses"]],
        "attacks": [
            {"name": "fgsm", "eps": [0, 0.1, 0.2], "transfer": True},
            {"name": "adaptive_joint", "params": {"steps": 1}, "eps": [0.1], "transfer": True},
            {"name": "golden_attack.py:nudge", "eps": [0.1], "batch_size": 10, "transfer": True},
        ],
    },
    # The second attack fails, so that the parts of the first one are left as they lie.
    "parts": {
        "resources": {"split": 8},
        "attacks": [
            {"name": "fgsm", "eps": [0, 0.1], "batch_size": 4},
            {"name": "golden_attack.py:broken", "eps": [0.1], "batch_size": 8},
        ],
    },
    "given": {
        "losses": [
            {"name": "softmax", "label": "its weights", "weights": "softmax.safetensors"},
            {"model": "golden_model.py:Linear", "params": {"bias": 0.5}},
        ],
    },
}

PLUGINS = {
    "golden_loss.py": """\
from golden_neighbour import times
from torch import nn
from torch.nn.functional import cross_entropy

from robustloss.losses.base import LossHead, LossTerms


class Scaled(LossHead):
    def __init__(self, feature_dim, num_classes, *, scale=1.0):
        super().__init__(feature_dim, num_classes)
        self.linear, self.scale = nn.Linear(feature_dim, num_classes), scale

    def logits(self, features):
        return times(self.linear(features), self.scale)

    def loss(self, features, labels, *, progress):
        terms = cross_entropy(self.logits(features), labels, reduction="none")
        return LossTerms(terms, terms * 0)
""",
    "golden_backbone.py": """\
from math import prod

from torch import nn


class Flat(nn.Sequential):
    def __init__(self, image_shape, feature_dim, bias=True):
        super().__init__(nn.Flatten(), nn.Linear(prod(image_shape), feature_dim, bias))
""",
    "golden_neighbour.py": "def times(values, factor):\n    return values * factor\n",
    "golden_attack.py": """\
def nudge(model, inputs, labels, eps, sign=1):
    return (inputs + sign * eps).clamp(0, 1)


def broken(model, inputs, labels, eps):
    raise RuntimeError("on purpose")
""",
    "golden_score.py": "def highest(record):\n    return record.logits.max(1)\n",
    "golden_model.py": """\
import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(640.0).reshape(10, 64) % 17 / 16)
        self.bias = bias

    def features(self, images):
        return images.flatten(1)[:, :4]

    def forward(self, images):
        return images.flatten(1) @ self.weight.T + self.bias
""",
}


def exact_training(model, dataset, spec, *, seed, device, **ignored):
    """Takes the place of a training: weights that are sums of few powers of two, by the seed."""
    for number, (name, value) in enumerate(model.state_dict().items()):
        if value.is_floating_point() and name not in ("mean", "std"):  # those are of the data
            steps = torch.arange(value.numel()) * 7 + number + seed
            value.copy_((steps % 31 - 15).reshape(value.shape) / 32)
        elif value.dtype == torch.bool:  # a pair loss is fitted
            value.fill_(True)
    model.eval()
    return log.TrainingLog(epochs=1, curve=[{"epoch": 1, "loss": 1.0, "seconds": 0.0}])


@contextmanager
def same_everywhere():
    """Takes out of the keys whatever is of this machine, and leaves out the report."""
    from robustloss import reports

    real, threads = importlib.metadata.version, torch.get_num_threads()
    adapted = ("torchattacks", "pyautoattack", "pytorch-metric-learning")
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reports, "build_report", lambda path: Path(path))
            patch.setattr(train, "train", exact_training)
            patch.setattr(alone, "needs_own_process", lambda job: False)  # it would train for real
            patch.setattr(importlib.metadata, "version", lambda n: "0" if n in adapted else real(n))
            yield patch
    finally:
        torch.set_num_threads(threads)


class GoldenRuns:
    """The runs, each computed when it is asked for, side by side in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.done = {}
        for name, text in PLUGINS.items():
            (folder / name).write_text(text)
        for name, tables in RUNS.items():
            (folder / f"{name}.toml").write_text(load_spec(BASE | {"name": name} | tables).text)
        for place, count in (("pictures/train", 10), ("pictures/test", 4), ("others", 2)):
            for number, kind in enumerate(("ant", "bee", "cat")):
                for each in range(count):
                    write_picture(folder / place / kind / f"{each}.ppm", 40 * number + each)

    def names(self, run):
        """The paths of all files of a run, and the keys that stand in files instead of names."""
        if run not in self.done:
            with same_everywhere():
                self.done[run] = self._in_memory() if run == "in memory" else self._names(run)
        return self.done[run]

    def spec(self, run):
        return load_spec(self.folder / f"{run}.toml")

    def _names(self, run):
        if run == "given":
            self.names("losses")
            weights = next((self.folder / "runs/losses/cells/softmax/seed-7").glob("model-*"))
            (self.folder / "softmax.safetensors").write_bytes(weights.read_bytes())
        outcome = runner.run(self.spec(run), out=self.folder / "runs" / run, device="cpu")
        reasons = [failure["reason"].partition(" (")[0] for failure in outcome.failures]
        assert all("on purpose" in reason for reason in reasons), reasons
        assert bool(reasons) == (run == "parts")
        return listed(outcome.path)

    def _in_memory(self):
        model = build_given("golden_model.py:Linear", {"bias": 0.5}, (self.folder,))
        grey = torch.arange(40 * 64).reshape(40, 1, 8, 8) * 37 % 256
        labels = torch.arange(40) % 10
        out = self.folder / "runs" / "in memory"
        images = grey[:20] / 255, labels[:20]
        trained = grey[20:] / 512, labels[20:]  # not of 8 bits
        attacks = [{"name": "fgsm", "eps": [0.1]}]
        robustloss.evaluate(
            {"mine": model}, *images, attacks, checks=200, train=trained, out=out,
            device="cpu", progress=Silent(),
        )  # fmt: skip
        return listed(out)


def listed(folder):
    """The paths below a run folder, sorted, and after a colon a key that stands inside a file."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            inside = path.name in ("train.json", "trial.json")
            key = f": {storage.read_json(path, checked=True)['key']}" if inside else ""
            found.append(path.relative_to(folder).as_posix() + key)
    return sorted(found)


def write_picture(path, number):
    """Writes 11x11 pixels of colour without compression: the same bytes with any library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(11 * 11 * 3) * (2 * number + 1) % 251
    path.write_bytes(b"P6 11 11 255\n" + pixels.astype(np.uint8).tobytes())


def ingredients(runs):
    """What keys are made of, one by one: says which of them has moved where all names differ."""

    def weights(patch, device="cpu", count=1):
        """The keys of trained weights, and of the file that holds an unfinished training."""
        group = type("Group", (processes.Group,), {"size": count})()
        patch.setattr(processes, "current_group", lambda: group)
        spec = runs.spec("losses")
        dataset = load_dataset(spec.data, near=runs.folder, quiet=True)
        job = CellJob(spec, spec.cells()[0], runs.folder / "none", device, None)
        found = CellWeights(job, dataset)
        return [found.path.name, found.checkpoint.name]

    def sets(run):
        spec = runs.spec(run)
        dataset = load_dataset(spec.data, near=runs.folder, quiet=True)
        others = outside.load_outside(spec, dataset, None)
        return [dataset.checksum, dataset.training_checksum, *(each.checksum for each in others)]

    def parameters(module):
        """Names and shapes: weights that are stored fit no others."""
        return storage.digest({name: list(v.shape) for name, v in module.state_dict().items()})

    shape = {"image_shape": (3, 32, 32), "feature_dim": 12}
    plain = ["a", 1, 1.0, True, None, 0.1, {"b": [], "a": {"é": -0.0}}]
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones((), dtype=torch.bool)}
    adversarial = [{"attack": attack, "eps": 0.1} for attack in ("pgd", "fgsm", "trades")]
    with same_everywhere() as patch:
        return {
            "digest of plain values": storage.digest(*plain),
            "digest of tensors": tensor_digest(tensors),
            "slugs": [slug(label) for label in ("L-GM (alpha 0.5)", "Größe ×2", "a  B_c")],
            "folder of a trial": search.name_of({"lr": 0.1, "alpha": 1}),
            "settings of [train]": storage.digest(TrainSpec().model_dump(mode="json")),
            "settings of [train.adversarial]": [
                storage.digest(AdversarialSpec(**each).model_dump(mode="json"))
                for each in adversarial
            ],
            "machine": [
                *(keys.numerics(torch.device(name)) for name in ("cpu", "cuda")),
                *(
                    keys.numerics(torch.device(name), ["lenet_plus", "small_cnn"], precision)
                    for name in ("cpu", "cuda")
                    for precision in ("float32", "bfloat16")
                ),
            ],
            "code of plug-ins": {
                name: keys.plugin_digest(f"{name}:x", runs.folder) for name in sorted(PLUGINS)
            },
            "code of others": [
                keys.plugin_digest(name, runs.folder)
                for name in ("fgsm", "torchattacks:PGD", "autoattack", "pml:ArcFaceLoss")
            ],
            "digits": sets("losses"),
            "digits of some classes, and outside images": sets("outside"),
            "folder": sets("folder"),
            "parameters of losses": {
                name: parameters(build_loss(name, feature_dim=12, num_classes=10))
                for name in LOSSES
            },
            "parameters of backbones": {
                name: parameters(build_backbone(name, **shape)) for name in BACKBONES
            },
            "weights": weights(patch),
            "weights by four processes": weights(patch, count=4),
            "weights on a GPU": weights(patch, "cuda"),
        }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return GoldenRuns(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


def test_what_keys_are_made_of(runs, golden):
    assert ingredients(runs) == golden["ingredients"]


@pytest.mark.parametrize("run", [*RUNS, "in memory"])
def test_a_run_has_the_files_that_it_always_had(runs, golden, run):
    assert runs.names(run) == golden[run]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        here = GoldenRuns(Path(temporary))
        found = {"ingredients": ingredients(here)}
        found |= {name: here.names(name) for name in [*RUNS, "in memory"]}
    GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
