"""A world of mock models: Gaussian features, pushed by mock attacks. Plausible, not real."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from robustloss.results.records import Record
from robustloss.spec.attack_kinds import attack_kind

EPS = (0.0, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Mock:
    """How one mock loss shapes its features.

    Attributes:
        spread: Standard deviation of a class around its center, in units of the class distance.
        pull: How far an attack of eps 0.1 moves a feature towards another class, in [0, 1].
        drift: How far it leaves the data on the way, sideways; what a likelihood notices.
        stuck: Share of images whose gradient is exactly 0.
        scale: Everything in feature space times this.
        note: What every table must say of this loss.
    """

    name: str
    label: str
    spread: float
    pull: float
    drift: float
    params: Mapping[str, object] = field(default_factory=dict)
    stuck: float = 0.0
    scale: float = 1.0
    note: str = ""


STARS = ("softmax", "weighted_softmax", "modified_softmax", "l_softmax", "a_softmax")
RINGS = ("fnorm_sphereface", "l2_softmax", "normface", "cosface", "arcface")
MOCKS = (
    Mock("softmax", "softmax", 0.17, 0.30, 0.05, stuck=0.04),
    Mock("center", "center", 0.12, 0.34, 0.20, {"lambda_": 0.1}),
    Mock("gm", "GM", 0.12, 0.28, 0.25, {"likelihood_weight": 0.1}),
    Mock("lgm", "L-GM (alpha 1)", 0.10, 0.25, 0.30, {"alpha": 1.0, "likelihood_weight": 0.1}),
)


@dataclass(frozen=True)
class MockAttack:
    """An attack: its eps, and how strong it is relative to the mock's pull.

    What it does follows from the kind that its name stands for: a minimum-norm attack has radii,
    an adaptive one moves onto the other class's center without leaving the data.
    """

    name: str = "fgsm"
    label: str = "FGSM"
    norm: str = "linf"
    eps: Sequence[float] = EPS
    strength: float = 1.0

    @property
    def kind(self) -> str:
        return attack_kind(self.name)


ANNEALED = "margin annealed: lambda from 1000 to 5 over training, so the full margin is not reached"
MANY = (
    *MOCKS,
    Mock("lgm", "L-GM (alpha 0.3)", 0.11, 0.26, 0.28, {"alpha": 0.3, "likelihood_weight": 0.1}),
    Mock("weighted_softmax", "Weighted softmax", 0.17, 0.31, 0.06, scale=1.2),
    Mock("modified_softmax", "Modified softmax", 0.16, 0.31, 0.07, scale=6.0),
    Mock("l_softmax", "L-Softmax (m 2)", 0.14, 0.29, 0.08, {"margin": 2}, scale=5.0, note=ANNEALED),
    Mock("l_softmax", "L-Softmax (m 4)", 0.12, 0.29, 0.09, {"margin": 4}, scale=9.0, note=ANNEALED),
    Mock("a_softmax", "A-Softmax (SphereFace)", 0.12, 0.28, 0.10, {"margin": 2}, scale=14.0,
         note=ANNEALED),
    Mock("fnorm_sphereface", "F-norm SphereFace", 0.13, 0.30, 0.15, {"margin": 2}, scale=2.0),
    Mock("l2_softmax", "L2-constrained softmax", 0.14, 0.32, 0.14, scale=4.0),
    Mock("normface", "NormFace", 0.13, 0.33, 0.16, scale=0.5),
    Mock("cosface", "CosFace (s 30, m 0.15)", 0.10, 0.29, 0.18, {"margin": 0.15}, scale=0.25),
    Mock("arcface", "ArcFace (s 30, m 0.3)", 0.10, 0.28, 0.19, {"margin_rad": 0.3}, scale=0.2),
    Mock("contrastive", "Contrastive", 0.20, 0.36, 0.22, scale=0.3),
    Mock("triplet", "Triplet (semi-hard)", 0.22, 0.40, 0.20, scale=0.1),
    Mock("triplet", "Triplet (batch-hard)", 0.24, 0.41, 0.20, scale=0.15),
    Mock("mmc", "Max-Mahalanobis (MMC)", 0.13, 0.24, 0.30, scale=2.5),
)  # fmt: skip

LINF, L2 = (0.0, 0.05, 0.1, 0.2), (0.5, 1.0, 2.0)
ALL_KINDS = (
    MockAttack("fgsm", "FGSM", eps=LINF, strength=1.0),
    MockAttack("pgd", "PGD", eps=LINF[1:], strength=1.4),
    MockAttack("pgd", "PGD, margin", eps=LINF[1:], strength=1.5),
    MockAttack("apgd_ce", "APGD-CE", eps=LINF[1:], strength=1.5),
    MockAttack("square", "Square", eps=LINF[1:], strength=1.2),
    MockAttack("deepfool", "DeepFool", eps=LINF[1:], strength=1.3),
    MockAttack("adaptive_joint", "Adaptive: joint", eps=LINF[1:], strength=1.6),
    MockAttack("adaptive_orthogonal", "Adaptive: orthogonal", eps=LINF[1:], strength=1.5),
    MockAttack("cw", "CW", "l2", L2, strength=0.12),
    MockAttack("deepfool", "DeepFool L2", "l2", L2, strength=0.10),
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Everything that decides a synthetic run.

    A strong one has what came with the strong attacks: probes, transfer, 8-bit predictions, cost;
    one with geometry has what explains the feature space.
    """

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
    strong: bool = False
    geometry: bool = False


