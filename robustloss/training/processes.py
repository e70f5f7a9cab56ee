"""One training on several processes, as torchrun starts them: each takes a share of every batch.

A step does what one process would do with the whole batch. Each process computes the features of
its share; they are gathered, and each computes the loss of all of them, so that centers, class
statistics and pairs are those of the batch. Batch normalisation uses the statistics of the batch
too. DistributedDataParallel then averages the gradients. The first process, rank 0, alone writes,
attacks and reports; the others wait for its next training.

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
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

_FOR_EVER = timedelta(days=30)  # attacks may take that long while the others wait
_AGREEMENT = timedelta(minutes=2)  # until a process that stopped alone stops the others

Made = TypeVar("Made")


class BrokenGroupError(BaseException):
    """A process failed alone, so the others wait for what will never come: all must stop."""


class LeaderStoppedError(BrokenGroupError):
    """The first process has told that the run is over without an outcome; it says why itself."""


class Group:
    """The processes that train together; a single one by default, and then nothing is sent.

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
        """Returns which of a batch's images are this process's; shares differ by one at most."""
        return slice(0, count)

    def gather(self, features: Tensor, count: int) -> Tensor:
        """Joins the processes' shares (b,D) of a batch to (B,D); gradients flow back to them."""
        return features

    def sum(self, value: Tensor) -> Tensor:
        """Returns the sum over the processes, detached."""
        return value

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set in one of the processes."""
        return flag

    def broadcast(self, make: Callable[[], Made]) -> Made:
        """Returns what the leader makes; it alone calls the function."""
        return make()

    def wrap(self, module: nn.Module, *, unused: Callable[[], bool]) -> nn.Module:
        """Returns the module with gradients averaged over the processes.

        Args:
            module: What a step calls once, forward and back.
            unused: Whether a step leaves parameters without a gradient; to look for them in every
                step takes time.
        """
        return module

    def synchronise_statistics(self, model: nn.Module) -> None:
        """Lets batch normalisation use the statistics of the whole batch, in place."""

    def announce(self, order: object) -> None:
        """Sends the others an order, such as to train a cell along.

        Raises:
            ValueError: One of them cannot, or has other data or code; the text names its rank.
        """

    def wait(self) -> None:
        """Returns once all processes are here."""

    @contextmanager
    def agreeing(self, *, patient: bool = False) -> Iterator[None]:
        """Lets an error inside the block pass in all processes, or else stops them all.

        Args:
            patient: Whether one process may come to the block's end long after another, as where
                only it has to load the data.

        Raises:
            ValueError: The block failed in another process; the text names its rank.
            BrokenGroupError: This process failed while another one went on, or the reverse.
        """
        yield


class Distributed(Group):
    """The processes that torchrun started.

    Args:
        device: "cpu" (gloo) or "cuda" (nccl).
    """

    def __init__(self, device: str) -> None:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_FOR_EVER)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._orders = _group_of_all(_FOR_EVER)
        self._agreement = _group_of_all(_AGREEMENT)

    def share(self, count: int) -> slice:
        """Returns which of a batch's images are this process's."""
        return _share(count, self.rank, self.size)

    def gather(self, features: Tensor, count: int) -> Tensor:
        """Joins the shares (b,D) of a batch to (B,D)."""
        return _Gathered.apply(features, count, self.rank, self.size)

    def sum(self, value: Tensor) -> Tensor:
        """Returns the sum over the processes, detached."""
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set in one of the processes."""
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return bool(self.sum(torch.tensor(float(flag), device=device)) > 0)

    def broadcast(self, make: Callable[[], Made]) -> Made:
        """Returns what the leader makes."""
        return self._told(make() if self.leads else None)

    def wrap(self, module: nn.Module, *, unused: Callable[[], bool]) -> nn.Module:
        """Returns the module with gradients averaged over the processes."""
        return DistributedDataParallel(module, find_unused_parameters=unused())

    def synchronise_statistics(self, model: nn.Module) -> None:
        """Lets batch normalisation use the statistics of the whole batch, in place."""
        cuda = dist.get_backend() == "nccl"
        for parent in list(model.modules()):
            for name, child in parent.named_children():
                if isinstance(child, _BatchNorm) and not isinstance(child, _SyncedBatchNorm):
                    synced = (
                        nn.SyncBatchNorm.convert_sync_batchnorm(child) if cuda else _synced(child)
                    )
                    setattr(parent, name, synced)

    def announce(self, order: object) -> None:
        """Sends the others an order, and waits until they have looked at it."""
        self._told(order)
        with self.agreeing(patient=True):
            pass  # the others look whether they hold what this one does

    def order(self) -> Any:
        """Waits for the leader: an order to join in, or what the run ended with."""
        return self._told(None)

    def dismiss(self, outcome: Any) -> None:
        """Tells the others, which wait for an order, that the run is over, and how it ended."""
        self._told(outcome)

    def wait(self) -> None:
        """Returns once all processes are here."""
        self.any(False)

    def close(self) -> None:
        """Ends what the processes have in common, when all are done with it.

        The threads of a group end when nothing refers to it any more. Those that still run when
        Python ends abort the process.
        """
        dist.destroy_process_group()
        del self._orders, self._agreement
        gc.collect()  # networks in DistributedDataParallel refer to themselves

    @contextmanager
    def agreeing(self, *, patient: bool = False) -> Iterator[None]:
        """Lets an error inside the block pass in all processes, or else stops them all."""
        group = self._orders if patient else self._agreement
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        failed: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(failed, str(error) if error else None, group=group)
        except RuntimeError:
            reason = error or "another process stopped, or waits for this one"
            raise BrokenGroupError(f"rank {self.rank}: {reason}") from error
        if error is not None:
            raise error
        if told := [f"rank {rank}: {text}" for rank, text in enumerate(failed) if text is not None]:
            raise ValueError(f"the training failed in another process. {told[0]}")

    def _told(self, value: Any) -> Any:
        """Returns the leader's value."""
        held = [value]
        dist.broadcast_object_list(held, src=0, group=self._orders)
        return held[0]


