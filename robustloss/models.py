"""The classifier that is trained, attacked and scored; its weights as safe files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from robustloss.backbones import build_backbone
from robustloss.given import (
    IN_MEMORY,
    GivenModel,
    build_given,
    find_weights,
    fit_weights,
    look_over,
    read_weights,
)
from robustloss.images import ImageSet
from robustloss.losses import build_loss
from robustloss.losses.base import LossHead
from robustloss.losses.feasibility import collected
from robustloss.plugin_names import is_plugin
from robustloss.storage import CorruptFile, read_json, write_bytes

VERSION = 1  # raise when the same weights would give other outputs
# Pixels at once through a network on the CPU, or up to twice as many: 125 images of MNIST, of which
# 32 channels are 13 MB. Activations above 32 MB are memory that glibc asks the system for in every
# layer, a quarter of LeNet++'s time; fewer than these leave the cores too little to share.
_PIECE = 98_000
_LEAST = 16  # images


class Classifier(nn.Module):
    """A backbone and a loss head behind one normalisation: an ordinary, attackable module.

    Images come in [0,1], so that a budget eps is in pixel units.

    Args:
        backbone: Maps normalised images (B,C,H,W) to features (B,D).
        head: Maps features to logits (B,K) and class log-likelihoods (B,K).
        mean: (C,) pixel means in [0,1].
        std: (C,) pixel standard deviations in [0,1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, head: LossHead, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def features(self, images: Tensor) -> Tensor:
        """Maps images (B,C,H,W) in [0,1] to float32 features (B,D).

        Raises:
            ValueError: The backbone does not return (B,D).
        """
        pieces = len(images) // max(_LEAST, _PIECE // max(1, images.shape[2:].numel()))
        if pieces > 1 and images.device.type == "cpu" and not self.training:
            return torch.cat([self.features(piece) for piece in images.tensor_split(pieces)])
        features = self.backbone((images - self.mean) / self.std)
        expected = (images.shape[0], self.head.feature_dim)
        if not isinstance(features, Tensor) or features.shape != expected:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"{type(self.backbone).__name__} must return features of shape (B, feature_dim) = "
                f"{expected}, got {got}."
            )
        return features.float()

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B,C,H,W) in [0,1] to margin-free logits (B,K)."""
        return self.head.logits(self.features(images))

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits (B,K) and class log-likelihoods (B,K), in nats, in one graph."""
        features = self.features(images)
        return self.head.logits(features), self.head.class_log_likelihood(features)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns features (B,D), logits (B,K) and class log-likelihoods (B,K)."""
        features = self.features(images)
        return features, self.head.logits(features), self.head.class_log_likelihood(features)


AnyClassifier = Classifier | GivenModel


def build_classifier(build: Mapping[str, Any], folders: Sequence[Path] = ()) -> AnyClassifier:
    """Builds an untrained classifier, or a given model, from the plain values that describe it.

    Args:
        build: ``loss``, ``loss_params``, ``backbone``, ``backbone_params``, ``feature_dim``,
            ``num_classes``, ``image_shape``, ``mean``, ``std``; of a given model ``factory``,
            ``loss_params``, ``num_classes``, ``image_shape``.
        folders: Where a plug-in file is looked for, before the working directory.

    Raises:
        ValueError: What is named cannot be built, or a given model returns no logits.
    """
    if "factory" in build:
        module = build_given(build["factory"], build["loss_params"], folders)
        return look_over(module, build["image_shape"], build["num_classes"])
    feature_dim = build["feature_dim"]
    backbone = build_backbone(
        build["backbone"],
        image_shape=tuple(build["image_shape"]),
        feature_dim=feature_dim,
        folders=folders,
        **build["backbone_params"],
    )
    with collected():  # the run's check of its names has told them
        head = build_loss(
            build["loss"],
            feature_dim=feature_dim,
            num_classes=build["num_classes"],
            folders=folders,
            **build["loss_params"],
        )
    return Classifier(backbone, head, build["mean"], build["std"])


def build_for(
    weights: str | None, build: Mapping[str, Any], folders: Sequence[Path] = ()
) -> AnyClassifier:
    """Builds a classifier, with the weights of a file where one is named; in eval mode then.

    Raises:
        ValueError: As build_classifier; no such file, or weights that do not fit.
    """
    model = build_classifier(build, folders)
    if weights is None:
        return model
    path = find_weights(weights, folders)
    # A whole model's own names, not those of what it is wrapped in.
    inner = model.model if isinstance(model, GivenModel) else model
    fit_weights(inner, read_weights(path), path.name)
    return model.eval()


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns a model's tensors on the CPU, as they are stored."""
    state = model.state_dict()
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


