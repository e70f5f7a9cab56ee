"""A model in memory and some images: the numbers of a run in one call, without a spec or files."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustloss.analysis.learning import describe_unlearnt
from robustloss.attacks.build import build_attack
from robustloss.attacks.settings import using_default_settings
from robustloss.cells.work import (
    CHECKS,
    NOISE,
    Work,
    choose_check_images,
    count_work,
    time_passes,
)
from robustloss.data.images import Dataset, ImageSet
from robustloss.data.in_memory import Labels, Source, read_images
from robustloss.models.given import IN_MEMORY, GivenModel, copy_module, unwrap_compiled, wrap_given
from robustloss.progress import choose_progress, duration
from robustloss.results.numbers import NO_VALIDATION
from robustloss.results.run import Run, load_run
from robustloss.runs.asked import Asked, Extras, build_spec
from robustloss.runs.executors.choose import run_jobs
from robustloss.runs.folder import check_folder, claiming
from robustloss.runs.preflight import check_names, gradient_mistakes
from robustloss.runs.provenance import Start, provenance_of
from robustloss.runs.settings import RunSettings, choose_device
from robustloss.runs.watching.audience import Audience, Watcher
from robustloss.runs.write import write_run
from robustloss.spec.detection import ChecksSpec
from robustloss.spec.errors import SpecError
from robustloss.spec.losses import Normalization, read_normalize
from robustloss.spec.report import read_published
from robustloss.spec.spec import Spec
from robustloss.storage import digest

Images = tuple[Source, Labels]  # images (N,C,H,W) in [0,1], labels (N,)
FEW_IMAGES = 10  # fewer say nothing about which classes there are
_SET_ON_TEST = (
    "thresholds and temperatures were set on the attacked images themselves, because "
    + NO_VALIDATION
)


@using_default_settings()
def evaluate(
    model: nn.Module | Mapping[str, nn.Module],
    images: Source,
    labels: Labels | None = None,
    attacks: Asked | None = None,
    *,
    normalize: Mapping[str, Any] | str | None = None,
    checks: bool | int = True,
    noise: bool = True,
    quick: bool = False,
    validation: Images | Source | None = None,
    train: Images | Source | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    progress: Watcher | Sequence[Watcher] | None = None,
    spec: Asked | None = None,
) -> Run:
    """Attack a trained model: how often is it fooled, and is that noticed?

    Before it starts it says what it will cost, and while it runs how long it will still take. Most
    of that are the attacks. The default ones take some 250 passes for each image.

    Args:
        model: Maps images (B,C,H,W) in [0,1] to logits (B,K), or several such by label. An output
            with ``logits``, or a tuple that begins with them, does too. It is copied, not changed,
            and evaluated in eval mode. If it offers ``features(images)`` or ``joint(images)`` they
            are used, see `given.GivenModel`.
        images: (N,C,H,W) floating, in [0,1], as a tensor or an array; or a DataLoader, another
            iterable of batches (images, labels), or a torch Dataset of pairs of one image and its
            label. A loader is read once, to memory, or to a temporary file where its images take
            more than a quarter of the memory; then attacks goes by keyword.
        labels: (N,) int64, in [0,K); None where the batches bring them.
        attacks: Attacks by name, ``["fgsm", "pgd"]``, or as tables of a spec,
            ``[{"name": "pgd", "eps": ["8/255"]}]``. By default FGSM and PGD, at eps 0.1, 0.2, 0.3
            for one channel and 2, 4, 8 of 255 for more. Or a whole spec, its tables or the name of
            one, of which the attacks, [detection], [checks] and the first seed count.
        normalize: The mean and std of the images that the model was trained with, one number for
            each channel, ``{"mean": [0.5], "std": [0.25]}``; or what has them, as the weights of
            torchvision or an image processor of transformers; or "imagenet", or
            "weights" for what the model says itself, as those of timm do. It then gets (images -
            mean) / std, and the gradient of an attack passes through that: budgets stay in pixel
            units. None for a model that takes images in [0,1].
        checks: Short trial attacks on some of the images, which tell a robust model from one that
            hides its gradient. True tries at most 200, and fewer where these would take more than
            a sixth of the attacks' passes; a number tries so many; False none, and then nothing
            says whether an error is too low because the attack was misled. A spec that has
            checks.images decides this itself.
        noise: Also show the model noise as large as each attack, a pass for each image and eps.
            Without it nothing tells a detector of attacks from a detector of any change.
        quick: Neither checks nor noise, and of the detection scores only the log-likelihood of the
            predicted class: what the errors and their AUROC need, and no more.
        validation: Other clean images and labels, as a pair or a loader, for the thresholds.
            Without them the thresholds come from `images` themselves, and every table says so.
        train: Clean training images and labels, as a pair or a loader, on which the scores of
            features are fitted. Without them no score uses features.
        out: A run folder, as `build_report` takes it; what it holds already is not computed again.
            Without it no file stays.
        device: "auto", "cpu", "cuda" or "mps".
        progress: Receives every event, as for `robustloss.run`; by default bars on a terminal and
            lines elsewhere, both on stderr. `robustloss.progress.Silent()` shows nothing.
        spec: Another name of `attacks`.

    Returns:
        The run: ``run.table()`` is its result, ``run.rows`` has a dict for each attack and eps,
        with "error" (a fraction) and "auroc_all"; the other tables are as `load_run` gives them.

    Raises:
        ValueError: Images, labels, model or attacks cannot be used; nothing was computed.
        RuntimeError: The evaluation of a model failed.

    Example:
        >>> run = robustloss.evaluate(model, images, labels, ["fgsm", "pgd"], quick=True)
        >>> [(row["attack"], row["eps"], row["error"], row["auroc_all"]) for row in run.rows]
        >>> robustloss.evaluate(model, loader, attacks=["fgsm"], normalize="imagenet")
    """
    if attacks is not None and spec is not None:
        raise ValueError("spec is another name of attacks. Give one of them.")
    start = Start()
    audience = Audience(choose_progress(quiet=False) if progress is None else progress, None)
    named = _name_models(model)
    chosen = choose_device(device)
    parts = {"images": read_images("images", images, labels)}
    _say_begin(audience, named, parts["images"], chosen)
    for name, part in {"validation": validation, "train": train}.items():
        if part is not None:
            parts[name] = _read_part(name, part)
    normalization = read_normalize(normalize)
    tried, seconds = _try_models(
        named,
        parts["images"],
        chosen,
        normalization,
        features=train is not None,
        timed=not audience.silent,
    )
    classes = next(iter(tried.values())).head.num_classes
    dataset = _build_dataset(parts, classes)
    without = {label: each.no_gradient for label, each in tried.items() if each.no_gradient}
    for line in _remark_on(named, tried, parts["images"]):
        audience.note(line)
    extras = Extras(checks, noise, quick)
    asked = spec if attacks is None else attacks
    losses: list[dict[str, Any]] = [{"model": IN_MEMORY, "label": each} for each in named]
    if normalization:
        losses = [{**loss, "normalize": normalization} for loss in losses]
    if asked is None and without:
        asked = ["square"]
        audience.note("Attack: square, because the default ones need a gradient.")
    loaded = build_spec(asked, losses, dataset.image_shape[0], extras)
    check_names(loaded, [], dataset)  # the models were looked over above
    lines = [line for each in without.items() for line in gradient_mistakes(loaded, *each)]
    if lines:
        raise SpecError("\n".join(lines))
    fit = extras.fits(asked)
    loaded, cost = _settle_checks(loaded, dataset, fit)
    for line in _describe_cost(cost, seconds, loaded, dataset.test.n if fit else 0):
        audience.note(line)
    with tempfile.TemporaryDirectory(prefix="robustloss-") as work:
        folder = Path(work if out is None else out)
        run = _run_cells(loaded, folder, named, dataset, chosen, audience, start)
    for line in describe_unlearnt(run.results):
        audience.note(f"Remark: {line} Its errors under attack say nothing.")
    return run


def _run_cells(
    spec: Spec,
    folder: Path,
    named: Mapping[str, nn.Module],
    dataset: Dataset,
    device: str,
    audience: Audience,
    start: Start,
) -> Run:
    """Evaluate every model and write the run.

    Raises:
        RuntimeError: All of them failed.
    """
    check_folder(folder, spec)
    published = read_published(spec.report.published, spec.folder, spec.losses, spec.attacks)
    settings = RunSettings(spec, folder, device, spec.seeds, published=published)
    cells = spec.cells()
    jobs = [settings.job(spec, cell, module=named[cell.label]) for cell in cells]
    with claiming(folder, spec):
        audience.start(len(jobs))
        try:
            failures = run_jobs(jobs, dataset, settings.executor, audience)
        finally:
            audience.stop()
            audience.close()
        if len(failures) == len(cells):
            reasons = (f"{each.label} ({each.stage}): {each.reason}" for each in failures)
            raise RuntimeError("; ".join(reasons))
        write_run(folder, spec, cells, failures, provenance_of(settings, spec, dataset, start))
        return load_run(folder)


def _name_models(model: nn.Module | Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the models by label; one alone is called by its class."""
    if isinstance(model, Mapping):
        return {k: unwrap_compiled(m) if isinstance(m, nn.Module) else m for k, m in model.items()}
    inner = unwrap_compiled(model) if isinstance(model, nn.Module) else model
    return {type(inner).__name__: inner}


