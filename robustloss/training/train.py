"""Training: one data set on the device, one flat loop, resumable at any step."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from robustloss.data.images import Dataset, ImageSet
from robustloss.losses.base import LossHead
from robustloss.models.classifier import Classifier, compute_features
from robustloss.seeding import derive_seed, preserving_global_state, seed_global
from robustloss.spec.training import TrainSpec
from robustloss.training.batches import batch_length, steps_per_epoch
from robustloss.training.log import TrainingDiverged, TrainingLog
from robustloss.training.loop import Loop
from robustloss.training.optimizer import build_optimizer
from robustloss.training.precision import autocast, choose_precision
from robustloss.training.processes import Group, current_group
from robustloss.training.selection import Selection

VERSION = 1  # raise when the same spec would give other weights

CHECK_EVERY = 50  # steps between looks at the loss: each look makes a GPU wait
CHECKPOINT_SECONDS = 20.0

Report = Callable[[float, float, str], None]  # done, total, text


def train(
    model: Classifier,
    dataset: Dataset,
    spec: TrainSpec,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    key: str = "",
    report: Report = lambda done, total, text: None,
) -> TrainingLog:
    """Trains a classifier in place and leaves it in eval mode on the device.

    Where several processes train together (`data_parallel`), each calls this with the same
    arguments; the first alone has a checkpoint, and its model alone is to be used afterwards.

    Args:
        model: Freshly built classifier.
        dataset: Its train set is learnt, its validation set only measured.
        spec: The training settings.
        seed: Decides the order of the images and their augmentation.
        device: Where to compute.
        checkpoint: File that holds the state while training; a killed training goes on from it
            and ends with the same weights. None: no file.
        key: Name of this training; a checkpoint of another one is ignored.
        report: Called with (epochs done, epochs, text) a few times a second.

    Raises:
        TrainingDiverged: The loss became NaN or infinite.
        ValueError: The head or the backbone returns a wrong shape, or the processes are more than
            the images of a batch.
    """
    group = current_group()
    with preserving_global_state(device):
        with group.agreeing():
            loop = _fitted(model, dataset, spec, seed, device, group, checkpoint, key, report)
            group.wait()
        if group.leads:
            _finish(model, loop, seed)
        return loop.log


def _fitted(
    model: Classifier,
    dataset: Dataset,
    spec: TrainSpec,
    seed: int,
    device: torch.device,
    group: Group,
    checkpoint: Path | None,
    key: str,
    report: Report,
) -> Loop:
    """Takes the steps of a training."""
    _check_batches(model.head, dataset.train.n, spec.batch_size, group.size)
    seed_global(device, derive_seed("start", seed))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    group.synchronise_statistics(model)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = dataset.train.to(device)
    validation = dataset.validation.to(device)
    model.head.start(torch.bincount(data.labels, minlength=dataset.num_classes))
    groups = [
        {"params": list(model.backbone.parameters()), "lr": spec.lr},
        *model.head.parameter_groups(spec.lr),
    ]
    log = TrainingLog(epochs=spec.epochs, precision=choose_precision(spec.precision, device))
    log.parameters = sum(p.numel() for p in model.parameters())
    log.processes = group.size
    loop = Loop(model, build_optimizer(groups, spec, device), spec, data, seed, log, group)
    selection = None
    if spec.adversarial:
        log.adversarial = spec.adversarial.in_words()
        selection = loop.selection = Selection(spec.adversarial, validation, seed)
    loop.resume(checkpoint, key)
    started, saved = time.monotonic() - log.seconds, time.monotonic()
    epochs, per_epoch = spec.epochs, steps_per_epoch(data.n, spec.batch_size)
    for epoch in range(len(log.curve), epochs):
        began = time.monotonic()
        for positions in loop.batches(epoch, skip=log.steps - epoch * per_epoch):
            loop.step(positions, total=epochs * per_epoch)
            if log.steps % CHECK_EVERY == 0:
                loop.check_finite()
                text = f"epoch {epoch + 1}/{epochs} loss {loop.mean_loss():.3f}{loop.last_error()}"
                report(log.steps / per_epoch, epochs, text)
                if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    log.seconds = time.monotonic() - started
                    loop.save(checkpoint, key)
                    saved = time.monotonic()
        loop.check_finite()
        error = error_rate(model, validation, log.precision, group)
        extra = {}
        if selection is not None and group.leads:
            extra = selection.measure(model, epoch + 1, epochs, log)
        loop.close_epoch(epoch + 1, error, time.monotonic() - began, extra)
        log.seconds = time.monotonic() - started
        report(epoch + 1, epochs, f"epoch {epoch + 1}/{epochs}{loop.last_error()}")
        if checkpoint and epoch + 1 < epochs and time.monotonic() - saved > CHECKPOINT_SECONDS / 2:
            loop.save(checkpoint, key)
            saved = time.monotonic()
    return loop


def _check_batches(head: LossHead, n: int, batch_size: int, processes: int) -> None:
    """Raises ValueError where a batch has no image for one of the processes."""
    length = batch_length(n, head.num_classes, batch_size, head.batching)
    if length >= processes:
        return
    if head.batching == "balanced":
        cause = f"train.batch_size (={batch_size}) for {head.num_classes} classes in equal parts"
    elif n < batch_size:
        cause = f"a training set of {n} images"
    else:
        cause = f"train.batch_size (={batch_size})"
    raise ValueError(
        f"{cause} makes batches of {length}, less than an image for each of {processes} processes; "
        f"start at most {length}."
    )


def _finish(model: Classifier, loop: Loop, seed: int) -> None:
    """Leaves the weights that are kept, the head fitted, in eval mode."""
    log, device = loop.log, loop.sums.device
    if loop.selection is not None:
        loop.selection.restore(model)
    model.eval()
    if type(model.head).fit is not LossHead.fit:
        seed_global(device, derive_seed("fit", seed))
        model.head.fit(compute_features(model, loop.data), loop.data.labels)
    log.note = "; ".join(filter(None, (model.head.note(), log.adversarial)))
    if device.type == "cuda":
        log.peak_bytes = max(log.peak_bytes or 0, torch.cuda.max_memory_allocated(device))
    _check_weights(model)


def _check_weights(model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise TrainingDiverged(f"the trained {name} holds NaN or infinite values.")


@torch.no_grad()
def error_rate(
    model: Classifier, images: ImageSet, precision: str, group: Group | None = None
) -> float | None:
    """Returns the error fraction on a set; None for a pair loss, which cannot classify yet.

    Args:
        model: The same in each process.
        images: The set, on the model's device.
        precision: Arithmetic of the backbone.
        group: The processes that share the passes.
    """
    if not model.head.logits_while_training:
        return None
    group = group or Group()
    model.eval()
    n, size = images.n, images.pass_size
    wrong = torch.zeros((), dtype=torch.int64, device=images.images.device)
    if group.size > 1:  # a run of passes each: streamed images decode the next one ahead
        passes = group.share(-(-n // size))
        images = images.take(slice(passes.start * size, passes.stop * size))
    for start in range(0, images.n, size):
        piece = slice(start, start + size)
        batch = images.batch(piece)
        with autocast(batch.device, precision):
            features = model.features(batch.contiguous(memory_format=torch.channels_last))
        wrong += (model.head.logits(features).argmax(1) != images.labels[piece]).sum()
    return float(group.sum(wrong)) / n
