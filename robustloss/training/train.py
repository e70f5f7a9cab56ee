"""Training: one data set on the device, one flat loop, resumable at any step."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from robustloss.data.images import Dataset, ImageSet
from robustloss.losses.base import LossHead
from robustloss.models.classifier import Classifier, compute_features
from robustloss.seeding import derive_seed, preserving_global_state, seed_global
from robustloss.spec.training import TrainSpec
from robustloss.training.batches import check_batch_length
from robustloss.training.checkpoint import Checkpoint
from robustloss.training.log import TrainingDiverged, TrainingLog
from robustloss.training.loop import Loop
from robustloss.training.precision import autocast
from robustloss.training.processes import Group, current_group

VERSION = 1  # raise when the same spec would give other weights

CHECK_EVERY = 50  # steps between looks at the loss: each look makes a GPU wait
CHECKPOINT_SECONDS = 20.0

# done, total, text; at the end of an epoch its line of the learning curve, else {}
Report = Callable[[float, float, str, Mapping[str, Any]], None]


def train(
    model: Classifier,
    dataset: Dataset,
    spec: TrainSpec,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    key: str = "",
    report: Report = lambda done, total, text, line: None,
) -> TrainingLog:
    """Train a classifier in place and leave it in eval mode on the device.

    Where several processes train together (see `processes`), each calls this with the same
    arguments; the leader alone has a checkpoint, and its model alone is to be used afterwards.

    Args:
        model: Freshly built classifier.
        dataset: Its train set is learnt, its validation set only measured.
        spec: The training settings.
        seed: Decides the order of the images and their augmentation.
        device: Where to compute.
        checkpoint: File that holds the state while training; a killed training goes on from it
            and ends with the same weights. None: no file.
        key: Name of this training; a checkpoint of another one is ignored.
        report: Called with (epochs done, epochs, text, {}) a few times a second, and at the end of
            an epoch with its line of the learning curve in place of {}.

    Raises:
        TrainingDiverged: The loss became NaN or infinite.
        ValueError: The head or the backbone returns a wrong shape, or the processes are more than
            the images of a batch.
    """
    group, epochs = current_group(), spec.epochs
    with preserving_global_state(device):
        with group.agreeing():
            loop, saved = _prepare(model, dataset, spec, seed, device), Checkpoint(checkpoint, key)
            saved.restore(loop)
            log, began = loop.log, time.monotonic() - loop.log.seconds
            for epoch in range(len(log.curve), epochs):
                epoch_began = time.monotonic()
                for positions in loop.batches(epoch):
                    loop.step(positions)
                    if log.steps % CHECK_EVERY == 0:
                        loop.check_finite()
                        text = f"epoch {epoch + 1}/{epochs} loss {loop.mean_loss():.3f}"
                        report(log.steps / loop.per_epoch, epochs, text + loop.last_error(), {})
                        log.seconds = time.monotonic() - began
                        saved.save_after(CHECKPOINT_SECONDS, loop)
                loop.check_finite()
                error = error_rate(model, loop.validation, log.precision, group)
                loop.close_epoch(epoch + 1, error, epoch_began)
                log.seconds = time.monotonic() - began
                text = f"epoch {epoch + 1}/{epochs}{loop.last_error()}"
                report(epoch + 1, epochs, text, log.curve[-1])
                if epoch + 1 < epochs:
                    saved.save_after(CHECKPOINT_SECONDS / 2, loop)
            group.wait()
        if group.leads:
            _finish(model, loop, seed)
        return log


def _prepare(
    model: Classifier, dataset: Dataset, spec: TrainSpec, seed: int, device: torch.device
) -> Loop:
    """Bring the model to the device and return the loop that trains it."""
    group = current_group()
    check_batch_length(model.head, dataset.train.n, spec.batch_size, group.size)
    seed_global(device, derive_seed("start", seed))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    group.share_batch_norm(model)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Loop(model, dataset, spec, seed=seed, device=device, group=group)


def _finish(model: Classifier, loop: Loop, seed: int) -> None:
    """Leave the chosen epoch's weights, with the head fitted, in eval mode."""
    log, device = loop.log, loop.sums.device
    if loop.selection is not None:
        loop.selection.restore(model)
    fit_head(model, loop.data, seed)
    log.note = "; ".join(filter(None, (model.head.note(), log.adversarial)))
    if device.type == "cuda":
        log.peak_bytes = max(log.peak_bytes or 0, torch.cuda.max_memory_allocated(device))
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise TrainingDiverged(f"the trained {name} holds NaN or infinite values.")


def fit_head(model: Classifier, images: ImageSet, seed: int) -> None:
    """Fit what a head takes from the trained features, and leave the model in eval mode.

    Args:
        model: Trained.
        images: The training images, on its device.
        seed: Of the training.
    """
    model.eval()
    if type(model.head).fit is not LossHead.fit:
        seed_global(images.images.device, derive_seed("fit", seed))
        model.head.fit(compute_features(model, images), images.labels)


@torch.no_grad()
def error_rate(
    model: Classifier, images: ImageSet, precision: str, group: Group | None = None
) -> float | None:
    """Return the error fraction on a set; None for a loss that has no logits while it trains.

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
    for piece in images.passes():
        batch = images.batch(piece)
        with autocast(batch.device, precision):
            features = model.features(batch.contiguous(memory_format=torch.channels_last))
        wrong += (model.head.logits(features).argmax(1) != images.labels[piece]).sum()
    return float(group.sum(wrong)) / n
