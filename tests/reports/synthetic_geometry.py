"""What explains the feature space of a synthetic run: arrays beside the scores, rows of tables."""

from collections.abc import Mapping

import numpy as np

from robustloss.metrics.intervals import wilson
from robustloss.results.records import Record
from tests.reports.world import SCALE, Layout, Mock, World, cosine

Logits = np.ndarray


def psi(cos: np.ndarray, m: int) -> np.ndarray:
    """(-1)^k cos(m theta) - 2k of L-Softmax and SphereFace."""
    angle = np.arccos(np.clip(cos, -1, 1))
    k = np.minimum(np.floor(m * angle / np.pi), m - 1)
    return (-1.0) ** k * np.cos(m * angle) - 2 * k


def training_logits(world: World, features: np.ndarray, label: int) -> Logits:
    """(..., K) logits with the margin of the mock's loss on class ``label``."""
    out = np.array(world.log_likelihood(features), float)
    params, cos = world.mock.params, cosine(features, world.centers)[..., label]
    norm = np.linalg.norm(features, axis=-1)
    match world.mock.name:
        case "lgm":
            d = ((features - world.centers[label]) ** 2).sum(-1)
            out[..., label] -= params["alpha"] * d / 2 / (world.mock.spread * world.gap) ** 2  # type: ignore[operator]
        case "l_softmax" | "a_softmax":
            weight = np.linalg.norm(world.centers[label]) * 0.8 / world.mock.scale**2
            out[..., label] = norm * weight * psi(cos, params["margin"])  # type: ignore[arg-type]
        case "fnorm_sphereface":
            out[..., label] = SCALE * psi(cos, params["margin"])  # type: ignore[arg-type]
        case "cosface":
            out[..., label] -= SCALE * params["margin"]  # type: ignore[operator]
        case "arcface":
            angle = np.arccos(np.clip(cos, -1, 1)) + params["margin_rad"]
            out[..., label] = SCALE * np.cos(angle)
    return out


def gaps(world: World, points: np.ndarray, a: int, b: int) -> tuple[np.ndarray, ...]:
    """z_a - z_b without a margin, under label a, under label b."""
    every = (
        world.log_likelihood(points),
        training_logits(world, points, a),
        training_logits(world, points, b),
    )
    return tuple(z[..., a] - z[..., b] for z in every)


def means(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    return np.stack([features[labels == k].mean(0) for k in range(classes)])


def nearest(centers: np.ndarray) -> tuple[int, int, float]:
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=2)
    distance[np.tril_indices(len(centers))] = np.inf
    a, b = np.unravel_index(distance.argmin(), distance.shape)
    return int(a), int(b), float(distance[a, b])


def has_closed_form(mock: Mock) -> bool:
    return mock.name not in ("contrastive", "triplet")


def arrays(layout: Layout, world: World, scores: Mapping, clean: Record, seed: int) -> dict:
    """What scores-KEY.npz holds beside the scores."""
    random = np.random.default_rng([99, seed, layout.dim])
    n = min(2000, clean.n)
    features, labels = scores["train_features"].astype(float), scores["train_labels"]
    turn = random.standard_normal((layout.classes, layout.dim)) * 0.25
    untrained = turn[clean.labels[:n]] + 0.3 * random.standard_normal((n, layout.dim))
    out = {
        "class_vectors": world.centers.astype(np.float32),
        "train_gradient_norm": _gradient(world, features, labels).astype(np.float32),
        "untrained_features": untrained.astype(np.float32),
        "untrained_labels": clean.labels[:n],
    }
    if layout.dim == 2:
        a, b, _ = nearest(means(features, labels, layout.classes))
        grid = np.stack(np.meshgrid(scores["grid_x"], scores["grid_y"]), -1).astype(float)
        found = [g.astype(np.float32) for g in gaps(world, grid, a, b)]
        out |= {"boundary_pair": np.array([a, b])}
        out |= dict(zip(("boundary_free", "boundary_a", "boundary_b"), found, strict=True))
        if has_closed_form(world.mock):
            out |= dict(zip(("closed_free", "closed_a", "closed_b"), found, strict=True))
    return out


