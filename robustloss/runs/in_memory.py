"""A model in memory and some images: the numbers of a run in one call, without a spec or files."""

import hashlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustloss.attacks.build import ATTACKS
from robustloss.attacks.settings import using_default_settings
from robustloss.data.images import Dataset, ImageSet
from robustloss.models.given import IN_MEMORY, copy_module, wrap_given
from robustloss.progress import Progress, choose_progress
from robustloss.results.run import Run, load_run
from robustloss.runs.executors.choose import run_jobs
from robustloss.runs.folder import check_folder, claiming
from robustloss.runs.preflight import check_names
from robustloss.runs.provenance import Start, provenance_of
from robustloss.runs.settings import RunSettings, choose_device
from robustloss.runs.write import write_run
from robustloss.spec.errors import SpecError, did_you_mean
from robustloss.spec.load import load_spec
from robustloss.spec.spec import Spec
from robustloss.storage import digest

Images = tuple[Tensor, Tensor]  # images (N,C,H,W) in [0,1], labels (N,)
Attacks = Sequence[str | Mapping[str, Any]]

GREY = (0.1, 0.2, 0.3)  # L-inf budgets that the literature uses for MNIST
COLOUR = ("2/255", "4/255", "8/255")  # and for colour images
_NO_VALIDATION = (
    "thresholds and temperatures are those of the very images that are attacked, because no "
    "validation images were given"
)


