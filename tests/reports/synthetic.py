"""A complete run folder without any training: Gaussian features, pushed by a mock attack.

The files are written through the same functions as those of a real run, so the report cannot tell
the difference; the numbers are plausible, not real.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robustloss.results import Record, cell_numbers, save_record, write_results
from robustloss.spec import load_spec, slug
from robustloss.storage import digest, write_arrays, write_json, write_text

EPS = (0.0, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Mock:
    """How one mock loss shapes its features.

    Attributes:
        spread: Standard deviation of a class around its center, in units of the class distance.
        pull: How far an attack of eps 0.1 moves a feature towards another class, in [0, 1].
        drift: How far it leaves the data on the way, sideways; what a likelihood notices.
        stuck: Share of images whose gradient is exactly 0.
    """

    name: str
    label: str
    spread: float
    pull: float
    drift: float
    params: Mapping[str, object] = field(default_factory=dict)
    stuck: float = 0.0


MOCKS = (
    Mock("softmax", "softmax", 0.17, 0.30, 0.05, stuck=0.04),
    Mock("center", "center", 0.12, 0.34, 0.20, {"lambda_": 0.1}),
    Mock("gm", "GM", 0.12, 0.28, 0.25, {"likelihood_weight": 0.1}),
    Mock("lgm", "L-GM (alpha 1)", 0.10, 0.25, 0.30, {"alpha": 1.0, "likelihood_weight": 0.1}),
)


@dataclass(frozen=True)
class MockAttack:
    """An attack: its eps, and how strong it is relative to the mock's pull."""

    name: str = "fgsm"
    label: str = "FGSM"
    norm: str = "linf"
    eps: Sequence[float] = EPS
    strength: float = 1.0


@dataclass(frozen=True)
class Layout:
    """Everything that decides a synthetic run."""

    mocks: Sequence[Mock] = MOCKS
    seeds: Sequence[int] = (0, 1, 2)
    attacks: Sequence[MockAttack] = (MockAttack(),)
    n: int = 400
    classes: int = 10
    dim: int = 2
    shape: tuple[int, int, int] = (1, 28, 28)
    data: str = "mnist"
    failed: Sequence[tuple[str, int]] = ()
    grid: int = 60
    epochs: int = 5


def write_run(path: Path, layout: Layout = Layout()) -> Path:
    """Write the run folder and return it."""
    spec = load_spec(_spec(layout, path.name))
    write_text(path / "spec.toml", spec.text)
    cells, training = [], []
    for mock in layout.mocks:
        for seed in layout.seeds:
            if (mock.label, seed) not in layout.failed:
                cell, curve = _write_cell(path, layout, mock, seed)
                cells.append(cell)
                training.append(curve)
    failures = [
        {
            "loss": next(m.name for m in layout.mocks if m.label == label),
            "label": label,
            "seed": seed,
            "stage": "train",
            "reason": "the loss became NaN in epoch 2, step 131. Lower train.lr (=0.05).",
        }
        for label, seed in layout.failed
    ]
    write_results(
        path,
        name=path.name,
        provenance=_provenance(layout, spec.plain()),
        cells=cells,
        training=training,
        failures=failures,
    )
    return path


def _spec(layout: Layout, name: str) -> dict:
    return {
        "name": slug(name) or "synthetic",
        "seeds": list(layout.seeds),
        "data": {"name": layout.data},
        "model": {"backbone": "lenet_plus", "feature_dim": layout.dim},
        "train": {"epochs": layout.epochs},
        "losses": [{"name": m.name, "label": m.label, "params": m.params} for m in layout.mocks],
        "attacks": [
            {"name": a.name, "label": a.label, "eps": list(a.eps)}
            for a in layout.attacks or [MockAttack()]
        ],
    }


def _provenance(layout: Layout, spec: dict) -> dict:
    return {
        "robustloss": "0.1.0", "torch": "2.15.0+cpu", "torchvision": "0.29.2", "numpy": "2.4.6",
        "python": "3.11.2", "platform": "Linux-6.1-x86_64", "device": "cpu (Mock CPU, 2 cores)",
        "threads": 2, "precision": "bfloat16 for training, float32 for attacks and scores",
        "data": {"name": layout.data, "checksum": digest(layout.data), "train": 55000,
                 "validation": 5000, "test": layout.n},
        "seeds": list(layout.seeds), "started": "2026-11-22T10:00:00+00:00",
        "finished": "2026-11-22T10:11:40+00:00", "seconds": 700.4, "spec": spec,
        "command": ["robustloss", "run", "mnist"],
    }  # fmt: skip


