"""Which images a step learns from: shuffled batches, and batches with every class equally often."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from robustloss.losses.base import LossHead
from robustloss.seeding import new_generator

FEW = 4  # images of a class in a batch that has no room for all classes: pairs, and to mine in


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return the number of full batches; the incomplete last one is left out of an epoch.

    Args:
        n: Training images.
        batch_size: As the spec has it.
    """
    return max(1, n // batch_size)


def shuffled_batches(n: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield positions (B,) of one epoch, every image at most once.

    Args:
        n: Training images.
        batch_size: B, if there are as many images.
        seed: Of the cell; with the epoch it decides the order.
        epoch: From 0.
    """
    order = torch.randperm(n, generator=new_generator("order", seed, epoch))
    for step in range(steps_per_epoch(n, batch_size)):
        yield order[step * batch_size : (step + 1) * batch_size]


def balanced_batches(
    labels: Tensor, num_classes: int, batch_size: int, seed: int, epoch: int
) -> Iterator[Tensor]:
    """Yield positions (B,) with equally many images of every class, for pair losses.

    Small classes are gone through again, in a new order, when they run out. B is the batch size
    rounded down to a multiple of the number of classes. Where that leaves less than two images a
    class, a batch has FEW images of as many classes as fit, at least two, and the classes take
    turns.

    Args:
        labels: (N,) of the training images.
        num_classes: K.
        batch_size: As the spec has it.
        seed: Of the cell; with the epoch it decides the order.
        epoch: From 0.

    Raises:
        ValueError: A class has no images.
    """
    rng = new_generator("order", seed, epoch)
    members = [torch.nonzero(labels == label).flatten() for label in range(num_classes)]
    for label, own in enumerate(members):
        if not len(own):
            raise ValueError(f"class {label} has no training images: balanced batches need some.")
    steps = steps_per_epoch(len(labels), batch_size)
    if batch_size < 2 * num_classes:
        yield from _classes_in_turn(members, batch_size, steps, rng)
        return
    each = batch_size // num_classes
    columns = []
    for own in members:
        rounds = math.ceil(steps * each / len(own))
        shuffled = [own[torch.randperm(len(own), generator=rng)] for _ in range(rounds)]
        columns.append(torch.cat(shuffled)[: steps * each].view(steps, each))
    yield from torch.cat(columns, dim=1)


def _classes_in_turn(
    members: Sequence[Tensor], batch_size: int, steps: int, rng: torch.Generator
) -> Iterator[Tensor]:
    """Yield positions (B,): FEW images of each of B / FEW classes."""
    classes = range(len(members))
    together = _classes_together(len(members), batch_size)
    waiting: list[int] = []
    left: dict[int, list[int]] = {label: [] for label in classes}
    for _ in range(steps):
        while len(waiting) < together:  # the next round, without those that still wait
            order = torch.randperm(len(classes), generator=rng).tolist()
            waiting += [label for label in order if label not in waiting]
        batch, waiting = waiting[:together], waiting[together:]
        positions = []
        for label in batch:
            while len(left[label]) < FEW:
                own = members[label]
                left[label] += own[torch.randperm(len(own), generator=rng)].tolist()
            positions += left[label][:FEW]
            del left[label][:FEW]
        yield torch.tensor(positions)


def _classes_together(num_classes: int, batch_size: int) -> int:
    return min(num_classes, max(2, batch_size // FEW))


def batch_length(n: int, num_classes: int, batch_size: int, batching: str) -> int:
    """Return B, the images of each batch.

    Args:
        n: Training images.
        num_classes: K.
        batch_size: As the spec has it.
        batching: As `LossHead.batching`.
    """
    if batching != "balanced":
        return min(n, batch_size)
    if batch_size < 2 * num_classes:
        return FEW * _classes_together(num_classes, batch_size)
    return batch_size // num_classes * num_classes


def check_batch_length(head: LossHead, n: int, batch_size: int, processes: int) -> None:
    """Refuse a training in which a batch has no image for one of the processes.

    Args:
        head: The loss, for the way that it draws batches.
        n: Training images.
        batch_size: As the spec has it.
        processes: That share each batch.

    Raises:
        ValueError: The message says what makes the batches so short.
    """
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