@using_default_settings()
def evaluate(
    model: nn.Module | Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    spec: Spec | str | Path | Mapping[str, Any] | Attacks | None = None,
    *,
    validation: Images | None = None,
    train: Images | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Attack a trained model: how often is it fooled, and is that noticed?

    Args:
        model: Maps images (B,C,H,W) in [0,1] to logits (B,K), or several such by label. It is
            copied, not changed. If it offers ``features(images)`` or ``joint(images)`` they are
            used, see `given.GivenModel`.
        images: (N,C,H,W) floating, in [0,1].
        labels: (N,) int64, in [0,K).
        spec: Attacks by name, or as tables of a spec, ``{"name": "pgd", "eps": ["8/255"]}``; or a
            spec, of which the attacks, [detection], [checks] and the first seed count. FGSM and
            PGD by default, at eps 0.1, 0.2, 0.3 for one channel and 2, 4, 8 of 255 for more.
        validation: Other clean images and labels, for the thresholds. Without them the thresholds
            come from `images` themselves, and every table says so.
        train: Clean training images and labels, on which the scores of features are fitted.
            Without them no score uses features.
        out: A run folder, as `build_report` takes it; without it no file stays.
        device: "auto", "cpu", "cuda" or "mps".
        progress: Receives every event; bars on a terminal by default.

    Returns:
        The run: its rows, detection, flags and other tables, as `load_run` gives them.

    Raises:
        ValueError: Images, labels, model or spec cannot be used; nothing was computed.
        RuntimeError: The evaluation of a model failed.
    """
    start = Start()
    named = dict(model) if isinstance(model, Mapping) else {type(model).__name__: model}
    sets = {"images": (images, labels), "validation": validation, "train": train}
    parts = {name: _image_set(name, part) for name, part in sets.items() if part is not None}
    chosen = choose_device(device)
    classes = _count_classes(named, parts["images"].shape, features=train is not None)
    dataset = _build_dataset(parts, classes)
    loaded = _build_spec(spec, list(named), dataset.image_shape[0])
    check_names(loaded, [], dataset)  # the models were looked over above
    progress = progress or choose_progress(quiet=False)
    with tempfile.TemporaryDirectory(prefix="robustloss-") as work:
        folder = Path(work if out is None else out)
        check_folder(folder, loaded)
        settings = RunSettings(loaded, folder, chosen, loaded.seeds)
        cells = loaded.cells()
        jobs = [settings.job(loaded, cell, module=named[cell.label]) for cell in cells]
        with claiming(folder, loaded):
            progress.start(len(jobs))
            try:
                failures = run_jobs(jobs, dataset, settings.executor, progress)
            finally:
                progress.stop()
            if len(failures) == len(cells):
                reasons = (f"{each.label} ({each.stage}): {each.reason}" for each in failures)
                raise RuntimeError("; ".join(reasons))
            provenance = provenance_of(settings, loaded, dataset, start)
            write_run(folder, loaded, cells, failures, provenance)
            return load_run(folder)


class _FloatImages(ImageSet):
    """Images whose pixels are no whole grey levels; they are kept as they are."""

    def __post_init__(self) -> None:
        pass  # `_image_set` has checked more than a set of 8 bits asks for

    def batch(self, selection: Tensor | slice) -> Tensor:
        """Images at the given positions as float32 (B, C, H, W) in [0, 1]; a new tensor."""
        assert isinstance(self.images, Tensor)
        return self.images[selection].clone()


def _image_set(name: str, part: Images) -> ImageSet:
    """Return checked images: as 8 bits where every pixel is a whole grey level, else as floats."""
    if not isinstance(part, Sequence) or len(part) != 2:
        raise ValueError(
            f"{name} (={type(part).__name__}) must be a pair of tensors. Write "
            f"{name}=(images, labels)."
        )
    images, labels = part
    if not isinstance(images, Tensor) or images.ndim != 4 or not len(images):
        kind = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"{name} (={kind}) must be a tensor of shape (N, C, H, W), N >= 1.")
    if not images.is_floating_point():
        raise ValueError(
            f"{name} (={images.dtype}) must be floating, in [0, 1]. Write images.float() / 255."
        )
    # Clones: a tensor of torch.inference_mode can have no part in a gradient.
    images = images.detach().cpu().float().clone()
    labels = torch.as_tensor(labels).detach().cpu().clone()
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{name} (from {low:.9g} to {high:.9g}) must lie in [0, 1]. {_unfit_pixels(low, high)}"
        )
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"labels of {name} ({labels.dtype}, shape {tuple(labels.shape)}) must be int64 of "
            f"shape ({len(images)},), one class index an image."
        )
    index, grey = torch.arange(len(images)), (images * 255).round()
    if torch.equal(grey / 255, images):
        return ImageSet(grey.to(torch.uint8), labels, index, 255.0)
    return _FloatImages(images, labels, index, 1.0)


def _unfit_pixels(low: float, high: float) -> str:
    """Return what pixels outside [0, 1] probably are, and what to do."""
    if math.isnan(low) or math.isnan(high):
        return "Some pixels are NaN: look at where they come from."
    if low >= -1e-3 and high <= 1 + 1e-3:
        return "They are off by rounding: write images.clamp(0, 1)."
    if low >= 0:
        return "Divide them by 255."
    return "They look normalised: give the images as they were; the model is to normalise them."


def _count_classes(named: Mapping[str, nn.Module], shape: Sequence[int], *, features: bool) -> int:
    """Return K, which must be the same for every model; look each of them over."""
    if not named:
        raise ValueError("model must be a torch.nn.Module, or several by label; got none.")
    found: dict[str, int] = {}
    for label, module in named.items():
        if not isinstance(module, nn.Module):
            raise ValueError(f"model (={type(module).__name__}) must be a torch.nn.Module.")
        try:
            found[label] = wrap_given(
                copy_module(module), shape, features=features
            ).head.num_classes
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from error
    if len(set(found.values())) > 1:
        each = ", ".join(f"{label} {k}" for label, k in found.items())
        raise ValueError(f"the models must have equally many classes, got {each}.")
    return next(iter(found.values()))


def _build_dataset(parts: Mapping[str, ImageSet], classes: int) -> Dataset:
    test = parts["images"]
    for name, part in parts.items():
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels of {name} (from {low} to {high}) must lie in [0, {classes - 1}], the "
                f"{classes} classes of the logits."
                + (" They are counted from 1: subtract 1." if (low, high) == (1, classes) else "")
            )
        if part.shape != test.shape:
            raise ValueError(f"{name} (={part.shape}) must have the shape of images, {test.shape}.")
    checksums = []
    for part in parts.values():
        assert isinstance(part.images, Tensor)
        content = hashlib.sha256(f"{part.images.dtype} {tuple(part.images.shape)}".encode())
        for tensor in (part.images, part.labels):
            content.update(tensor.contiguous().numpy().tobytes())
        checksums.append(content.hexdigest())
    return Dataset(
        name="in_memory",
        num_classes=classes,
        class_names=tuple(map(str, range(classes))),
        mean=(0.0,) * test.shape[0],
        std=(1.0,) * test.shape[0],
        train=parts.get("train", test.take(slice(0, 0))),
        validation=parts.get("validation", test),
        test=test,
        checksum=digest(list(parts), checksums),
        training_checksum="",
        label="images in memory",
        summary="" if "validation" in parts else _NO_VALIDATION,
    )


def _build_spec(spec: Any, labels: Sequence[str], channels: int) -> Spec:
    """Return the spec of the evaluation: the models as its losses, and the attacks asked for."""
    eps = list(GREY if channels == 1 else COLOUR)
    asked: Mapping[str, Any]
    folder = Path.cwd()
    if spec is None:
        asked = {"attacks": ["fgsm", {"name": "pgd", "params": {"objective": "margin"}}]}
    elif isinstance(spec, Mapping):
        asked = spec
    elif isinstance(spec, str) and spec in ATTACKS:
        raise ValueError(f"spec (={spec!r}) must be a list of attacks. Write [{spec!r}].")
    elif isinstance(spec, Spec | str | Path):
        loaded = spec if isinstance(spec, Spec) else load_spec(spec)
        asked, folder = loaded.plain(), loaded.folder
    else:
        asked = {"attacks": list(spec)}
    if unknown := sorted(asked.keys() - Spec.model_fields):
        hint = did_you_mean(unknown[0], list(Spec.model_fields))
        raise SpecError(f"{unknown[0]}: unknown key{hint or '.'}")
    if isinstance(asked.get("attacks"), str):
        raise SpecError(f"attacks (={asked['attacks']!r}) must be a list. Write a list of names.")
    attacks = [
        {"eps": eps, **({"name": each} if isinstance(each, str) else each)}
        for each in asked.get("attacks", ())
    ]
    found = load_spec(
        {
            "name": "evaluation",
            "seeds": list(asked.get("seeds", (0,)))[:1],
            "data": {"name": "in_memory"},
            "losses": [{"model": IN_MEMORY, "label": label} for label in labels],
            "attacks": attacks,
            **{key: asked[key] for key in ("detection", "checks") if key in asked},
        }
    )
    found._folder = folder
    return found
