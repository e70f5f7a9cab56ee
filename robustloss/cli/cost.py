"""What a run will cost: counted from the spec, timed by a few real steps on this machine.

Steps and passes are timed by a clock that stands still while other programs have the cores, and the
least of a few times counts, so the estimate is for a quiet machine. What does not follow from
passes (the start, numbers, pictures) was measured once and is scaled by the pace of Python here.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from robustloss.spec.attack_kinds import attack_norm
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.prefixes import names_weights
from robustloss.spec.resources import MOST_PICTURES, WORST
from robustloss.spec.spec import CellSpec, Spec

if TYPE_CHECKING:
    import torch

    from robustloss.attacks.base import Queries
    from robustloss.data.images import Dataset, ImageSet
    from robustloss.models.classifier import AnyClassifier, Classifier


BUDGET = 8.0  # seconds that the timing may take over all losses
_STEPS = 20  # training steps that are enough for a rough time
_REPEATS = 3  # of these steps; the least time counts

# Seconds of what is neither training nor a pass of images, on a 2.4 GHz core of an AMD EPYC.
_START_AND_END = 8.0  # a run: imports, data, results.json, the page without pictures
_PER_CELL = 0.5
_PER_RECORD = 0.08  # numbers and scores of an attack at one eps, in every cell
_PER_COMPARED = 0.03  # two losses on one record, in every seed
_PER_DRAWN = 0.4  # pictures, for each loss and each attack at one eps
_DRAWING = 4  # processes that draw, at most
_COUNTED, _COUNTED_SECONDS = 100_000, 0.0075  # squares that Python adds up there in this time
_ATTACKED = 200  # images that are enough for a rough time of an attack


@dataclass(frozen=True)
class Cost:
    """The work of one run.

    Attributes:
        training_images: Images through forward, backward and update, over all cells and trials.
        attacked_images: Adversarial images to make and classify, over cells, attacks and eps.
        disk: Bytes of records and of kept images.
    """

    training_images: int
    attacked_images: int
    disk: int


@dataclass(frozen=True)
class Timing:
    """Estimated seconds of a run, or why there is no estimate.

    Attributes:
        seconds: Of the whole run, from the command to the report, on a quiet machine; None without
            an estimate.
        note: How it was measured, or why not.
    """

    seconds: float | None
    note: str


def count(
    spec: Spec,
    cells: Sequence[CellSpec],
    sizes: tuple[int, int, int],
    image_values: int,
    num_classes: int,
) -> Cost:
    """Count the work of a run.

    Args:
        spec: What is asked for.
        cells: Its cells.
        sizes: Images in the training, validation and test set.
        image_values: Values of one image, C·H·W.
        num_classes: K.
    """
    from robustloss.evaluation.landscape import UNTRAINED

    train, validation, test = sizes
    budgets = sum(len(attack.eps) for attack in spec.attacks)
    controls = sum(eps > 0 for attack in spec.attacks for eps in attack.eps)
    controls *= spec.detection.noise
    disk = 0
    for cell in cells:
        row = 4 * (cell.model.feature_dim + 2 * num_classes) + 24  # float32 outputs, index, label
        shown = 64 * 4 * image_values  # the images of a record for pictures
        fitted = min(spec.detection.fit_size, train)
        disk += (1 + budgets) * (test * row + shown) + (validation + fitted) * row
        disk += controls * test * row
        disk += _count_kept(spec, test) * 4 * image_values
        disk += sum(table.images * row + shown for table in spec.outside)
        disk += sum(table.most_images * row for table in spec.shifts)
        disk += min(UNTRAINED, test) * (4 * cell.model.feature_dim + 8) + 4 * fitted
        if cell.model.feature_dim == 2:
            disk += 240 * 240 * (4 * num_classes + 8 + 6 * 4)  # likelihood map, boundaries
    trained = [cell for cell in (*cells, *spec.trials()) if cell.loss.trains]
    return Cost(
        training_images=sum(cell.train.epochs for cell in trained) * train,
        attacked_images=len(cells) * budgets * test,
        disk=disk,
    )


def _count_kept(spec: Spec, test: int) -> int:
    """Return how many attacked images a cell keeps beside its records.

    Args:
        spec: What is asked for.
        test: Images in the test set.
    """
    asked = spec.records.images
    places = [
        (attack_norm(attack.name, attack.params), eps)
        for attack in spec.attacks
        for eps in attack.eps
        if eps > 0
    ]
    if isinstance(asked, int):
        return len(places) * min(asked, test) if asked > MOST_PICTURES else 0
    return test * (len(set(places)) if asked == WORST else len(places))


def measure(
    spec: Spec, cells: Sequence[CellSpec], dataset: "Dataset", budget: float = BUDGET
) -> Timing:
    """Time some training steps and one attacked batch of every loss, on random weights.

    With `--executor auto`, and with the number of threads that a worker then has.

    Args:
        spec: What is asked for.
        cells: Its cells.
        dataset: Its data.
        budget: Seconds to spend; one step of each loss is always taken.
    """
    import torch

    from robustloss.runs.executors.automatic import choose_processes
    from robustloss.runs.executors.choose import count_processes
    from robustloss.runs.settings import choose_device

    device = choose_device("auto")
    workers, threads = count_processes(choose_processes(spec, spec.seeds, dataset, device, ()))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        timed = _time_losses(spec, cells, dataset, device, budget)
        pace = _measure_pace()
    finally:
        torch.set_num_threads(before)
    if isinstance(timed, str):
        return Timing(None, timed)
    seconds = schedule([timed[trial.label].training for trial in spec.trials()], workers)
    by_seed = sorted(cells, key=lambda cell: spec.seeds.index(cell.seed))
    passes, losses = 1 + sum(len(attack.eps) for attack in spec.attacks), len(timed)
    own = pace * (_PER_CELL + _PER_RECORD * passes)
    seconds += schedule([timed[cell.label].cell + own for cell in by_seed], workers)
    compared = passes * losses * (losses - 1) / 2 * len(spec.seeds)
    drawn = passes * losses / min(_DRAWING, before)
    seconds += pace * (_START_AND_END + _PER_COMPARED * compared + _PER_DRAWN * drawn)
    where = f"{max(1, workers)} process{'es' if workers > 1 else ''}"
    where += f", threads: {threads}" if device == "cpu" else ""
    return Timing(seconds, f"rough, on a quiet machine, from a few steps here ({device}, {where})")


def schedule(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of some jobs ends, each begun in its order by the first free worker.

    Args:
        seconds: Of each job.
        workers: How many compute; 0 for none beside this process.
    """
    free = [0.0] * max(1, workers)
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _measure_pace() -> float:
    """Return the time of plain Python here over that on the machine of the constants."""
    from robustloss.cells.work import read_clock

    times = []
    for _ in range(5):
        started = read_clock()
        sum(number * number for number in range(_COUNTED))
        times.append(read_clock() - started)
    return min(times) / _COUNTED_SECONDS


