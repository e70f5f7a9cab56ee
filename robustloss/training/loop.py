"""The steps of a training, and how its state is saved and restored at any of them.

Shape suffixes: B batch, C channels, H height, W width, D feature.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from robustloss.data.images import ImageSet
from robustloss.data.streamed import iter_positions
from robustloss.losses.base import LossHead, count_tuples
from robustloss.models.classifier import Classifier
from robustloss.models.weight_files import load_tensors, save_tensors
from robustloss.seeding import derive_seed, seed_global
from robustloss.spec.training import TrainSpec
from robustloss.storage import CorruptFile
from robustloss.training.adversary import Adversary
from robustloss.training.augment import augment
from robustloss.training.batches import balanced_batches, shuffled_batches, steps_per_epoch
from robustloss.training.log import TrainingDiverged, TrainingLog
from robustloss.training.objective import Objective, StepOutput, has_unused, is_known
from robustloss.training.optimizer import rate_factor
from robustloss.training.processes import Group
from robustloss.training.recorded_step import RecordedStep
from robustloss.training.selection import Selection


class Loop:
    """The state of one training between steps, and how to save and restore it."""

    def __init__(
        self,
        model: Classifier,
        optimizer: torch.optim.Optimizer,
        spec: TrainSpec,
        data: ImageSet,
        seed: int,
        log: TrainingLog,
        group: Group,
    ) -> None:
        self.model, self.optimizer, self.spec = model, optimizer, spec
        self.data, self.seed, self.log, self.group = data, seed, log, group
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.factor = 1.0  # on the base rates, now in force
        device = data.images.device
        self.adversary = None
        self.selection: Selection | None = None
        if spec.adversarial:
            self.adversary = Adversary(
                spec.adversarial, model, seed=seed, device=device, precision=log.precision,
                group=group,
            )  # fmt: skip
        # over the epoch, on the device: classification, regulariser, errors, images, tuples, steps;
        # in adversarial training also attacked images, and those without a first direction
        size = 6 if self.adversary is None else 8
        self.sums = torch.zeros(size, dtype=torch.float64, device=device)
        self.has_tuples = type(model.head).tuples is not LossHead.tuples
        self.objective = Objective(model, log.precision, self.adversary, group)
        self.terms_of = group.wrap(self.objective, unused=self._has_unused)
        self.update = RecordedStep(
            self._update, model, device, self.adversary.phase if self.adversary else lambda _: ()
        )
        if group.size > 1:
            self.update.stay_plain("the step waits for other processes")
        if device.type == "cuda":
            # A tensor, because a recorded step would keep a number as it was.
            for parameters in optimizer.param_groups:
                parameters["lr"] = torch.tensor(parameters["lr"], device=device)

    def batches(self, epoch: int, skip: int) -> Iterator[Tensor]:
        """Yields the positions (B,) of an epoch from step ``skip`` on."""
        if self.model.head.batching == "balanced":
            num_classes = self.model.head.num_classes
            labels = self.data.labels.cpu()
            batches = balanced_batches(labels, num_classes, self.spec.batch_size, self.seed, epoch)
        else:
            batches = shuffled_batches(self.data.n, self.spec.batch_size, self.seed, epoch)
        yield from iter_positions(islice(batches, skip, None), self.data.images, self._own)

    def step(self, positions: Tensor, total: int) -> None:
        """Takes one optimiser step on the images at the positions (B,)."""
        self.model.train()
        # For dropout and losses that draw: they know the global generator only, and a training that
        # goes on must draw what the undisturbed one drew.
        if not self.update.replays:
            self._seed_step()
        self._set_rates(rate_factor(self.spec, self.log.steps, total))
        share, n = self.group.share(len(positions)), len(positions)
        images = augment(
            self.data.images[self._own(positions)],
            self.spec.augment,
            self.seed,
            self.log.steps,
            size=self.data.size,
            of=(share.start, n),
        )
        if self.adversary:
            shape = (n, *images.shape[1:])
            self.adversary.prepare(shape, self.log.steps, self.log.steps / total, share)
        self.update(images, self.data.labels[positions], self.log.steps / total)
        self.log.steps += 1

    def _own(self, positions: Tensor) -> Tensor:
        return positions[self.group.share(len(positions))]

    def _seed_step(self) -> None:
        step, device = (self.seed, self.log.steps), self.sums.device
        if self.group.size == 1:
            seed_global(device, derive_seed("step", *step))
            return
        # other dropout masks each
        seed_global(device, derive_seed("step", *step, self.group.rank))
        self.objective.head_seed = derive_seed("head", *step)

    def _has_unused(self) -> bool:
        if not is_known(self.model):
            return True  # one step tells nothing of the others
        some = slice(0, 2)
        images, labels = self.data.batch(some), self.data.labels[some]
        return has_unused(self.model, images, labels, self.log.precision)

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
        attacked = None
        if adversary is not None:
            attacked = adversary(images, labels, progress)
            if not adversary.learns_both:
                images, attacked = attacked, None
        terms: StepOutput = self.terms_of(images, attacked, labels, progress)
        self.optimizer.zero_grad(set_to_none=True)
        (terms.classification + terms.regulariser).mean().backward()
        if self.spec.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.max_grad_norm)
        self.optimizer.step()
        with torch.no_grad():
            self.model.head.after_step(terms.features, labels)
            self._count(labels, terms)
            if adversary is not None:
                count = torch.full_like(self.sums[0], len(labels))
                still = self.group.sum(adversary.still.double())
                self.sums[6:].add_(torch.stack([count, still]))

    def _count(self, labels: Tensor, terms: StepOutput) -> None:
        features = terms.features
        wrong = torch.zeros((), device=labels.device)
        if self.model.head.logits_while_training:
            wrong = (self.model.head.logits(features).argmax(1) != labels).sum()
        tuples = count_tuples(self.model.head, features, labels) if self.has_tuples else None
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
        if self.group.any(not bool(torch.isfinite(self.sums[:2]).all())):
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
        self.log.curve.append(
            {
                "epoch": epoch,
                "loss": (classification + regulariser) / n,
                "classification": classification / n,
                "regulariser": regulariser / n,
                "train_error": wrong / n if self.model.head.logits_while_training else None,
                "validation_error": validation_error,
                "lr": self.last_rate(),
                "tuples": tuples / steps if self.has_tuples else None,
                "tuple_seconds": round(self.objective.head_seconds, 3) if timed else None,
                "seconds": round(seconds, 3),
                **({"zero_gradient_fraction": _share(*attacked)} if attacked else {}),
                **({"processes": self.group.size} if self.group.size > 1 else {}),
                **extra,
            }
        )
        self.sums.zero_()
        self.objective.head_seconds = 0.0

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
        found = self.group.broadcast(lambda: self._read(path, key))
        if found is None:
            return
        tensors, log = found
        state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.model.load_state_dict(state)
        self.sums.copy_(tensors["sums"])
        if self.selection is not None:
            self.selection.best = {
                name.removeprefix("best."): value.to(self.sums.device)
                for name, value in tensors.items()
                if name.startswith("best.")
            }
        for name, value in log.items():
            setattr(self.log, name, value)
        self.log.processes = max(self.log.processes, self.group.size)
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

    def _read(self, path: Path | None, key: str) -> tuple[dict[str, Tensor], dict] | None:
        """Returns tensors and log in the file; None where there is nothing to go on from."""
        if path is None or not path.exists():
            return None
        try:
            tensors, meta = load_tensors(path)
        except CorruptFile:
            return None  # a damaged checkpoint only costs time
        if meta.get("key") != key or tensors["sums"].shape != self.sums.shape:
            return None
        return tensors, meta["log"]

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _share(n: float, some: float) -> float | None:
    return some / n if n else None
