"""The loss under a contract check, and how a check says that the contract is broken."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustloss.losses.base import LossHead

# Unequal and unusual, so that the length of an axis says which one it is.
FEATURE_DIM, NUM_CLASSES, PER_CLASS = 5, 7, 4
OUTPUTS = ("logits", "class_log_likelihood")  # the methods that map (B,D) to (B,K)


class ContractBrokenError(Exception):
    """The loss does not keep the contract; the message says how."""


@dataclass(frozen=True)
class Subject:
    """The loss under check, built anew wherever a check needs it."""

    head_class: type[LossHead]
    params: Mapping[str, object]

    def build(self, feature_dim: int = FEATURE_DIM, num_classes: int = NUM_CLASSES) -> LossHead:
        """Build a head, with starting weights decided by the global random state."""
        return self.head_class(feature_dim, num_classes, **self.params)

    def build_started(self) -> LossHead:
        """Build a head as it stands at the first training step, classes of unequal size."""
        torch.manual_seed(0)
        head = self.build()
        head.start(torch.arange(NUM_CLASSES) + 20)
        return head

    def build_fitted(self) -> LossHead:
        """Build a head as it is attacked: fitted and in eval mode.

        Raises:
            ContractBrokenError: a pair loss still has no logits.
        """
        head = self.build_started()
        with torch.no_grad():
            head.fit(*batch(seed=1))
            head.eval()
            if head.logits_while_training:
                return head
            try:
                head.logits(batch()[0])
            except RuntimeError as error:
                remedy = "Define fit(features, labels), which makes what logits() needs"
                if self.head_class.fit is not LossHead.fit:
                    remedy = "Let fit() note in a buffer that it has run"
                reason = f"logits() still raised {error!r} after fit(). {remedy}."
                raise ContractBrokenError(reason) from error
        return head


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw features (28,5) of size one and labels (28,), every class equally often."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(NUM_CLASSES).repeat(PER_CLASS)
    return torch.randn(len(labels), FEATURE_DIM, generator=generator), labels


def require(holds: bool, reason: str) -> None:
    """Raise ContractBrokenError with the reason unless it holds."""
    if not holds:
        raise ContractBrokenError(reason)


def are_close(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors are equal up to the rounding of float32.

    NaN equals itself, because another check looks for NaN.
    """
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
