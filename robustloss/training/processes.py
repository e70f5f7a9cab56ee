"""One training on several processes, as torchrun starts them: each takes a share of every batch.

A step does what one process would do with the whole batch. Each process computes the features of
its share; they are gathered, and each computes the loss of all of them, so that centers, class
statistics and pairs are those of the batch. Batch normalisation uses the statistics of the batch
too. DistributedDataParallel then averages the gradients. The first process, rank 0, leads: it alone
writes, attacks and reports; the others wait for its next order.

`Group` is one process alone and sends nothing; `Distributed` is what torchrun started. A training
asks `current_group` and does not see which of both it has.

Source: Li et al., "PyTorch Distributed: Experiences on accelerating data parallel training" (VLDB
2020).
"""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustloss.training.shared_batch import gather_shares, share_batch_norm, share_of

_FOR_EVER = timedelta(days=30)  # attacks may take that long while the others wait
_AGREEMENT = timedelta(minutes=2)  # until a process that stopped alone stops the others

Made = TypeVar("Made")


class BrokenGroupError(BaseException):
    """A process failed alone, so the others wait for what will never come: all must stop."""


class LeaderStoppedError(BrokenGroupError):
    """The leader's run ended without an outcome; the leader itself says why."""


class Group:
    """The processes that train together; this class is a single one, which sends nothing.

    Attributes:
        rank: Number of this process, from 0; 0 leads.
        size: Number of processes.
    """

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, attacks and reports."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return which images of a batch of so many are this process's."""
        return share_of(count, self.rank, self.size)

    def gather(self, features: Tensor, count: int) -> Tensor:
        """Join the processes' shares of a batch; gradients flow back to them.

        Args:
            features: (b,D), this process's.
            count: B.

        Returns:
            (B,D).
        """
        return features

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over the processes, detached."""
        return value

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in one of the processes."""
        return flag

    def broadcast(self, make: Callable[[], Made]) -> Made:
        """Return what the leader makes; it alone calls the function."""
        return make()

    def wrap(self, module: nn.Module, *, unused: Callable[[], bool]) -> nn.Module:
        """Return the module with gradients averaged over the processes.

        Args:
            module: What a step calls once, forward and back.
            unused: Whether a step leaves parameters without a gradient; to look for them in every
                step takes time.
        """
        return module

    def share_batch_norm(self, model: nn.Module) -> None:
        """Let batch normalisation use the statistics of the whole batch, in place."""

    def announce(self, order: object) -> None:
        """Send the others an order, such as to train a cell along.

        Raises:
            ValueError: One of them cannot, or has other data or code; the text names its rank.
        """

    def wait(self) -> None:
        """Return once all processes are here."""

    @contextmanager
    def agreeing(self, *, patient: bool = False) -> Iterator[None]:
        """Raise an error of the block in all processes if all have one, or else stop them all.

        Args:
            patient: Whether one process may come to the block's end long after another, as where
                only it has to load the data.

        Raises:
            ValueError: The block failed in another process; the text names its rank.
            BrokenGroupError: This process failed while another one went on, or the reverse.
        """
        yield


class Distributed(Group):
    """The processes that torchrun started; what `Group` declares, done by messages.

    Args:
        device: "cpu" (gloo) or "cuda" (nccl).
    """

    def __init__(self, device: str) -> None:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        self.device = device
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_FOR_EVER)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # Plain objects go over the CPU; these two groups differ in how long they wait.
        self._orders: Any = dist.new_group(backend="gloo", timeout=_FOR_EVER)
        self._agreement: Any = dist.new_group(backend="gloo", timeout=_AGREEMENT)

    def gather(self, features: Tensor, count: int) -> Tensor:
        """Join the shares (b,D) of a batch to (B,D)."""
        return gather_shares(features, count, self.rank, self.size)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over the processes, detached."""
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in one of the processes."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def broadcast(self, make: Callable[[], Made]) -> Made:
        """Return what the leader makes."""
        value = [make() if self.leads else None]
        dist.broadcast_object_list(value, src=0, group=self._orders)
        return value[0]  # type: ignore[return-value]

    def wrap(self, module: nn.Module, *, unused: Callable[[], bool]) -> nn.Module:
        """Return the module with gradients averaged over the processes."""
        return DistributedDataParallel(module, find_unused_parameters=unused())

    def share_batch_norm(self, model: nn.Module) -> None:
        """Let batch normalisation use the statistics of the whole batch, in place."""
        share_batch_norm(model)

    def announce(self, order: object) -> None:
        """Send the others an order, and wait until they have looked at it."""
        self.broadcast(lambda: order)
        with self.agreeing(patient=True):
            pass  # the others look whether they hold what this one does

    def receive(self) -> Any:
        """Wait for the leader and return its order, or what its run ended with."""
        return self.broadcast(lambda: None)

    def dismiss(self, outcome: object) -> None:
        """Tell the others, which wait for an order, what the run ended with."""
        self.broadcast(lambda: outcome)

    def wait(self) -> None:
        """Return once all processes are here."""
        self.any(False)

    def close(self) -> None:
        """End what the processes have in common, when all are done with it.

        The threads of a group end when nothing refers to it any more. Those that still run when
        Python ends abort the process.
        """
        dist.destroy_process_group()
        del self._orders, self._agreement
        gc.collect()  # networks in DistributedDataParallel refer to themselves

    @contextmanager
    def agreeing(self, *, patient: bool = False) -> Iterator[None]:
        """Raise an error of the block in all processes if all have one, or else stop them all."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        reasons: list[Any] = [None] * self.size  # by rank; None where the block went well
        try:
            group = self._orders if patient else self._agreement
            dist.all_gather_object(reasons, str(error) if error else None, group=group)
        except RuntimeError:
            reason = error or "another process stopped, or waits for this one"
            raise BrokenGroupError(f"rank {self.rank}: {reason}") from error
        if error is not None:
            raise error
        for rank, reason in enumerate(reasons):
            if reason is not None:
                raise ValueError(f"the training failed in another process. rank {rank}: {reason}")


_alone = Group()
_current: Group = _alone


def current_group() -> Group:
    """Return the processes that this one trains with."""
    return _current


def is_launched() -> bool:
    """Return whether torchrun started this process as one of several."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and dist.is_available() and dist.is_torchelastic_launched()


def is_leader() -> bool:
    """Return whether this process writes and reports; so does any that works alone."""
    return not is_launched() or os.environ.get("RANK") == "0"


@contextmanager
def joining(device: str) -> Iterator[Distributed]:
    """Make this process one of those that torchrun started, while the block runs.

    Args:
        device: "cpu" or "cuda"; each process takes the GPU of its local number.
    """
    global _current
    group = Distributed(device)
    if not group.leads:  # it mostly waits inside of a collective, where Python hears no signal
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
    _current = group
    try:
        yield group
        group.close()  # after an error it would wait for the others
    finally:
        _current = _alone
