"""A Record: one pass of one image set through one model, as arrays on disk."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from robustloss.array_files import read_arrays, write_arrays
from robustloss.results.layout import Layout, check_layout
from robustloss.storage import CorruptFile

Key = TypeVar("Key", bound=Hashable)

MAX_IMAGES = 64  # kept for pictures; everything else is computed from the other arrays

_LAYOUT: Layout = {
    "index": ("i", "N"),
    "labels": ("i", "N"),
    "logits": ("f", "NK"),
    "class_log_likelihood": ("f", "NK"),
    "features": ("f", "ND"),
    "linf": ("f", "N"),
    "l2": ("f", "N"),
    "zero_gradient": ("b", "N"),
    "radius": ("f", "N"),
    "images": ("f", "MCHW"),
    "outside": ("b", "N"),
    "predictions_8bit": ("i", "N"),
    "l1": ("f", "N"),
}


@dataclass(frozen=True, eq=False)
class Record:
    """What one model said about one set of images, clean or attacked.

    Attributes:
        index: (N,) position of each image in the original file.
        labels: (N,) true class, 0 <= label < K.
        logits: (N, K), margin-free.
        class_log_likelihood: (N, K), nats.
        features: (N, D), where a score needs them.
        linf: (N,) size of the perturbation, in [0, 1] pixel units.
        l2: (N,) likewise, Euclidean length.
        zero_gradient: (N,) the objective's first input gradient was exactly 0.
        radius: (N,) smallest perturbation found, of minimum-norm attacks; inf where none.
        images: (M, C, H, W) the first M <= 64 images, in [0, 1].
        outside: (N,) what the attack returned left box or ball before it was brought back.
        predictions_8bit: (N,) class predicted after every pixel is rounded to k/255, inside box
            and ball.
        l1: (N,) size of the perturbation summed over the pixels, of attacks in L1.

    Raises:
        ValueError: an array whose dtype or shape does not fit, or a label outside [0, K).
    """

    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    class_log_likelihood: np.ndarray
    features: np.ndarray | None
    linf: np.ndarray
    l2: np.ndarray
    zero_gradient: np.ndarray | None
    radius: np.ndarray | None
    images: np.ndarray
    outside: np.ndarray | None = None
    predictions_8bit: np.ndarray | None = None
    l1: np.ndarray | None = None

    def __post_init__(self) -> None:
        sizes = check_layout(self.arrays, _LAYOUT, {"N": len(self.labels)})
        if self.n == 0:
            raise ValueError("labels (length 0) must hold at least one image.")
        if self.labels.min() < 0 or self.labels.max() >= sizes["K"]:
            raise ValueError(
                f"labels (from {self.labels.min()} to {self.labels.max()}) must lie in "
                f"[0, {sizes['K']}), the classes of the logits."
            )
        if len(self.images) > min(self.n, MAX_IMAGES):
            raise ValueError(
                f"images ({len(self.images)} of {self.n}) must be the first {MAX_IMAGES} at most."
            )

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.labels)

    @cached_property
    def predictions(self) -> np.ndarray:
        """(N,) int64 class of the largest logit; the first of equals."""
        return self.logits.argmax(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool, prediction equals label."""
        return self.predictions == self.labels

    def check_numbers(self, name: str) -> None:
        """Refuse a record whose numbers have no rank.

        Args:
            name: of the record, for the message.

        Raises:
            ValueError: NaN in logits or likelihoods, or an image without a finite logit.
        """
        for field in ("logits", "class_log_likelihood"):
            if bad := int(np.isnan(getattr(self, field)).any(axis=1).sum()):
                raise ValueError(
                    f"record {name}: {field} is NaN for {bad} of {self.n} images. The loss or the "
                    "model is not finite there: lower the learning rate, or mend the plug-in."
                )
        if bad := int((~np.isfinite(self.logits.max(axis=1))).sum()):
            raise ValueError(
                f"record {name}: the largest logit is infinite for {bad} of {self.n} images. "
                "There is no posterior: lower the learning rate, or mend the plug-in."
            )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are there, by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: array for name, array in values if array is not None}


def save_record(path: str | Path, record: Record, meta: Mapping[str, Any] | None = None) -> None:
    """Write a record; equal content gives equal bytes.

    Args:
        path: of the file.
        record: what to write.
        meta: plain values to keep beside it.
    """
    write_arrays(path, record.arrays, meta)


def load_record(path: str | Path) -> Record:
    """Read a record; errors as `load_record_and_meta`."""
    return load_record_and_meta(path)[0]


def load_record_and_meta(path: str | Path) -> tuple[Record, dict[str, Any]]:
    """Read a record and the plain values that were saved with it.

    Raises:
        CorruptFile: missing, altered, or holding something else, such as logits that are NaN.
    """
    arrays, meta = read_arrays(path)
    # what the constructor has no default for, and a pass may lack
    optional = dict.fromkeys(("features", "zero_gradient", "radius"))
    try:
        record = Record(**{**optional, **arrays})  # type: ignore[arg-type]
        record.check_numbers(Path(path).stem)
        return record, meta
    except (TypeError, ValueError) as error:
        raise CorruptFile(f"{path} holds no record: {error}") from error


def cut_record(record: Record, start: int, stop: int) -> Record:
    """Return the record of some images; pictures as far as they were kept.

    Args:
        record: of N images.
        start: position of the first image, in [0, N).
        stop: position after the last image, in (start, N].
    """
    return replace(record, **{name: array[start:stop] for name, array in record.arrays.items()})


def join_records(pieces: Sequence[Record]) -> Record:
    """Return the record of the images of all pieces, one after the other.

    Args:
        pieces: each with its first pictures, those of the first images of all among them.

    Raises:
        ValueError: an array that some pieces have and others have not.
    """
    arrays: dict[str, list[np.ndarray]] = {}
    for piece in pieces:
        for name, array in piece.arrays.items():
            arrays.setdefault(name, []).append(array)
    whole = {name: np.concatenate(parts) for name, parts in arrays.items()}
    return replace(pieces[0], **{**whole, "images": whole["images"][:MAX_IMAGES]})


def validation_record(reference: Mapping[str, np.ndarray]) -> Record:
    """Return the record of the clean validation images, which is stored beside other arrays.

    Args:
        reference: the arrays of reference-KEY.npz.

    Raises:
        ValueError: one of the record's arrays is missing.
    """
    names = {name: f"validation_{name}" for name in
             ("index", "labels", "logits", "class_log_likelihood")}  # fmt: skip
    if missing := [name for name in names.values() if name not in reference]:
        raise ValueError(f"reference has no {missing[0]!r}; it holds {sorted(reference)}.")
    n = len(reference["validation_labels"])
    return Record(
        **{name: reference[stored] for name, stored in names.items()},
        features=reference.get("validation_features"),
        linf=np.zeros(n, np.float32),
        l2=np.zeros(n, np.float32),
        zero_gradient=None,
        radius=None,
        images=np.zeros((0, 1, 1, 1), np.float32),
    )


class LazyRecords(Mapping[Key, Record], Generic[Key]):
    """Records by key, each made when it is asked for and not kept: one is in memory at a time.

    Args:
        makers: what gives each record, as `load_record` of its file.
    """

    def __init__(self, makers: Mapping[Key, Callable[[], Record]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, key: Key) -> Record:
        return self._makers[key]()

    def __iter__(self) -> Iterator[Key]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
