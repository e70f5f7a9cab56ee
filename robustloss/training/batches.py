"""Learning rate, order of the images and augmentation, as functions of plain values."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from robustloss.seeding import new_generator

SOME = 4  # images of a class in a batch that has no room for all classes: pairs, and to mine in


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Returns the number of full batches; the incomplete last one is left out of an epoch."""
    return max(1, n // batch_size)


def batch_length(n: int, num_classes: int, batch_size: int, batching: str) -> int:
    """Returns the images in each batch of n images, as `LossHead.batching` has them drawn."""
    if batching != "balanced":
        return min(n, batch_size)
    if batch_size < 2 * num_classes:
        return SOME * _classes_together(num_classes, batch_size)
    return batch_size // num_classes * num_classes


def _classes_together(num_classes: int, batch_size: int) -> int:
    return min(num_classes, max(2, batch_size // SOME))


def shuffled_batches(n: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yields positions (B,) of one epoch, every image at most once, in an order named by seed."""
    order = torch.randperm(n, generator=new_generator("order", seed, epoch))
    for step in range(steps_per_epoch(n, batch_size)):
        yield order[step * batch_size : (step + 1) * batch_size]


def balanced_batches(
    labels: Tensor, num_classes: int, batch_size: int, seed: int, epoch: int
) -> Iterator[Tensor]:
    """Yields positions (B,) with equally many images of every class, for pair losses.

    Small classes are gone through again, in a new order, when they run out. B is the batch size
    rounded down to a multiple of the number of classes. Where that leaves less than two images a
    class, a batch has SOME images of as many classes as fit, at least two, and the classes take
    turns.
    """
    rng = new_generator("order", seed, epoch)
    if batch_size < 2 * num_classes:
        yield from _classes_in_turn(labels, num_classes, batch_size, rng)
        return
    each = batch_size // num_classes
    steps = steps_per_epoch(len(labels), batch_size)
    columns = []
    for label in range(num_classes):
        members = torch.nonzero(labels == label).flatten()
        if not len(members):
            raise ValueError(f"class {label} has no training images: balanced batches need some.")
        rounds = math.ceil(steps * each / len(members))
        shuffled = [members[torch.randperm(len(members), generator=rng)] for _ in range(rounds)]
        columns.append(torch.cat(shuffled)[: steps * each].view(steps, each))
    yield from torch.cat(columns, dim=1)


def _classes_in_turn(
    labels: Tensor, num_classes: int, batch_size: int, rng: torch.Generator
) -> Iterator[Tensor]:
    """Yields positions (B,): SOME images of each of B / SOME classes."""
    members = [torch.nonzero(labels == label).flatten() for label in range(num_classes)]
    if empty := [label for label, found in enumerate(members) if not len(found)]:
        raise ValueError(f"class {empty[0]} has no training images: balanced batches need some.")
    together = _classes_together(num_classes, batch_size)
    steps = steps_per_epoch(len(labels), batch_size)
    waiting: list[int] = []
    left: dict[int, list[int]] = {label: [] for label in range(num_classes)}
    for _ in range(steps):
        while len(waiting) < together:  # the next round, without those that still wait
            order = torch.randperm(num_classes, generator=rng).tolist()
            waiting += [label for label in order if label not in waiting]
        chosen, waiting = waiting[:together], waiting[together:]
        positions = []
        for label in chosen:
            while len(left[label]) < SOME:
                own = members[label]
                left[label] += own[torch.randperm(len(own), generator=rng)].tolist()
            positions += left[label][:SOME]
            del left[label][:SOME]
        yield torch.tensor(positions)