@dataclass(frozen=True)
class _LossTimes:
    """Seconds of one training of a loss, and of a whole cell with it, apart from its numbers."""

    training: float
    cell: float


def _time_losses(
    spec: Spec, cells: Sequence[CellSpec], dataset: "Dataset", device: str, budget: float
) -> dict[str, _LossTimes] | str:
    """Return the times of each loss by label, or why one cannot be timed."""
    import torch

    from robustloss.models import build, classifier
    from robustloss.seeding import using_seed
    from robustloss.training.batches import steps_per_epoch

    first = {cell.label: cell for cell in cells}
    timed = {}
    for label, cell in first.items():
        steps, step = 0, 0.0
        try:
            with using_seed("weights", cell.seed):
                built = build.describe_network(cell, dataset)
                # Weights that a library would have to fetch cost nothing to be without.
                named = names_weights(cell.loss.factory, cell.loss.weights)
                weights = None if named else cell.loss.weights
                model = build.build_with_weights(weights, built, (spec.folder,))
            if cell.loss.trains:
                assert isinstance(model, classifier.Classifier)
                share = budget / len(first) / 2  # the other half is for the attacks
                step = _step_seconds(model, cell, dataset, torch.device(device), share)
                steps = cell.train.epochs * steps_per_epoch(dataset.train.n, cell.train.batch_size)
            model = model.to(device).eval()
            rest = _evaluation_seconds(model, spec, cell, dataset, device)
        except Exception as error:  # a plug-in may do anything; a run will tell it in full
            return f"{label} fails when it is tried: {error}"
        timed[label] = _LossTimes(steps * step, steps * step + rest)
    return timed


