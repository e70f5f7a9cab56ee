"""What a gradient attack climbs: one value per image, higher is worse for the classifier."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.base import AttackError

Objective = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) −log p(y), nats.

    In float32 its gradient is exactly 0 once the true logit leads by more than about 104, and its
    true-class part from about 17: an attack then stands still and the model looks robust.
    """
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) max over j≠y of z_j − z_y: positive means fooled, and it never saturates."""
    true = labels.unsqueeze(1)
    others = logits.scatter(1, true, float("-inf"))
    return others.amax(dim=1) - logits.gather(1, true).squeeze(1)


OBJECTIVES: dict[str, Objective] = {"ce": cross_entropy, "margin": margin}


def input_gradient(
    model: nn.Module, inputs: Tensor, labels: Tensor, objective: Objective
) -> Tensor:
    """Return (B,C,H,W), each image's gradient of its own objective, in one backward pass.

    The objective is summed: a mean would divide by the batch size, and small gradients would
    underflow in large batches.

    Raises:
        AttackError: the logits do not depend on the images as far as autograd can see, or the
            gradient is NaN (sign(NaN) is 0 in torch: the image would stand still and look robust).
    """
    point = inputs.detach().requires_grad_()
    total = objective(model(point), labels).sum()
    if not total.requires_grad:
        raise AttackError(
            "the model's logits carry no gradient towards the images (a detach, no_grad or numpy "
            "inside the model?); use an attack that needs no gradient."
        )
    (gradient,) = torch.autograd.grad(total, point, materialize_grads=True)
    broken = int(gradient.isnan().flatten(1).any(dim=1).sum())
    if broken:
        raise AttackError(
            f"the gradient is NaN for {broken} of {len(inputs)} images; look for NaN in the "
            "model's weights, or for a square root, logarithm or division at 0."
        )
    return gradient
