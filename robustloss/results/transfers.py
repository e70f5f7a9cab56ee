"""One source's transferred predictions, stored."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustloss.array_files import read_arrays, write_arrays
from robustloss.results.layout import Layout, check_layout
from robustloss.storage import CorruptFile


@dataclass(frozen=True, eq=False)
class Transfer:
    """What the losses of one seed predict for the images that an attack made on one of them.

    Attributes:
        source: label of the loss that the images were made on.
        targets: T labels of the losses that they are shown to, the source among them.
        attack: name of the attack.
        attack_label: its name in tables.
        norm: of eps.
        eps: budget.
        seed: training seed of all losses.
        labels: (N,) true class.
        predictions: (T, N), in the order of targets.
        file: where it is stored, below the run folder; "" where it is not.

    Raises:
        ValueError: arrays or targets do not fit together.
    """

    source: str
    targets: tuple[str, ...]
    attack: str
    attack_label: str
    norm: str
    eps: float
    seed: int
    labels: np.ndarray
    predictions: np.ndarray
    file: str = ""

    def __post_init__(self) -> None:
        expected = (len(self.targets), len(self.labels))
        if self.predictions.shape != expected or 0 in expected:
            raise ValueError(
                f"predictions (shape {self.predictions.shape}) must be {expected}: one row per "
                "target, one column per image, at least one of each."
            )
        if self.source not in self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(
                f"targets (={list(self.targets)}) must be different and hold the source "
                f"({self.source!r}): its own row is the white-box attack."
            )

    @property
    def wrong(self) -> dict[str, np.ndarray]:
        """(N,) bool by target: the images that it classifies wrongly."""
        found = self.predictions != self.labels
        return dict(zip(self.targets, found, strict=True))


_LAYOUT: Layout = {"labels": ("i", "N"), "predictions": ("i", "TN")}
_META = ("source", "targets", "attack", "attack_label", "norm", "eps", "seed")


def save_transfer(path: str | Path, transfer: Transfer) -> None:
    """Write a transfer file; equal content gives equal bytes."""
    arrays = {"labels": transfer.labels, "predictions": transfer.predictions}
    write_arrays(path, arrays, {name: getattr(transfer, name) for name in _META})


def load_transfer(path: str | Path) -> Transfer:
    """Read a transfer file.

    Raises:
        CorruptFile: missing, altered, or holding something else.
    """
    arrays, meta = read_arrays(path)
    try:
        chosen = {name: meta[name] for name in _META}
        texts = [chosen[name] for name in ("source", "attack", "attack_label", "norm")]
        if not all(isinstance(text, str) for text in [*texts, *chosen["targets"]]):
            raise ValueError("a name that is no text")
        if type(chosen["seed"]) is not int:
            raise ValueError(f"seed (={chosen['seed']!r}) is no whole number")
        check_layout(arrays, _LAYOUT)
        chosen |= {"targets": tuple(chosen["targets"]), "eps": float(chosen["eps"])}
        return Transfer(**chosen, labels=arrays["labels"], predictions=arrays["predictions"])
    except KeyError as error:
        raise CorruptFile(f"{path} holds no transfer: {error} is missing.") from error
    except (TypeError, ValueError) as error:
        raise CorruptFile(f"{path} holds no transfer: {error}") from error
