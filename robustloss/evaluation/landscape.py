"""Why a loss separates as it does: its gradients, its boundaries, and the network before training.

What needs the head is computed here once and stored with the reference arrays; the tables of the
feature space are made from it without torch.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.evaluation.passes import Arrays, to_numpy
from robustloss.losses.base import LossHead, check_class_vectors, check_logits
from robustloss.losses.boundaries import closed_gaps
from robustloss.metrics.feature_space import class_means, nearest_pair
from robustloss.seeding import using_seed

VERSION = 1  # raise when the same weights would give other arrays
UNTRAINED = 2000  # test images that go through the untrained network
SAMPLES = 2001  # places on the way from one class mean to another
MOST_CLASSES = 10  # up to here every pair of classes is measured, beyond only the nearest
BATCH = 128  # images that a pair loss compares with each other, at least

Gaps = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # without margin, under label a, under b


def landscape_arrays(
    head: LossHead,
    loss: str,
    params: Mapping[str, Any],
    features: NDArray[Any],
    labels: NDArray[Any],
    grid: Mapping[str, NDArray[Any]],
) -> Arrays:
    """Return what the geometry of a trained head needs beside the features.

    Args:
        head: Trained, in eval mode.
        loss: Its key in LOSSES or its plug-in name; decides the closed form.
        params: Its parameters as the spec gives them.
        features: (N,D) clean training features.
        labels: (N,).
        grid: "grid_x" and "grid_y" of 2-D features, else empty.

    Returns:
        class_vectors (K,D), if the head has some; train_gradient_norm (N,); margin_pairs (P,2)
        and, on the way from one class mean (0) to the other (1), margin_positions and margin_closed
        (P,3): where the classes' logits are equal without margin, under label a and under label b,
        NaN where they are nowhere. In 2-D also boundary_pair (2,) and the gaps z_a − z_b on the
        grid: boundary_free, boundary_a, boundary_b, closed_free, closed_a, closed_b.
    """
    vectors = check_class_vectors(head)
    arrays: Arrays = {} if vectors is None else {"class_vectors": to_numpy(vectors)}
    arrays["train_gradient_norm"] = gradient_norms(head, features, labels)
    means = class_means(features, labels, head.num_classes)
    known = np.flatnonzero(np.isfinite(means).all(1)).tolist()  # classes that have images
    if len(known) < 2:
        return arrays
    nearest = nearest_pair(means)
    pairs = list(combinations(known, 2)) if len(known) <= MOST_CLASSES else [nearest]
    boundaries = _Boundaries(head, loss, params, arrays.get("class_vectors"))
    way = np.linspace(0.0, 1.0, SAMPLES)
    measured, closed = np.full((2, len(pairs), 3), np.nan)
    for row, (a, b) in enumerate(pairs):
        points = means[a] + way[:, None] * (means[b] - means[a])
        measured[row] = _find_places(way, boundaries.measure(points, a, b))
        if (gaps := boundaries.derive(points, a, b)) is not None:
            closed[row] = _find_places(way, gaps)
    arrays["margin_pairs"] = np.array(pairs, np.int64)
    arrays |= {"margin_positions": measured, "margin_closed": closed}
    if grid:
        arrays["boundary_pair"] = np.array(nearest, np.int64)
        x, y = grid["grid_x"], grid["grid_y"]
        points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float64)
        found = {"boundary": boundaries.measure(points, *nearest)}
        if (gaps := boundaries.derive(points, *nearest)) is not None:
            found["closed"] = gaps
        for kind, each in found.items():
            for name, gap in zip(("free", "a", "b"), each, strict=True):
                arrays[f"{kind}_{name}"] = gap.astype(np.float32).reshape(len(y), len(x))
    return arrays


def gradient_norms(
    head: LossHead, features: NDArray[Any], labels: NDArray[Any]
) -> NDArray[np.float32]:
    """Return ‖∂ loss / ∂ f‖ of every image, (N,), at the end of all schedules.

    The loss of an image is its classification and regulariser term. A pair loss compares images
    within batches that hold every class alike; an image's gradient is then that of the batch's sum.

    Args:
        head: Trained.
        features: (N,D).
        labels: (N,).
    """
    order, size = np.arange(len(labels)), 1000
    if head.batching == "balanced":
        # First the first image of every class, then the second of every class, and so on.
        rank = np.zeros(len(labels), np.int64)
        for label in np.unique(labels):
            members = labels == label
            rank[members] = np.arange(members.sum())
        order, size = np.lexsort((labels, rank)), max(BATCH, 4 * head.num_classes)
    norms = np.zeros(len(labels), np.float32)
    device = _device(head)
    with using_seed("landscape"), torch.enable_grad():
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            inputs = torch.from_numpy(features[chosen]).float().to(device).requires_grad_()
            truth = torch.from_numpy(labels[chosen]).long().to(device)
            terms = head.loss(inputs, truth, progress=1.0)
            (slope,) = torch.autograd.grad((terms.classification + terms.regulariser).sum(), inputs)
            norms[chosen] = to_numpy(slope.norm(dim=1))
    return norms


class _Boundaries:
    """The gap z_a − z_b of a head's logits, as the head computes it and in closed form."""

    def __init__(
        self, head: LossHead, loss: str, params: Mapping[str, Any], vectors: NDArray[Any] | None
    ) -> None:
        self.head, self.loss, self.params, self.vectors = head, loss, params, vectors
        self.terms = {name: to_numpy(value) for name, value in head.boundary_terms().items()}

    @torch.no_grad()
    def measure(self, points: NDArray[Any], a: int, b: int) -> Gaps:
        """Return the gaps at points (N,D); those under a label are NaN for a pair loss."""
        inputs = torch.from_numpy(points).float().to(_device(self.head))

        def gap(logits: Tensor) -> NDArray[Any]:
            return to_numpy(logits[:, a] - logits[:, b]).astype(np.float64)

        def gap_under(label: int) -> NDArray[Any]:
            labels = torch.full((len(inputs),), label, device=inputs.device)
            logits = self.head.training_logits(inputs, labels, progress=1.0)
            return gap(check_logits(logits, inputs, self.head.num_classes, "training_logits"))

        free = gap(self.head.logits(inputs))
        # A pair loss compares images: it has no logits, and no margin, under a label.
        if not self.head.logits_while_training:
            return free, np.full_like(free, np.nan), np.full_like(free, np.nan)
        return free, gap_under(a), gap_under(b)

    def derive(self, points: NDArray[Any], a: int, b: int) -> Gaps | None:
        """Return the same from the closed form, or None where the loss has none."""
        if self.vectors is None:
            return None
        return closed_gaps(self.loss, self.params, self.vectors, points, a, b, **self.terms)


def _find_places(way: NDArray[Any], gaps: Gaps) -> list[float]:
    """Return where the three gaps change sign; under b the last place, which is b's side."""
    free, under_a, under_b = gaps
    return [
        _find_first(way, free),
        _find_first(way, under_a),
        _find_first(way[::-1], under_b[::-1]),
    ]


def _find_first(way: NDArray[Any], gap: NDArray[Any]) -> float:
    """Return the first place where a sampled function changes its sign, NaN where it does not."""
    changes = np.flatnonzero((gap[:-1] > 0) != (gap[1:] > 0))
    if not np.isfinite(gap).all() or not len(changes):
        return np.nan
    i = changes[0]
    return float(way[i] + (way[i + 1] - way[i]) * gap[i] / (gap[i] - gap[i + 1]))


def _device(head: LossHead) -> torch.device:
    for value in (*head.parameters(), *head.buffers()):
        return value.device
    return torch.device("cpu")
