"""Kept images against model and data: inside box and ball, and do they give the numbers?"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustloss.analysis.worst_images import choose_worst, find_sources
from robustloss.attacks.ball import TOLERANCE, leaves, to_8bit
from robustloss.data.images import Dataset
from robustloss.evaluation.passes import LAYOUT, Columns, add_outputs, to_numpy
from robustloss.image_files import PIECE
from robustloss.models.classifier import AnyClassifier
from robustloss.notation import NORM_NAMES, eps_text
from robustloss.results.finished_cell import Cell
from robustloss.results.numbers import ResultNumbers
from robustloss.results.records import Record
from robustloss.results.run import Run, from_folder_on
from robustloss.runs.classifier import load_classifier
from robustloss.runs.proof.files import name_cell
from robustloss.runs.proof.findings import Finding, name_some
from robustloss.storage import CorruptFile

NOISE = 1e-3
"""Of an image's largest logit or log-likelihood: what another device may change in float32."""

Pieces = Iterable[tuple[slice, np.ndarray]]


@dataclass(frozen=True)
class Outputs:
    """What a model says of some images, beside their originals.

    Attributes:
        arrays: "logits" (N,K), "class_log_likelihood" (N,K), "linf", "l2" and, for an attack in L1,
            "l1" (N,) by name.
        outside_box: (N,) a pixel leaves [0,1] by more than the tolerance.
        outside_ball: (N,) the image lies farther from its original than eps and the tolerance.
        rounded: (N,) class of the image rounded to 8 bits; None where it was not asked for.
    """

    arrays: Mapping[str, NDArray]
    outside_box: NDArray
    outside_ball: NDArray
    rounded: NDArray | None

    @property
    def predictions(self) -> NDArray:
        """(N,) predicted classes."""
        return np.asarray(self.arrays["logits"].argmax(axis=1))


def look_at(
    model: AnyClassifier,
    pieces: Pieces,
    dataset: Dataset,
    positions: NDArray | None,
    n: int,
    *,
    norm: str | None = None,
    eps: float | None = None,
    eight_bit: bool = False,
) -> Outputs:
    """Pass images through a model, a piece at a time, and measure them.

    Args:
        model: In eval mode, on the CPU or a GPU.
        pieces: Positions and images (B,C,H,W), in order, N in all.
        dataset: Whose test set holds the originals.
        positions: (N,) of the originals in the test set; None where there are none, then sizes
            mean nothing.
        n: N.
        norm: Of the ball; None for none.
        eps: Its radius.
        eight_bit: Also round the images, inside the ball, and classify them.
    """
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    columns = Columns(n)
    outside = {name: np.zeros(n, bool) for name in ("box", "ball")}
    rounded = np.zeros(n, np.int64) if eight_bit else None
    for piece, images in pieces:
        shown = torch.from_numpy(images).to(device)
        clean = shown
        if positions is not None:
            clean = dataset.test.batch(torch.from_numpy(positions[piece])).to(device)
        pixels = shown.flatten(1)
        box = (pixels.amin(1) < -TOLERANCE) | (pixels.amax(1) > 1 + TOLERANCE)
        outside["box"][piece] = to_numpy(box)
        add_outputs(columns, model, shown, clean, norm=norm, pictures=False)
        if norm is not None and eps is not None and positions is not None:
            boxed = shown.clamp(0, 1)  # outside the box is another thing
            outside["ball"][piece] = to_numpy(leaves(boxed, clean, eps, norm))  # type: ignore[arg-type]
            if rounded is not None:
                eighth = to_8bit(shown, clean, eps, norm)  # type: ignore[arg-type]
                with torch.no_grad():
                    answers = model(eighth.contiguous(memory_format=LAYOUT))
                rounded[piece] = to_numpy(answers.argmax(1))
    return Outputs(columns.finish(), outside["box"], outside["ball"], rounded)


def check_outputs(
    run: Run, cell: Cell, dataset: Dataset, *, device: str, allow_plugins: bool
) -> Iterator[Finding]:
    """Show the images of a cell to its model, loaded anew, and compare with its records.

    Those are the clean ones, the first of each attacked record, and all that the cell keeps.

    Args:
        run: Of the cell.
        cell: As it was read.
        dataset: The run's data, loaded anew.
        device: Where to compute.
        allow_plugins: Whether to load a model that needs code of the run's author.
    """
    name = name_cell(cell)
    if (draws := ResultNumbers(run.results).draws) > 1:
        text = f"its numbers are of {draws} random calls (eot), which cannot be made again"
        yield Finding(f"{name}, model", "open", text, name)
        return
    try:
        model = load_classifier(
            run.path, loss=cell.label, seed=cell.seed, allow_plugins=allow_plugins
        )
    except CorruptFile as error:
        yield Finding(f"{name}, model", "fail", from_folder_on(run.path, error))
        return
    except (ValueError, OSError) as error:
        yield Finding(f"{name}, model", "open", from_folder_on(run.path, error), name)
        return
    looked = _Looked(run, cell, dataset, model.to(device))
    entries = cell.files["records"]
    for check, each in [(looked.check_pass, entry) for entry in entries] + [
        (looked.check_worst, entry) for entry in cell.files.get("worst") or ()
    ]:
        try:
            finding = check(each)
        except Exception as error:  # whatever damaged or forged files make the model do
            text = from_folder_on(run.path, error)
            if not isinstance(error, ValueError):
                text = f"its images cannot be looked at ({type(error).__name__}: {text})"
            finding = Finding(name, "fail", text)
        if finding is not None:
            yield finding