def _group_of_all(timeout: timedelta) -> dist.ProcessGroup:
    """Returns a group for plain objects, on the CPU, with a timeout of its own."""
    made = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(made, dist.ProcessGroup)
    return made


_alone = Group()
_current: Group = _alone


def current_group() -> Group:
    """Returns the processes that this one trains with."""
    return _current


def is_launched() -> bool:
    """Whether torchrun started this process as one of several."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and dist.is_available() and dist.is_torchelastic_launched()


def is_leader() -> bool:
    """Whether this process is the one that writes and tells; so is any that works alone."""
    return not is_launched() or os.environ.get("RANK") == "0"


@contextmanager
def joining(device: str) -> Iterator[Distributed]:
    """Makes this process one of those that torchrun started, while the block runs.

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


def _share(count: int, rank: int, size: int) -> slice:
    return slice(count * rank // size, count * (rank + 1) // size)


class _Gathered(torch.autograd.Function):
    """Joins shares of a batch along the first dimension."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int, rank: int, size: int) -> Tensor:
        shares = [_share(count, other, size) for other in range(size)]
        ctx.share, ctx.size = shares[rank], size
        longest = max(share.stop - share.start for share in shares)
        padded = own.new_zeros((longest, *own.shape[1:]))  # collectives ask for equal shapes
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(size)]
        dist.all_gather(parts, padded)
        pairs = zip(parts, shares, strict=True)
        return torch.cat([part[: share.stop - share.start] for part, share in pairs])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        # Every process has the gradient of the same loss, that of the whole batch. The network's
        # is the sum over the shares, of which DistributedDataParallel makes the mean.
        return ctx.size * gradient[ctx.share], None, None, None


class _Summed(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class _SyncedBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of all processes; torch has its own for GPUs only."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Takes what the module that it replaces took."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        others = [dim for dim in range(values.dim()) if dim != 1]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = _Summed.apply(torch.cat([values.sum(others), count]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean.view(shape)
        variance = _Summed.apply(centred.square().sum(others)) / count
        self._keep(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


def _synced(module: _BatchNorm) -> _SyncedBatchNorm:
    synced = _SyncedBatchNorm(
        module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
    )
    synced._parameters, synced._buffers = module._parameters, module._buffers
    return synced.train(module.training)