def _remark_on(
    named: Mapping[str, nn.Module], tried: Mapping[str, GivenModel], images: ImageSet
) -> list[str]:
    """Return a line for whatever a reader must know of a model before it is attacked.

    Args:
        named: The models by label, as they were given.
        tried: The same, looked over.
        images: To be attacked.
    """
    lines = []
    for label, model in tried.items():
        found = [*model.remarks]
        if getattr(named[label], "training", False) and any(
            map(_depends_on_mode, named[label].modules())
        ):
            found.append("it was in training mode and is evaluated in eval mode")
        classes, highest = model.head.num_classes, int(images.labels.max())
        if images.n >= FEW_IMAGES and 2 * (highest + 1) <= classes:
            found.append(f"it has {classes:,} classes, and no label is above {highest}")
        lines += [f"Remark: {label}: {remark}." for remark in found]
    return lines


def _depends_on_mode(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)


def _say_begin(
    audience: Audience, named: Mapping[str, nn.Module], images: ImageSet, device: str
) -> None:
    """Say what is evaluated, before anything that may take long."""
    threads = torch.get_num_threads()
    where = f"cpu, {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device
    size = " × ".join(map(str, images.shape))
    text = f"Evaluating {', '.join(named)} on {images.n:,} images of {size} ({where})."
    if not isinstance(images.images, Tensor):
        text += " They do not fit in a quarter of the memory and are read from a temporary file."
    audience.note(text)


