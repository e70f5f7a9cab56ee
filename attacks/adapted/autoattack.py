"""The reference AutoAttack, by the package pyautoattack."""

import importlib.util
import sys
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from robustloss.attacks.adapted.model import AdaptedModel
from robustloss.attacks.arguments import check_choice, check_norm
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.noise import ImageNoise


class Version(NamedTuple):
    """What a version runs, as its authors fixed it, and its passes per image and eps.

    The passes are those of an image that nothing fools, with ten classes.
    """

    settings: str
    passes: Queries


VERSIONS = {
    "standard": Version(
        "apgd-ce, apgd-t, fab-t: 100 steps, 9 targets; square: 5000 queries", Queries(7865, 1910)
    ),
    "plus": Version(
        "apgd-ce, apgd-dlr, fab: 100 steps, 5 restarts; apgd-t, fab-t: 100 steps, 9 targets; "
        "square: 5000 queries",
        Queries(9788, 7819),
    ),
    "rand": Version("apgd-ce, apgd-dlr: 100 steps of 20 averaged gradients", Queries(4048, 4040)),
}
_TARGETS = 9


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """AutoAttack as its authors released it, all of it; needs the extra "autoattack".

    An image is given up by the first attack that fools it, so the images are not the worst that
    each attack finds. With fewer than ten classes the targeted attacks try every other class.
    Its own doubts (random outputs, zero gradients, ...) go to the logger "auto-attack". Batch size
    decides the result.

    Args:
        norm: "linf" or "l2".
        version: "standard"; "plus", longer; "rand", for random models.

    Raises:
        ValueError: an argument is refused, or pyautoattack is not installed.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
        diverse parameter-free attacks" (ICML 2020).
    """

    norm: Norm = "linf"
    version: str = "standard"

    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        check_norm(self.norm, ("linf", "l2"))
        check_choice("version", self.version, VERSIONS)
        if importlib.util.find_spec("pyautoattack") is None:
            raise ValueError(
                "it needs the package pyautoattack: pip install 'robustloss[autoattack]'."
            )

    @property
    def name(self) -> str:
        """The name with the settings: other ensembles go by the same name."""
        return f"autoattack {self.version} ({VERSIONS[self.version].settings})"

    @property
    def least_classes(self) -> int:
        """What its difference-of-logits ratio needs."""
        return 3 if self.version == "rand" else 4

    def passes(self, budgets: int) -> Queries:
        """Return the passes as counted on a model that nothing fools."""
        forward, backward = VERSIONS[self.version].passes
        return Queries(forward * budgets, backward * budgets)

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Run the ensemble for every eps; see Attack.

        Raises:
            ValueError: fewer classes than the difference-of-logits ratio needs.
        """
        from pyautoattack import AutoAttack as Reference

        view = AdaptedModel(model, inputs.device)
        images = inputs.contiguous()
        with torch.no_grad():
            classes = view(images[:1]).shape[1]
        if classes < self.least_classes:
            raise ValueError(
                f"autoattack {self.version} needs at least {self.least_classes} classes, the model "
                f"has {classes}; use 'pgd' with objective 'margin', 'fab' and 'square'."
            )
        adv_inputs = []
        for budget in eps:
            if budget == 0:
                adv_inputs.append(images)
                continue
            reference = Reference(
                view,
                norm="Linf" if self.norm == "linf" else "L2",
                eps=budget,
                version=self.version,
                seed=noise.batch_seed(),
                device=images.device,
            )
            targets = min(_TARGETS, classes - 1)
            reference.apgd_targeted.n_target_classes = reference.fab.n_target_classes = targets
            trace = sys.gettrace()
            try:
                attacked, _ = reference.run_standard_evaluation(
                    images, labels, batch_size=len(images)
                )
            finally:
                sys.settrace(trace)  # the reference ends a debugger's or a coverage tool's
            adv_inputs.append(attacked)
        return AttackOutput(torch.stack(adv_inputs))
