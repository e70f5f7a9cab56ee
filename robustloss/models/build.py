"""The network of a cell, built from the plain values that describe it.

These values decide the network, so they are part of the keys of its files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustloss.data.images import Dataset
from robustloss.losses import build_loss
from robustloss.losses.feasibility import collecting_warnings
from robustloss.models.backbones import build_backbone
from robustloss.models.classifier import AnyClassifier, Classifier
from robustloss.models.given import GivenModel, build_given, wrap_given
from robustloss.models.weight_files import find_weights, load_weights, read_weights
from robustloss.spec.losses import read_normalize
from robustloss.spec.spec import CellSpec

VERSION = 1  # raise when the same weights would give other outputs


def build_classifier(build: Mapping[str, Any], folders: Sequence[Path] = ()) -> AnyClassifier:
    """Build an untrained classifier, or a given model, from the plain values that describe it.

    Args:
        build: ``loss``, ``loss_params``, ``backbone``, ``backbone_params``, ``feature_dim``,
            ``num_classes``, ``image_shape``, ``mean``, ``std``; of a given model ``factory``,
            ``loss_params``, ``num_classes``, ``image_shape``, and ``normalize`` if it has that.
        folders: Where a plug-in file is looked for, before the working directory.

    Raises:
        ValueError: What is named cannot be built, or a given model returns no logits.
    """
    if "factory" in build:
        module = build_given(build["factory"], build["loss_params"], folders)
        shape, classes = build["image_shape"], build["num_classes"]
        return wrap_given(module, shape, classes, normalize=build.get("normalize"))
    feature_dim = build["feature_dim"]
    backbone = build_backbone(
        build["backbone"],
        image_shape=tuple(build["image_shape"]),
        feature_dim=feature_dim,
        folders=folders,
        **build["backbone_params"],
    )
    with collecting_warnings():  # the run's check of its names has reported them
        head = build_loss(
            build["loss"],
            feature_dim=feature_dim,
            num_classes=build["num_classes"],
            folders=folders,
            **build["loss_params"],
        )
    return Classifier(backbone, head, build["mean"], build["std"])


def build_with_weights(
    weights: str | None, build: Mapping[str, Any], folders: Sequence[Path] = ()
) -> AnyClassifier:
    """Build a classifier, with the weights of a file where one is named; in eval mode then.

    Args:
        weights: The file, as a spec names it.
        build: As build_classifier takes it.
        folders: Where the weights and plug-in files are looked for, before the working directory.

    Raises:
        ValueError: As build_classifier; no such file, or weights that do not fit.
    """
    model = build_classifier(build, folders)
    if weights is None:
        return model
    path = find_weights(weights, folders)
    # A whole model's own names, not those of what it is wrapped in.
    inner = model.model if isinstance(model, GivenModel) else model
    load_weights(inner, read_weights(path), path.name)
    return model.eval()


def describe_network(cell: CellSpec, dataset: Dataset) -> dict[str, Any]:
    """Return the plain values that describe a cell's network, as build_classifier takes them.

    Args:
        cell: Names loss, backbone and feature dimension, or a model from elsewhere.
        dataset: Decides classes, image shape and normalisation.
    """
    common = {
        "loss": cell.loss.name,
        "loss_params": dict(cell.loss.params),
        "num_classes": dataset.num_classes,
        "image_shape": list(dataset.image_shape),
    }
    if cell.loss.factory:
        normalize = read_normalize(cell.loss.normalize)
        own = {"factory": cell.loss.factory}
        return {**common, **own, **({"normalize": normalize} if normalize else {})}
    return {
        **common,
        "backbone": cell.model.backbone,
        "backbone_params": dict(cell.model.params),
        "feature_dim": cell.model.feature_dim,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
    }