def _write_cell(path: Path, layout: Layout, mock: Mock, seed: int) -> tuple[dict, dict]:
    order = [m.label for m in layout.mocks].index(mock.label)
    random = np.random.default_rng([order, seed, layout.dim])
    world = _World(layout, mock, random)
    folder = path / "cells" / slug(mock.label) / f"seed-{seed}"
    key = digest(mock.label, seed)
    entries: list[dict] = []
    records = {}
    labels = np.arange(layout.n) % layout.classes
    clean_features = world.draw(labels, random)
    images = _images(layout, labels[:64])
    plans = [(MockAttack("none", "none", "", (0.0,)), 0.0)]
    plans += [(a, float(e)) for a in layout.attacks for e in a.eps]
    for number, (attack, eps) in enumerate(plans):
        features = world.attack(clean_features, labels, eps * attack.strength)
        pixels = images
        if eps:
            noise = np.random.default_rng([number, order]).standard_normal(images.shape)
            pixels = np.clip(images + eps * np.sign(noise), 0, 1).astype(np.float32)
        record = world.record(features, labels, pixels, eps, attacked=attack.name != "none")
        entry = {
            "attack": attack.name, "attack_label": attack.label, "norm": attack.norm or None,
            "eps": eps, "file": f"{slug(attack.label)}-{eps:g}-{key}.npz",
        }  # fmt: skip
        save_record(folder / entry["file"], record)
        records[(attack.label, eps)] = record
        entries.append(entry)
    scores = world.reference(random)
    write_arrays(folder / f"scores-{key}.npz", scores)
    training = _training(layout, records[("none", 0.0)], random)
    write_json(folder / "train.json", {"key": key, **training}, checked=True)
    cell = {
        "schema_version": 1, "loss": mock.name, "label": mock.label, "slug": slug(mock.label),
        "seed": seed, "key": key, "num_classes": layout.classes, "feature_dim": layout.dim,
        "density": mock.name in ("gm", "lgm"),
        "files": {"model": f"model-{key}.safetensors", "training": "train.json",
                  "scores": f"scores-{key}.npz", "records": entries},
    }  # fmt: skip
    cell |= cell_numbers(records, scores, cell)
    write_json(folder / "cell.json", cell, checked=True)
    place = {"loss": mock.name, "label": mock.label, "seed": seed}
    return cell, place | training


