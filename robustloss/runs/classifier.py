"""A model that a run has trained or evaluated, loaded back from the run folder."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from robustloss.models.backbones import build_backbone
from robustloss.models.build import build_classifier
from robustloss.models.classifier import AnyClassifier
from robustloss.models.given import IN_MEMORY
from robustloss.models.libraries import build_from_library
from robustloss.models.weight_files import load_state, load_tensors
from robustloss.results.finished_cell import MOST_CLASSES, MOST_FEATURES
from robustloss.results.run import load_run
from robustloss.spec.losses import STATED, read_normalize
from robustloss.spec.prefixes import Place, is_plugin, misplaced_rule
from robustloss.spec.text import slug
from robustloss.storage import CorruptFile, read_json

MOST_PIXELS = 3 * 4096**2  # of an image, all channels: the most that a spec can ask for
# What robustloss decides itself, and a parameter of a loss or a backbone must not be called.
_DECIDED = {"name", "folders", "feature_dim", "num_classes", "image_shape"}


def load_classifier(
    run_dir: str | Path, *, loss: str, seed: int, allow_plugins: bool = False
) -> AnyClassifier:
    """Load a classifier of a run, in eval mode, on the CPU.

    Args:
        run_dir: The run folder.
        loss: The label of its loss in the run, in any case, or the loss's name where one has it.
        seed: Its training seed.
        allow_plugins: Whether to import modules of the user's own that the run names. This
            executes their code, so it is asked for: a run folder may come from anybody.

    Raises:
        ValueError: No such cell, or a plug-in without leave to import it.
        CorruptFile: The weights are damaged.
    """
    run = load_run(run_dir)
    seeded = [cell for cell in run.cells if cell.seed == seed]
    exact = [cell for cell in seeded if cell.label == loss]
    cells = exact or [c for c in seeded if loss == c.loss or slug(loss) in (c.slug, slug(c.label))]
    if len(cells) != 1:
        have = ", ".join(f"{cell.label!r} seed {cell.seed}" for cell in run.cells)
        raise ValueError(f"loss (={loss!r}) with seed (={seed}) is not in this run; it has {have}.")
    path = cells[0].folder / "cell.json"
    build = read_json(path, checked=True).get("build")
    if not _is_build(build):
        raise CorruptFile(f"{path} does not say how its network is built.")
    if build.get("factory") == IN_MEMORY:
        raise ValueError(f"{loss} was evaluated from memory; its network is not in the run.")
    places: dict[str, Place] = {"loss": "loss", "backbone": "backbone"}
    if "factory" in build:
        places = {"loss": "loss", "factory": "model"}
    for key, place in places.items():
        name = build[key]
        if rule := misplaced_rule(name, place):
            raise CorruptFile(f"{path}: {key} (={name!r}) {rule}")
        if is_plugin(name) and not allow_plugins:
            raise ValueError(
                f"{name} is code that the run's author wrote, and loading this model executes it "
                "with your rights. Read it first. If you trust it, say so: allow_plugins=True, or "
                "--plugins on the command line."
            )
    tensors, _ = load_tensors(cells[0].model_file)
    if not _may_fit(build, tensors):
        raise CorruptFile(f"{cells[0].model_file} holds no weights of this network: too few.")
    model = build_classifier(build, folders=(Path(run_dir),))
    try:
        load_state(model, tensors)
    except RuntimeError as error:
        raise CorruptFile(
            f"{cells[0].model_file} holds no weights of this network: {error}"
        ) from error
    return model.eval()


def _may_fit(build: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Return whether weights may be those of a network, before it takes the memory that it states.

    Args:
        build: As `_is_build` lets it pass.
        tensors: The weights.
    """
    held = sum(tensor.numel() for tensor in tensors.values())
    if "factory" in build:
        name, params, classes = build["factory"], build["loss_params"], build["num_classes"]
        if not name.startswith(("torchvision:", "timm:")):
            return True
        with torch.device("meta"):
            network = build_from_library(name, params, classes, None)
        return sum(parameter.numel() for parameter in network.parameters()) <= held
    if not is_plugin(build["loss"]) and build["num_classes"] * build["feature_dim"] > held:
        return False  # each of our losses has a vector for each class
    if is_plugin(build["backbone"]):
        return True
    with torch.device("meta"):  # shapes alone
        backbone = build_backbone(
            build["backbone"],
            image_shape=tuple(build["image_shape"]),
            feature_dim=build["feature_dim"],
            **build["backbone_params"],
        )
    return sum(parameter.numel() for parameter in backbone.parameters()) <= held


def _is_build(build: object) -> TypeGuard[dict[str, Any]]:
    """Check that it is what build_classifier takes: a run folder may come from somebody else."""
    if not isinstance(build, dict):
        return False
    kinds = {"loss": str, "loss_params": dict, "num_classes": int, "image_shape": list}
    if "factory" in build:
        kinds |= {"factory": str}
    else:
        kinds |= {"backbone": str, "backbone_params": dict, "feature_dim": int,
                  "mean": list, "std": list}  # fmt: skip
    shape: Any = build.get("image_shape")
    return (
        all(type(build.get(name)) is kind for name, kind in kinds.items())
        and [type(size) for size in shape] == [int, int, int]
        # Forged counts must not make a network that fills the memory.
        and 1 <= build["num_classes"] <= MOST_CLASSES
        and 0 <= build.get("feature_dim", 0) <= MOST_FEATURES
        and min(shape) >= 1
        and math.prod(shape) <= MOST_PIXELS
        # A factory of the user's decides for itself what its parameters are called.
        and (
            "factory" in build or not _DECIDED & {*build["loss_params"], *build["backbone_params"]}
        )
        and all(type(each) is float for name in ("mean", "std") for each in build.get(name, ()))
        and isinstance(build.get("weights", ""), str)
        and build.get("head", "nearest_mean") == "nearest_mean"
        and _is_bound(build.get("spectral", 1.0))
        and _is_normalize(build.get("normalize"), shape[0])
    )


def _is_bound(found: object) -> bool:
    return type(found) is float and 0 < found < math.inf


def _is_normalize(found: object, channels: int) -> bool:
    """Return whether it is a mean and a std for each channel, what the weights say, or nothing."""
    try:
        known = read_normalize(found)
    except ValueError:
        return False
    if known is None or known == STATED:
        return True
    return isinstance(found, dict) and len(found["mean"]) == channels
