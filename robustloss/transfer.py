"""Images made on one loss, shown to another: the transfer matrix of a run, from stored files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustloss.checks import CHECKS, better_rival, flag
from robustloss.columns import FLAG_COLUMNS, TRANSFER_COLUMNS, Row, sort
from robustloss.layout import Layout, check_layout
from robustloss.statistics import wilson
from robustloss.storage import CorruptFile, read_arrays, write_arrays


@dataclass(frozen=True, eq=False)
class Transfer:
    """What every loss of one seed predicts for the images that an attack made on one of them.

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


def transfer_rows(
    transfers: Iterable[Transfer], clean_errors: Mapping[tuple[str, int], float]
) -> list[Row]:
    """The transfer matrix: one row per seed, source, target, attack and eps.

    Args:
        transfers: the content of the run's transfer files, in any order.
        clean_errors: error without an attack, by (loss label, seed).

    Returns:
        Sorted; columns: `columns.TRANSFER_COLUMNS`. `target_clean_error` is null for a target
        without one.
    """
    rows = []
    for one in transfers:
        for target, wrong in one.wrong.items():
            count = int(wrong.sum())
            low, high = wilson(count, wrong.size)
            row = {
                "seed": one.seed,
                "source": one.source,
                "target": target,
                "attack": one.attack,
                "attack_label": one.attack_label,
                "norm": one.norm,
                "eps": one.eps,
                "n": wrong.size,
                "error": count / wrong.size,
                "error_low": low,
                "error_high": high,
                "target_clean_error": clean_errors.get((target, one.seed)),
            }
            rows.append(row)
    return sort(rows, TRANSFER_COLUMNS)


def transfer_beats_white_box(transfers: Sequence[Transfer], losses: Mapping[str, str]) -> list[Row]:
    """Images made on another loss make more wrong than those made on the target itself.

    Compared for the same attack, eps, seed and images; a target without its own white-box file
    is left out.

    Args:
        transfers: the content of the run's transfer files, in any order.
        losses: name of each loss by label.

    Returns:
        Flags, sorted, at (target, attack, eps); columns: `columns.FLAG_COLUMNS`.

    Raises:
        ValueError: files to be compared are not of the same images.

    Source: Carlini et al. 2019, "On evaluating adversarial robustness", section 5 (transfer).
    """
    check = "transfer_beats_white_box"
    groups: dict[tuple[int, str, float], dict[str, Transfer]] = {}
    for one in sorted(transfers, key=lambda one: one.source):
        groups.setdefault((one.seed, one.attack_label, one.eps), {})[one.source] = one
    flags = []
    for (seed, attack_label, eps), group in groups.items():
        _refuse_other_images(group)
        for target, own in group.items():
            rivals = {
                source: one.wrong[target]
                for source, one in group.items()
                if source != target and target in one.targets
            }
            gain = better_rival(own.wrong[target], rivals, CHECKS[check].threshold)
            if gain:
                cell = {"loss": losses[target], "label": target, "seed": seed}
                flags.append(flag(check, cell, gain.value, attack_label, eps, rival=gain.rival))
    return sort(flags, FLAG_COLUMNS)


def _refuse_other_images(group: Mapping[str, Transfer]) -> None:
    first, *others = group.values()
    for other in others:
        if not np.array_equal(first.labels, other.labels):
            raise ValueError(
                f"labels of the images made on {first.source!r} and on {other.source!r} differ: "
                "both must hold the same images in the same order."
            )