class _World:
    """Feature space of one mock model: centers on a circle (2-D) or far apart (more)."""

    def __init__(self, layout: Layout, mock: Mock, random: np.random.Generator) -> None:
        self.layout, self.mock = layout, mock
        k, d = layout.classes, layout.dim
        if d == 2:
            angle = 2 * np.pi * (np.arange(k) + random.uniform()) / k
            self.centers = 4.0 * np.stack([np.cos(angle), np.sin(angle)], 1) * max(1, k / 10)
        elif d == 1:
            self.centers = 4.0 * np.arange(k)[:, None]
        else:
            basis = random.standard_normal((k, d))
            self.centers = 4.0 * basis / np.linalg.norm(basis, axis=1, keepdims=True)
        gaps = np.linalg.norm(self.centers[:, None] - self.centers[None], axis=2)
        np.fill_diagonal(gaps, np.inf)
        self.gap = float(gaps.min())
        self.neighbour = gaps.argmin(1)
        self.sideways = random.standard_normal(d)
        self.sideways *= 2.0 / np.linalg.norm(self.sideways)

    @property
    def star(self) -> bool:
        return self.mock.name == "softmax"

    def draw(self, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        noise = random.standard_normal((len(labels), self.layout.dim))
        at = self.centers[labels]
        if self.star:  # long arms from the origin, as a softmax makes them
            at = at * random.gamma(6.0, 1 / 4.0, (len(labels), 1))
            return at + 0.08 * self.gap * noise * np.linalg.norm(at, axis=1, keepdims=True) / 4
        odd = random.uniform(size=(len(labels), 1)) < 0.03
        return at + self.mock.spread * self.gap * noise * np.where(odd, 3.0, 1.0)

    def attack(self, features: np.ndarray, labels: np.ndarray, eps: float) -> np.ndarray:
        random = np.random.default_rng(7)
        step = eps / 0.1 * self.mock.pull * random.uniform(0.4, 1.6, (len(labels), 1))
        towards = self.centers[self.neighbour[labels]] - self.centers[labels]
        stuck = random.uniform(size=(len(labels), 1)) < self.mock.stuck
        aside = (
            eps / 0.1 * self.mock.drift * self.sideways * random.standard_normal((len(labels), 1))
        )
        return features + np.where(stuck, 0.0, step * towards + aside)

    def log_likelihood(self, features: np.ndarray) -> np.ndarray:
        if self.star:
            w = self.centers * 0.8
            return features @ w.T
        diff = features[..., None, :] - self.centers
        scale = (self.mock.spread * self.gap) ** 2
        quadratic = -0.5 * (diff**2).sum(-1) / scale
        return quadratic - 0.5 * self.layout.dim * np.log(2 * np.pi * scale)

    def record(
        self, features: np.ndarray, labels: np.ndarray, images: np.ndarray, eps: float,
        *, attacked: bool,
    ) -> Record:  # fmt: skip
        n = len(labels)
        logits = self.log_likelihood(features).astype(np.float32)
        random = np.random.default_rng(7)
        random.uniform(0.4, 1.6, (n, 1))
        stuck = random.uniform(size=(n, 1))[:, 0] < self.mock.stuck
        return Record(
            index=np.arange(n), labels=labels.astype(np.int64), logits=logits,
            class_log_likelihood=logits, features=features.astype(np.float32),
            linf=np.full(n, eps, np.float32), l2=np.full(n, eps * 20, np.float32),
            zero_gradient=stuck if attacked else None, radius=None, images=images,
        )  # fmt: skip

    def reference(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        labels = np.arange(max(self.layout.n // 2, 200)) % self.layout.classes
        features = self.draw(labels, random)
        logits = self.log_likelihood(features).astype(np.float32)
        out = {
            "validation_index": np.arange(len(labels)), "validation_labels": labels,
            "validation_logits": logits, "validation_class_log_likelihood": logits,
            "validation_features": features.astype(np.float32),
            "train_features": features.astype(np.float32), "train_labels": labels,
        }  # fmt: skip
        if not self.star:
            out["centers"] = self.centers.astype(np.float32)
        if self.layout.dim == 2:
            low, high = features.min(0), features.max(0)
            margin = 0.35 * (high - low)
            x, y = (np.linspace(low[i] - margin[i], high[i] + margin[i], self.layout.grid)
                    for i in (0, 1))  # fmt: skip
            grid = np.stack(np.meshgrid(x, y), -1)
            values = self.log_likelihood(grid).astype(np.float32)
            out |= {
                "grid_x": x.astype(np.float32),
                "grid_y": y.astype(np.float32),
                "grid_class_log_likelihood": values,
                "grid_prediction": values.argmax(-1),
            }
        return out


def _images(layout: Layout, labels: np.ndarray) -> np.ndarray:
    """Strokes that differ by class: enough to see what an attack does to them."""
    channels, high, wide = layout.shape
    y, x = np.mgrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
    out = np.zeros((len(labels), *layout.shape), np.float32)
    for i, label in enumerate(labels):
        angle, bend = np.pi * label / layout.classes, 0.4 * np.sin(i)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        stroke = np.exp(-(((across - bend * along**2) / 0.16) ** 2)) * (np.abs(along) < 0.75)
        tint = np.linspace(1, 0.4, channels)[:, None, None]
        out[i] = np.clip(stroke * tint, 0, 1)
    return out


def _training(layout: Layout, clean: Record, random: np.random.Generator) -> dict:
    final = max(float((~clean.correct).mean()), 0.002)
    curve = []
    for epoch in range(1, layout.epochs + 1):
        decay = np.exp(-3.0 * (epoch - 1) / max(layout.epochs - 1, 1))
        wobble = 1 + 0.08 * random.standard_normal()
        curve.append(
            {"epoch": epoch, "loss": float(0.02 + 2 * decay * wobble),
             "classification": float(0.01 + 1.5 * decay), "regulariser": float(0.01 + 0.5 * decay),
             "train_error": float(final * 0.8 * wobble + 0.1 * decay),
             "validation_error": float(final * wobble + 0.06 * decay), "lr": 0.05 * decay,
             "seconds": 9.0 * epoch}
        )  # fmt: skip
    return {"epochs": layout.epochs, "curve": curve, "seconds": 45.0, "steps": 430 * layout.epochs,
            "precision": "bfloat16", "parameters": 221_834}  # fmt: skip
