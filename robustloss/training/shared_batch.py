"""What a step computes over a whole batch of which each process holds a share.

Gathered features and summed batch statistics are parts of the graph: their gradients flow back to
the process that they came from.

Shape suffixes: B batch, b this process's share of it, D feature.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def share_of(count: int, rank: int, size: int) -> slice:
    """Return which of a batch's images belong to a process; shares differ by one at most.

    Args:
        count: Images of the batch.
        rank: Number of the process, from 0.
        size: Number of processes.
    """
    return slice(count * rank // size, count * (rank + 1) // size)


def gather_shares(own: Tensor, count: int, rank: int, size: int) -> Tensor:
    """Join the processes' shares of a batch, in the order of their ranks.

    Args:
        own: (b,D), this process's.
        count: B.
        rank: Number of this process.
        size: Number of processes.

    Returns:
        (B,D).
    """
    return _GatheredShares.apply(own, count, rank, size)


class _GatheredShares(torch.autograd.Function):
    """The shares, joined; its gradient is that of this process's share."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int, rank: int, size: int) -> Tensor:
        shares = [share_of(count, other, size) for other in range(size)]
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


def share_batch_norm(model: nn.Module) -> None:
    """Let every batch normalisation use the statistics of the whole batch, in place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if not isinstance(child, _BatchNorm) or isinstance(child, _SharedBatchNorm):
                continue
            if dist.get_backend() == "nccl":
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
                continue
            shared = _SharedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine,
                child.track_running_stats,
            )  # fmt: skip
            shared._parameters, shared._buffers = child._parameters, child._buffers
            setattr(parent, name, shared.train(child.training))


class _SummedOverProcesses(torch.autograd.Function):
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


class _SharedBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of all processes; torch has its own for GPUs only."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Take what the module that this replaces took."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        others = [dim for dim in range(values.dim()) if dim != 1]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = _SummedOverProcesses.apply(torch.cat([values.sum(others), count]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean.view(shape)
        variance = _SummedOverProcesses.apply(centred.square().sum(others)) / count
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                momentum = self.momentum
                weight = 1 / float(self.num_batches_tracked) if momentum is None else momentum
                self.running_mean.lerp_(mean, weight)
                # as torch has it: the running variance is unbiased, the one that scales is not
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), weight)
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)
