"""Training: one data set on the device, one flat loop, resumable at any step.

Shape suffixes: B batch, C channels, H height, W width, D feature.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustloss.adversarial import Adversary
from robustloss.data import Dataset, ImageSet
from robustloss.losses.base import LossHead, LossTerms, check_logits, check_terms, tuples_of
from robustloss.models import Classifier, all_features, load_tensors, save_tensors
from robustloss.precision import autocast, choose_precision
from robustloss.recorded import RecordedStep
from robustloss.schedules import (
    augment,
    balanced_batches,
    rate_factor,
    shuffled_batches,
    steps_per_epoch,
)
from robustloss.seeding import derive_seed, global_state_kept
from robustloss.selection import Selection
from robustloss.spec import TrainSpec
from robustloss.storage import CorruptFile
from robustloss.streamed import in_order

VERSION = 1  # raise when the same spec would give other weights

CHECK_EVERY = 50  # steps between looks at the loss: each look makes a GPU wait
CHECKPOINT_SECONDS = 20.0

Report = Callable[[float, float, str], None]  # done, total, text


class TrainingDiverged(RuntimeError):  # noqa: N818  (names the event, as torch does)
    """The loss or a weight became NaN or infinite."""


@dataclass
class TrainingLog:
    """What a training leaves beside the weights; plain values."""

    curve: list[dict] = field(default_factory=list)
    epochs: int = 0
    seconds: float = 0.0
    steps: int = 0
    precision: str = "float32"
    parameters: int = 0
    peak_bytes: int | None = None  # most GPU memory in tensors, the data set's too; None on a CPU
    note: str = ""  # what tables must say of the loss
    adversarial: str | None = None  # how, in words; None: clean training
    chosen_epoch: int | None = None  # whose weights are kept; None: the last epoch's


def kept_line(log: Mapping[str, Any]) -> dict:
    """Returns the line of a log's learning curve at which the weights stood that were kept."""
    chosen = [line for line in log["curve"] if line["epoch"] == log.get("chosen_epoch")]
    return (chosen or log["curve"] or [{}])[-1]


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
        ValueError: The head or the backbone returns a wrong shape.
    """
    with global_state_kept(device):
        return _train(model, dataset, spec, seed, device, checkpoint, key, report)


def _train(
    model: Classifier,
    dataset: Dataset,
    spec: TrainSpec,
    seed: int,
    device: torch.device,
    checkpoint: Path | None,
    key: str,
    report: Report,
) -> TrainingLog:
    torch.manual_seed(derive_seed("start", seed))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
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
    loop = _Loop(model, _optimizer(groups, spec, device), spec, data, seed, log)
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
        error = error_rate(model, validation, log.precision)
        extra = {} if selection is None else selection.measure(model, epoch + 1, epochs, log)
        loop.close_epoch(epoch + 1, error, time.monotonic() - began, extra)
        log.seconds = time.monotonic() - started
        report(epoch + 1, epochs, f"epoch {epoch + 1}/{epochs}{loop.last_error()}")
        if checkpoint and epoch + 1 < epochs and time.monotonic() - saved > CHECKPOINT_SECONDS / 2:
            loop.save(checkpoint, key)
            saved = time.monotonic()
    if selection is not None:
        selection.restore(model)
    model.eval()
    if type(model.head).fit is not LossHead.fit:
        torch.manual_seed(derive_seed("fit", seed))
        model.head.fit(all_features(model, data), data.labels)
    log.note = "; ".join(filter(None, (model.head.note(), log.adversarial)))
    if device.type == "cuda":
        log.peak_bytes = max(log.peak_bytes or 0, torch.cuda.max_memory_allocated(device))
    _check_weights(model)
    return log


def _optimizer(groups: list[dict], spec: TrainSpec, device: torch.device) -> torch.optim.Optimizer:
    fused = device.type in ("cpu", "cuda")
    groups = [{**group, "params": list(group["params"])} for group in groups]
    groups = [group for group in groups if group["params"]]
    if spec.optimizer == "adam":
        return torch.optim.AdamW(
            groups,
            lr=spec.lr,
            weight_decay=spec.weight_decay,
            fused=fused,
            capturable=device.type == "cuda",
        )
    return torch.optim.SGD(
        groups,
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov and spec.momentum > 0,
        weight_decay=spec.weight_decay,
        fused=fused,
    )


class _Loop:
    """The state of one training between steps, and how to save and restore it."""

    def __init__(
        self,
        model: Classifier,
        optimizer: torch.optim.Optimizer,
        spec: TrainSpec,
        data: ImageSet,
        seed: int,
        log: TrainingLog,
    ) -> None:
        self.model, self.optimizer, self.spec = model, optimizer, spec
        self.data, self.seed, self.log = data, seed, log
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.factor = 1.0  # on the base rates, now in force
        device = data.images.device
        self.adversary = None
        self.selection: Selection | None = None
        if spec.adversarial:
            self.adversary = Adversary(
                spec.adversarial, model, seed=seed, device=device, precision=log.precision
            )
        # over the epoch, on the device: classification, regulariser, errors, images, tuples, steps;
        # in adversarial training also attacked images, and those without a first direction
        size = 6 if self.adversary is None else 8
        self.sums = torch.zeros(size, dtype=torch.float64, device=device)
        self.has_tuples = type(model.head).tuples is not LossHead.tuples
        self.head_seconds = 0.0  # in the loss itself; on a GPU unknown without waiting for it
        self.update = RecordedStep(
            self._update, model, device, self.adversary.phase if self.adversary else lambda _: ()
        )
        if device.type == "cuda":
            # A tensor, because a recorded step would keep a number as it was.
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=device)

    def batches(self, epoch: int, skip: int) -> Iterator[Tensor]:
        """Yields the positions (B,) of an epoch from step ``skip`` on."""
        if self.model.head.batching == "balanced":
            num_classes = self.model.head.num_classes
            labels = self.data.labels.cpu()
            batches = balanced_batches(labels, num_classes, self.spec.batch_size, self.seed, epoch)
        else:
            batches = shuffled_batches(self.data.n, self.spec.batch_size, self.seed, epoch)
        yield from in_order(islice(batches, skip, None), self.data.images)

    def step(self, positions: Tensor, total: int) -> None:
        """Takes one optimiser step on the images at the positions (B,)."""
        self.model.train()
        # For dropout and losses that draw: they know the global generator only, and a training that
        # goes on must draw what the undisturbed one drew.
        if not self.update.replays:
            torch.manual_seed(derive_seed("step", self.seed, self.log.steps))
        self._set_rates(rate_factor(self.spec, self.log.steps, total))
        images = augment(
            self.data.images[positions],
            self.spec.augment,
            self.seed,
            self.log.steps,
            size=self.data.size,
        )
        if self.adversary:
            self.adversary.prepare(tuple(images.shape), self.log.steps, self.log.steps / total)
        self.update(images, self.data.labels[positions], self.log.steps / total)
        self.log.steps += 1

    def _set_rates(self, factor: float) -> None:
        if factor == self.factor:
            return
        self.factor = factor
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(base * factor)
            else:
                group["lr"] = base * factor

    def _update(self, images: Tensor, labels: Tensor, progress: float) -> None:
        """Learns from images (B,C,H,W) as they are stored, and their labels (B,)."""
        images = images.float().div_(self.data.scale).contiguous(memory_format=torch.channels_last)
        adversary = self.adversary
        if adversary is not None and not adversary.active(progress):
            adversary = None
        attacked = adversary(images, labels, progress) if adversary else images
        both = adversary is not None and adversary.learns_both
        features = self._features(images if both else attacked)
        if self.log.steps == 0:
            _check_logits(self.model.head, features.detach())
        began = time.perf_counter()
        terms = self.model.head.loss(features, labels, progress=progress)
        self.head_seconds += time.perf_counter() - began
        if self.log.steps == 0:
            _check_connected(check_terms(terms, features))
        if adversary is not None and both:
            term = adversary.divergence(features, self._features(attacked))
            terms = LossTerms(terms.classification, terms.regulariser + term)
        self.optimizer.zero_grad(set_to_none=True)
        (terms.classification + terms.regulariser).mean().backward()
        if self.spec.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.max_grad_norm)
        self.optimizer.step()
        with torch.no_grad():
            features = features.detach()
            self.model.head.after_step(features, labels)
            self._count(features, labels, terms)
            if adversary is not None:
                count = torch.full_like(self.sums[0], len(labels))
                self.sums[6:].add_(torch.stack([count, adversary.still.double()]))

    def _features(self, images: Tensor) -> Tensor:
        with autocast(images.device, self.log.precision):
            return self.model.features(images)

    def _count(self, features: Tensor, labels: Tensor, terms: LossTerms) -> None:
        wrong = torch.zeros((), device=labels.device)
        if self.model.head.batching != "balanced":  # a pair loss has no logits before fit
            wrong = (self.model.head.logits(features).argmax(1) != labels).sum()
        tuples = tuples_of(self.model.head, features, labels) if self.has_tuples else None
        self.sums[:6].add_(
            torch.stack(
                [
                    terms.classification.detach().sum().double(),
                    terms.regulariser.detach().sum().double(),
                    wrong.double(),
                    torch.full_like(self.sums[0], len(labels)),
                    torch.zeros_like(self.sums[0]) if tuples is None else tuples.double(),
                    torch.ones_like(self.sums[0]),
                ]
            )
        )

    def mean_loss(self) -> float:
        """Returns the mean training loss of this epoch so far, in nats."""
        return float((self.sums[0] + self.sums[1]) / self.sums[3])

    def last_error(self) -> str:
        """Returns the last validation error as text for a progress bar."""
        error = self.log.curve[-1]["validation_error"] if self.log.curve else None
        robust = self.log.curve[-1].get("validation_robust_error") if self.log.curve else None
        attacked = f" (attacked {100 * robust:.1f} %)" if robust is not None else ""
        return f" validation error {100 * error:.2f} %{attacked}" if error is not None else ""

    def last_rate(self) -> float:
        """Returns the first group's learning rate at the last step, one before a resumption too."""
        total = self.spec.epochs * steps_per_epoch(self.data.n, self.spec.batch_size)
        return self.base_rates[0] * rate_factor(self.spec, self.log.steps - 1, total)

    def check_finite(self) -> None:
        """Raises TrainingDiverged when a loss of this epoch was NaN or infinite."""
        if not bool(torch.isfinite(self.sums[:2]).all()):
            raise TrainingDiverged(
                f"the loss became NaN or infinite by step {self.log.steps}; lower train.lr, add "
                "train.warmup, or set train.max_grad_norm."
            )

    def close_epoch(
        self, epoch: int, validation_error: float | None, seconds: float, extra: dict
    ) -> None:
        """Adds an epoch's line to the learning curve."""
        classification, regulariser, wrong, n, tuples, steps, *attacked = self.sums.tolist()
        timed = self.has_tuples and self.sums.device.type == "cpu"
        pair = self.model.head.batching == "balanced"
        self.log.curve.append(
            {
                "epoch": epoch,
                "loss": (classification + regulariser) / n,
                "classification": classification / n,
                "regulariser": regulariser / n,
                "train_error": None if pair else wrong / n,
                "validation_error": validation_error,
                "lr": self.last_rate(),
                "tuples": tuples / steps if self.has_tuples else None,
                "tuple_seconds": round(self.head_seconds, 3) if timed else None,
                "seconds": round(seconds, 3),
                **({"zero_gradient_fraction": _share(*attacked)} if attacked else {}),
                **extra,
            }
        )
        self.sums.zero_()
        self.head_seconds = 0.0

    def save(self, path: Path, key: str) -> None:
        """Writes model, optimiser and log to one file."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors["sums"] = self.sums
        if self.selection is not None:
            tensors |= {f"best.{name}": value for name, value in self.selection.best.items()}
        for number, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state[parameter].items():
                if value is not None:
                    tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
        save_tensors(path, tensors, {"key": key, "log": vars(self.log)})

    def resume(self, path: Path | None, key: str) -> None:
        """Takes over the state in the file, if there is one, whole, and of this training."""
        if path is None or not path.exists():
            return
        try:
            tensors, meta = load_tensors(path)
        except CorruptFile:
            return  # a damaged checkpoint only costs time
        if meta.get("key") != key or tensors["sums"].shape != self.sums.shape:
            return
        state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.model.load_state_dict(state)
        self.sums.copy_(tensors["sums"])
        if self.selection is not None:
            self.selection.best = {
                name.removeprefix("best."): value.to(self.sums.device)
                for name, value in tensors.items()
                if name.startswith("best.")
            }
        for name, value in meta["log"].items():
            setattr(self.log, name, value)
        parameters = self._parameters()
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, slot = name.split(".", 2)
                parameter = parameters[int(number)]
                if value.shape == parameter.shape:
                    value = torch.empty_like(parameter).copy_(value)
                else:  # Adam's step counter
                    value = value.to(parameter.device)
                self.optimizer.state[parameter][slot] = value

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _share(n: float, some: float) -> float | None:
    return some / n if n else None


@torch.no_grad()
def _check_logits(head: LossHead, features: Tensor) -> None:
    if head.batching == "balanced":
        return
    check_logits(head.logits(features), features, head.num_classes)


def _check_connected(terms: LossTerms) -> None:
    if not any(term.requires_grad for term in terms):
        raise ValueError(
            "loss() is connected to no parameter, so nothing can learn. Look for detach() or "
            "no_grad."
        )


def _check_weights(model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise TrainingDiverged(f"the trained {name} holds NaN or infinite values.")


@torch.no_grad()
def error_rate(model: Classifier, images: ImageSet, precision: str) -> float | None:
    """Returns the error fraction on a set; None for a pair loss, which cannot classify yet."""
    if model.head.batching == "balanced":
        return None
    model.eval()
    wrong = torch.zeros((), dtype=torch.int64, device=images.images.device)
    for start in range(0, images.n, images.pass_size):
        piece = slice(start, start + images.pass_size)
        batch = images.batch(piece)
        with autocast(batch.device, precision):
            features = model.features(batch.contiguous(memory_format=torch.channels_last))
        wrong += (model.head.logits(features).argmax(1) != images.labels[piece]).sum()
    return float(wrong) / images.n
