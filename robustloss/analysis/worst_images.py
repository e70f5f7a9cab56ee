"""The worst case of several attacks as images: of each test image the one that fools most.

An attacked image that the model gets wrong goes before one that it gets right; among those, the one
whose margin is smallest: the logit of the true class minus the largest other. Of equals the first
attack's is taken. So the share of these images that fool the model is the error of the table
`worst_case`, except where a minimum-norm attack has a radius within the eps and no image of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustloss.image_files import PIECE
from robustloss.results.records import Record
from robustloss.results.schema import aims_at_label
from robustloss.spec.attack_kinds import attack_kind

VERSION = 1  # raise when the same records would give another choice

CLEAN = -1  # in place of an attack: the image as it was
Entry = Mapping[str, Any]  # of files.records of a cell.json
Read = Callable[[int, int], np.ndarray]  # images from start to stop


def list_worst(entries: Sequence[Entry]) -> list[tuple[str, float]]:
    """Return norm and eps > 0 of every worst case of a cell, sorted.

    Args:
        entries: its records, as cell.json lists them.
    """
    return sorted({(e["norm"], float(e["eps"])) for e in entries if e["norm"] and e["eps"] > 0})


def find_sources(entries: Sequence[Entry], norm: str, eps: float) -> list[Entry]:
    """Return the records whose images a worst case may take, at most one of each attack.

    That is the record at this eps. A minimum-norm attack without one gives the images of its next
    larger eps, as far as its radius lies within this one.

    Args:
        entries: of the cell, in the order of the spec.
        norm: of the eps.
        eps: the budget.
    """
    found = []
    aimed = [entry for entry in entries if aims_at_label(entry["attack"])]
    for label in dict.fromkeys(entry["attack_label"] for entry in aimed):
        own = [e for e in aimed if e["attack_label"] == label and e["norm"] == norm]
        own = sorted((e for e in own if e["eps"] >= eps), key=lambda entry: entry["eps"])
        if own and (own[0]["eps"] == eps or attack_kind(own[0]["attack"]) == "minimum_norm"):
            found.append(own[0])
    return found


def choose_worst(clean: Record, sources: Sequence[tuple[Entry, Record]], eps: float) -> NDArray:
    """Return from which source each image of a worst case comes, (N,) int64.

    Args:
        clean: the clean pass.
        sources: `find_sources` with their records, of the same images.
        eps: the budget.

    Returns:
        The number of a source; `CLEAN` where the model is wrong without an attack and right under
        each of them.
    """
    n = clean.n
    chosen, wrong = np.full(n, CLEAN), np.zeros(n, bool)
    margin = np.full(n, np.inf)
    for number, (entry, record) in enumerate(sources):
        reached = np.ones(n, bool)
        if entry["eps"] > eps:
            if record.radius is None:  # an attack of that name, which says nothing of it
                continue
            # a radius is a float32, and so is the eps that the attack's images are held to
            reached = record.radius <= record.radius.dtype.type(eps)
        own_wrong, own = ~record.correct, margins(record)
        better = (own_wrong & ~wrong) | ((own_wrong == wrong) & (own < margin))
        better &= reached
        chosen[better], wrong[better], margin[better] = number, own_wrong[better], own[better]
    chosen[~clean.correct & ~wrong] = CLEAN
    return chosen


def margins(record: Record) -> NDArray:
    """Return the logit of the true class minus the largest other one, (N,)."""
    logits = record.logits.astype(np.float64)
    rows = np.arange(record.n)
    true = logits[rows, record.labels]
    logits[rows, record.labels] = -np.inf
    return true - logits.max(axis=1)


def gather_worst(chosen: NDArray, sources: Sequence[Read], clean: Read) -> Iterator[np.ndarray]:
    """Yield the images of a worst case, (B,C,H,W) float32, a piece at a time.

    Args:
        chosen: (N,), as `choose_worst` returns it, or its beginning.
        sources: read the attacked images of each source.
        clean: reads the images as they were; asked only where one of them is taken.
    """
    for start in range(0, len(chosen), PIECE):
        stop = min(start + PIECE, len(chosen))
        piece: np.ndarray | None = None
        for number in np.unique(chosen[start:stop]):
            images = (clean if number == CLEAN else sources[number])(start, stop)
            own = chosen[start:stop] == number
            if piece is None:
                piece = np.empty_like(images)
            piece[own] = images[own]
        assert piece is not None
        yield piece
