"""How much work a cell is after its training: passes of its model, counted before they are made.

The counts decide how much of a cell is done while it runs, what it is said to cost, and how many
images trial attacks take where nobody has said so. A timing decides none of these but the minutes.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustloss.analysis.checks.from_probe import averaged_name, trace_name
from robustloss.analysis.checks.unit_tests import unit_name
from robustloss.attacks import Attack, Queries, build_attack, perturb
from robustloss.attacks.draws import count_draws, most_draws
from robustloss.attacks.sealing import sealing
from robustloss.attacks.witness import is_ours
from robustloss.data.images import Dataset, ImageSet
from robustloss.evaluation import probes, ten_crop, unit_test
from robustloss.evaluation.passes import LAYOUT, clean_record
from robustloss.models.classifier import AnyClassifier
from robustloss.results.schema import aims_at_label
from robustloss.spec.attack_kinds import attack_kind
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.spec import Spec

REFERENCE, CHECKS, CROPS, CLEAN, NOISE, OUTSIDE, SHIFTS = (
    *("reference", "checks", "crops", "clean", "noise", "outside", "shifts"),
)
# Of the attacks' passes: trial attacks do not exceed it. In seconds it is more, as few images at a
# time are slower.
CHECKS_SHARE = 1 / 6
# Budgets of an attack that are in memory together: each takes the images of a batch, twice, and its
# record. FGSM has one gradient for all of them, so in groups of this size it loses little.
BUDGETS_AT_ONCE = 16
_ATTACK = "attack "  # begins the step of each attack; its label follows
_TIMED = (1, 8, 200)  # images of a pass that is timed: the last where fewer take no time
_SCHEDULED = Path("/proc/thread-self/schedstat")  # of Linux: ns computed, ns waited, how often
_STEPS = 4  # gradients of an attack that is timed
_LONG = 0.05  # seconds that are long enough to tell
_ENOUGH = 0.5  # seconds after which no pass is timed once more


@dataclass(frozen=True)
class Work:
    """The passes of one cell's model over images, without its training.

    Attributes:
        steps: By step, in the order in which they are made: images sent forward, gradients taken
            back. The step of an attack holds the passes over its attacked images too.
        unknown: Labels of the attacks that do not say how many passes they take; for them a
            gradient at each budget is counted.
    """

    steps: Mapping[str, Queries]
    unknown: tuple[str, ...] = ()

    @property
    def passes(self) -> int:
        """Images sent forward and gradients taken back, together."""
        return sum(map(sum, self.steps.values()))

    @property
    def attacks(self) -> int:
        """As `passes`, of the attacks alone."""
        return sum(sum(each) for step, each in self.steps.items() if step.startswith(_ATTACK))

    def fraction(self, step: str, share: float) -> float:
        """Return the share of all passes that are made, in [0, 1].

        Args:
            step: One of `steps` that is going on; all that come before it are done.
            share: Of this step that is done.
        """
        names = list(self.steps)
        before = sum(sum(self.steps[name]) for name in names[: names.index(step)])
        return (before + share * sum(self.steps[step])) / max(self.passes, 1)

    def seconds(self, forward: float, gradient: float) -> float:
        """Return the seconds that all passes take.

        Args:
            forward: Seconds of an image's pass forward.
            gradient: Seconds of an image's pass forward and back.
        """
        return sum(
            forward * max(0, each.forward - each.backward) + gradient * each.backward
            for each in self.steps.values()
        )


def attack_step(label: str) -> str:
    """Return the step of `Work.steps` that an attack is."""
    return _ATTACK + label


def count_work(spec: Spec, attacks: Sequence[Attack], dataset: Dataset) -> Work:
    """Count the passes of one cell's model, at most.

    Args:
        spec: What is asked for.
        attacks: Its attacks, built.
        dataset: Its data.
    """
    test, validation = dataset.test.n, dataset.validation.n
    shared = dataset.validation is dataset.test  # then the clean pass serves for both
    fitted = min(spec.detection.fit_size, dataset.train.n)
    tried = min(spec.checks.images, test)
    draws, traced = most_draws(attacks), [each for _, each in trace_attacks(spec, attacks)]
    made = probes.count_passes(traced, list_averaged(spec, attacks))
    proofs = unit_test.count_passes([each for _, each in list_tested(spec, attacks)])
    trials = Queries(made.forward + proofs.forward, made.backward + proofs.backward)
    clean = {CLEAN: Queries(draws * test, 0)}
    steps = {
        **(clean if shared else {}),
        REFERENCE: Queries(draws * (fitted + (0 if shared else validation)), 0),
        CHECKS: Queries(tried * trials.forward, tried * trials.backward),
        CROPS: Queries(draws * ten_crop.CROPS * test if dataset.ten_crop else 0, 0),
        **clean,
    }
    tables, unknown = list(zip(spec.attacks, attacks, strict=True)), []
    noisy = 0
    for table, attack in sorted(tables, key=lambda pair: not is_ours(pair[1])):
        budgets = sum(eps > 0 for eps in table.eps)
        noisy += draws * test * budgets
        spent = passes_of(attack, budgets)
        if spent is None:
            spent = Queries(budgets, budgets)
            unknown.append(table.label)
        shown = draws * budgets * (2 if table.eight_bit else 1)
        steps[attack_step(table.label)] = Queries(
            test * (spent.forward + shown), test * spent.backward
        )
    steps[NOISE] = Queries(noisy if spec.detection.noise else 0, 0)
    steps[OUTSIDE] = Queries(draws * sum(table.images for table in spec.outside), 0)
    steps[SHIFTS] = Queries(draws * sum(table.most_images for table in spec.shifts), 0)
    return Work(steps, tuple(unknown))


def passes_of(attack: Attack, budgets: int) -> Queries | None:
    """Return the most passes per image that an attack takes; None where it does not say.

    Args:
        attack: Whatever `build_attack` returns.
        budgets: How many eps above 0 it gets.
    """
    passes = getattr(attack, "passes", None)
    return passes(budgets) if passes else None


def group_budgets(attack: Attack, eps: Sequence[float]) -> list[tuple[float, ...]]:
    """Return budgets in groups that are attacked one after another, so that memory stays flat.

    They form one group if the attack would repeat its work in each, as those do that look for the
    nearest image, or if it does not say how many passes it takes.

    Args:
        attack: Whatever `build_attack` returns.
        eps: Budgets that it gets.
    """
    one, two = passes_of(attack, 1), passes_of(attack, 2)
    repeats = one is None or (one == two and one.backward > 1)
    size = max(1, len(eps)) if repeats else BUDGETS_AT_ONCE
    return [tuple(eps[start : start + size]) for start in range(0, len(eps), size)]


def choose_check_images(spec: Spec, attacks: Sequence[Attack], dataset: Dataset) -> int:
    """Return how many images trial attacks may take without costing much beside the attacks.

    They then take at most `CHECKS_SHARE` of the passes of the attacks, and together with the clean
    images and the noise no more passes than the attacks do. This rests on counts alone, so that it
    is the same on every machine.

    Args:
        spec: What is asked for; checks.images is the most.
        attacks: Its attacks, built.
        dataset: Its data.

    Returns:
        From 0 to checks.images.
    """
    work = count_work(spec, attacks, dataset)
    most = min(spec.checks.images, dataset.test.n)
    if most == 0:
        return 0
    beside = sum(sum(work.steps[step]) for step in (CLEAN, NOISE))
    room = min(CHECKS_SHARE * work.attacks, work.attacks - beside)
    return max(0, min(most, int(room * most / sum(work.steps[CHECKS]))))


def trace_attacks(spec: Spec, attacks: Sequence[Attack]) -> list[tuple[AttackSpec, probes.Traced]]:
    """Return the attacks whose path trial attacks trace, each at its smallest budget.

    Args:
        spec: What is asked for.
        attacks: Its attacks, built.
    """
    return [
        (table, probes.Traced(trace_name(table.label), attack, min(positive)))
        for table, attack in zip(spec.attacks, attacks, strict=True)
        if (positive := [eps for eps in table.eps if eps > 0])
        and probes.is_traceable(attack)
        and attack.needs != "score"  # trial attacks meet the detector of the likelihood
    ]


def list_averaged(spec: Spec, attacks: Sequence[Attack]) -> dict[str, int]:
    """Return how many calls each attack averages, by the name of its array; none for one call.

    Args:
        spec: What is asked for.
        attacks: Its attacks, built.
    """
    tables = zip(spec.attacks, attacks, strict=True)
    return {
        averaged_name(table.label): calls
        for table, attack in tables
        if (calls := count_draws(attack)) > 1
    }


def list_tested(spec: Spec, attacks: Sequence[Attack]) -> list[tuple[AttackSpec, unit_test.Tested]]:
    """Return the attacks to try on breakable networks, once for each of their budgets.

    Args:
        spec: What is asked for.
        attacks: Its attacks, built.
    """

    def is_adaptive(table: AttackSpec) -> bool:
        return attack_kind(table.name) == "adaptive"

    return [
        (table, unit_test.Tested(unit_name(table.label, number), attack, eps, is_adaptive(table)))
        for table, attack in zip(spec.attacks, attacks, strict=True)
        for number, eps in enumerate(eps for eps in table.eps if eps > 0)
        if spec.checks.unit_test and aims_at_label(table.name)
    ]


def read_clock() -> float:
    """Return the seconds of a clock that stands still while this thread waits for a core.

    On a busy machine it measures what the same work takes on a quiet one. It goes on while the
    thread waits for anything else, such as a disk or a GPU. Where the system does not tell how long
    a thread waited for a core, it is an ordinary clock.
    """
    before, now, waited = -1, 0.0, 0
    while waited != before:  # else the thread waited between the two readings
        before, now, waited = waited, time.perf_counter(), _read_waited()
    return now - waited / 1e9


def _read_waited() -> int:
    """Return the nanoseconds that this thread has waited for a core; 0 where nobody counts them."""
    try:
        return int(_SCHEDULED.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def time_passes(model: AnyClassifier, images: ImageSet) -> tuple[float, float]:
    """Return the seconds of an image's pass forward, and of its pass forward and back.

    A call costs something by itself, which many images share: two sizes of batch tell how much.

    Args:
        model: In eval mode, on the device of the images; it must have a gradient.
        images: A batch, of which a few are passed.
    """
    points: list[tuple[int, list[float], list[float]]] = []
    for size in _TIMED:
        if len(points) < 2 or max(points[-1][2]) < _LONG:
            few = images.take(slice(0, size))
            points.append((few.n, *_time_batch(model, few)))
    (less, *fast), (more, *slow) = points[-2:]
    forward, gradient = (
        _divide_time(less, min(first), more, min(second), images.n)
        for first, second in zip(fast, slow, strict=True)
    )
    return forward, gradient


def _time_batch(model: AnyClassifier, images: ImageSet) -> tuple[list[float], list[float]]:
    """Return the seconds of some images' pass forward, and of that forward and back, each time."""
    inputs = images.batch(slice(None)).contiguous(memory_format=LAYOUT)
    climb = build_attack("pgd", steps=_STEPS)  # the call of an attack costs something by itself
    times: list[tuple[float, float]] = []
    while len(times) < 4 and sum(map(sum, times)) < _ENOUGH:
        with sealing(model, inputs.device, 0):
            started = read_clock()
            clean_record(model, images)
            forward = read_clock() - started
        started = read_clock()
        spent = perturb(climb, model, inputs, images.labels, eps=[0.1]).queries
        times.append((forward, (read_clock() - started) * images.n / spent.backward))
    own = times[1:] or times  # the first pass of all also chooses kernels
    return [forward for forward, _ in own], [gradient for _, gradient in own]


def _divide_time(less: int, first: float, more: int, second: float, batch: int) -> float:
    """Return the seconds of each image of a batch.

    Args:
        less: Images of a small batch.
        first: Its seconds.
        more: Images of a larger batch.
        second: Its seconds.
        batch: Images that share what a call costs by itself.
    """
    slope = max(0.0, (second - first) / (more - less)) if more > less else second / more
    call = max(0.0, second - more * slope)
    # By chance the small batch may seem to be the slower one.
    return max(slope + call / batch, second / more / 4)