class _Looked:
    """A cell with its model, whose passes are looked at one after the other."""

    def __init__(self, run: Run, cell: Cell, dataset: Dataset, model: AnyClassifier) -> None:
        self.run, self.cell, self.dataset, self.model = run, cell, dataset, model
        self.labels = to_numpy(dataset.test.labels)
        self.index = to_numpy(dataset.test.index)

    def check_pass(self, entry: Mapping[str, Any]) -> Finding | None:
        """Compare a record with what the model says; None for an attack at eps 0."""
        label, eps, norm = entry["attack_label"], float(entry["eps"]), entry["norm"]
        if norm is not None and eps == 0:
            return None
        record = self.cell.record(label, eps)
        if norm is None:
            what, n, eps_of = "clean images", record.n, None
            pieces: Pieces = _pieces_of_data(self.dataset)
        else:
            what, eps_of = f"{label} at eps {eps_text(eps)}", eps
            file = self.cell.images(entry)
            n = len(record.images) if file is None else file.n
            pieces = [(slice(0, n), record.images)] if file is None else file.pieces()
        what = f"{name_cell(self.cell)}, {what}"
        wrong = self._compare_images(record)
        if wrong or n > record.n:
            return Finding(what, "fail", name_some(wrong or ["more images than the record has"]))
        if n == 0:
            return Finding(what, "open", "none of its images are stored", name_cell(self.cell))
        found = look_at(
            self.model, pieces, self.dataset, np.arange(n), n,
            norm=norm, eps=eps_of, eight_bit=record.predictions_8bit is not None,
        )  # fmt: skip
        expected = {key: array[:n] for key, array in record.arrays.items() if key != "images"}
        wrong = [*count_outside(found, eps_of), *_compare_outputs(found, expected)]
        row = self._find_row(self.run.rows, attack_label=label, eps=eps)
        return self._conclude(what, wrong, found, record.labels[:n], row, n == record.n)

    def check_worst(self, entry: Mapping[str, Any]) -> Finding:
        """Compare the images of a worst case with the records that they are taken from."""
        norm, eps = entry["norm"], float(entry["eps"])
        what = f"{name_cell(self.cell)}, worst case at eps {eps_text(eps)} "
        what += f"({NORM_NAMES.get(norm, norm)})"
        file, clean = self.cell.images(entry), self.cell.record()
        if file is None:
            return Finding(what, "fail", "cell.json names no file of it")
        if wrong := self._compare_images(clean):
            return Finding(what, "fail", name_some(wrong))
        if file.n != clean.n:
            return Finding(what, "fail", f"{file.n} images of {clean.n}")
        expected = expect_worst(self.cell, norm, eps)
        found = look_at(
            self.model, file.pieces(), self.dataset, np.arange(file.n), file.n, norm=norm, eps=eps
        )
        wrong = [*count_outside(found, eps), *_compare_outputs(found, expected)]
        row = self._find_row(self.run.worst_case, norm=norm, eps=eps)
        # Images that count by a radius alone have none here.
        by_radius = int(_reached_by_radius(self.cell, norm, eps, expected["logits"]).sum())
        return self._conclude(what, wrong, found, clean.labels, row, True, by_radius)

    def _compare_images(self, record: Record) -> list[str]:
        """Return what is wrong with the labels and the indices of a record."""
        found = []
        for name, own in (("labels", self.labels), ("index", self.index)):
            stored = getattr(record, name)
            if len(stored) != len(own):
                return [f"it has {len(stored)} images, the test set {len(own)}"]
            if (stored != own).any():
                found.append(count_images(f"{name} not those of the data", stored != own))
        return found

    def _find_row(self, rows: list, **values: Any) -> Mapping[str, Any] | None:
        wanted = {"label": self.cell.label, "seed": self.cell.seed, **values}
        return next((r for r in rows if all(r.get(k) == v for k, v in wanted.items())), None)

    def _conclude(
        self,
        what: str,
        wrong: list[str],
        found: Outputs,
        labels: NDArray,
        row: Mapping[str, Any] | None,
        whole: bool,
        by_radius: int = 0,
    ) -> Finding:
        """Return the finding of a pass.

        Args:
            what: Names it.
            wrong: What is wrong so far.
            found: What the model says.
            labels: (N,) of these images.
            row: Of results.json, with the error; None where there is none.
            whole: Whether these are all images of the pass.
            by_radius: Images that the error may count, and of which there are none.
        """
        n, count = len(labels), int((found.predictions != labels).sum())
        if whole and row is None:
            wrong.append("results.json has no row of it")
        elif whole and row is not None:
            stated = round(row["error"] * n)
            flips = int(find_undecided(found.arrays["logits"]).sum())
            if not count - flips <= stated <= count + flips + by_radius:
                text = (
                    f"these images give error {count / n:.4f}, results.json has {row['error']:.4f}"
                )
                wrong.append(text)
        if wrong:
            return Finding(what, "fail", name_some(wrong))
        inside = "" if what.endswith("clean images") else "in box and ball; "
        images = f"{n:,} images" if whole else f"the first {n:,} images"
        told = f"error {count / n:.4f} and log-likelihoods are those of results.json"
        if not whole:
            told = "predictions and log-likelihoods are those of the record"
        return Finding(what, "pass", f"{images}: {inside}{told}", name_cell(self.cell), images)


