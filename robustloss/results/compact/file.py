"""The file of a baseline: one .npz without pickle, with a JSON header and its own digest.

It is a zip archive that `numpy.load` opens. The member meta.json is the header: "format"
"robustloss baseline", "version" 1 or 2, "name", "provenance", "tables", and "cells", a list in
which each cell has "loss", "label", "seed", "weights", "threshold", "shift", "scale", "passes" (a
list of "attack", "attack_label", "norm", "eps", "scored") and "radii" (labels of attacks). The
arrays:

- index: (N,) int, positions of the test images in the original file, as differences: the first as
  it is, then each less the one before.
- wrong_C: (P, ceil(N / 8)) uint8, of cell number C and its P passes which images are classified
  wrongly, a bit an image, the first image the highest bit (numpy.packbits).
- accepted_C: (Q, ceil(N / 8)) uint8, likewise of its Q scored passes, whether the score reaches the
  threshold.
- scores_C: (Q, N) float16, the log-likelihood less "shift", over "scale". In version 2 uint8, a
  place in levels_C.
- levels_C: (L,) float16, of version 2: at most 256 rising values, each of which stands for as many
  of the scores of all passes.
- radii_C: (A, N) float16, or float32 where one is too large for that.

The archive's comment is the sha256 of every byte before it (`array_files.write_arrays`).
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from robustloss.array_files import read_arrays, write_arrays
from robustloss.notation import one_line
from robustloss.results.checking import check_tables
from robustloss.results.compact.content import TABLES_KEPT, Baseline, CellOutcomes, PassOutcome
from robustloss.results.layout import check_layout
from robustloss.results.provenance import Part, Provenance, Text
from robustloss.results.run import Run, find_run_around
from robustloss.storage import CorruptFile, digest_file

FORMAT, VERSION = "robustloss baseline", 2
AGAIN = "Take it from where it was kept, or write it again: robustloss baseline RUN --out FILE."
_LEVELS = 256
BESIDE = "reference.npz"  # in the folder of a merged run: the losses without cells
MOST_BYTES = 256 * 2**20  # of a file; MNIST's 10,000 images, 4 losses, 4 eps have half a MiB
_MOST_UNPACKED = 2**30
_OF_CELL = ("loss", "label", "seed", "weights", "shift", "scale")


class _Pass(Part):
    attack: Text
    attack_label: Text
    norm: Text | None
    eps: float
    scored: bool


class _Cell(Part):
    loss: Text
    label: Text
    seed: int
    weights: Text | None
    threshold: float | None  # None for an infinite one, which JSON does not have
    shift: float
    scale: float = Field(gt=0)
    passes: list[_Pass] = Field(min_length=1)
    radii: list[Text]


class _Header(Part):
    name: Text
    provenance: Provenance
    tables: dict[str, list]
    cells: list[_Cell] = Field(min_length=1)


def save_baseline(path: str | Path, baseline: Baseline, *, small: bool = False) -> None:
    """Write a baseline; equal content gives equal bytes.

    Args:
        path: of the file.
        baseline: what to write.
        small: keep a byte of each score in place of two: which of 256 groups of equal size it is in
            among all scores of its cell. An AUROC then changes by less than 0.001.
    """
    arrays = {"index": np.diff(baseline.index, prepend=0)}
    cells = []
    for number, cell in enumerate(baseline.cells):
        scored = [one for one in cell.passes if one.scores is not None]
        arrays[f"wrong_{number}"] = np.packbits([one.wrong for one in cell.passes], axis=1)
        arrays[f"accepted_{number}"] = np.packbits(
            np.array([one.accepted for one in scored], bool), axis=1
        )
        scores = np.array([one.scores for one in scored], np.float16)
        if small:
            scores, arrays[f"levels_{number}"] = _group(scores)
        arrays[f"scores_{number}"] = scores
        if cell.radii:
            arrays[f"radii_{number}"] = np.stack(list(cell.radii.values()))
        cells.append(
            {
                **{name: getattr(cell, name) for name in _OF_CELL},
                "threshold": cell.threshold,
                "passes": [one.place | {"scored": one.scores is not None} for one in cell.passes],
                "radii": list(cell.radii),
            }
        )
    header = {
        "format": FORMAT,
        "version": VERSION if small else 1,
        "name": baseline.name,
        "provenance": baseline.provenance,
        "tables": baseline.tables,
        "cells": cells,
    }
    write_arrays(path, arrays, header, packed=True)


def _group(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places (uint8) and levels (float16): the median of the scores that share a place.

    Args:
        scores: float16 of any shape, no NaN.
    """
    pooled, starts = np.sort(scores, axis=None), np.unique(scores)
    if starts.size > _LEVELS:
        starts = np.unique([part[0] for part in np.array_split(pooled, _LEVELS)])
    begins = np.searchsorted(pooled, starts)
    middles = (begins + np.append(begins[1:], pooled.size)) // 2
    places = np.searchsorted(starts, scores, side="right") - 1
    return places.astype(np.uint8), pooled[middles]


