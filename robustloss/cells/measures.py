"""What a cell measures beside its records: reference, scores, probe and ranks of ten crops.

Each is a file of arrays. It is read where it is whole, and computed and stored where it is not.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, cast

from robustloss.analysis.checks.from_probe import check_probe
from robustloss.analysis.detection import compute as detection
from robustloss.array_files import read_arrays, write_arrays
from robustloss.attacks import Attack
from robustloss.cells import detectors, keys, score_plugins, work
from robustloss.cells.detectors import find_target
from robustloss.cells.jobs import cell_name
from robustloss.cells.records import ListedRecords, PassName, ensure_clean
from robustloss.cells.workplace import Workplace
from robustloss.data.images import fit_subset
from robustloss.evaluation import detector, probes, ten_crop, unit_test
from robustloss.evaluation.detector import ScoreView
from robustloss.evaluation.passes import Arrays
from robustloss.evaluation.reference import reference_arrays
from robustloss.models.classifier import Classifier
from robustloss.results.layout import check_reference
from robustloss.results.records import Record
from robustloss.results.scores import (
    Pass,
    StoredScores,
    describe_pass,
    load_scores,
    save_scores,
)
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.prefixes import is_plugin
from robustloss.storage import CorruptFile

T = TypeVar("T")


class Stored(NamedTuple, Generic[T]):
    """What a file holds, and the name of the file."""

    content: T
    file: str


def ensure_reference(place: Workplace) -> Stored[Arrays]:
    """Return what scores, thresholds and pictures need of clean images."""
    fit_size, loss = place.spec.detection.fit_size, place.cell.loss

    def compute() -> Arrays:
        untrained = None if loss.given else place.weights.build_model()
        assert untrained is None or isinstance(untrained, Classifier)
        shared = place.dataset.validation is place.dataset.test
        return reference_arrays(
            place.load_judge(),
            place.dataset,
            place.device,
            fit_size,
            loss="gm" if loss.head else loss.name,  # whose closed form its boundaries have
            params={} if loss.head else loss.params,
            untrained=untrained,
            validation=ensure_clean(place)[0] if shared else None,
        )

    key = keys.reference_key(place.outputs, fit_size)
    return _ensure_arrays(place.folder / f"reference-{key}.npz", compute, check_reference)


def ensure_scores(
    place: Workplace,
    reference: Stored[Arrays],
    tested: ListedRecords,
    noise: Mapping[PassName, Record],
    outside: ListedRecords,
    shifted: ListedRecords,
) -> Stored[StoredScores]:
    """Return every score of every pass.

    Args:
        place: The cell's.
        reference: What the scores are fitted on.
        tested: The clean and the attacked records.
        noise: Their controls.
        outside: The records of images that are not of the data.
        shifted: The records of shifted images.
    """
    names = detection.score_names(place.spec.detection.scores)
    folder, density = place.spec.folder, place.density
    files = [[entry["file"], entry.get("noise", "")] for entry in tested.entries]
    files += [[entry["file"], entry["label"]] for entry in outside.entries]
    files += [[entry["file"], entry["label"]] for entry in shifted.entries]
    codes = {name: keys.plugin_digest(name, folder) for name in names}
    key = keys.scores_key(reference.file, files, codes, density=density)

    attacked = {Pass("attacked", *key) for key in tested.records if key[0] != "none"}

    def load(path: Path) -> StoredScores:
        """Read the file; its key does not hold the labels of the attacks, which it is read by."""
        found = load_scores(path)
        if missing := attacked - {*found.passes("attacked")}:
            raise CorruptFile(f"{path} holds no scores of {describe_pass(min(missing))}.")
        return found

    def compute() -> StoredScores:
        place.report_scoring("detection scores")
        return detection.compute_scores(
            names,
            reference.content,
            detection.passes_of(
                tested.records, reference.content, noise, outside.records, shifted.records
            ),
            density=density,
            plugins=score_plugins.load(names, reference.content, (folder,)),
            name=cell_name(place.cell),
        )

    return _ensure(place.folder / f"scores-{key}.npz", load, compute, save_scores)


def ensure_probe(place: Workplace, reference: Arrays) -> Stored[Arrays] | None:
    """Return the arrays of the trial attacks, or None where the spec leaves them out.

    Args:
        place: The cell's.
        reference: Arrays of clean images, for traced attacks on the detector.
    """
    size = place.spec.checks.images
    if size == 0:
        return None
    eps = place.spec.checks.eps
    if eps is None:  # the smallest L-inf budget of the run
        tables = zip(place.spec.attacks, place.attacks, strict=True)
        bounded = (e for table, attack in tables if attack.norm == "linf" for e in table.eps)
        eps = min((e for e in bounded if e > 0), default=probes.DEFAULT_EPS)
    traced = work.trace_attacks(place.spec, place.attacks)
    folder = place.spec.folder
    here = {"density": place.density, "features": place.features}
    tested = [
        (table, each)
        for table, each in work.list_tested(place.spec, place.attacks)
        if detectors.can_attack(each.attack, place.spec.folder, **here)
    ]
    averaged = work.list_averaged(place.spec, place.attacks)
    decisive, proving = (
        [(table, _find_code(place, table, each.attack), each.eps) for table, each in some]
        for some in (traced, tested)
    )
    names = (place.cell.loss.name, place.cell.model.backbone)

    def compute() -> Arrays:
        images = fit_subset(place.dataset.test, size).to(place.device)
        text = f"trial attacks on {images.n} images"
        place.report_scoring(text, work.CHECKS)
        model, report = place.weights.load(), place.make_reporter("score", text, work.CHECKS)
        arrays = probes.probe_arrays(
            detector.detector_view(model, reference),
            images,
            eps=eps,
            traced=[each for _, each in traced],
            averaged=averaged,
            seed=place.cell.seed,
            # What is ours answers each image by itself.
            halves=place.cell.loss.given or any(map(is_plugin, names)),
            report=report,
        )
        # One for each score: tests of attacks on the same score share their networks.
        aims = {name: each.attack for _, each in tested if (name := find_target(each.attack))}
        views = {
            name: detectors.build_view(attack, model, reference, folder, density=place.density)
            for name, attack in aims.items()
        }
        scores = {name: cast(ScoreView, view).score for name, view in views.items()}
        own = [
            each._replace(score=scores.get(find_target(each.attack) or "")) for _, each in tested
        ]
        return arrays | unit_test.unit_arrays(model, images, own, seed=place.cell.seed)

    seed = place.cell.seed
    key = keys.probe_key(place.outputs, size, eps, decisive, proving, seed, averaged)
    return _ensure_arrays(place.folder / f"probe-{key}.npz", compute, check_probe)


def _find_code(place: Workplace, table: AttackSpec, attack: Attack) -> str:
    """Return what decides an attack of the probe, with the score that it aims at."""
    code, folder = keys.plugin_digest(table.name, place.spec.folder), place.spec.folder
    if (score := find_target(attack)) is None:
        return code
    return f"{code} {place.spec.detection.fit_size} {keys.plugin_digest(score, folder)}"


def ensure_crops(place: Workplace) -> Stored[Arrays] | None:
    """Return the ranks in the mean of ten crops, or None where the spec does not ask for them."""
    if not place.dataset.ten_crop:
        return None

    def compute() -> Arrays:
        place.report_scoring("ten crops", work.CROPS)
        test = place.dataset.test.to(place.device)
        return {"rank_10": ten_crop.ten_crop_ranks(place.load_judge(), test)}

    return _ensure_arrays(place.folder / f"crops-{keys.crops_key(place.outputs)}.npz", compute)


def _ensure_arrays(
    path: Path, compute: Callable[[], Arrays], check: Callable[[Arrays], None] = lambda arrays: None
) -> Stored[Arrays]:
    """Return the arrays of a file, as `_ensure`; `check` raises a ValueError for other arrays."""

    def load(path: Path) -> Arrays:
        arrays = read_arrays(path)[0]
        check(arrays)
        return arrays

    return _ensure(path, load, compute, write_arrays)


def _ensure(
    path: Path, load: Callable[[Path], T], compute: Callable[[], T], save: Callable[[Path, T], None]
) -> Stored[T]:
    """Return what a file holds, after computing and saving it where the file is not whole.

    Args:
        path: The file.
        load: Reads the file; raises a ValueError, such as CorruptFile, where it is not whole.
        compute: Makes what it should hold.
        save: Writes the file.
    """
    with suppress(ValueError):
        return Stored(load(path), path.name)
    content = compute()
    save(path, content)
    return Stored(content, path.name)