@torch.no_grad()
def all_features(model: Classifier, images: ImageSet) -> Tensor:
    """Returns the float32 features (N,D) of a set on the model's device, in eval mode."""
    model.eval()
    starts = range(0, images.n, images.pass_size)
    return torch.cat([model.features(images.batch(slice(i, i + images.pass_size))) for i in starts])


def load_classifier(
    run_dir: str | Path, *, loss: str, seed: int, allow_plugins: bool = False
) -> AnyClassifier:
    """Gives back a classifier of a run, in eval mode, on the CPU.

    Args:
        run_dir: The run folder.
        loss: Label of the loss in the run.
        seed: Training seed.
        allow_plugins: Import the user's own modules that the run names; this executes their code.

    Raises:
        ValueError: No such cell, or a plug-in without leave to import it.
        CorruptFile: The weights are damaged.
    """
    from robustloss.results import load_run

    run = load_run(run_dir)
    cells = [cell for cell in run.cells if cell.label == loss and cell.seed == seed]
    if not cells:
        have = ", ".join(f"{cell.label!r} seed {cell.seed}" for cell in run.cells)
        raise ValueError(f"loss (={loss!r}) with seed (={seed}) is not in this run; it has {have}.")
    path = cells[0].folder / "cell.json"
    build = read_json(path, checked=True).get("build")
    if not _is_build(build):
        raise CorruptFile(f"{path} does not say how its network is built.")
    if build.get("factory") == IN_MEMORY:
        raise ValueError(f"{loss} was evaluated from memory; its network is not in the run.")
    for name in (build["loss"], build.get("backbone", ""), build.get("factory", "")):
        if is_plugin(name) and not allow_plugins:
            raise ValueError(
                f"{name} is a plug-in: loading it executes its code. Pass allow_plugins=True if "
                "you trust it."
            )
    model = build_classifier(build, folders=(Path(run_dir),))
    tensors, _ = load_tensors(cells[0].model_file)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CorruptFile(
            f"{cells[0].model_file} holds no weights of this network: {error}"
        ) from error
    return model.eval()


def _is_build(build: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is what build_classifier takes: a run folder may come from somebody else."""
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
        and all(type(each) is float for name in ("mean", "std") for each in build.get(name, ()))
    )


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object]) -> str:
    """Writes tensors and plain metadata as one checked safetensors file.

    Returns:
        The digest of the tensors, which names these weights.
    """
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    sha256 = tensor_digest(plain)
    text = json.dumps({**meta, "tensors": sha256}, sort_keys=True)
    # One entry: safetensors writes several in an order that changes from call to call.
    header = {"robustloss": f"{hashlib.sha256(text.encode()).hexdigest()} {text}"}
    write_bytes(path, safetensors.torch.save(plain, metadata=header))
    return sha256


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Reads what save_tensors wrote.

    Returns:
        The tensors on the CPU, and the metadata with the tensors' digest under ``tensors``.

    Raises:
        CorruptFile: Truncated, altered or not written by save_tensors.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest, text = header["robustloss"].split(" ", 1)
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise ValueError("its metadata were altered")
        meta = json.loads(text)
        if tensor_digest(tensors) != meta["tensors"]:
            raise ValueError("its tensors were altered")
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a damaged file makes the reader do
        raise CorruptFile(f"{path} is damaged: {error}") from error
    return tensors, meta


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Returns what names these tensors: a hash of names, types, shapes and bytes."""
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        sha256.update(f"{name}:{value.dtype}:{tuple(value.shape)}:".encode())
        sha256.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()
