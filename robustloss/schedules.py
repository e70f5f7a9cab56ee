"""Learning rate, order of the images and augmentation, as functions of plain values."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from robustloss.images import center
from robustloss.seeding import generator
from robustloss.spec import TrainSpec

PAD = 4  # pixels, the usual border for random crops
SHIFT = 2  # pixels
SOME = 4  # images of a class in a batch that has no room for all classes: pairs, and to mine in


def rate_factor(spec: TrainSpec, step: int, steps: int) -> float:
    """Returns the factor on the base learning rate at a step, in [0, 1].

    ``warmup`` is the linearly rising part (of one_cycle: the rise from 1/25 to 1).
    """
    rising = spec.warmup * steps
    if step < rising:
        start = 1 / 25 if spec.schedule == "one_cycle" else 0.0
        return start + (1 - start) * (step + 1) / (rising + 1)
    if spec.schedule == "constant":
        return 1.0
    if spec.schedule == "step":
        every = spec.step_every
        drops = step // every if isinstance(every, int) else sum(step >= at for at in every)
        return spec.step_factor**drops
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))


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
    order = torch.randperm(n, generator=generator("order", seed, epoch))
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
    rng = generator("order", seed, epoch)
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


def augment(
    images: Tensor,
    kind: str,
    *names: str | int,
    size: tuple[int, int] | None = None,
    of: tuple[int, int] | None = None,
) -> Tensor:
    """Returns randomly moved copies of images (B,C,H,W), padded with zeros.

    Args:
        images: (B,C,H,W), any dtype, on any device.
        kind: "none", "shift" (up to 2 pixels), "crop" (pad 4, crop), "crop_flip" or
            "crop_flip_cutout" (then a square of half the image's side, its center anywhere in the
            image, is set to zero). From images larger than the size, crops are cut at a random
            place without a border.
        names: Name of the random stream; it alone decides the moves.
        size: (H,W) to cut out; the center where the kind is no crop. None: that of the images.
        of: Position of the first of these images in a batch, and the images in that batch, which
            are moved as they would be with the whole of it. None: these are all.

    Source: of the square, DeVries and Taylor, "Improved regularization of convolutional neural
        networks with cutout" (arXiv 1708.04552, 2017), with their size for CIFAR-10; they fill it
        after the colours were centred.
    """
    larger = size is not None and size != tuple(images.shape[2:])
    if larger and kind in ("none", "shift"):
        images, larger = center(images, size), False
    if kind == "none":
        return images
    rng = generator("augment", *names)
    reach = 0 if larger else SHIFT if kind == "shift" else PAD
    count, _, height, width = images.shape
    first, total = of or (0, count)
    own = slice(first, first + count)
    padded = torch.nn.functional.pad(images, (reach,) * 4)
    if larger:
        assert size is not None
        free = torch.tensor([height - size[0] + 1, width - size[1] + 1])
        moves = (torch.rand(total, 2, generator=rng, dtype=torch.float64) * free).long()
        moves = moves[own].to(images.device)
        height, width = size
    else:
        moves = torch.randint(0, 2 * reach + 1, (total, 2), generator=rng)[own].to(images.device)
    rows = moves[:, :1] + torch.arange(height, device=images.device)
    columns = moves[:, 1:] + torch.arange(width, device=images.device)
    if kind in ("crop_flip", "crop_flip_cutout"):
        flips = torch.rand(total, generator=rng)[own].to(images.device) < 0.5
        columns = torch.where(flips[:, None], columns.flip(1), columns)
    each = torch.arange(count, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    if kind == "crop_flip_cutout":
        places = torch.rand(total, 2, generator=rng)[own].to(images.device)
        moved = moved * ~_squares(places, height, width)[..., None]
    return moved.permute(0, 3, 1, 2)


def _squares(places: Tensor, height: int, width: int) -> Tensor:
    """Returns (B,H,W) bool, squares around places (B,2) in [0,1), cut off at the border."""
    side = min(height, width) // 2
    starts = (places * torch.tensor([height, width], device=places.device)).long() - side // 2
    inside = []
    for start, length in zip(starts.unbind(1), (height, width), strict=True):
        at = torch.arange(length, device=places.device) - start[:, None]
        inside.append((at >= 0) & (at < side))
    return inside[0][:, :, None] & inside[1][:, None, :]
