"""A training step captured once as a CUDA graph and replayed: the same work, one launch.

A small network's step is a hundred kernels of a few microseconds each; starting them one by one
from Python takes several times as long as computing them. Source: PyTorch's notes on CUDA graphs.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from robustloss.attacks.cuda_graphs import capture, rehearse
from robustloss.losses.base import LossHead
from robustloss.models.classifier import Classifier
from robustloss.training.objective import is_known

TRIALS = 5  # plain steps before one is captured: what is allocated at first use is there by then

Step = Callable[[Tensor, Tensor, float], None]  # images (B,C,H,W), labels (B,), progress


class CapturedStep:
    """Takes plain steps first and, where it is sure to be the same, replays a captured one.

    It stays with plain steps where the step draws random numbers, waits for the device, runs
    modules that are not torch's or ours (which may count or decide in Python), or belongs to a
    loss that does not say by `phase` what its schedule changes.

    Args:
        step: Reads its arguments and the model, and changes tensors in place; returns nothing.
        model: What it trains.
        device: Where.
        phase: What else, beside the head's phase, decides in Python at a progress in [0,1].

    Attributes:
        reason: Why steps are plain; "" while one may be captured.
    """

    def __init__(
        self,
        step: Step,
        model: Classifier,
        device: torch.device,
        phase: Callable[[float], tuple[float, ...]] = lambda progress: (),
    ) -> None:
        self.step, self.head, self.device, self.phase = step, model.head, device, phase
        known = is_known(model, head=False) and has_own_phase(model.head)
        self.usable = device.type == "cuda" and known
        self.reason = "" if self.usable else "not offered"
        self._key: tuple | None = None  # of steps that can replay each other
        self._tried = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images = self._labels = torch.empty(0)

    @property
    def replays(self) -> bool:
        """Whether the next step most likely replays; it draws no random numbers then."""
        return self._graph is not None

    def __call__(self, images: Tensor, labels: Tensor, progress: float) -> None:
        """Take one step, plain or replayed.

        Args:
            images: (B,C,H,W) as the step takes them.
            labels: (B,) int64.
            progress: In [0,1).
        """
        if not self.usable:
            self.step(images, labels, progress)
            return
        phases = self.head.phase(progress), self.phase(progress)
        key = (tuple(images.shape), images.dtype, *phases)
        if key != self._key:
            self._key, self._tried, self._graph = key, 0, None
            self.step(images, labels, progress)  # it may change at every step: no trial yet
        elif self._graph is not None:
            self._images.copy_(images)
            self._labels.copy_(labels)
            self._graph.replay()
        elif self._tried < TRIALS:
            # A plain step that looks whether a replay would be the same. The first may allocate
            # and check, and so wait; the later ones must not.
            self._tried += 1
            first = self._tried == 1
            _, fault = rehearse(
                self.step, images, labels, progress, device=self.device, waits=first
            )
            if fault:
                self.stay_plain(f"the step {fault}")
        else:
            self._images, self._labels = images.clone(), labels.clone()
            given = self._images, self._labels, progress
            try:
                _, self._graph = capture(self.step, *given, device=self.device)
            except RuntimeError as error:
                torch.cuda.synchronize(self.device)
                self.stay_plain(f"it could not be captured ({error})")
                self.step(images, labels, progress)
            else:
                self._graph.replay()

    def stay_plain(self, reason: str) -> None:
        """Take plain steps from now on."""
        self.usable, self.reason, self._graph = False, reason, None


def has_own_phase(head: LossHead) -> bool:
    """Return whether `phase` speaks of this class, and not of one that it inherits from."""
    kind = type(head)
    ours = kind.__module__.startswith("robustloss.losses.") and kind.__module__ in sys.modules
    return ours or "phase" in vars(kind)
