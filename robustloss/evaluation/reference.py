"""Clean arrays that scores are fitted on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.data.images import Dataset, fit_subset
from robustloss.evaluation.landscape import UNTRAINED, landscape_arrays
from robustloss.evaluation.passes import Arrays, clean_record, to_numpy
from robustloss.losses.base import LossHead
from robustloss.models.classifier import AnyClassifier, Classifier, compute_features
from robustloss.results.records import Record

GRID = 240  # points a side of the likelihood map


@torch.no_grad()
def reference_arrays(
    model: AnyClassifier,
    dataset: Dataset,
    device: torch.device,
    fit_size: int,
    *,
    loss: str = "",
    params: Mapping[str, Any] | None = None,
    untrained: Classifier | None = None,
    validation: Record | None = None,
) -> Arrays:
    """Return what scores, thresholds and pictures need beside the records.

    The clean validation pass (``validation_*``), features of a training subset (``train_*``), if
    the model has any, the centers (K,D) of a head that has some, for 2-D features the class
    log-likelihoods on a grid that spans the training features with a margin, and what
    `landscape_arrays` finds.

    Args:
        model: Trained, in eval mode, on the device.
        dataset: Its data.
        device: Where to compute.
        fit_size: Training images to fit scores on.
        loss: Its name in the spec; decides the closed form of its boundaries.
        params: The loss's parameters in the spec.
        untrained: The network as it was before training; its features of some test images of
            every class are ``untrained_features``. Batch normalisation has its first statistics.
        validation: The clean validation pass, where it has been made.
    """
    validation = validation or clean_record(model, dataset.validation.to(device))
    kept = ("index", "labels", "logits", "class_log_likelihood")
    arrays: Arrays = {f"validation_{name}": getattr(validation, name) for name in kept}
    if validation.features is None:  # a given model: nothing to fit scores on
        return arrays
    fit = clean_record(model, fit_subset(dataset.train, fit_size).to(device))
    assert fit.features is not None
    arrays["validation_features"] = validation.features
    arrays |= {"train_features": fit.features, "train_labels": fit.labels}
    if not isinstance(model.head, LossHead):
        return arrays
    centers = getattr(model.head, "centers", None)
    shape = (model.head.num_classes, model.head.feature_dim)
    if isinstance(centers, Tensor) and tuple(centers.shape) == shape:
        arrays["centers"] = to_numpy(centers.float())
    grid = _map_likelihood(model.head, fit.features, device) if model.head.feature_dim == 2 else {}
    arrays |= grid
    arrays |= landscape_arrays(model.head, loss, params or {}, fit.features, fit.labels, grid)
    if untrained is not None:
        some = fit_subset(dataset.test, UNTRAINED).to(device)  # a folder may be sorted by class
        arrays["untrained_features"] = to_numpy(compute_features(untrained.to(device), some))
        arrays["untrained_labels"] = to_numpy(some.labels)
    return arrays


def _map_likelihood(head: LossHead, features: NDArray, device: torch.device) -> Arrays:
    """Return likelihoods and predictions on a grid that spans 2-D features with a margin."""
    low, high = features.min(0), features.max(0)
    margin = 0.35 * (high - low)
    xs, ys = (np.linspace(low[i] - margin[i], high[i] + margin[i], GRID) for i in (0, 1))
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    batches = torch.from_numpy(points).float().to(device).split(4096)
    likelihood = torch.cat([head.class_log_likelihood(batch) for batch in batches])
    predictions = torch.cat([head.logits(batch).argmax(1) for batch in batches])
    return {
        "grid_x": xs.astype(np.float32),
        "grid_y": ys.astype(np.float32),
        "grid_class_log_likelihood": to_numpy(likelihood).reshape(GRID, GRID, -1),
        "grid_prediction": to_numpy(predictions).reshape(GRID, GRID),
    }
