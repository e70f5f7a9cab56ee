"""Feature matching: be what another class usually is, and fool classifier and detector at once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustloss.attacks.adaptive.base import Adaptive, Rule, View
from robustloss.attacks.arguments import check_integer
from robustloss.attacks.base import AttackError, Queries
from robustloss.attacks.objectives import wrong_classes


@dataclass(frozen=True, kw_only=True)
class AdaptiveMatching(Adaptive):
    """Least ‖f(x) − mean_t‖² over the ball, for several wrong classes t; the best is kept.

    f are the model's `features(images) -> (B,D)`, mean_t row t of its `class_means` (K,D). No logit
    and no likelihood is differentiated: neither can mask the gradient.

    Args:
        targets: classes aimed at, each on paths of its own, those first whose mean is nearest to
            the features of the image; at least 1.
        order: "mean" is the only one: the nearest class means first.

    Raises:
        ValueError: an argument is out of range.

    Source: Sabour et al., "Adversarial manipulation of deep representations" (ICLR 2016), with a
        class's mean for their guide image.
    """

    targets: int = 3
    order: str = "mean"

    name: ClassVar[str] = "adaptive_matching"
    passes_each: ClassVar[Queries] = Queries(2, 1)
    orders: ClassVar[tuple[str, ...]] = ("mean",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("targets", self.targets, least=1)

    def list_rules(self) -> Sequence[Rule]:
        """Return the one rule."""
        return [matching_direction]

    def choose_aims(self, clean: View) -> Iterable[Tensor | None]:
        """Return the classes of the nearest means, the nearest first.

        Raises:
            AttackError: the model has no features or class means, or means that are not (K,D) or
                not finite.
        """
        model = clean.model
        known = getattr(model, "class_means", None) is not None
        if not known or not callable(getattr(model, "features", None)):
            raise AttackError(
                "the model must have features(images) and class_means (K,D): attack "
                f"'{self.name}' aims at the mean features of a class."
            )
        with torch.no_grad():
            features, means = _read_features_and_means(model, clean.point)
        expected = (clean.logits.shape[1], features.shape[1])
        if means.shape != expected:
            raise AttackError(
                f"class_means (shape {tuple(means.shape)}) must have shape (K, D) = {expected}."
            )
        unknown = (~means.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if unknown:
            raise AttackError(
                f"class_means (classes {', '.join(map(str, unknown))}) must be finite: take them "
                "over images of every class."
            )
        # Not by the difference of all pairs: (B,K,D) does not fit for many classes.
        far = torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist")
        return wrong_classes(-far, clean.labels, self.targets).unbind(dim=1)


def matching_direction(view: View) -> Tensor:
    """Return the direction down the gradient of ‖f(x) − mean_aim‖²."""
    features, means = _read_features_and_means(view.model, view.point)
    return view.gradient(-(features - means[view.aim]).square().sum(dim=1))


def _read_features_and_means(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    call: Callable[[Tensor], Tensor] = model.features  # type: ignore[assignment]
    features = call(images)
    return features, torch.as_tensor(model.class_means).to(features)
