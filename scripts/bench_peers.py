"""Attacks of other packages, for bench.py: used as the documentation of each shows them."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

BATCH = 500  # images at once, for everybody
PGD_EPS, PGD_STEPS = 0.1, 40
APGD_STEPS, SQUARE_QUERIES = 40, 500
Contender = Callable[[], object]


class Plain(nn.Module):
    """The model as anybody would write it: one layer after the other, the whole batch at once."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.head = nn.Sequential(*model.backbone), model.head
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)

    def forward(self, images):
        return self.head.logits(self.backbone((images - self.mean) / self.std))

    def joint(self, images):
        features = self.backbone((images - self.mean) / self.std)
        return self.head.logits(features), self.head.class_log_likelihood(features)


class Peers:
    """FGSM and PGD as the documentation of each package shows them, with errors and scores.

    They get the same weights in a plain module and torch's own memory format: how ours goes through
    the network is part of what is compared.
    """

    def __init__(self, model, images, device):
        plain = Plain(copy.deepcopy(model))
        self.model = plain.to(memory_format=torch.contiguous_format).eval()
        self.images, self.device = images, device
        self.batches = [
            (images.batch(slice(i, i + BATCH)), images.labels[i : i + BATCH])
            for i in range(0, images.n, BATCH)
        ]

    def outputs(self, adversarial):
        """Prediction and likelihood of the predicted class: what is wanted of each image."""
        with torch.no_grad():
            logits, likelihood = self.model.joint(adversarial)
        predicted = logits.argmax(1)
        return predicted, likelihood.gather(1, predicted[:, None])[:, 0]

    def collect(self, per_batch):
        found = [self.outputs(adversarial) for adversarial in per_batch]
        return [torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True)]

    def torchattacks(self, make):
        import torchattacks

        def sweep():
            return {
                eps: self.collect(
                    attack(x, y) for attack in [make(torchattacks, eps)] for x, y in self.batches
                )
                for eps in make.eps
            }

        return sweep

    def foolbox(self, attack, eps, **keys):
        import foolbox

        wrapped = foolbox.PyTorchModel(self.model, bounds=(0, 1), device=self.device)

        def sweep():
            rows = [attack(wrapped, x, y, epsilons=list(eps), **keys)[1] for x, y in self.batches]
            return {e: self.collect(row[i] for row in rows) for i, e in enumerate(eps)}

        return sweep

    def toolbox(self, make, eps):
        from art.estimators.classification import PyTorchClassifier

        shape = tuple(self.batches[0][0].shape[1:])
        classifier = PyTorchClassifier(
            self.model, nn.CrossEntropyLoss(), shape, 10, clip_values=(0.0, 1.0),
            device_type="gpu" if self.device.type == "cuda" else "cpu",
        )  # fmt: skip
        whole = torch.cat([x for x, _ in self.batches]).cpu().numpy()
        labels = torch.cat([y for _, y in self.batches]).cpu().numpy()

        def sweep():
            found = {}
            for e in eps:
                adversarial = make(classifier, e).generate(whole, labels)
                pieces = np.array_split(adversarial, len(self.batches))
                found[e] = self.collect(torch.from_numpy(p).to(self.device) for p in pieces)
            return found

        return sweep


class PlainPeers(Peers):
    """What a user of `perturb` wants of each image: is the model wrong about it?"""

    def collect(self, per_batch):
        wrong = []
        for adversarial, (_, labels) in zip(per_batch, self.batches, strict=True):
            with torch.no_grad():
                wrong.append(self.model(adversarial).argmax(1) != labels)
        return [torch.cat(wrong).cpu().numpy()]

    def autoattack(self, name, eps, queries=None, seed=0):
        from pyautoattack import AutoAttack

        def sweep():
            found = {}
            for e in eps:
                attack = AutoAttack(
                    self.model,
                    attacks=[name],
                    device=self.device,
                    eps=e,
                    version="custom",
                    seed=seed,
                )
                attack.apgd.n_restarts, attack.apgd.n_iter = 1, APGD_STEPS
                attack.square.n_queries = queries
                found[e] = self.collect(
                    attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
                    for x, y in self.batches
                )
            return found

        return sweep


class Seeded:
    """A random attack: each call takes the next seed, and keeps who was fooled.

    Args:
        make: Returns the contender of a seed.
    """

    def __init__(self, make: Callable[..., Contender]) -> None:
        make(seed=0)  # where the package is missing, this says so
        self.make = make
        self.found: list = []

    def __call__(self) -> None:
        self.found.append(self.make(seed=len(self.found))())


class _Make:
    """How a torchattacks attack is built for each eps."""

    def __init__(self, build, eps):
        self.build, self.eps = build, eps

    def __call__(self, package, eps):
        return self.build(package, eps)


def keep_installed(makers: dict[str, Callable[[], Contender]]) -> dict[str, Contender]:
    """Keep the contenders whose package can be imported; print the names of the others."""
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name}: left out ({error})", flush=True)
    return found


def fgsm_peers(peers, eps) -> dict[str, Callable[[], Contender]]:
    def foolbox():
        from foolbox.attacks import LinfFastGradientAttack

        return peers.foolbox(LinfFastGradientAttack(), eps)

    def art():
        from art.attacks.evasion import FastGradientMethod

        return peers.toolbox(lambda c, e: FastGradientMethod(c, eps=e, batch_size=BATCH), eps)

    return {
        "torchattacks": lambda: peers.torchattacks(
            _Make(lambda p, e: p.FGSM(peers.model, eps=e), eps)
        ),
        "foolbox": foolbox,
        "ART": art,
    }


def pgd_peers(peers, eps) -> dict[str, Callable[[], Contender]]:
    step = 2.5 * PGD_EPS / PGD_STEPS

    def foolbox():
        from foolbox.attacks import LinfPGD

        attack = LinfPGD(steps=PGD_STEPS, abs_stepsize=step, random_start=False)
        return peers.foolbox(attack, eps)

    def art():
        from art.attacks.evasion import ProjectedGradientDescent

        keys = {"max_iter": PGD_STEPS, "batch_size": BATCH, "verbose": False}
        return peers.toolbox(
            lambda c, e: ProjectedGradientDescent(c, eps=e, eps_step=step, **keys), eps
        )

    keys = {"alpha": step, "steps": PGD_STEPS, "random_start": False}
    return {
        "torchattacks": lambda: peers.torchattacks(
            _Make(lambda p, e: p.PGD(peers.model, eps=e, **keys), eps)
        ),
        "foolbox": foolbox,
        "ART": art,
    }


def apgd_peers(peers, eps) -> dict[str, Callable[..., Contender]]:
    keys = {"norm": "Linf", "steps": APGD_STEPS, "n_restarts": 1, "loss": "ce"}

    def torchattacks(seed):
        build = _Make(lambda p, e: p.APGD(peers.model, eps=e, seed=seed, **keys), eps)
        return peers.torchattacks(build)

    return {
        "torchattacks": torchattacks,
        "pyautoattack": lambda seed: peers.autoattack("apgd-ce", eps, seed=seed),
    }


def square_peers(peers, eps) -> dict[str, Callable[..., Contender]]:
    keys = {"norm": "Linf", "n_queries": SQUARE_QUERIES, "n_restarts": 1}

    def torchattacks(seed):
        build = _Make(lambda p, e: p.Square(peers.model, eps=e, seed=seed, **keys), eps)
        return peers.torchattacks(build)

    return {
        "torchattacks": torchattacks,
        "pyautoattack": lambda seed: peers.autoattack("square", eps, SQUARE_QUERIES, seed),
    }