def _gradient(world: World, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    z = world.log_likelihood(features)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    pull = np.linalg.norm(p @ world.centers, axis=1)
    return pull / np.linalg.norm(features, axis=1) if world.ring else pull


def rows(
    layout: Layout, world: World, scores: Mapping, records: Mapping[tuple, Record], place: Mapping
) -> dict[str, list[dict]]:
    """The tables of results.json about one cell."""
    train, labels = scores["train_features"].astype(float), scores["train_labels"]
    clean = records[("none", 0.0)]
    assert clean.features is not None
    splits = {
        "train": (train, labels),
        "test": (clean.features.astype(float), clean.labels),
        "untrained": (scores["untrained_features"].astype(float), scores["untrained_labels"]),
    }
    geometry = [place | geometry_row(k, *v, layout.classes) for k, v in splits.items()]
    gradient = scores["train_gradient_norm"].astype(float)
    geometry[0] |= {"gradient_norm_mean": float(gradient.mean()),
                    "gradient_norm_correlation": -0.3}  # fmt: skip
    return {
        "per_class": [r for key, found in records.items() for r in _classes(place, key, found)],
        "geometry": geometry,
        "margins": [place | r for r in margin_rows(layout, world, train, labels)],
        "center_estimates": [place | _centers(layout, world, train, labels)],
    }


def geometry_row(split: str, features: np.ndarray, labels: np.ndarray, classes: int) -> dict:
    own = means(features, labels, classes)
    norm = np.linalg.norm(features, axis=1)
    a, b, low = nearest(own)
    pairs = np.triu_indices(classes, 1)
    between = np.linalg.norm(own[:, None] - own[None], axis=2)[pairs]
    angles = np.degrees(np.arccos(np.clip(cosine(own, own), -1, 1)))[pairs]
    cos = np.clip(cosine(features, own)[np.arange(len(labels)), labels], -1, 1)
    inner = features - own[labels]
    outer = own[labels] - features.mean(0)
    return {
        "split": split, "n": len(labels), "feature_dim": features.shape[1],
        "norm_mean": norm.mean(), "norm_p5": np.quantile(norm, 0.05),
        "norm_p95": np.quantile(norm, 0.95),
        "within_distance": np.linalg.norm(inner, axis=1).mean(),
        "between_distance": between.mean(), "between_distance_min": low,
        "nearest_a": a, "nearest_b": b,
        "fisher_ratio": (outer**2).sum() / (inner**2).sum(),
        "within_angle_deg": np.degrees(np.arccos(cos)).mean(),
        "between_angle_deg": angles.mean(), "between_angle_min_deg": angles.min(),
        "gradient_norm_mean": None, "gradient_norm_correlation": None,
    }  # fmt: skip


def margin_rows(layout: Layout, world: World, train: np.ndarray, labels: np.ndarray) -> list[dict]:
    own = means(train, labels, layout.classes)
    a, b, _ = nearest(own)
    every = [(i, j) for i in range(layout.classes) for j in range(i + 1, layout.classes)]
    out = []
    t = np.linspace(0, 1, 4001)
    for i, j in every if layout.classes <= 10 else [(a, b)]:
        line = own[i] + t[:, None] * (own[j] - own[i])
        places = [_crossing(t, g) for g in gaps(world, line, i, j)]
        length = float(np.linalg.norm(own[j] - own[i]))
        known = None not in places
        margin = (places[2] - places[1]) * length if known else None  # type: ignore[operator]
        closed = has_closed_form(world.mock) and known
        shift = [None if p is None or not closed else p + 1e-4 for p in places]
        out.append(
            {"class_a": i, "class_b": j, "length": length, "boundary": places[0],
             "boundary_a": places[1], "boundary_b": places[2], "margin": margin,
             "closed_boundary": shift[0], "closed_boundary_a": shift[1],
             "closed_boundary_b": shift[2], "closed_margin": margin if closed else None,
             "difference": 1e-4 if closed else None}
        )  # fmt: skip
    return out


def _crossing(t: np.ndarray, gap: np.ndarray) -> float | None:
    place = np.flatnonzero(np.diff(np.sign(gap)) < 0)
    return float(t[place[0]]) if place.size else None


def _classes(place: Mapping, key: tuple, record: Record) -> list[dict]:
    out = []
    for k in range(record.logits.shape[1]):
        own, given = record.labels == k, record.predictions == k
        n, missed = int(own.sum()), int((own & ~given).sum())
        low, high = wilson(missed, n)
        false = int((given & ~own).sum())
        out.append(
            {**place, "attack": "none" if key[0] == "none" else "mock", "attack_label": key[0],
             "norm": None, "eps": key[1], "class_index": k, "n": n, "error": missed / n,
             "error_low": low, "error_high": high, "predicted": int(given.sum()),
             "false_positives": false, "false_negatives": missed,
             "false_positive_rate": false / max(1, int((~own).sum()))}
        )  # fmt: skip
    return out


def _centers(layout: Layout, world: World, train: np.ndarray, labels: np.ndarray) -> dict:
    own = means(train, labels, layout.classes)
    scatter = ((train - own[labels]) ** 2).sum(1).mean()
    per_class = 128 / layout.classes
    expected = float(np.sqrt(scatter / per_class))
    away = float(np.sqrt(((world.centers - own) ** 2).sum(1).mean()))
    return {
        "batch_size": 128, "images_per_class": per_class, "batch_mean_error": 1.02 * expected,
        "expected_error": expected, "centers_error": None if world.star or world.ring else away,
        "within_distance": float(np.linalg.norm(train - own[labels], axis=1).mean()),
    }  # fmt: skip


def tuple_curve(mock: Mock, curve: list[dict]) -> list[dict]:
    """A pair loss has no prediction before fit, and fewer and fewer tuples that pull."""
    if mock.name not in ("contrastive", "triplet"):
        return curve
    out = []
    for i, point in enumerate(curve):
        unknown = {} if i == len(curve) - 1 else {"train_error": None, "validation_error": None}
        out.append(point | unknown | {"tuples": 900.0 / (i + 1), "tuple_seconds": 1.5})
    return out
