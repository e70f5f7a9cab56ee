"""What test_processes.py lets torchrun start: trains, and writes what came out.

    torchrun --nproc-per-node 2 -m tests.training.processes_worker FOLDER

One process does the same without torchrun; the test compares the files.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from robustloss.data.load import load_dataset
from robustloss.losses import build_loss
from robustloss.losses.softmax import SoftmaxHead
from robustloss.models.classifier import Classifier
from robustloss.seeding import using_seed
from robustloss.spec.data import DataSpec
from robustloss.spec.training import TrainSpec
from robustloss.training import processes
from robustloss.training import train as training

CPU = torch.device("cpu")
PGD = {"attack": "pgd", "eps": 0.1, "steps": 2, "select": "last", "select_images": 20}
# Losses with parameters, with centers of their own rule, of pairs, and of statistics of the batch.
CASES = {
    "softmax": {"loss": "softmax"},
    "center": {"loss": "center", "epochs": 2},
    "lgm": {"loss": "lgm", "epochs": 2, "max_grad_norm": 1.0},
    "cosface": {"loss": "cosface", "augment": "crop_flip"},
    "triplet": {"loss": "triplet", "optimizer": "adam"},
    "contrastive": {"loss": "contrastive"},
    "pgd": {"loss": "softmax", "adversarial": PGD},
    "trades": {"loss": "lgm", "adversarial": {**PGD, "attack": "trades", "beta": 2.0}},
    "pairs": {"loss": "triplet", "adversarial": {**PGD, "objective": "loss"}},
    "unused": {"loss": "softmax", "spare": True},
    "early": {"loss": "tests.training.processes_worker:Early"},
}


class Early(SoftmaxHead):
    """Has a weight that no step of the second half uses."""

    def __init__(self, feature_dim, num_classes):
        super().__init__(feature_dim, num_classes)
        self.early = nn.Parameter(torch.ones(feature_dim))

    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        if progress >= 0.5:
            return terms
        return terms._replace(regulariser=0.01 * (features * self.early).square().sum(1))


class Exact(Classifier):
    """Computes in float64: there rounding turns no sign of the gradients that an attack follows."""

    def features(self, images):
        return self.backbone((images - self.mean) / self.std)


class Network(nn.Module):
    """Batch normalisation of images and of vectors; one layer that may serve nothing.

    No bias comes before a normalisation, where its gradient would be rounding alone.
    """

    def __init__(self, spare):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(384, 8, bias=False),
            nn.BatchNorm1d(8, momentum=None),
        )
        self.spare = nn.Linear(2, 2) if spare else None

    def forward(self, images):
        return self.layers(images)


def new_model(data, loss, spare=False):
    with using_seed("weights", 0):
        head = build_loss(loss, feature_dim=8, num_classes=10)
        return Exact(Network(spare), head, data.mean, data.std).double()


def trained(data, loss, spare=False, **keys):
    keys = {"epochs": 1, "batch_size": 41, "precision": "float32", "lr": 0.01, **keys}
    model = new_model(data, loss, spare)
    log = training.train(model, data, TrainSpec.model_validate(keys), seed=0, device=CPU)
    return model, log


def first_gradients(data, loss, spare=False, **keys):
    """The gradients of the first step, by name."""
    found = {}
    original = torch.optim.SGD.step, torch.optim.AdamW.step

    def stop(self, *args, **kwargs):
        parameters = [p for group in self.param_groups for p in group["params"]]
        gradients = {str(n): p.grad for n, p in enumerate(parameters) if p.grad is not None}
        if not found:
            found.update({name: gradient.clone() for name, gradient in gradients.items()})

    torch.optim.SGD.step = torch.optim.AdamW.step = stop
    try:
        trained(data, loss, spare, **keys)
    finally:
        torch.optim.SGD.step, torch.optim.AdamW.step = original
    return found


def main(folder):
    data = load_dataset(DataSpec(name="digits", train_size=170), quiet=True)
    group = processes.joining("cpu") if processes.is_launched() else nullcontext()
    with group:
        for name, case in CASES.items():
            gradients = first_gradients(data, **case)
            model, log = trained(data, **case)
            if processes.is_leader():
                torch.save(gradients, folder / f"{name}-gradients.pt")
                torch.save(model.state_dict(), folder / f"{name}-weights.pt")
                curve = [
                    {k: v for k, v in line.items() if "seconds" not in k and k != "processes"}
                    for line in log.curve
                ]
                (folder / f"{name}.json").write_text(json.dumps([log.processes, curve]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
