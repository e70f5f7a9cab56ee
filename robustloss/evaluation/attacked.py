"""Attack a model at each eps, keep one Record each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustloss.attacks import Perturbed, Queries, iter_perturb
from robustloss.attacks.ball import to_8bit
from robustloss.attacks.base import Attack, Norm
from robustloss.attacks.cuda_graphs import keeping_graphs
from robustloss.data.images import ImageSet
from robustloss.evaluation.detector import LikelihoodView
from robustloss.evaluation.passes import LAYOUT, Columns, Report, add_outputs
from robustloss.models.classifier import AnyClassifier
from robustloss.results.records import Record

TRANSFER_VERSION = 1  # raise when the same weights and attack would give other transfers

Spend = Callable[[Queries, float], None]  # passes of an attack, its seconds


def _rounded_predictions(
    model: AnyClassifier, images: Tensor, clean: Tensor, eps: float, norm: Norm
) -> Tensor:
    """Returns (B,) the classes of attacked images as a file of 8 bits would hold them."""
    return _classes(model, to_8bit(images, clean, eps, norm))


@keeping_graphs()
def attacked_records(
    model: AnyClassifier,
    images: ImageSet,
    attack: Attack,
    *,
    eps: Sequence[float],
    seed: int,
    batch_size: int,
    clean: Record | None = None,
    threshold: float | None = None,
    class_means: NDArray | None = None,
    eight_bit: bool = False,
    spend: Spend = lambda queries, seconds: None,
    report: Report = lambda done, total, text: None,
) -> dict[float, Record]:
    """Attacks every image at every budget and passes the results through the model.

    Args:
        model: In eval mode, on the device of the images.
        images: The images to attack.
        attack: See attacks.ATTACKS.
        eps: E budgets, in pixel units (linf) or Euclidean length (l2).
        seed: Decides the attack's randomness, together with each image's index.
        batch_size: Images a batch.
        clean: The Record of the unattacked images, for budget 0: they are not passed once more.
        threshold: The detector's threshold, for attacks that need the likelihood.
        class_means: See `class_means`, for such attacks too.
        eight_bit: Also classify the attacked images rounded to multiples of 1/255.
        spend: Called with the queries and the seconds of every batch.
        report: Called with (images done, images, text).

    Returns:
        A Record for each budget.
    """
    target: nn.Module = model
    if attack.needs == "likelihood":
        if threshold is None:
            raise ValueError(f"{attack.name} needs a detector threshold.")
        target = LikelihoodView(model, threshold, class_means)
    if clean is None and 0 in eps:
        raise ValueError("eps 0 needs the clean record.")
    columns = {budget: Columns() for budget in eps}
    for start, inputs, perturbed in _batches(target, images, attack, eps, seed, batch_size):
        for number, budget in enumerate(eps):
            columns[budget].add(
                zero_gradient=perturbed.zero_gradient,
                radius=perturbed.radius,
                outside=perturbed.outside,
            )
            if budget > 0:
                attacked = perturbed.adv_inputs[number]
                add_outputs(columns[budget], model, attacked, inputs)
                if eight_bit:
                    rounded = _rounded_predictions(model, attacked, inputs, budget, attack.norm)
                    columns[budget].add(predictions_8bit=rounded)
        spend(perturbed.queries, perturbed.seconds)
        done = start + len(inputs)
        report(done, images.n, _progress(columns, images, done))
    records = {}
    for budget in list(columns):
        part = columns.pop(budget)  # and its batches: only one budget is held twice
        unchanged = clean if budget == 0 else None
        records[budget] = replace(unchanged, **part.joined()) if unchanged else part.record(images)
    return records


@torch.no_grad()
def _classes(model: AnyClassifier, images: Tensor) -> Tensor:
    return model(images.contiguous(memory_format=LAYOUT)).argmax(1)


@keeping_graphs()
def transferred_predictions(
    source: nn.Module,
    targets: Sequence[AnyClassifier],
    images: ImageSet,
    attack: Attack,
    *,
    eps: Sequence[float],
    seed: int,
    batch_size: int,
) -> list[NDArray]:
    """Attacks one model and shows the images to others.

    Args:
        source: The attacked model, as `detector_view` gives it.
        targets: T models that have not been asked by the attack.
        images: N images on the models' device.
        attack: See attacks.ATTACKS.
        eps: E budgets, above 0.
        seed: Decides the attack's randomness, together with each image's index.
        batch_size: Images a batch.

    Returns:
        For each budget the predicted classes, (T,N) int64.
    """
    parts: dict[float, list[Tensor]] = {budget: [] for budget in eps}
    for _, _, perturbed in _batches(source, images, attack, eps, seed, batch_size):
        for budget, attacked in zip(eps, perturbed.adv_inputs, strict=True):
            parts[budget].append(torch.stack([_classes(model, attacked) for model in targets]))
    return [torch.cat(part, dim=1).cpu().numpy() for part in parts.values()]


def _progress(columns: dict[float, Columns], images: ImageSet, done: int) -> str:
    """Returns the error at the largest budget so far, for a progress bar."""
    budget = max(columns)
    if budget == 0:
        return "eps 0"
    logits = np.concatenate(columns[budget].parts["logits"])
    error = (logits.argmax(1) != images.labels[:done].cpu().numpy()).mean()
    return f"eps {budget:.4g} error {100 * error:.1f} %"


def _batches(
    target: nn.Module,
    images: ImageSet,
    attack: Attack,
    eps: Sequence[float],
    seed: int,
    batch_size: int,
) -> Iterator[tuple[int, Tensor, Perturbed]]:
    """Yields (start, clean images (B,C,H,W), Perturbed) batch by batch, so memory stays flat."""
    for start in range(0, images.n, batch_size):
        piece = slice(start, start + batch_size)
        clean = images.batch(piece).contiguous(memory_format=LAYOUT)
        for perturbed in iter_perturb(
            attack,
            target,
            clean,
            images.labels[piece],
            eps=eps,
            seed=seed,
            batch_size=batch_size,
            index=images.index[piece],
        ):
            yield start, clean, perturbed