def _step_seconds(
    model: "Classifier",
    cell: CellSpec,
    dataset: "Dataset",
    device: "torch.device",
    budget: float,
) -> float:
    """Return the seconds of one training step: what more steps take longer than one."""
    from robustloss.cells.work import read_clock
    from robustloss.data.images import fit_subset
    from robustloss.training.batches import steps_per_epoch
    from robustloss.training.train import train

    # At random weights a high rate may diverge within a few steps; its value costs no time.
    short = cell.train.override({"epochs": 1, "lr": 1e-6})
    batch = cell.train.batch_size

    def images(steps: int) -> int:
        # Some of every class: a loss may weigh classes or mine pairs.
        return min(dataset.train.n, max(steps * batch, 2 * dataset.num_classes))

    def seconds(steps: int) -> float:
        few = fit_subset(dataset.train, images(steps))
        some = replace(dataset, train=few, validation=dataset.validation.take(slice(0, 10)))
        started = read_clock()
        train(model, some, short, seed=cell.seed, device=device)
        return read_clock() - started

    seconds(1)  # the first step of all also loads and chooses kernels
    one, least = min(seconds(1), seconds(1)), steps_per_epoch(images(1), batch)
    steps = int(min(_STEPS, dataset.train.n // batch, budget / one * least / _REPEATS))
    more = steps_per_epoch(images(steps), batch) - least if steps > least else 0
    if not more:
        return one / least
    return max(min(seconds(steps) for _ in range(_REPEATS)) - one, 0.0) / more


def _evaluation_seconds(
    model: "AnyClassifier",
    spec: Spec,
    cell: CellSpec,
    dataset: "Dataset",
    device: str,
) -> float:
    """Return the seconds of a cell without its training, from passes counted and two timed."""
    from robustloss.attacks import build_attack
    from robustloss.cells.work import count_work, time_passes

    images, validation = dataset.test.take(slice(0, _ATTACKED)).to(device), dataset.validation.n
    forward, gradient = time_passes(model, images)
    folders = (spec.folder,)
    attacks = [build_attack(each.name, folders=folders, **each.params) for each in spec.attacks]
    work = count_work(spec, attacks, dataset)
    total = work.seconds(forward, gradient) + forward * cell.train.epochs * validation
    for attack in spec.attacks:
        if attack.label in work.unknown:
            spent = _tried_passes(spec, attack, model, images)
            total += dataset.test.n * (gradient * spent.backward + forward * spent.forward)
    if table := cell.train.adversarial:  # its PGD on validation images, epoch by epoch
        measured = -(-cell.train.epochs // table.select_every)
        shown = min(table.select_images, validation)
        total += gradient * measured * shown * (1 + table.select_steps)
    return total


def known_passes(spec: Spec, attack: AttackSpec) -> "Queries | None":
    """Return the passes forward and back that an attack takes per image at most; None if unknown.

    Args:
        spec: Whose folder may hold the attack's code.
        attack: One of its attacks.
    """
    from robustloss.attacks import build_attack
    from robustloss.cells.work import passes_of

    built = build_attack(attack.name, folders=(spec.folder,), **attack.params)
    return passes_of(built, sum(eps > 0 for eps in attack.eps))


def _tried_passes(
    spec: Spec, attack: AttackSpec, model: "AnyClassifier", images: "ImageSet"
) -> "Queries":
    """Return the passes that an attack takes per image, as tried on four images."""
    from robustloss.attacks import Queries, build_attack, perturb
    from robustloss.evaluation.detector import LikelihoodView

    positive = [eps for eps in attack.eps if eps > 0]
    if not positive:
        return Queries(0, 0)
    built = build_attack(attack.name, folders=(spec.folder,), **attack.params)
    few = images.take(slice(0, 4))
    view = LikelihoodView(model, 0.0)
    spent = perturb(built, view, few.batch(slice(None)), few.labels, eps=positive).queries
    return Queries(-(-spent.forward // few.n), -(-spent.backward // few.n))