SCALE = 16.0  # of the cosine losses


def cosine(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(..., D) and (K, D) to (..., K)."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True) * np.linalg.norm(weights, axis=1)
    return features @ weights.T / np.maximum(lengths, 1e-12)


class World:
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
        self.centers = self.centers * mock.scale
        gaps = np.linalg.norm(self.centers[:, None] - self.centers[None], axis=2)
        np.fill_diagonal(gaps, np.inf)
        self.gap = float(gaps.min())
        self.neighbour = gaps.argmin(1)
        self.sideways = random.standard_normal(d)
        self.sideways *= 2.0 * mock.scale / np.linalg.norm(self.sideways)

    @property
    def star(self) -> bool:
        return self.mock.name in STARS

    @property
    def ring(self) -> bool:
        return self.mock.name in RINGS

    def draw(self, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        noise = random.standard_normal((len(labels), self.layout.dim))
        at = self.centers[labels]
        if self.star:  # long arms from the origin, as a softmax makes them
            at = at * random.gamma(6.0, 1 / 4.0, (len(labels), 1))
            long = np.linalg.norm(at, axis=1, keepdims=True) / (4 * self.mock.scale)
            return at + 0.08 * self.gap * noise * long
        odd = random.uniform(size=(len(labels), 1)) < 0.03
        return at + self.mock.spread * self.gap * noise * np.where(odd, 3.0, 1.0)

    def attack(
        self, features: np.ndarray, labels: np.ndarray, attack: MockAttack, eps: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Attacked features (N, D), and (N,) radii of a minimum-norm attack."""
        if attack.kind != "minimum_norm":
            return self._push(features, labels, attack, np.full(len(labels), eps)), None
        radius = self._radius(features, labels, attack)
        size = np.where(radius <= eps, radius, 0.0)
        return self._push(features, labels, attack, size), radius.astype(np.float32)

    def _push(
        self, features: np.ndarray, labels: np.ndarray, attack: MockAttack, eps: np.ndarray
    ) -> np.ndarray:
        random = np.random.default_rng(7)
        size = (eps * attack.strength / 0.1)[:, None]
        step = size * self.mock.pull * random.uniform(0.4, 1.6, (len(labels), 1))
        towards = self.centers[self.neighbour[labels]] - self.centers[labels]
        stuck = random.uniform(size=(len(labels), 1)) < self.mock.stuck
        if attack.kind == "adaptive":
            goal = self.centers[self.neighbour[labels]]
            return features + np.minimum(1.0, step) * (goal - features)
        aside = size * self.mock.drift * self.sideways * random.standard_normal((len(labels), 1))
        moved = step * towards + aside
        return features + np.where(stuck & (attack.kind == "one_step"), 0.0, moved)

    def _radius(self, features: np.ndarray, labels: np.ndarray, attack: MockAttack) -> np.ndarray:
        found = np.full(len(labels), np.inf)
        for eps in np.linspace(0, 0.4 / attack.strength, 101):
            moved = self._push(features, labels, attack, np.full(len(labels), eps))
            wrong = self.log_likelihood(moved).argmax(1) != labels
            found[wrong & np.isinf(found)] = eps
        # between the steps of the search, so that no two images share a radius
        return found * (1 + 0.01 * np.random.default_rng(3).uniform(size=len(labels)))

    def log_likelihood(self, features: np.ndarray) -> np.ndarray:
        if self.star:
            w = self.centers * 0.8 / self.mock.scale**2
            return features @ w.T
        if self.ring:
            return SCALE * cosine(features, self.centers)
        diff = features[..., None, :] - self.centers
        scale = (self.mock.spread * self.gap) ** 2
        quadratic = -0.5 * (diff**2).sum(-1) / scale
        return quadratic - 0.5 * self.layout.dim * np.log(2 * np.pi * scale)

    def record(
        self, features: np.ndarray, labels: np.ndarray, images: np.ndarray,
        attack: MockAttack, eps: float, radius: np.ndarray | None,
    ) -> Record:  # fmt: skip
        n = len(labels)
        logits = self.log_likelihood(features).astype(np.float32)
        random = np.random.default_rng(7)
        random.uniform(0.4, 1.6, (n, 1))
        stuck = random.uniform(size=(n, 1))[:, 0] < self.mock.stuck
        rounded = None
        if self.layout.strong and eps:
            rounded = logits.argmax(1)
            rounded[::37] = labels[::37]
        return Record(
            index=np.arange(n), labels=labels.astype(np.int64), logits=logits,
            class_log_likelihood=logits, features=features.astype(np.float32),
            linf=np.full(n, eps, np.float32), l2=np.full(n, eps * 20, np.float32),
            zero_gradient=stuck if attack.kind in ("one_step", "iterative") else None,
            radius=radius, images=images,
            outside=np.zeros(n, bool) if self.layout.strong and eps else None,
            predictions_8bit=rounded,
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
        if not self.star and not self.ring:
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