def _settle_checks(spec: Spec, dataset: Dataset, fit: bool) -> tuple[Spec, Work]:
    """Return the spec with the number of images for trial attacks, and the passes of each model.

    Args:
        spec: Of the evaluation; checks.images is the most.
        dataset: Its data.
        fit: Take fewer images where more would cost much beside the attacks.
    """
    folders = (spec.folder,)
    built = [build_attack(each.name, folders=folders, **each.params) for each in spec.attacks]
    if fit:
        images = choose_check_images(spec, built, dataset)
        settled = spec.checks.override({"images": images})
        spec = spec.model_copy(update={"checks": settled})
    return spec, count_work(spec, built, dataset)


def _describe_cost(
    work: Work, seconds: tuple[float, float] | None, spec: Spec, images: int
) -> list[str]:
    """Return lines that say what the evaluation costs, and what it leaves out by itself.

    Args:
        work: The passes of each model.
        seconds: Of an image's pass forward, and forward and back, over all models; None if unknown.
        spec: Of the evaluation.
        images: That trial attacks could be made on; 0 where their number was asked for.
    """
    total = max(work.passes, 1)
    parts = {"attacks": work.attacks, "checks": sum(work.steps[CHECKS])}
    parts |= {"noise": sum(work.steps[NOISE])}
    parts |= {"clean images": work.passes - sum(parts.values())}
    shares = ", ".join(
        f"{name} {100 * n / total:.0f} %" for name, n in parts.items() if n > total / 200
    )
    rough = "" if seconds is None else f"about {duration(max(1.0, work.seconds(*seconds)))}: "
    each = " for each model" if len(spec.losses) > 1 else ""
    lines = [f"Cost: {rough}{work.passes:,} passes of an image, forward or back{each} ({shares})."]
    if work.unknown:
        lines.append(
            f"It may be more: {', '.join(work.unknown)} does not say how many passes it takes."
        )
    most, tried = min(ChecksSpec().images, images), spec.checks.images
    if tried < most:
        what = f"on {tried} of {images:,} images" if tried else "none"
        lines.append(
            f"Checks by trial attacks: {what}, for a sixth of the attacks' passes at most; "
            f"checks={most} tries {most}."
        )
    return lines


