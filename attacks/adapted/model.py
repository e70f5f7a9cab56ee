"""The model as other libraries' attacks see it: what they assume of a model, made true."""

import torch
from torch import Tensor, nn

from robustloss.attacks.ball import vanishes
from robustloss.attacks.objectives import check_connected, refuse_nan


class AdaptedModel(nn.Module):
    """A model in eval mode with a device, contiguous gradients, and no NaN that goes unnoticed.

    Other libraries look for the device in the first parameter, which a model need not have; call
    `view` on gradients, which fails on those of a channels-last model; and step along sign(NaN),
    which is 0: the image stands still and looks robust. Passes go through the model as it is given,
    so a model that counts its queries goes on counting.

    Args:
        model: maps (B,C,H,W) to logits (B,K).
        device: where it lives.
        positive_logits: give z − min z + 1 in place of z. Attacks that mask a logit by multiplying
            with 0 take that 0 for the largest where all logits are negative, and may take it where
            the others tie at 0. The shift is no part of the graph: gradients stay the same bits.
        grey: images come with three channels; the model is given the first.

    Attributes:
        zero_gradient: (B,) bool, the first gradient that came back was exactly 0; None before that.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        positive_logits: bool = False,
        grey: bool = False,
    ) -> None:
        super().__init__()
        # Registered first, so that it is the first that parameters() yields.
        self.place = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
        self.model = model
        self.positive_logits = positive_logits
        self.grey = grey
        self.zero_gradient: Tensor | None = None
        # A wrapper found in train mode would be put back into it, with the model inside.
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B,K) of images (B,C,H,W).

        Raises:
            AttackError: no gradient where one is about to be asked for; NaN in the logits, or
                later in the gradient, of images without NaN.
        """
        sound = bool(images.isfinite().all())
        sloped = images.requires_grad and torch.is_grad_enabled()

        def watch(gradient: Tensor) -> Tensor:
            if sound:
                refuse_nan("gradient", gradient)
            if self.zero_gradient is None:
                self.zero_gradient = vanishes(gradient)
            return gradient.contiguous()

        if sloped:
            images = images.view_as(images)
            images.register_hook(watch)
        logits = self.model(images[:, :1] if self.grey else images)
        if sloped:
            check_connected(logits)
        if sound:
            refuse_nan("logits", logits)
        if self.positive_logits:
            return logits - logits.detach().amin(dim=1, keepdim=True) + 1.0
        return logits
