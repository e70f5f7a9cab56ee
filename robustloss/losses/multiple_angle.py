"""Margin losses that multiply the angle: L-Softmax, A-Softmax (SphereFace), F-norm SphereFace.

    logits_k = r_k cos(theta_k), as in `cosine`; in training
    (lambda cos(theta_y) + psi(theta_y)) / (1 + lambda) stands for cos(theta_y)

psi is cos(m theta), continued so that it falls on all of [0, pi]. The losses differ in r:

    L-Softmax          r_k = ‖w_k‖ ‖f‖
    A-Softmax          r = ‖f‖
    F-norm SphereFace  r = s
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from robustloss.losses.angles import norms, psi
from robustloss.losses.arguments import check_number, check_whole_number
from robustloss.losses.base import LossHead
from robustloss.losses.cosine import SMALLEST_SCALE, CosineHead
from robustloss.losses.feasibility import warn_of_scale
from robustloss.losses.schedules import Annealing


class MultipleAngleHead(CosineHead):
    """The true class counts as r_y (lambda cos(theta_y) + psi(theta_y)) / (1 + lambda) in training.

    lambda is annealed, because the full margin does not train from the start.

    Args:
        feature_dim: D.
        num_classes: K.
        margin: m, what the angle is multiplied by, a whole number of at least 1.
        annealing: lambda.
    """

    title: ClassVar[str]
    """What the loss is called in the notes of tables."""

    def __init__(
        self, feature_dim: int, num_classes: int, *, margin: int, annealing: Annealing
    ) -> None:
        super().__init__(feature_dim, num_classes)
        self.margin = check_whole_number("margin", margin, at_least=1)
        self.annealing = annealing

    def target_cosine(self, cosine: Tensor, progress: float) -> Tensor:
        """Return (lambda cos(theta_y) + psi(theta_y)) / (1 + lambda)."""
        share = 1.0 / (1.0 + self.annealing.at(progress))
        return (1.0 - share) * cosine + share * psi(cosine, self.margin)

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return lambda of the annealing."""
        return (self.annealing.at(progress),)

    def note(self) -> str:
        """Return where lambda starts and ends in one sentence; "" without a margin."""
        if self.margin == 1:
            return ""
        first, last = (f"{float(f'{self.annealing.at(at):.3g}'):g}" for at in (0.0, 1.0))
        values = f"lambda {last} throughout" if first == last else f"lambda from {first} to {last}"
        return f"{self.title} m {self.margin}: {values}"


class LSoftmaxHead(MultipleAngleHead):
    """L-Softmax: large-margin softmax, logits_k = ‖w_k‖ ‖f‖ cos(theta_k) = w_k·f, no bias.

    In training psi(theta_y) = (−1)^k cos(m theta) − 2k stands for cos(theta_y), with theta in
    [k pi/m, (k+1) pi/m]. The margin is annealed: training uses (lambda cos + psi) / (1 + lambda),
    and lambda = max(anneal_min, anneal_base · (1 + anneal_gamma · it)^−anneal_power) falls with the
    iteration it. The weights keep their norm, and with it the training's weight decay.

    Args:
        feature_dim: D.
        num_classes: K.
        margin: m, a whole number of at least 1 (softmax without bias); 2 to 4 in the paper.
        anneal_base: lambda at the start. All of anneal_ are those of the authors' MNIST example
            for m = 4, where lambda is 421 after 1,000 of 20,000 iterations, .41 after 10,000, .0007
            at the end. CIFAR-10, m = 2: gamma 2e-5, power 45; with augmentation gamma 1e-5.
        anneal_gamma: see lambda above.
        anneal_power: see lambda above.
        anneal_min: lambda never falls below; the authors name .5 to 10 where training diverges.
        anneal_steps: iterations of the published run, all of which a training goes through.

    Raises:
        ValueError: if an argument is out of range.

    Source: Liu et al., Large-Margin Softmax Loss for Convolutional Neural Networks, ICML 2016,
        equations 4 to 7; wy1iu/LargeMargin_Softmax_Loss, examples/mnist.
    """

    title = "L-Softmax"

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        margin: int = 4,
        anneal_base: float = 1000.0,
        anneal_gamma: float = 2.5e-5,
        anneal_power: float = 35.0,
        anneal_min: float = 0.0,
        anneal_steps: float = 20_000,
    ) -> None:
        annealing = Annealing(anneal_base, anneal_gamma, anneal_power, anneal_min, anneal_steps)
        super().__init__(feature_dim, num_classes, margin=margin, annealing=annealing)

    def radius(self, features: Tensor) -> Tensor:
        """Return ‖w_k‖ ‖f‖, (B,K)."""
        return norms(features) * norms(self.weight).T

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return one group, with the training's weight decay."""
        return LossHead.parameter_groups(self, lr)


