"""`export`: kept images of an attack or a worst case as one file that others can check."""

import csv
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from robustloss.analysis.worst_images import CLEAN, Read, find_sources, gather_worst
from robustloss.attacks.ball import to_8bit
from robustloss.data.images import Dataset
from robustloss.evaluation.passes import to_numpy
from robustloss.image_files import PIECE, Shape
from robustloss.notation import eps_text
from robustloss.results.finished_cell import Cell
from robustloss.results.run import Run, load_run
from robustloss.runs.proof.choose import (
    WORST_CASE,
    UntoldError,
    choose_cell,
    choose_pass,
    load_data,
    read_eps,
)
from robustloss.runs.proof.outputs import expect_worst
from robustloss.spec.errors import choice_rule
from robustloss.spec.text import slug
from robustloss.storage import CorruptFile, digest_file, replacing, write_text
from robustloss.work_folders import making_folder, put_in_place

FORMATS = ("npz", "pt", "png")


@dataclass(frozen=True)
class _Images:
    """Images to export, of which nothing is in memory.

    Attributes:
        shape: (N,C,H,W).
        pieces: yields float32 images, a piece at a time.
        arrays: by name, (N,) int64 each.
        about: plain values that hold for all.
        attacks: (N,) label of the attack that each image is of; None where all are of one.
    """

    shape: Shape
    pieces: Iterator[np.ndarray]
    arrays: Mapping[str, NDArray]
    about: Mapping[str, Any]
    attacks: NDArray | None


