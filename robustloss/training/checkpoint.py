"""The file that a killed training goes on from: model, optimiser, sums of the epoch, and log."""

import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from robustloss.models.weight_files import load_tensors, save_tensors
from robustloss.storage import CorruptFile
from robustloss.training.log import TrainingLog
from robustloss.training.loop import Loop

_LOG = TypeAdapter(TrainingLog)
# What an optimiser keeps of a parameter: nothing, SGD's, AdamW's.
_SLOTS: tuple[set[str], ...] = (set(), {"momentum_buffer"}, {"step", "exp_avg", "exp_avg_sq"})


class Checkpoint:
    """Where the state of a training is kept while it goes on.

    Args:
        path: The file; None where nothing is kept, as in all processes but the leader.
        key: Name of the training; the state of another one is not read.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self.key = path, key
        self.saved_at = time.monotonic()

    def save_after(self, seconds: float, loop: Loop) -> None:
        """Write the state of a training, if it was not written for a while.

        Args:
            seconds: Since the last write.
            loop: The training.
        """
        if self.path is None or time.monotonic() - self.saved_at <= seconds:
            return
        tensors = {f"model.{name}": value for name, value in loop.model.state_dict().items()}
        tensors["sums"] = loop.sums
        if loop.selection is not None:
            tensors |= {f"best.{name}": value for name, value in loop.selection.best.items()}
        for number, parameter in enumerate(_parameters(loop)):
            for slot, value in loop.optimizer.state[parameter].items():
                if value is not None:
                    tensors[f"optimizer.{number}.{slot}"] = torch.as_tensor(value)
        save_tensors(self.path, tensors, {"key": self.key, "log": vars(loop.log)})
        self.saved_at = time.monotonic()

    def restore(self, loop: Loop) -> None:
        """Take over the state in the file, if there is one, whole, and of this training."""
        state = loop.group.broadcast(lambda: self._read(loop))
        if state is None:
            return
        tensors, log = state
        loop.model.load_state_dict(_named(tensors, "model."))
        loop.sums.copy_(tensors["sums"])
        if loop.selection is not None:
            best = _named(tensors, "best.")
            loop.selection.best = {name: best[name].to(loop.sums.device) for name in best}
        for name, value in log.items():
            setattr(loop.log, name, value)
        loop.log.processes = max(loop.log.processes, loop.group.size)
        parameters = _parameters(loop)
        for name, value in _named(tensors, "optimizer.").items():
            number, slot = name.split(".", 1)
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:
                value = torch.empty_like(parameter).copy_(value)
            else:  # Adam's step counter
                value = value.to(parameter.device)
            loop.optimizer.state[parameter][slot] = value

    def _read(self, loop: Loop) -> tuple[dict[str, Tensor], dict] | None:
        """Return tensors and log in the file; None where there is nothing to go on from."""
        if self.path is None or not self.path.exists():
            return None
        try:
            tensors, meta = load_tensors(self.path)
        except CorruptFile:
            return None  # a damaged checkpoint only costs time
        log = _read_log(meta.get("log"), loop)
        if meta.get("key") != self.key or log is None or not _fit(tensors, loop):
            return None  # of another training, or of somebody else
        return tensors, vars(log)


def _read_log(value: object, loop: Loop) -> TrainingLog | None:
    """Return the log of a training that has come so far; None if it cannot be one."""
    try:
        log = _LOG.validate_python(value)
    except ValidationError:
        return None
    closed = len(log.curve)
    first = closed * loop.per_epoch  # step of the epoch that goes on
    fits = (
        [line.get("epoch") for line in log.curve] == list(range(1, closed + 1))
        and all(isinstance(n, int | float | None) for line in log.curve for n in line.values())
        and first <= log.steps <= min(first + loop.per_epoch, loop.spec.epochs * loop.per_epoch)
    )
    return log if fits else None


def _fit(tensors: dict[str, Tensor], loop: Loop) -> bool:
    """Return whether tensors are the state of this training at some step."""
    own = loop.model.state_dict()
    best = _named(tensors, "best.")
    parameters = {str(number): each for number, each in enumerate(_parameters(loop))}
    slots: dict[str, set[str]] = defaultdict(set)
    for name, value in _named(tensors, "optimizer.").items():
        number, _, slot = name.partition(".")
        if number not in parameters or value.shape not in (parameters[number].shape, ()):
            return False
        slots[number].add(slot)
    return (
        _are_alike(_named(tensors, "model."), own)
        and _are_alike({"": tensors.get("sums", torch.empty(0))}, {"": loop.sums})
        and (not best or _are_alike(best, own))
        and all(found in _SLOTS for found in slots.values())
    )


def _are_alike(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Return whether they have the same names, shapes and types."""
    kinds = [{k: (t.shape, t.dtype) for k, t in each.items()} for each in (tensors, others)]
    return kinds[0] == kinds[1]


def _parameters(loop: Loop) -> list[nn.Parameter]:
    return [p for group in loop.optimizer.param_groups for p in group["params"]]


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