def _read_part(name: str, part: Images | Source) -> ImageSet:
    """Return checked images of a pair of tensors or arrays, or of a loader."""
    if isinstance(part, tuple | list) and len(part) == 2:
        images, labels = part
        if not isinstance(images, tuple | list):  # else a list of two batches
            return read_images(name, images, labels)
    if isinstance(part, Tensor | np.ndarray):
        raise ValueError(
            f"{name} (={type(part).__name__}) must be a pair of tensors, or a loader. Write "
            f"{name}=(images, labels)."
        )
    return read_images(name, part)


def _try_models(
    named: Mapping[str, nn.Module],
    images: ImageSet,
    device: str,
    normalize: Normalization | None,
    *,
    features: bool,
    timed: bool,
) -> tuple[dict[str, GivenModel], tuple[float, float] | None]:
    """Look every model over.

    Args:
        named: The models by label.
        images: To be attacked.
        device: Where they will be.
        normalize: See `given.GivenModel`.
        features: Look whether the models offer features.
        timed: Time a pass.

    Returns:
        The models wrapped, all with the same K; and `time_passes` summed over the models, None
        where it was not asked for or a model has no gradient.
    """
    if not named:
        raise ValueError("model must be a torch.nn.Module, or several by label; got none.")
    found: dict[str, GivenModel] = {}
    seconds = []
    for label, module in named.items():
        if not isinstance(module, nn.Module):
            remedy = "Call a function in the forward of a module of your own."
            if isinstance(module, list | tuple):
                remedy = "Give several by label: {'A': model, 'B': other}."
            raise ValueError(
                f"model (={type(module).__name__}) must be a torch.nn.Module. {remedy}"
            )
        try:
            wrapped = wrap_given(
                copy_module(module), images.shape, features=features, normalize=normalize
            )
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from error
        found[label] = wrapped
        if timed:
            with suppress(Exception):  # what is wrong with a model, the attacks say better
                seconds.append(
                    time_passes(wrapped.to(device), images.take(slice(0, 200)).to(device))
                )
    if len({each.head.num_classes for each in found.values()}) > 1:
        each = ", ".join(f"{label} {model.head.num_classes}" for label, model in found.items())
        raise ValueError(f"the models must have equally many classes, got {each}.")
    if len(seconds) < len(named):
        return found, None
    forward, gradient = (sum(each) for each in zip(*seconds, strict=True))
    return found, (forward, gradient)


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
        content = hashlib.sha256(f"{part.images.dtype} {tuple(part.images.shape)}".encode())
        for piece in part.passes():
            content.update(part.images[piece].contiguous().numpy().data)
        content.update(part.labels.contiguous().numpy().data)
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
        summary="" if "validation" in parts else _SET_ON_TEST,
    )
