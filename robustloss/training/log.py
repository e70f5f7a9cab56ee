"""What a training leaves beside the weights, and the error of one that diverges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class TrainingDiverged(RuntimeError):  # noqa: N818  (names the event, as torch does)
    """The loss or a weight became NaN or infinite."""


@dataclass
class TrainingLog:
    """What a training leaves beside the weights; plain values."""

    curve: list[dict] = field(default_factory=list)
    epochs: int = 0
    seconds: float = 0.0
    steps: int = 0
    precision: str = "float32"
    parameters: int = 0
    peak_bytes: int | None = None  # most GPU memory in tensors, the data set's too; None on a CPU
    note: str = ""  # what tables must say of the loss
    adversarial: str | None = None  # how, in words; None: clean training
    chosen_epoch: int | None = None  # whose weights are kept; None: the last epoch's
    processes: int = 1  # most that shared a batch; the curve has several by epoch


def find_chosen_line(log: Mapping[str, Any]) -> dict:
    """Return the line of a log's learning curve of the epoch whose weights were kept."""
    chosen = [line for line in log["curve"] if line["epoch"] == log.get("chosen_epoch")]
    return (chosen or log["curve"] or [{}])[-1]