def load_baseline(path: str | Path) -> Baseline:
    """Read what `save_baseline` wrote.

    Args:
        path: of the file.

    Raises:
        CorruptFile: missing, cut short, altered, or no such file; ValueError: of a newer version.
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path  # the user has named it
    try:
        arrays, header = read_arrays(path, most=MOST_BYTES, unpacked=_MOST_UNPACKED)
    except CorruptFile as error:
        raise CorruptFile(_explain(path, error)) from error
    if header.get("format") != FORMAT:
        raise CorruptFile(
            f"{path} is a file of robustloss, but no baseline. Name a run folder, or a file "
            "that `robustloss baseline RUN --out FILE` wrote."
        )
    if (version := header.get("version")) not in (1, VERSION):
        raise ValueError(
            f"{path} is a baseline of version {version!r}, and this robustloss reads versions 1 to "
            f"{VERSION}. Update robustloss, or write it again: robustloss baseline RUN --out FILE."
        )
    try:
        _Header.model_validate(header)
        check_tables(path, {name: header["tables"].get(name, []) for name in TABLES_KEPT})
        index = np.cumsum(arrays["index"])
        if index.ndim != 1 or arrays["index"].dtype.kind != "i" or index.size == 0:
            raise ValueError("index must hold whole numbers, one an image")
        cells = [
            _read_cell(cell, number, arrays, index.size)
            for number, cell in enumerate(header["cells"])
        ]
    except (ValidationError, KeyError, ValueError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CorruptFile(f"{path} holds no baseline ({one_line(why)}). {AGAIN}") from error
    return Baseline(
        path, header["name"], header["provenance"], index, tuple(cells), header["tables"]
    )


def load_beside(run: Run) -> Baseline | None:
    """Return the reference whose rows stand in a merged run; None where there is none.

    Args:
        run: With its folder.

    Raises:
        CorruptFile: its file is missing, damaged, or another one than results.json states.
    """
    stated = run.provenance.get("reference")
    if stated is None:
        return None
    path = run.path / BESIDE
    if digest_file(path, MOST_BYTES) != stated["sha256"]:
        raise CorruptFile(
            f"{path} is another file than results.json states (sha256). "
            "Merge again: robustloss compare RUN --beside REFERENCE."
        )
    return load_baseline(path)


def _explain(path: Path, error: CorruptFile) -> str:
    """Say of a file that cannot be read what it is, where its beginning tells, and the remedy."""
    start = end = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(64)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 22))
            end = file.read()
    if start.startswith(b"version https://git-lfs"):
        return f"{error} It is a pointer of Git LFS: `git lfs pull` gets the file itself. {AGAIN}"
    if start and not (start.startswith(b"P") or b"\0" in start):  # no archive, nor a spoiled one
        run = find_run_around(path)
        what = f"a file of the run {run}" if run else "a text file"
        if not run and path.suffix == ".toml":
            what = "a TOML file. Gates are named by --gates, and a spec must run first"
        make = f"robustloss baseline {run or 'RUN'} --out FILE"
        return f"{path} is no baseline: it is {what}. Write one: {make}."
    if end.startswith(b"PK\5\6"):  # the end of a zip archive, not followed by a digest
        return f"{error} It is an .npz that `robustloss baseline` did not write. {AGAIN}"
    return f"{error} {AGAIN}"


def _read_cell(
    cell: dict[str, Any], number: int, arrays: dict[str, np.ndarray], n: int
) -> CellOutcomes:
    """Return one cell of a header that has been checked.

    Raises:
        KeyError, ValueError: an array is missing, or is not as the header says.
    """
    passes, labels = cell["passes"], cell["radii"]
    scored = sum(one["scored"] for one in passes)
    own = {name: arrays[f"{name}_{number}"] for name in ("wrong", "accepted", "scores")}
    if (levels := arrays.get(f"levels_{number}")) is not None:
        check_layout(own | {"levels": levels}, {"scores": ("u", "QN"), "levels": ("f", "L")})
        if own["scores"].max(initial=0) >= levels.size:
            raise ValueError(f"scores of {cell['label']} lie beyond its levels")
        own["scores"] = levels[own["scores"]]
    if labels:
        own["radii"] = arrays[f"radii_{number}"]
    layout = {
        "wrong": ("u", "PB"),
        "accepted": ("u", "QB"),
        "scores": ("f", "QN"),
        "radii": ("f", "AN"),
    }
    sizes = {"P": len(passes), "Q": scored, "A": len(labels), "N": n, "B": -(-n // 8)}
    check_layout(own, layout, sizes)
    if not passes[0]["scored"] or passes[0]["attack"] != "none":
        raise ValueError(f"the first pass of {cell['label']} is not that of the clean images")
    for name in ("scores", "radii"):
        if name in own and np.isnan(own[name]).any():
            raise ValueError(f"{name} of {cell['label']} hold NaN")
    wrong, accepted = (
        np.unpackbits(own[name].astype(np.uint8), axis=1, count=n).astype(bool)
        for name in ("wrong", "accepted")
    )
    scores = own["scores"]
    with_scores = iter(range(scored))
    read = []
    for one, own_wrong in zip(passes, wrong, strict=True):
        kept = one.copy()
        place = next(with_scores) if kept.pop("scored") else None
        both = (None, None) if place is None else (accepted[place], scores[place])
        read.append(PassOutcome(**kept, wrong=own_wrong, accepted=both[0], scores=both[1]))
    radii = dict(zip(labels, own["radii"], strict=True)) if labels else {}
    fields = {name: cell[name] for name in _OF_CELL}
    threshold = math.inf if cell["threshold"] is None else cell["threshold"]
    return CellOutcomes(
        **fields,
        threshold=threshold,
        passes=tuple(read),
        radii=radii,
    )
