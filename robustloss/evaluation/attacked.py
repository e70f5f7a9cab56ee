"""Attacked images, batch by batch: what the attacked model says of them, and what others say."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustloss.attacks import Perturbed, Queries, iter_perturb
from robustloss.attacks.ball import to_8bit
from robustloss.attacks.base import Attack
from robustloss.attacks.cuda_graphs import keeping_graphs
from robustloss.attacks.draws import MeanOfDraws, images_at_once
from robustloss.attacks.sealing import OnPass
from robustloss.attacks.witness import watching
from robustloss.data.images import ImageSet
from robustloss.evaluation.detector import LikelihoodView
from robustloss.evaluation.passes import LAYOUT, Columns, Report, add_outputs, to_numpy
from robustloss.models.classifier import AnyClassifier
from robustloss.notation import eps_text
from robustloss.results.records import Record

TRANSFER_VERSION = 1  # raise when the same weights and attack would give other transfers

Spend = Callable[[Queries, float], None]  # passes of an attack, its seconds
Keep = Callable[[float, Tensor], None]  # budget, attacked images (B,C,H,W)


@dataclass(frozen=True, eq=False)
class AttackPass:
    """One attack on one set of images at some budgets, whatever model it meets.

    Attributes:
        attack: See attacks.ATTACKS.
        images: N images, on the model's device.
        eps: E budgets, in pixel units of the attack's norm.
        seed: Decides the attack's randomness, together with each image's index.
        batch_size: Images a batch; with `eot`, every call for an image counts as one.
    """

    attack: Attack
    images: ImageSet
    eps: Sequence[float]
    seed: int = 0
    batch_size: int = 500

    def run(
        self, target: nn.Module, on_pass: OnPass | None = None
    ) -> Iterator[tuple[Tensor, Perturbed]]:
        """Yield clean images (B,C,H,W) and their Perturbed, batch by batch: memory stays flat.

        Args:
            target: What the attack sees, in eval mode.
            on_pass: As for `iter_perturb`.
        """
        at_once = images_at_once(self.attack, self.batch_size)
        for start in range(0, self.images.n, at_once):
            piece = slice(start, start + at_once)
            clean = self.images.batch(piece).contiguous(memory_format=LAYOUT)
            labels, index = self.images.labels[piece], self.images.index[piece]
            for perturbed in iter_perturb(
                self.attack,
                target,
                clean,
                labels,
                eps=self.eps,
                seed=self.seed,
                batch_size=at_once,
                index=index,
                on_pass=on_pass,
            ):
                yield clean, perturbed


@keeping_graphs()
def attacked_records(
    model: AnyClassifier,
    attack_pass: AttackPass,
    *,
    clean: Record | None = None,
    detector: LikelihoodView | None = None,
    eight_bit: bool = False,
    spend: Spend = lambda queries, seconds: None,
    keep: Keep = lambda eps, images: None,
    report: Report = lambda done, total, text: None,
) -> dict[float, Record]:
    """Attack every image at every budget and pass the results through the model.

    Args:
        model: In eval mode, on the device of the images. Of a `MeanOfDraws` the attack gets the
            model inside: how many calls it averages is its own affair.
        attack_pass: The attack, the images and the budgets.
        clean: The Record of the unattacked images, for budget 0: they are not passed once more.
        detector: The model with its detector, for attacks that need the likelihood or a score.
        eight_bit: Also classify the attacked images rounded to multiples of 1/255.
        spend: Called with the queries and the seconds of every batch.
        keep: Called with each budget above 0 and the attacked images of every batch, in order.
        report: Called with (images done, images, text); within a batch the text is "".

    Returns:
        A Record for each budget.

    Raises:
        ValueError: The attack needs a detector, or budget 0 the clean record, and there is none.
        AttackError: Somebody else's attack changed the model, or broke its contract.
    """
    attack, images, eps = attack_pass.attack, attack_pass.images, attack_pass.eps
    target: nn.Module = model.model if isinstance(model, MeanOfDraws) else model
    if attack.needs != "logits":
        if detector is None:
            raise ValueError(
                f"{attack.name} needs a detector. Pass detector_view(...) of the model."
            )
        target = detector
    if clean is None and 0 in eps:
        raise ValueError("eps 0 needs the clean record.")
    columns = {budget: Columns(images.n) for budget in eps}
    done = 0
    passes = getattr(attack, "passes", None)
    most = passes(sum(budget > 0 for budget in eps)).forward if passes else 0

    def tell(sent: int) -> None:
        # Below the end, which only a whole batch reaches, whatever an attack says of its passes.
        report(min(done + sent / most, images.n - 0.5), images.n, "")

    with watching():
        for inputs, perturbed in attack_pass.run(target, tell if most else None):
            for budget, adv_inputs in zip(eps, perturbed.adv_inputs, strict=True):
                columns[budget].add(
                    zero_gradient=perturbed.zero_gradient,
                    radius=perturbed.radius,
                    outside=perturbed.outside,
                )
                # At budget 0 the images are unchanged: `clean` holds what the model says of them.
                if budget > 0:
                    keep(budget, adv_inputs)
                    add_outputs(columns[budget], model, adv_inputs, inputs, norm=attack.norm)
                    if eight_bit:
                        rounded = to_8bit(adv_inputs, inputs, budget, attack.norm)
                        columns[budget].add(predictions_8bit=_classify(model, rounded))
            spend(perturbed.queries, perturbed.seconds)
            done += len(inputs)
            report(done, images.n, _describe_progress(columns, images, done))
    return {
        budget: replace(clean, **part.finish())
        if clean is not None and budget == 0
        else part.make_record(images)
        for budget, part in columns.items()
    }


@keeping_graphs()
def transferred_predictions(
    source: nn.Module, targets: Sequence[AnyClassifier], attack_pass: AttackPass
) -> list[NDArray]:
    """Attack one model and show the images to others.

    Args:
        source: The attacked model, as `detector_view` gives it.
        targets: T models that the attack does not ask.
        attack_pass: The attack, N images and the budgets, above 0.

    Returns:
        For each budget the predicted classes, (T,N) int64.
    """
    parts: list[list[Tensor]] = [[] for _ in attack_pass.eps]
    with watching():
        for _, perturbed in attack_pass.run(source):
            for part, adv_inputs in zip(parts, perturbed.adv_inputs, strict=True):
                part.append(torch.stack([_classify(model, adv_inputs) for model in targets]))
    return [to_numpy(torch.cat(part, dim=1)) for part in parts]


@torch.no_grad()
def _classify(model: AnyClassifier, images: Tensor) -> Tensor:
    return model(images.contiguous(memory_format=LAYOUT)).argmax(1)


def _describe_progress(columns: dict[float, Columns], images: ImageSet, done: int) -> str:
    """Return the error at the largest budget so far, for a progress bar."""
    budget = max(columns)
    if budget == 0:
        return "eps 0"
    logits = columns[budget].arrays["logits"][:done]
    error = (logits.argmax(1) != to_numpy(images.labels[:done])).mean()
    return f"eps {eps_text(budget)} error {100 * error:.1f} %"