def expect_worst(cell: Cell, norm: str, eps: float) -> dict[str, NDArray]:
    """Return what the records say of the images of a worst case.

    Args:
        cell: Of the run.
        norm: Of the worst case.
        eps: Of the worst case.

    Returns:
        "logits", "class_log_likelihood", "linf", "l2" of each image, and "chosen", as
        `choose_worst` returns it.
    """
    clean, sources = cell.record(), find_sources(cell.files["records"], norm, eps)
    records = [cell.record(each["attack_label"], float(each["eps"])) for each in sources]
    chosen = choose_worst(clean, list(zip(sources, records, strict=True)), eps)
    made: dict[str, NDArray] = {"chosen": chosen}
    for name in ("logits", "class_log_likelihood", "linf", "l2"):
        array = np.array(getattr(clean, name))
        for number, record in enumerate(records):
            own = chosen == number
            array[own] = getattr(record, name)[own]
        made[name] = array
    return made


def _reached_by_radius(cell: Cell, norm: str, eps: float, logits: NDArray) -> NDArray:
    """Return which images have a radius within eps and no image that fools, (N,) bool."""
    clean = cell.record()
    reached = np.zeros(clean.n, bool)
    for entry in cell.files["records"]:
        if entry["norm"] == norm and entry["eps"] > 0:
            radius = cell.record(entry["attack_label"], float(entry["eps"])).radius
            if radius is not None:
                reached |= radius <= radius.dtype.type(eps)
    return reached & (logits.argmax(axis=1) == clean.labels)


def count_outside(found: Outputs, eps: float | None) -> list[str]:
    """Say how many images leave box or ball."""
    told = []
    if found.outside_box.any():
        told.append(count_images("outside the box [0, 1]", found.outside_box))
    if found.outside_ball.any():
        assert eps is not None
        told.append(count_images(f"outside the ball of eps {eps_text(eps)}", found.outside_ball))
    return told


def count_images(what: str, images: NDArray) -> str:
    """Return what holds for some images, (N,) bool, with their number."""
    return f"{what}: {int(images.sum()):,} of {len(images):,} images"


def _compare_outputs(found: Outputs, expected: Mapping[str, NDArray]) -> list[str]:
    """Say where images and outputs differ from what a record has of them."""
    told = []
    for name in [each for each in NORM_NAMES if each in expected and each in found.arrays]:
        bad = np.abs(found.arrays[name] - expected[name]) > 1e-5 * np.maximum(1, expected[name])
        if bad.any():
            told.append(count_images(f"{name} distance not that of the record", bad))
    for name, words in (("logits", "logits"), ("class_log_likelihood", "log-likelihoods")):
        made, stored = (a.astype(np.float64) for a in (found.arrays[name], expected[name]))
        if made.shape != stored.shape:
            return [*told, f"{words} of shape {made.shape}, the record has {stored.shape}"]
        scale = NOISE * np.maximum(1, np.abs(stored).max(axis=1))
        if (bad := np.abs(made - stored).max(axis=1) > scale).any():
            told.append(count_images(f"{words} not those of the record", bad))
    rounded = expected.get("predictions_8bit")
    if rounded is not None and found.rounded is not None:
        bad = (found.rounded != rounded) & ~find_undecided(found.arrays["logits"])
        if bad.any():
            told.append(count_images("rounded to 8 bits classified otherwise", bad))
    return told


def find_undecided(logits: NDArray) -> NDArray:
    """Return where the two largest logits are so close that rounding decides the class, (N,)."""
    if logits.shape[1] < 2:
        return np.zeros(len(logits), bool)
    top = np.sort(logits.astype(np.float64), axis=1)[:, -2:]
    scale = NOISE * np.maximum(1, np.abs(logits).max(axis=1))
    return np.asarray(top[:, 1] - top[:, 0] <= 2 * scale)


def _pieces_of_data(dataset: Dataset) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, dataset.test.n, PIECE):
        piece = slice(start, min(start + PIECE, dataset.test.n))
        yield piece, to_numpy(dataset.test.batch(piece))