@dataclass(frozen=True)
class _Kept:
    """Images that a run has.

    Attributes:
        shape: (N,C,H,W).
        read: returns those from start to stop.
    """

    shape: Shape
    read: Read

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield all of them, `PIECE` at a time."""
        for start in range(0, self.shape[0], PIECE):
            yield self.read(start, min(start + PIECE, self.shape[0]))


def export(
    run: str | Path | Run,
    attack: str,
    *,
    loss: str | None = None,
    seed: int | None = None,
    eps: float | str | None = None,
    norm: str | None = None,
    format: str = "npz",
    out: str | Path | None = None,
    data: str | Path | None = None,
    allow_plugins: bool = False,
) -> Path:
    """Write the kept images of one attack, or of a worst case, for one model and eps.

    An .npz and a .pt hold "images" (N,C,H,W) float32 in [0,1]; "labels", "indices" (positions in
    the test file of the data), "clean_predictions" and "predictions", (N,) int64; "eps" and "norm";
    "attack", "loss", "seed", "data" (its checksum) and "weights" (their digest); of a worst case
    also "attacks", (N,) labels. The .pt has text and numbers where the .npz has arrays without
    axes; both are read without pickle. A folder of PNG holds the images rounded to 8 bits inside
    the ball, index.csv and export.json.

    Args:
        run: A finished run that keeps images, see [records] of a spec; one of at most 64 test
            images keeps all.
        attack: Label in any case, or "worst-case".
        loss: Whose model: a label in any case; needed where the run has several.
        seed: Of that model.
        eps: As 0.1 or "8/255"; needed where the attack has several.
        norm: Of a worst case where the run has several.
        format: "npz", "pt" or "png".
        out: File, or folder for PNG, that does not exist yet; by default named after all this.
        data: The folder with the data sets; PNG and some worst cases need the clean images.
        allow_plugins: Whether to execute code of the run's author that makes these.

    Returns:
        Where it was written.

    Raises:
        ValueError: There is no such pass, its images were not kept, `out` exists, or the data are
            not here; CorruptFile: a damaged file. Nothing is then written.
        OSError: It cannot be written.
    """
    run = run if isinstance(run, Run) else load_run(run)
    if format not in FORMATS:
        raise ValueError(f"format (={format}) {choice_rule(format, FORMATS)}")
    cell = choose_cell(run, loss, seed)
    label, chosen_norm, budget = choose_pass(cell, attack, read_eps(eps), norm)
    if out is None:
        name = f"{run.name}-{cell.slug}-seed-{cell.seed}-{slug(label)}-{budget:.6g}"
        out = name if format == "png" else f"{name}.{format}"
    out = Path(out)
    if os.path.lexists(out) and not (format == "png" and _is_empty_folder(out)):
        raise ValueError(f"out (={out}) exists. Name another with --out, or remove it.")
    dataset: Dataset | None = None

    def load() -> Dataset:
        nonlocal dataset
        if dataset is None:
            try:
                dataset = load_data(run, data, allow_plugins=allow_plugins)
            except UntoldError as error:
                raise ValueError(f"the clean images are needed, but {error}.") from error
        return dataset

    def read_clean(start: int, stop: int) -> np.ndarray:
        return to_numpy(load().test.batch(slice(start, stop)))

    if label == WORST_CASE:
        images = _find_worst(run, cell, chosen_norm, budget, read_clean)
    else:
        images = _find_attacked(run, cell, label, chosen_norm, budget)
    if format == "png":
        if (steps := load().test.scale) != 255:
            raise ValueError(
                f"format (=png) needs images of 8 bits; the pixels of {load().name} have "
                f"{steps:g} steps. Use npz."
            )
        _write_folder(out, images, load().test.batch)
    elif format == "npz":
        _write_npz(out, images)
    else:
        _write_torch(out, images)
    return out


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _find_attacked(run: Run, cell: Cell, label: str, norm: str, eps: float) -> _Images:
    """Return the kept images of one attack at one eps."""
    (entry,) = (e for e in cell.files["records"] if (e["attack_label"], e["eps"]) == (label, eps))
    kept = _open_kept(cell, entry)
    if kept is None:
        raise ValueError(_explain_missing(f"{label} at eps {eps_text(eps)}", "all"))
    record, clean = cell.record(label, eps), cell.record()
    arrays = {"labels": record.labels, "indices": record.index}
    arrays |= {"clean_predictions": clean.predictions, "predictions": record.predictions}
    if record.predictions_8bit is not None:
        arrays["predictions_8bit"] = record.predictions_8bit
    about = _describe(run, cell, label, norm, eps)
    return _cut(kept.shape, kept.pieces(), arrays, about, None)


def _find_worst(run: Run, cell: Cell, norm: str, eps: float, read_clean: Any) -> _Images:
    """Return the images of a worst case: those that are kept, or taken from those of attacks."""
    entries, clean = cell.files["records"], cell.record()
    expected = expect_worst(cell, norm, eps)
    chosen, sources = expected["chosen"], find_sources(entries, norm, eps)
    own = [e for e in cell.files.get("worst") or () if (e["norm"], e["eps"]) == (norm, eps)]
    if own:
        whole = _open_kept(cell, own[0])
        assert whole is not None
        shape, pieces = whole.shape, whole.pieces()
    else:
        kept = [each for entry in sources if (each := _open_kept(cell, entry)) is not None]
        if len(kept) < len(sources):
            what = f"the worst case at eps {eps_text(eps)}"
            raise ValueError(_explain_missing(what, "worst"))
        shape = min(each.shape for each in kept)
        pieces = gather_worst(chosen[: shape[0]], [each.read for each in kept], read_clean)
    arrays = {
        "labels": clean.labels,
        "indices": clean.index,
        "clean_predictions": clean.predictions,
        "predictions": expected["logits"].argmax(axis=1),
    }
    labels = np.array([*(each["attack_label"] for each in sources), "none"])
    assert CLEAN == -1
    return _cut(shape, pieces, arrays, _describe(run, cell, WORST_CASE, norm, eps), labels[chosen])


def _open_kept(cell: Cell, entry: Mapping[str, Any]) -> _Kept | None:
    """Open the images of a record or a worst case, and refuse those that were changed.

    None where they were not kept. The record of a small test set holds all of them.
    """
    file = cell.images(entry)
    name = entry.get("images") or entry["file"]
    stated = (cell.digests or {}).get(name)
    if stated and digest_file(cell.path_of(name)) != stated:
        raise CorruptFile(
            f"{cell.path_of(name)} is another file than cell.json states (sha256). Run the spec "
            "again, which trains nothing."
        )
    if file is not None:
        return _Kept(file.shape, file.read)
    record = cell.record(entry["attack_label"], entry["eps"])
    if len(record.images) < record.n:
        return None
    return _Kept(record.images.shape, lambda start, stop: record.images[start:stop])


def _explain_missing(what: str, key: str) -> str:
    return (
        f"{what}: its images were not kept. Write [records] and, below it, images = "
        f'"{key}" in the spec, and run it again: nothing is trained anew.'
    )


def _describe(run: Run, cell: Cell, label: str, norm: str, eps: float) -> dict[str, Any]:
    data = run.provenance.get("data") or {}
    return {
        "eps": eps, "norm": norm, "attack": label, "loss": cell.label, "seed": cell.seed,
        "data": str(data.get("checksum") or ""), "weights": cell.weights,
    }  # fmt: skip


def _cut(
    shape: Shape,
    pieces: Iterator[np.ndarray],
    arrays: Mapping[str, NDArray],
    about: Mapping[str, Any],
    attacks: NDArray | None,
) -> _Images:
    """Return images with as much of the arrays as there are images.

    Raises:
        CorruptFile: There are more images than the record has.
    """
    n = shape[0]
    if any(len(array) < n for array in arrays.values()):
        raise CorruptFile(f"a file of kept images has {n:,}, which is more than its record has.")
    own = {name: array[:n].astype(np.int64) for name, array in arrays.items()}
    return _Images(shape, pieces, own, about, None if attacks is None else attacks[:n])


def _write_npz(out: Path, images: _Images) -> None:
    """Write an .npz, the images piece by piece; equal content gives equal bytes."""
    small = {
        name: np.asarray(value) for name, value in (*images.arrays.items(), *images.about.items())
    }
    if images.attacks is not None:
        small["attacks"] = images.attacks
    with replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in small.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(_member(name), content.getvalue())
        with archive.open(_member("images"), "w", force_zip64=True) as whole:
            facts = {"descr": "<f4", "fortran_order": False, "shape": images.shape}
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, facts)
            whole.write(header.getvalue())
            for piece in images.pieces:
                whole.write(np.ascontiguousarray(piece, "<f4").tobytes())


def _member(name: str) -> zipfile.ZipInfo:
    """Return an entry of an .npz without time and platform, which must not show in the bytes."""
    member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system, member.external_attr = 3, 0o644 << 16
    return member


def _write_torch(out: Path, images: _Images) -> None:
    """Write a .pt of tensors, numbers and text; the images come from a file without a name."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent) as file:
        for piece in images.pieces:
            file.write(np.ascontiguousarray(piece, np.float32).tobytes())
        file.flush()
        mapped = np.memmap(file, np.float32, "r+", shape=images.shape)
        content: dict[str, Any] = {name: torch.from_numpy(a) for name, a in images.arrays.items()}
        content |= {"images": torch.from_numpy(mapped), **images.about}
        if images.attacks is not None:
            content["attacks"] = images.attacks.tolist()
        with replacing(out) as target:
            torch.save(content, target)


