"""The files of a run against each other: nothing missing, changed or forged.

results.json has a digest of itself and one of each cell.json; a cell.json has one of itself, of the
weights and of each file of arrays. So a change anywhere shows, unless every digest above it was
made anew; then the numbers themselves must be looked at, see `rebuild` and `outputs`.
"""

import math
from collections.abc import Iterator

from robustloss.array_files import MOST_ARRAYS, read_arrays
from robustloss.image_files import HEAD
from robustloss.results.finished_cell import Cell, list_files
from robustloss.results.run import Run, from_folder_on
from robustloss.runs.proof.findings import Finding, name_some
from robustloss.storage import CorruptFile, digest_file, read_json


def check_results(run: Run) -> Iterator[Finding]:
    """Look at results.json and at the cell.json of every cell that it has rows of.

    Args:
        run: As `load_run` opens it.
    """
    state = run.digest_state
    if state == "fits":
        yield Finding("results.json", "pass", "its digest fits its content")
    elif state == "absent":
        yield Finding("results.json", "open", "an older version wrote it without a digest")
    else:
        yield Finding("results.json", "fail", "its digest does not fit: it was changed afterwards")
    cells, problems = run.readable_cells
    yield from (Finding("cells", "fail", problem) for problem in problems)
    sealed = {(s["label"], s["seed"]): s["sha256"] for s in run.provenance.get("cells") or ()}
    if not sealed:
        yield Finding("cells", "open", "results.json of an older version has no digests of them")
        return
    for cell in cells:
        found = sealed.pop((cell.label, cell.seed), None)
        if found != cell.sha256:
            what = "another file than results.json was made from"
            if found is None:
                what = "results.json was made without it, and has its rows"
            yield Finding(f"{name_cell(cell)}, cell.json", "fail", what)
    known = {(cell.label, cell.seed) for cell in cells}
    told = " ".join(problems)
    for label, seed in sealed:
        if (label, seed) not in known and f"{label}, seed {seed}:" not in told:
            yield Finding(
                f"{label} seed {seed}", "fail", "results.json was made with it, and has no rows"
            )


def check_cell_files(run: Run, cell: Cell) -> Iterator[Finding]:
    """Look at every file that a cell.json names.

    Args:
        run: Of the cell.
        cell: As it was read.
    """
    name_of = name_cell(cell)
    what, wrong, arrays = f"{name_of}, files", [], 0
    most = _most_bytes(cell)
    for name in list_files(cell.files):
        try:
            if name.endswith((".npz", ".npy")):
                arrays += 1
                _check_arrays(cell, name, most if name.endswith(".npy") else MOST_ARRAYS)
            else:
                cell.path_of(name).lstat()
        except FileNotFoundError:
            wrong.append(f"{name} is missing")
        except CorruptFile as error:
            wrong.append(from_folder_on(cell.folder, error).rstrip("."))
    try:
        wrong += _check_weights(cell)
    except FileNotFoundError:
        pass  # told above
    except CorruptFile as error:
        wrong.append(from_folder_on(cell.folder, error).rstrip("."))
    if wrong:
        yield Finding(what, "fail", name_some(wrong))
    elif cell.digests is None:
        yield Finding(
            what,
            "open",
            f"an older version stored no digests: {arrays} files are whole, but whether they are "
            "those that it wrote cannot be told",
            name_of,
        )
    else:
        text = f"weights and {arrays} files are those that cell.json states"
        yield Finding(what, "pass", text, name_of)
    if not cell.weights:
        text = "an older version stored no digest"
        yield Finding(f"{name_of}, weights", "open", text, name_of)


def _most_bytes(cell: Cell) -> int:
    """Return how large a file of kept images can be: a forged one may have no end."""
    try:
        clean = cell.record()
    except ValueError:  # its file is told to be damaged
        return MOST_ARRAYS
    return 4 * clean.n * math.prod(clean.images.shape[1:]) + HEAD


def _check_arrays(cell: Cell, name: str, most: int) -> None:
    """Raise a CorruptFile, or a FileNotFoundError, if a file of arrays is not the cell's."""
    path = cell.path_of(name)
    path.lstat()
    if cell.digests is None:
        if name.endswith(".npz"):
            read_arrays(path)
        return
    stated = cell.digests.get(name)
    if stated is None:
        raise CorruptFile(f"{name}: cell.json states no digest of it")
    if digest_file(path, most) != stated:
        raise CorruptFile(f"{name} is another file than cell.json states (sha256)")


def _check_weights(cell: Cell) -> Iterator[str]:
    """Yield what is wrong with the weights and with the learning curve beside them."""
    if "model" not in cell.files:
        return
    from robustloss.models.weight_files import load_tensors  # late: merging runs needs no torch

    _, meta = load_tensors(cell.model_file)
    if cell.weights and meta["tensors"] != cell.weights:
        yield f"{cell.model_file.name} holds other weights than cell.json states"
    log = read_json(cell.path_of(cell.files["training"]), checked=True)
    key = log.pop("key", None)
    if meta.get("density") is not cell.density:
        yield f"{cell.model_file.name} and cell.json disagree on whether the loss has a density"
    if meta.get("log") != log or cell.model_file.stem not in (f"model-{key}", "model-None"):
        yield f"{cell.files['training']} has another learning curve than stands with the weights"


def name_cell(cell: Cell) -> str:
    """Return how findings call a cell."""
    return f"{cell.label} seed {cell.seed}"
