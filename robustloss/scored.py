"""The scores of one cell, computed once and kept: scores-KEY.npz.

Every detection number, table and figure that needs a score reads it here, so that fitting and
nearest neighbours cost a run once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustloss.layout import Layout, check_layout
from robustloss.records import Record
from robustloss.scores import Score, build_scores
from robustloss.storage import CorruptFile, read_arrays, write_arrays

Array = NDArray[Any]
VERSION = 1  # raise when the same records would give other scores
_LAYOUT: Layout = {"scores": ("f", "SN"), "wrong": ("b", "N")}
KINDS = ("validation", "clean", "attacked", "noise", "outside")


class Pass(NamedTuple):
    """One set of images that a cell's model saw.

    Attributes:
        kind: "validation" or "clean"; "attacked", or the "noise" control of an attack; "outside",
            images of another distribution.
        label: of the attack, or of the outside set.
        eps: of the attack.
    """

    kind: str
    label: str = ""
    eps: float = 0.0


VALIDATION, CLEAN = Pass("validation"), Pass("clean")


@dataclass(frozen=True, eq=False)
class StoredScores:
    """Scores by name and pass; higher is more typical of clean data.

    Attributes:
        names: the scores that this loss has, in the order asked for.
        values: (score, pass) -> (N,) float64.
        wrong: pass -> (N,) bool, prediction differs from the label; not of outside sets.
        index: (N,) positions of the test images in the original file.
    """

    names: tuple[str, ...]
    values: Mapping[tuple[str, Pass], Array]
    wrong: Mapping[Pass, Array]
    index: Array

    def get(self, score: str, which: Pass) -> Array:
        """One score of one pass, (N,).

        Raises:
            ValueError: there is none; the text says what there is.
        """
        if (score, which) in self.values:
            return self.values[score, which]
        if score not in self.names:
            raise ValueError(f"score (={score!r}) must be one of {', '.join(self.names)}.")
        known = sorted({words(p) for _, p in self.values})
        raise ValueError(f"no scores of {words(which)}; there are: {', '.join(known)}.")

    def has(self, score: str, which: Pass) -> bool:
        """Whether there is one."""
        return (score, which) in self.values

    def passes(self, kind: str) -> list[Pass]:
        """The passes of a kind, in the order of the run."""
        return list(dict.fromkeys(p for _, p in self.values if p.kind == kind))


def compute_scores(
    names: Sequence[str],
    reference: Mapping[str, Array],
    passes: Mapping[Pass, Record],
    *,
    density: bool,
    plugins: Mapping[str, Score] | None = None,
    name: str = "cell",
) -> StoredScores:
    """Every score of every pass.

    Args:
        names: of `scores.SCORE_NAMES`, or keys of `plugins`.
        reference: arrays that scores are fitted on, see `scores.build_scores`.
        passes: their records, the clean pass among them; each is looked up once, so the mapping
            may load them lazily.
        density: whether the loss's class_log_likelihood is a normalised log-density.
        plugins: the user's own scores by name.
        name: of the cell, for messages.

    Raises:
        ValueError: an unknown score, a record whose numbers have no rank, or a score that is not
            one number an image.
    """
    fitted = build_scores(names, reference, density=density, plugins=plugins)
    values: dict[tuple[str, Pass], Array] = {}
    wrong: dict[Pass, Array] = {}
    index = np.zeros(0, np.int64)
    for which in passes:
        record = passes[which]
        record.check_numbers(f"{name}, {words(which)}")
        for key, score in fitted.items():
            values[key, which] = checked(key, score(record), record.n)
        if which.kind != "outside":
            wrong[which] = ~record.correct
        if which == CLEAN:
            index = record.index
    return StoredScores(tuple(fitted), values, wrong, index)


def words(which: Pass) -> str:
    """A pass as messages name it."""
    return {
        "attacked": f"{which.label} at eps {which.eps:g}",
        "noise": f"noise like {which.label} at eps {which.eps:g}",
        "outside": f"outside set {which.label}",
    }.get(which.kind, which.kind)


def checked(name: str, found: object, n: int) -> Array:
    """A score as (N,) float64.

    Raises:
        ValueError: it is something else, or NaN.
    """
    array = np.asarray(found)
    if array.shape != (n,) or array.dtype.kind not in "fiub":
        raise ValueError(
            f"score {name} returned {array.dtype} of shape {array.shape}. Return one real number "
            f"an image, shape ({n},); higher is more typical of clean images."
        )
    array = array.astype(np.float64)
    if bad := int(np.isnan(array).sum()):
        raise ValueError(f"score {name} is NaN for {bad} of {n} images: it has no rank.")
    return array


def save_scores(path: str | Path, scores: StoredScores) -> None:
    """Write the scores; equal content gives equal bytes."""
    arrays: dict[str, Array] = {"index": scores.index}
    listed = {which: number for number, which in enumerate(_all_passes(scores))}
    for which, number in listed.items():
        own = [name for name in scores.names if scores.has(name, which)]
        arrays[f"scores_{number}"] = np.stack([scores.get(name, which) for name in own])
        if which in scores.wrong:
            arrays[f"wrong_{number}"] = scores.wrong[which]
    write_arrays(path, arrays, {"names": list(scores.names), "passes": [list(p) for p in listed]})


def _all_passes(scores: StoredScores) -> Iterator[Pass]:
    yield from dict.fromkeys(which for _, which in scores.values)


def load_scores(path: str | Path) -> StoredScores:
    """Read what `save_scores` wrote.

    Raises:
        CorruptFile: missing, altered, or holding something else.
    """
    arrays, meta = read_arrays(path)
    try:
        names = tuple(str(name) for name in meta["names"])
        values: dict[tuple[str, Pass], Array] = {}
        wrong: dict[Pass, Array] = {}
        for number, (kind, label, eps) in enumerate(meta["passes"]):
            which = Pass(str(kind), str(label), float(eps))
            if which.kind not in KINDS:
                raise ValueError(f"a pass of kind {kind!r}")
            own = {"scores": arrays[f"scores_{number}"]}
            if f"wrong_{number}" in arrays:
                own["wrong"] = wrong[which] = arrays[f"wrong_{number}"]
            known = {} if kind in ("validation", "outside") else {"N": len(arrays["index"])}
            check_layout(own, _LAYOUT, known)
            if np.isnan(own["scores"]).any():
                raise ValueError(f"a score of {words(which)} that is NaN")
            for name, row in zip(names, own["scores"], strict=True):
                values[name, which] = row
        return StoredScores(names, values, wrong, arrays["index"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(f"{path} holds no scores: {error}") from error