def _write_folder(out: Path, images: _Images, read_clean: Any) -> None:
    """Write a folder of PNG files of 8 bits, with index.csv and export.json."""
    n, channels, *_ = images.shape
    if channels not in (1, 3):
        raise ValueError(f"format (=png) holds 1 or 3 channels, these images have {channels}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    indices = images.arrays["indices"]
    unique = len(np.unique(indices)) == n and int(indices.min()) >= 0
    names = [f"{number:06d}.png" for number in (indices if unique else np.arange(n)).tolist()]
    with making_folder(out.resolve(), f".export-{out.name}-") as work:
        fresh = work / "images"
        fresh.mkdir()
        start = 0
        for piece in images.pieces:
            stop = start + len(piece)
            clean = read_clean(slice(start, stop)).cpu()
            rounded = to_8bit(
                torch.from_numpy(piece), clean, images.about["eps"], images.about["norm"]
            )
            pixels = (255 * rounded).round().to(torch.uint8).numpy()
            for name, each in zip(names[start:stop], pixels, strict=True):
                image = each[0] if channels == 1 else np.moveaxis(each, 0, 2)
                Image.fromarray(np.ascontiguousarray(image)).save(fresh / name)
            start = stop
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        columns = {
            "index": "indices", "label": "labels", "clean_prediction": "clean_predictions",
            "prediction": "predictions", "prediction_8bit": "predictions_8bit",
        }  # fmt: skip
        columns = {name: own for name, own in columns.items() if own in images.arrays}
        more = {} if images.attacks is None else {"attack": images.attacks.tolist()}
        table.writerow(["file", *columns, *more])
        values = [images.arrays[own].tolist() for own in columns.values()]
        table.writerows(zip(names, *values, *more.values(), strict=True))
        write_text(fresh / "index.csv", text.getvalue())
        write_text(fresh / "export.json", json.dumps(dict(images.about), indent=1) + "\n")
        put_in_place(fresh, out.resolve(), ())
