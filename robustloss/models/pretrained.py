"""Trained weights below a new loss: where training starts, in place of random numbers.

Weights come from torchvision or timm by the name that these have for them, or from a file of the
backbone. The last layer of a network of a library gives the features; it is always a new one.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from robustloss.models.backbones import LibraryBackbone
from robustloss.models.libraries import build_from_library, find_library_statement
from robustloss.models.weight_files import find_weights, load_weights, read_weights, tensor_digest
from robustloss.spec.losses import STATED, ModelSpec, read_normalize
from robustloss.spec.prefixes import WEIGHT_FILES, names_weights

DATA = "data"  # the value of model.normalize that stands for the mean and std of the data
_WHOLE = "backbone."  # begins the names of the backbone's tensors in a file of a whole classifier
# Their trained forms change the images first, and have outputs that no loss here reads.
_ODD = ("torchvision:googlenet", "torchvision:inception_v3")


def choose_statistics(
    model: ModelSpec, mean: Sequence[float], std: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return the mean and std that a network's images are normalised with.

    Args:
        model: The table [model]. Trained weights want what they were trained with.
        mean, std: (C,) of the training images, which a network without trained weights gets.

    Returns:
        (C,) each; (3,) for grey images that a network for colour gets in three equal channels.

    Raises:
        ValueError: Keys that do not go together, or a normalisation that is not known.
    """
    if model.weights is None:
        for key in ("freeze", "normalize"):
            if value := getattr(model, key):
                raise ValueError(
                    f"{key} (={value}) needs weights: a network with random ones is trained as a "
                    'whole, on the mean and std of the data. Write weights = "DEFAULT", or a file.'
                )
        return list(mean), list(std)
    named = names_weights(model.backbone, model.weights)
    if not named and not model.weights.endswith(WEIGHT_FILES):
        raise ValueError(
            f"weights (={model.weights}) must be a file that ends in {', '.join(WEIGHT_FILES)}; "
            f"only torchvision: and timm: have names for weights, and {model.backbone} is neither."
        )
    asked = model.normalize
    if asked is None and not named:
        raise ValueError(
            f"normalize must be given with the file weights (={model.weights}), which does not say "
            'it: "imagenet", { mean = [...], std = [...] }, or "data" for the mean and std of the '
            "data."
        )
    if asked == DATA:
        return list(mean), list(std)
    found = read_normalize(asked)
    if found is None or found == STATED:
        stated = find_library_statement(model.backbone, model.weights) if named else None
        if stated is None:
            raise ValueError(
                f"normalize: the weights (={model.weights}) do not say with which mean and std "
                "they were trained. Name them: normalize = { mean = [...], std = [...] }."
            )
        found = {"mean": list(stated.mean), "std": list(stated.std)}
    assert isinstance(found, dict)
    if len(found["mean"]) not in {len(mean), 3}:
        raise ValueError(
            f"normalize.mean (={found['mean']}) must have one number for each channel of the "
            f"images, {len(mean)}, or 3 for a network of colour images."
        )
    return found["mean"], found["std"]


def load_pretrained(
    backbone: nn.Module, name: str, weights: str, folders: Sequence[Path] = ()
) -> list[str]:
    """Load trained weights into a backbone, but not into the last layer of a library's network.

    Args:
        backbone: As `build_backbone` builds it.
        name: Of the backbone, as a spec names it.
        weights: What its library calls them, or a file.
        folders: Where a file is looked for, before the working directory.

    Returns:
        What a reader must know of them.

    Raises:
        ValueError: They cannot be found, fetched or read, or belong to another network.
    """
    tensors = _read(name, weights, folders)
    begun = f"training began with the weights {os.path.split(weights)[1]} of {name}"
    if not isinstance(backbone, LibraryBackbone):
        return [*load_weights(backbone, tensors, weights), begun]
    if name in _ODD:
        raise ValueError(
            f"weights (={weights}) cannot be used: the trained {name} changes its images first. "
            "Name another network."
        )
    new = [key for key in backbone.network.state_dict() if key.startswith(f"{backbone.last}.")]
    remarks = load_weights(backbone.network, tensors, weights, but=new)
    return [*remarks, begun + (", and only its last layer learnt" if backbone.frozen else "")]


def freeze_backbone(backbone: nn.Module, name: str) -> None:
    """Let only the last layer of a backbone learn.

    Args:
        backbone: As `build_backbone` builds it.
        name: As a spec names it.

    Raises:
        ValueError: It is no network of a library, or has no linear last layer.
    """
    if not isinstance(backbone, LibraryBackbone) or not backbone.last:
        raise ValueError(
            "freeze (=true) is for a network of torchvision: or timm: with a linear last layer, "
            f"not {name}. Take the key out."
        )
    backbone.freeze()


def digest_pretrained(name: str, weights: str, folders: Sequence[Path] = ()) -> str:
    """Return what names trained weights: 16 hex digits of their digest.

    Args:
        name, weights, folders: See `load_pretrained`.

    Raises:
        ValueError: As `load_pretrained`.
    """
    return tensor_digest(_read(name, weights, folders))[:16]


def _read(name: str, weights: str, folders: Sequence[Path]) -> dict[str, Tensor]:
    if names_weights(name, weights):
        return _fetch(name, weights)
    path = find_weights(weights, folders)
    state = path.stat()
    return _read_file(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)  # asked for by every cell, and several times by each
def _fetch(name: str, weights: str) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):  # building it draws numbers of nobody's concern
        return build_from_library(name, {}, 0, weights).state_dict()


@lru_cache(maxsize=1)
def _read_file(path: Path, *_: int) -> dict[str, Tensor]:
    found = read_weights(path)
    if own := {k.removeprefix(_WHOLE): v for k, v in found.items() if k.startswith(_WHOLE)}:
        return own  # a classifier of robustloss: without its head, mean and std
    return found
