"""One step of a training, and what is summed up over an epoch of them.

Shape suffixes: B batch, C channels, H height, W width, D feature.
"""

import time
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from robustloss.data.images import Dataset
from robustloss.data.streamed import iter_positions
from robustloss.losses.base import LossHead, count_tuples
from robustloss.models.classifier import Classifier
from robustloss.seeding import derive_seed, seed_global
from robustloss.spec.training import SHORT_NORM, TrainSpec
from robustloss.training.adversary import Adversary
from robustloss.training.augment import augment
from robustloss.training.batches import balanced_batches, shuffled_batches, steps_per_epoch
from robustloss.training.captured_step import CapturedStep
from robustloss.training.log import TrainingDiverged, TrainingLog
from robustloss.training.objective import Objective, StepOutput, has_unused
from robustloss.training.optimizer import LearningRates, build_optimizer, longest_gradient
from robustloss.training.precision import choose_precision
from robustloss.training.processes import Group
from robustloss.training.selection import Selection


class Loop:
    """The state of one training between its steps.

    Args:
        model: What is trained, on the device.
        dataset: Its train and validation sets are brought to the device.
        spec: The training settings.
        seed: Of the cell; decides order, augmentation, and what dropout and heads draw.
        device: Where.
        group: The processes that share each batch.

    Attributes:
        log: What the training leaves beside the weights.
        per_epoch: Steps of an epoch.
        sums: Over the epoch so far, on the device: classification, regulariser, errors, images,
            tuples, steps; in adversarial training also attacked images, and those among them
            without a first direction.
    """

    def __init__(
        self,
        model: Classifier,
        dataset: Dataset,
        spec: TrainSpec,
        *,
        seed: int,
        device: torch.device,
        group: Group,
    ) -> None:
        self.model, self.spec, self.seed, self.group = model, spec, seed, group
        self.data, self.validation = dataset.train.to(device), dataset.validation.to(device)
        self.log = TrainingLog(
            epochs=spec.epochs,
            precision=choose_precision(spec.precision, device),
            parameters=sum(p.numel() for p in model.parameters()),
            adversarial=spec.adversarial.in_words() if spec.adversarial else None,
            processes=group.size,
        )
        self.per_epoch = steps_per_epoch(self.data.n, spec.batch_size)
        model.head.start(torch.bincount(self.data.labels, minlength=dataset.num_classes))
        self.optimizer = build_optimizer(model, spec, device)
        steps = spec.epochs * self.per_epoch
        self.rates = LearningRates(self.optimizer, spec, steps, device)
        self.longest = longest_gradient(spec, steps)
        self.has_tuples = type(model.head).tuples is not LossHead.tuples
        self.adversary: Adversary | None = None
        self.selection: Selection | None = None
        if spec.adversarial:
            self.selection = Selection(spec.adversarial, self.validation, seed)
            self.adversary = Adversary(
                spec.adversarial, model, seed=seed, device=device, precision=self.log.precision,
                group=group,
            )  # fmt: skip
        self.sums = torch.zeros(8 if self.adversary else 6, dtype=torch.float64, device=device)
        self.objective = Objective(model, self.log.precision, self.adversary, group)
        self.terms_of = group.wrap(
            self.objective, unused=lambda: has_unused(model, self.data, self.log.precision)
        )
        phase = self.adversary.phase if self.adversary else lambda _: ()
        self.update = CapturedStep(self._update, model, device, phase)
        if group.size > 1:
            self.update.stay_plain("the step waits for other processes")

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Yield the positions (B,) of an epoch's steps, without those that are done already."""
        head, size = self.model.head, self.spec.batch_size
        if head.batching == "balanced":
            labels = self.data.labels.cpu()
            batches = balanced_batches(labels, head.num_classes, size, self.seed, epoch)
        else:
            batches = shuffled_batches(self.data.n, size, self.seed, epoch)
        left = islice(batches, self.log.steps - epoch * self.per_epoch, None)
        yield from iter_positions(left, self.data.images, self._own)

    def _own(self, positions: Tensor) -> Tensor:
        return positions[self.group.share(len(positions))]

    def step(self, positions: Tensor) -> None:
        """Take one optimiser step on the images at the positions (B,)."""
        number, progress = self.log.steps, self.log.steps / self.rates.steps
        self.model.train()
        if not self.update.replays:
            # For dropout and losses that draw: they know the global generator only, and a training
            # that goes on must draw what the undisturbed one drew. Several processes have dropout
            # masks of their own, and a head that draws the same in each.
            named = (self.seed, number)
            rank = (self.group.rank,) if self.group.size > 1 else ()
            seed_global(self.sums.device, derive_seed("step", *named, *rank))
            self.objective.head_seed = derive_seed("head", *named) if rank else None
        self.rates.set(number)
        share, n = self.group.share(len(positions)), len(positions)
        images = augment(
            self.data.images[self._own(positions)],
            self.spec.augment,
            self.seed,
            number,
            size=self.data.size,
            of=(share.start, n),
        )
        if self.adversary:
            self.adversary.prepare((n, *images.shape[1:]), number, progress, share)
        self.update(images, self.data.labels[positions], progress)
        self.log.steps += 1

    def _update(self, images: Tensor, labels: Tensor, progress: float) -> None:
        """Learn from this process's images (b,C,H,W) as they are stored, and all labels (B,).

        On a GPU this is captured and replayed, so it starts kernels and does nothing else.
        """
        images = images.float().div_(self.data.scale).contiguous(memory_format=torch.channels_last)
        adversary = self.adversary
        if adversary is not None and not adversary.active(progress):
            adversary = None
        attacked = None
        if adversary is not None:
            attacked = adversary(images, labels, progress)
            if not adversary.learns_both:
                images, attacked = attacked, None
        terms: StepOutput = self.terms_of(images, attacked, labels, progress)
        self.optimizer.zero_grad(set_to_none=True)
        (terms.classification + terms.regulariser).mean().backward()
        if self.longest is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.longest)
        self.optimizer.step()
        with torch.no_grad():
            self.model.head.after_step(terms.features, labels)
            # attacked images without a direction
            still = None if adversary is None else self.group.sum(adversary.still.double())
            # the step joins the sums of its epoch
            head, zero = self.model.head, torch.zeros_like(self.sums[0])
            wrong, tuples = zero, None
            if head.logits_while_training:
                wrong = (head.logits(terms.features).argmax(1) != labels).sum()
            if self.has_tuples:
                tuples = count_tuples(head, terms.features, labels)
            values = [
                terms.classification.detach().sum(),
                terms.regulariser.detach().sum(),
                wrong,
                zero + len(labels),
                zero if tuples is None else tuples,
                zero + 1,
            ]
            if self.adversary is not None:
                values += [zero, zero] if still is None else [zero + len(labels), still]
            self.sums += torch.stack([value.double() for value in values])

    def check_finite(self) -> None:
        """Raise TrainingDiverged when a loss of this epoch was NaN or infinite."""
        if self.group.any(not bool(torch.isfinite(self.sums[:2]).all())):
            raise TrainingDiverged(
                f"the loss became NaN or infinite by step {self.log.steps}; {self._cure()}."
            )

    def _cure(self) -> str:
        """Return which keys to set after a divergence, the first to try first."""
        rate, optimizer = self.spec.lr, self.spec.optimizer
        usual = TrainSpec(optimizer=optimizer).lr
        cures = []
        if rate > usual:  # short gradients alone would give a network that has learnt nothing
            cures.append(f"set train.lr = {usual:g}, the default for {optimizer} (it is {rate:g})")
        if self.longest is None:
            cures.append("set train.max_grad_norm = 1.0, which shortens long gradients")
        elif self.longest > SHORT_NORM:
            cures.append(f"set train.max_grad_norm = {SHORT_NORM} (it is {self.longest:g})")
        elif not cures:
            cures.append(f"set train.lr = {rate / 3:.2g} (it is {rate:g})")
        return "; if that is not enough, ".join(cures)

    def mean_loss(self) -> float:
        """Return the mean training loss of this epoch so far, in nats."""
        return float((self.sums[0] + self.sums[1]) / self.sums[3])

    def last_error(self) -> str:
        """Return the last validation error as text for a progress bar."""
        last = self.log.curve[-1] if self.log.curve else {}
        error, robust = last.get("validation_error"), last.get("validation_robust_error")
        attacked = f" (attacked {100 * robust:.1f} %)" if robust is not None else ""
        return f" validation error {100 * error:.2f} %{attacked}" if error is not None else ""

    def close_epoch(self, epoch: int, validation_error: float | None, began: float) -> None:
        """Measure errors under attack, if the training asks for them, and add the epoch's line.

        Args:
            epoch: Its number, from 1.
            validation_error: A fraction, or None.
            began: When, by time.monotonic().
        """
        attacked = {}
        if self.selection is not None and self.group.leads:
            attacked = self.selection.measure(self.model, epoch, self.spec.epochs, self.log)
        classification, regulariser, wrong, n, tuples, steps, *climbed = self.sums.tolist()
        timed = self.has_tuples and self.sums.device.type == "cpu"
        line = {
            "epoch": epoch,
            "loss": (classification + regulariser) / n,
            "classification": classification / n,
            "regulariser": regulariser / n,
            "train_error": wrong / n if self.model.head.logits_while_training else None,
            "validation_error": validation_error,
            # Not what the optimiser has: a training that went on after the last step set no rate.
            "lr": self.rates.at(self.log.steps - 1),
            "tuples": tuples / steps if self.has_tuples else None,
            "tuple_seconds": round(self.objective.head_seconds, 3) if timed else None,
            "seconds": round(time.monotonic() - began, 3),
        }
        if climbed:
            images, still = climbed
            line["zero_gradient_fraction"] = still / images if images else None
        if self.group.size > 1:
            line["processes"] = self.group.size
        self.log.curve.append({**line, **attacked})
        self.sums.zero_()
        self.objective.head_seconds = 0.0
