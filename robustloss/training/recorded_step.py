"""A training step recorded once as a CUDA graph and replayed: the same work, one launch.

A small network's step is a hundred kernels of a few microseconds each; starting them one by one
from Python takes several times as long as computing them. Source: PyTorch's notes on CUDA graphs.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustloss.attacks.cuda_graphs import capture, rehearse
from robustloss.losses.base import LossHead

TRIALS = 5  # plain steps before one is recorded: what is allocated at first use is there by then

Step = Callable[[Tensor, Tensor, float], None]  # images (B,C,H,W), labels (B,), progress


class RecordedStep:
    """Takes plain steps first and, where it is sure to be the same, replays a recorded one.

    It stays with plain steps where the step draws random numbers, waits for the device, runs
    modules that are not torch's or ours (which may count or decide in Python), or belongs to a
    loss that does not say by `phase` what its schedule changes.

    Args:
        step: Reads its arguments and the model, and changes tensors in place; returns nothing.
        model: What it trains.
        device: Where.
        phase: What else, beside the head's phase, decides in Python at a progress in [0,1].
    """

    def __init__(
        self,
        step: Step,
        model: nn.Module,
        device: torch.device,
        phase: Callable[[float], tuple[float, ...]] = lambda progress: (),
    ) -> None:
        self.step, self.model, self.device, self.phase = step, model, device, phase
        head = model.head
        assert isinstance(head, LossHead)
        self.head = head
        self.usable = device.type == "cuda" and _is_known(model) and _tells_phase(head)
        self.reason = "" if self.usable else "not offered"  # why steps are plain
        self._key: tuple | None = None
        self._tried = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images = self._labels = torch.empty(0)

    def __call__(self, images: Tensor, labels: Tensor, progress: float) -> None:
        """Takes one step."""
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
            self._tried += 1
            self._try(images, labels, progress)
        else:
            self._record(images, labels, progress)

    @property
    def replays(self) -> bool:
        """Whether the next step most likely replays; it draws no random numbers then."""
        return self._graph is not None

    def _try(self, images: Tensor, labels: Tensor, progress: float) -> None:
        """Takes a plain step and looks whether a recorded one would be the same."""
        # The first may allocate and check, and so wait; the later ones must not.
        first = self._tried == 1
        _, fault = rehearse(self.step, images, labels, progress, device=self.device, waits=first)
        if fault:
            self.stay_plain(f"the step {fault}")

    def _record(self, images: Tensor, labels: Tensor, progress: float) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        given = self._images, self._labels, progress
        try:
            _, graph = capture(self.step, *given, device=self.device)
        except RuntimeError as error:
            torch.cuda.synchronize(self.device)
            self.stay_plain(f"it could not be recorded ({error})")
            self.step(images, labels, progress)
            return
        self._graph = graph
        graph.replay()

    def stay_plain(self, reason: str) -> None:
        """Takes plain steps from now on."""
        self.usable, self.reason, self._graph = False, reason, None


def _is_known(model: nn.Module) -> bool:
    own = {"torch", "torchvision", "robustloss"}
    return all(
        type(part).__module__.partition(".")[0] in own
        for name, part in model.named_modules()
        if not name.startswith("head")
    )


def _tells_phase(head: LossHead) -> bool:
    """Whether `phase` speaks of this class, and not of one that it inherits from."""
    kind = type(head)
    ours = kind.__module__.startswith("robustloss.losses.") and kind.__module__ in sys.modules
    return ours or "phase" in vars(kind)
