"""The network of a cell, built from the plain values that describe it.

These values decide the network, so they are part of the keys of its files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from robustloss.data.images import Dataset
from robustloss.losses import build_loss
from robustloss.losses.feasibility import collecting_warnings
from robustloss.models.backbones import build_backbone
from robustloss.models.classifier import AnyClassifier, Classifier
from robustloss.models.given import GivenModel, build_given, wrap_given
from robustloss.models.libraries import build_from_library, find_library_statement
from robustloss.models.model_files import find_model_file, load_model_file
from robustloss.models.nearest_mean import NearestMeanHead
from robustloss.models.pretrained import choose_statistics, freeze_backbone, load_pretrained
from robustloss.models.spectral import bound_layers
from robustloss.models.weight_files import find_weights, load_file
from robustloss.spec.losses import read_normalize
from robustloss.spec.prefixes import is_library_model, is_model_file, names_weights
from robustloss.spec.spec import CellSpec

VERSION = 1  # raise when the same weights would give other outputs


def build_classifier(build: Mapping[str, Any], folders: Sequence[Path] = ()) -> AnyClassifier:
    """Build an untrained classifier, or a given model, from the plain values that describe it.

    Args:
        build: ``loss``, ``loss_params``, ``backbone``, ``backbone_params``, ``feature_dim``,
            ``num_classes``, ``image_shape``, ``mean``, ``std``, ``freeze`` where only the last
            layer of the backbone learns, ``spectral`` where its layers have a bound, and ``head``
            where another head than that of the loss classifies; of a given model ``factory``,
            ``loss_params``, ``num_classes``, ``image_shape``, and if it has them ``normalize`` and
            ``weights``, as its library calls them; they are not fetched.
        folders: Where a plug-in file is looked for, before the working directory.

    Raises:
        ValueError: What is named cannot be built, or a given model returns no logits.
    """
    if "factory" in build:
        return _wrap(build, _build_module(build, None, folders))
    feature_dim = build["feature_dim"]
    backbone = build_backbone(
        build["backbone"],
        # Grey images become three channels where they are normalised as colour.
        image_shape=(len(build["mean"]), *build["image_shape"][1:]),
        feature_dim=feature_dim,
        folders=folders,
        **build["backbone_params"],
    )
    if build.get("freeze"):
        freeze_backbone(backbone, build["backbone"])
    if build.get("spectral"):
        bound_layers(backbone, build["spectral"], (len(build["mean"]), *build["image_shape"][1:]))
    with collecting_warnings():  # the run's check of its names has reported them
        head = build_loss(
            build["loss"],
            feature_dim=feature_dim,
            num_classes=build["num_classes"],
            folders=folders,
            **build["loss_params"],
        )
    head = NearestMeanHead(head) if build.get("head") == "nearest_mean" else head
    return Classifier(backbone, head, build["mean"], build["std"])


def build_with_weights(
    weights: str | None,
    build: Mapping[str, Any],
    folders: Sequence[Path] = (),
    *,
    pretrained: str | None = None,
) -> AnyClassifier:
    """Build a classifier, with the weights that are named, if any are; in eval mode then.

    Args:
        weights: A file, or what the library of the model calls them, as a spec names it.
        build: As build_classifier takes it.
        folders: Where the weights and plug-in files are looked for, before the working directory.
        pretrained: Weights of the backbone alone, see `load_pretrained`.

    Raises:
        ValueError: As build_classifier; no such file, or weights that do not fit.
    """
    if "factory" not in build:
        model = build_classifier(build, folders)
        assert isinstance(model, Classifier)
        if weights is not None:
            model.remarks = tuple(load_file(model, find_weights(weights, folders)))
            model.eval()
        elif pretrained is not None:
            found = load_pretrained(model.backbone, build["backbone"], pretrained, folders)
            model.remarks = tuple(found)
        return model
    named = weights if names_weights(build["factory"], weights) else None
    module = _build_module(build, named, folders)
    remarks = []
    if weights is not None and named is None:
        remarks = load_file(module, find_weights(weights, folders))
    elif weights is None and build["factory"].startswith(("torchvision:", "timm:")):
        remarks = ["its weights are random, because the spec names none"]
    return _wrap(build, module, remarks)


def _build_module(
    build: Mapping[str, Any], weights: str | None, folders: Sequence[Path]
) -> nn.Module:
    """Build a whole model from elsewhere, with weights that its library has a name for, or none."""
    name, params = build["factory"], build["loss_params"]
    if is_library_model(name):
        return build_from_library(name, params, build["num_classes"], weights, folders)
    if is_model_file(name):
        if params:
            raise ValueError(f"params are not for {name}: a file has a whole model. Take them out.")
        return load_model_file(find_model_file(name, folders))
    return build_given(name, params, folders)


def _wrap(build: Mapping[str, Any], module: nn.Module, remarks: Sequence[str] = ()) -> GivenModel:
    """Wrap a whole model as `wrap_given`, with what named weights say of their normalisation."""
    return wrap_given(
        module,
        build["image_shape"],
        build["num_classes"],
        normalize=build.get("normalize"),
        stated=find_library_statement(build["factory"], build.get("weights")),
        remarks=remarks,
    )


def describe_network(cell: CellSpec, dataset: Dataset) -> dict[str, Any]:
    """Return the plain values that describe a cell's network, as build_classifier takes them.

    Args:
        cell: Names loss, backbone and feature dimension, or a model from elsewhere.
        dataset: Decides classes and image shape, and normalisation where the weights do not.

    Raises:
        ValueError: Keys of [model] that do not go together, see `choose_statistics`.
    """
    common = {
        "loss": cell.loss.name,
        "loss_params": dict(cell.loss.params),
        "num_classes": dataset.num_classes,
        "image_shape": list(dataset.image_shape),
    }
    if cell.loss.factory:
        normalize = read_normalize(cell.loss.normalize)
        own: dict[str, Any] = {"factory": cell.loss.factory}
        own |= {"normalize": normalize} if normalize else {}
        named = names_weights(cell.loss.factory, cell.loss.weights)
        return {**common, **own, **({"weights": cell.loss.weights} if named else {})}
    mean, std = choose_statistics(cell.model, dataset.mean, dataset.std)
    return {
        **common,
        "backbone": cell.model.backbone,
        "backbone_params": dict(cell.model.params),
        "feature_dim": cell.model.feature_dim,
        "mean": mean,
        "std": std,
        **({"freeze": True} if cell.model.freeze else {}),
        **({"spectral": cell.model.spectral} if cell.model.spectral is not None else {}),
        **({"head": cell.loss.head} if cell.loss.head else {}),
    }