class ASoftmaxHead(MultipleAngleHead):
    """A-Softmax, SphereFace: logits_k = ‖f‖ cos(theta_k), weights normalised, no bias.

    The margin is annealed as in L-Softmax. In the published settings lambda never falls below 5, so
    even at the end the margin counts only a sixth, and every table says so. The authors normalise
    the weights in place after each step; here the normalisation is in the graph.

    Args:
        feature_dim: D.
        num_classes: K.
        margin: m, a whole number of at least 1 (modified softmax); 4 in the paper.
        anneal_base: lambda at the start; anneal_* as published, max(5, 1000 / (1 + .12 it)).
        anneal_gamma: see lambda in L-Softmax.
        anneal_power: see lambda in L-Softmax.
        anneal_min: lambda never falls below.
        anneal_steps: iterations of the published run, all of which a training goes through.

    Raises:
        ValueError: if an argument is out of range.

    Source: Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017,
        equations 5 to 7; wy1iu/sphereface, sphereface_model.prototxt.
    """

    title = "A-Softmax"

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        margin: int = 4,
        anneal_base: float = 1000.0,
        anneal_gamma: float = 0.12,
        anneal_power: float = 1.0,
        anneal_min: float = 5.0,
        anneal_steps: float = 30_000,
    ) -> None:
        annealing = Annealing(anneal_base, anneal_gamma, anneal_power, anneal_min, anneal_steps)
        super().__init__(feature_dim, num_classes, margin=margin, annealing=annealing)

    def radius(self, features: Tensor) -> Tensor:
        """Return ‖f‖, (B,1)."""
        return norms(features)


class FNormSphereFaceHead(MultipleAngleHead):
    """F-norm SphereFace: A-Softmax with the features normalised too, logits_k = s cos(theta_k).

    Args:
        feature_dim: D.
        num_classes: K.
        scale: s; 30 as in AM-Softmax. No value is published with this form.
        margin: as in A-Softmax, like all that follow.
        anneal_base: see A-Softmax.
        anneal_gamma: see A-Softmax.
        anneal_power: see A-Softmax.
        anneal_min: see A-Softmax.
        anneal_steps: see A-Softmax.

    Raises:
        ValueError: if an argument is out of range.

    Warns:
        LossWarning: if the scale is too small for K.

    Source: Liu et al. 2017 as above; the form that the decision-boundary tables of the
        additive-margin papers compare with, s (cos(m theta_1) − cos(theta_2)) = 0.
    """

    title = "F-norm SphereFace"

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        scale: float = 30.0,
        margin: int = 4,
        anneal_base: float = 1000.0,
        anneal_gamma: float = 0.12,
        anneal_power: float = 1.0,
        anneal_min: float = 5.0,
        anneal_steps: float = 30_000,
    ) -> None:
        annealing = Annealing(anneal_base, anneal_gamma, anneal_power, anneal_min, anneal_steps)
        super().__init__(feature_dim, num_classes, margin=margin, annealing=annealing)
        self.scale = check_number("scale", scale, at_least=SMALLEST_SCALE)
        warn_of_scale("fnorm_sphereface", self.scale, num_classes)

    def radius(self, features: Tensor) -> float:
        """Return s."""
        return self.scale

    def boundary_terms(self) -> dict[str, Tensor]:
        """Return the scale."""
        return {"scale": torch.tensor(self.scale, dtype=torch.float64)}
