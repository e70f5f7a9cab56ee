"""An attack of your own: a function that changes images so that a model errs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


# Parameters of the attack stand after eps, each with a default. Without norm = "l2" or "l1" among
# them, eps is the largest change of a pixel.
def my_attack(
    model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, steps: int = 10
) -> Tensor:
    """Return images within eps of the inputs: steps along the sign of the gradient.

    Args:
        model: Maps images to logits (B,K); normalisation is inside it.
        inputs: (B,C,H,W) images in [0, 1].
        labels: (B,) true classes.
        eps: Budget in pixel units.
        steps: How many gradients to take.
    """
    # Random numbers of torch may be drawn: they are seeded for each batch.
    images = inputs.clone()
    for _ in range(steps):
        images.requires_grad_(True)
        # A sum, not a mean: what happens to one image must not depend on the size of the batch.
        cost = F.cross_entropy(model(images), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(cost, images)
        images = images.detach() + 2 * eps / steps * gradient.sign()
        images = (inputs + (images - inputs).clamp(-eps, eps)).clamp(0, 1)
    return images
