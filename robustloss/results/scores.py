"""Stored detection scores of a cell's passes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustloss.array_files import read_arrays, write_arrays
from robustloss.notation import eps_text
from robustloss.results.layout import Layout, check_layout
from robustloss.storage import CorruptFile

Array = NDArray[Any]
_LAYOUT: Layout = {"scores": ("f", "SN"), "wrong": ("b", "N")}
KINDS = ("validation", "clean", "attacked", "noise", "outside", "shifted")


class Pass(NamedTuple):
    """One set of images that a cell's model saw.

    Attributes:
        kind: "validation" or "clean"; "attacked", or the "noise" control of an attack; "outside",
            images of another distribution; "shifted", changed images that keep their label.
        label: of the attack, of the outside set, or of the shift.
        eps: of the attack; the severity of the shift.
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
        """Return one score of one pass, (N,).

        Args:
            score: one of `names`.
            which: the pass.

        Raises:
            ValueError: there is none; the text says what there is.
        """
        if (score, which) in self.values:
            return self.values[score, which]
        if score not in self.names:
            raise ValueError(f"score (={score!r}) must be one of {', '.join(self.names)}.")
        known = sorted({describe_pass(p) for _, p in self.values})
        raise ValueError(f"no scores of {describe_pass(which)}; there are: {', '.join(known)}.")

    def has(self, score: str, which: Pass) -> bool:
        """Return whether a score of a pass is there."""
        return (score, which) in self.values

    def relabel(self, attacks: Mapping[str, str]) -> "StoredScores":
        """Return the scores with the attacks called otherwise.

        Args:
            attacks: new labels by old ones; other attacks are left out.
        """

        def rename(which: Pass) -> Pass | None:
            if which.kind not in ("attacked", "noise"):
                return which
            return which._replace(label=attacks[which.label]) if which.label in attacks else None

        values = {
            (score, new): v for (score, old), v in self.values.items() if (new := rename(old))
        }
        wrong = {new: each for old, each in self.wrong.items() if (new := rename(old))}
        return StoredScores(self.names, values, wrong, self.index)

    def passes(self, kind: str) -> list[Pass]:
        """Return the passes of a kind, in the order of the run."""
        return list(dict.fromkeys(p for _, p in self.values if p.kind == kind))


def describe_pass(which: Pass) -> str:
    """Return a pass as messages name it."""
    return {
        "attacked": f"{which.label} at eps {eps_text(which.eps)}",
        "noise": f"noise like {which.label} at eps {eps_text(which.eps)}",
        "outside": f"outside set {which.label}",
        "shifted": f"{which.label} at severity {which.eps:g}",
    }.get(which.kind, which.kind)


def save_scores(path: str | Path, scores: StoredScores) -> None:
    """Write the scores; equal content gives equal bytes."""
    arrays: dict[str, Array] = {"index": scores.index}
    passes = list(dict.fromkeys(which for _, which in scores.values))
    for number, which in enumerate(passes):
        own = [name for name in scores.names if scores.has(name, which)]
        arrays[f"scores_{number}"] = np.stack([scores.get(name, which) for name in own])
        if which in scores.wrong:
            arrays[f"wrong_{number}"] = scores.wrong[which]
    write_arrays(path, arrays, {"names": list(scores.names), "passes": [list(p) for p in passes]})


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
            test = kind in ("clean", "attacked", "noise")
            known = {"N": len(arrays["index"])} if test else {}
            check_layout(own, _LAYOUT, known)
            if np.isnan(own["scores"]).any():
                raise ValueError(f"a score of {describe_pass(which)} that is NaN")
            for name, row in zip(names, own["scores"], strict=True):
                values[name, which] = row
        return StoredScores(names, values, wrong, arrays["index"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(f"{path} holds no scores: {error}") from error
