"""What a cell measures beside its records: reference, scores, probe and ranks of ten crops.

Each is a file of arrays. It is read where it is whole, and computed and stored where it is not.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from robustloss import attacks
from robustloss.analysis.checks.from_probe import check_probe, trace_name
from robustloss.analysis.detection import compute as detection
from robustloss.analysis.detection import scores as detection_scores
from robustloss.cells import score_plugins
from robustloss.cells.keys import plugin_digest, probe_eps
from robustloss.cells.records import AttackKey, ListedRecords
from robustloss.cells.workplace import Workplace
from robustloss.data.images import fit_subset
from robustloss.evaluation import detector, landscape, probes, ten_crop
from robustloss.evaluation.passes import Arrays
from robustloss.evaluation.reference import reference_arrays
from robustloss.models.classifier import Classifier
from robustloss.results.layout import check_reference
from robustloss.results.records import Record
from robustloss.results.scores import StoredScores, load_scores, save_scores
from robustloss.storage import CorruptFile, digest, read_arrays, write_arrays


class StoredArrays(NamedTuple):
    """Arrays by name, and the name of the file that holds them."""

    arrays: Arrays
    file: str


def ensure_reference(place: Workplace, outputs: list) -> StoredArrays:
    """Return what scores, thresholds and pictures need of clean images.

    Args:
        place: The cell's.
        outputs: What decides the outputs of the model, see `Workplace.outputs`.
    """
    fit_size, loss = place.spec.detection.fit_size, place.cell.loss

    def compute() -> Arrays:
        untrained = None if loss.given else place.weights.new_model()
        assert untrained is None or isinstance(untrained, Classifier)
        return reference_arrays(
            place.weights.loaded(),
            place.dataset,
            place.device,
            fit_size,
            loss=loss.name,
            params=loss.params,
            untrained=untrained,
        )

    key = digest("reference", landscape.VERSION, outputs, fit_size)
    return _ensure_arrays(place.folder / f"reference-{key}.npz", compute, check_reference)


def ensure_scores(
    place: Workplace,
    reference: StoredArrays,
    tested: ListedRecords,
    noise: Mapping[AttackKey, Record],
    outside: ListedRecords,
    *,
    density: bool,
) -> tuple[StoredScores, str]:
    """Return every score of every pass, and the name of their file.

    Args:
        place: The cell's.
        reference: What the scores are fitted on.
        tested: The clean and the attacked records.
        noise: Their controls.
        outside: The records of images that are not of the data.
        density: Whether the loss's class_log_likelihood is a normalised log-density.
    """
    names = detection.score_names(place.spec.detection.scores)
    folder = place.spec.folder
    files = [[entry["file"], entry.get("noise", "")] for entry in tested.entries]
    files += [[entry["file"], entry["label"]] for entry in outside.entries]
    key = digest(
        [detection.VERSION, detection_scores.VERSION],
        reference.file,
        files,
        list(names),
        [plugin_digest(name, folder) for name in names],
        density,
    )
    path = place.folder / f"scores-{key}.npz"
    if path.exists():
        try:
            return load_scores(path), path.name
        except CorruptFile:
            pass
    place.report_scoring("detection scores")
    scores = detection.compute_scores(
        names,
        reference.arrays,
        detection.passes_of(tested.records, reference.arrays, noise, outside.records),
        density=density,
        plugins=score_plugins.load(names, reference.arrays, (folder,)),
        name=place.name,
    )
    save_scores(path, scores)
    return scores, path.name


def ensure_probe(
    place: Workplace, outputs: list, reference: Arrays, built: Sequence[attacks.Attack]
) -> StoredArrays | None:
    """Return the arrays of the trial attacks, or None where the spec leaves them out.

    Args:
        place: The cell's.
        outputs: What decides the outputs of the model, see `Workplace.outputs`.
        reference: Arrays of clean images, for traced attacks on the detector.
        built: The attacks of the spec.
    """
    size = place.spec.checks.images
    if size == 0:
        return None
    traced = [
        (table, attack, min(positive))
        for table, attack in zip(place.spec.attacks, built, strict=True)
        if probes.traceable(attack) and (positive := [eps for eps in table.eps if eps > 0])
    ]
    eps = probe_eps(place.spec, built)

    def compute() -> Arrays:
        return probes.probe_arrays(
            detector.detector_view(place.weights.loaded(), reference),
            fit_subset(place.dataset.test, size).to(place.device),
            eps=eps,
            traced=tuple(
                probes.Traced(trace_name(table.label), attack, at) for table, attack, at in traced
            ),
            seed=place.cell.seed,
        )

    folder = place.spec.folder
    what = [
        [t.slug, t.name, plugin_digest(t.name, folder), dict(t.params), e] for t, _, e in traced
    ]
    key = digest("probe", probes.VERSION, attacks.VERSION, outputs, size, eps, what)
    return _ensure_arrays(place.folder / f"probe-{key}.npz", compute, check_probe)


def ensure_crops(place: Workplace, outputs: list) -> StoredArrays | None:
    """Return the ranks in the mean of ten crops, or None where the spec does not ask for them.

    Args:
        place: The cell's.
        outputs: What decides the outputs of the model, see `Workplace.outputs`.
    """
    if not place.dataset.ten_crop:
        return None

    def compute() -> Arrays:
        place.report_scoring("ten crops")
        test = place.dataset.test.to(place.device)
        return {"rank_10": ten_crop.ten_crop_ranks(place.weights.loaded(), test)}

    key = digest("crops", ten_crop.VERSION, outputs)
    return _ensure_arrays(place.folder / f"crops-{key}.npz", compute)


def _ensure_arrays(
    path: Path, compute: Callable[[], Arrays], check: Callable[[Arrays], None] = lambda arrays: None
) -> StoredArrays:
    """Return the arrays of a file, after computing and storing them where it is not whole.

    Args:
        path: The file.
        compute: Makes the arrays.
        check: Raises a ValueError where arrays that were read are not what they should be.
    """
    if path.exists():
        try:
            arrays = read_arrays(path)[0]
            check(arrays)
            return StoredArrays(arrays, path.name)
        except ValueError:  # CorruptFile too
            pass
    arrays = compute()
    write_arrays(path, arrays)
    return StoredArrays(arrays, path.name)
