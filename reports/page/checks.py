"""The checks of a run as a reader wants them: which exist, which could be made, which fired."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from robustloss.analysis.checks.catalogue import CHECKS
from robustloss.analysis.outcomes import find_half
from robustloss.notation import eps_text
from robustloss.reports.chapters.detection.implied import IMPLIED
from robustloss.reports.drawing.table import Column, Table, lay_out
from robustloss.reports.reading.marks import Flag, check_name, measurement
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, counted, listed
from robustloss.results.numbers import group_rows
from robustloss.spec.attack_kinds import attack_kind

MOST_PLACES = 12
_PROBED = (
    *("not_finite_gradient", "margin_beats_cross_entropy", "rescaled_logits_beat_cross_entropy"),
    *("unbounded_attack_fails", "loss_still_rising", "output_not_repeatable"),
    "too_few_draws",
    *("output_depends_on_batch", "output_is_probability"),
)
_MANY_STEPS = ("iterative", "minimum_norm", "ensemble")
# check: what it compares in one norm, as kinds of attacks
_COMPARED = {
    "one_step_beats_many": ("a one-step attack and one of many steps", ("one_step",), _MANY_STEPS),
    "black_box_beats_white_box": (
        *("a black-box attack and one with gradients", ("black_box",)),
        ("one_step", *_MANY_STEPS),
    ),
}


@dataclass(frozen=True)
class Verdict:
    """One check and what became of it in this run."""

    name: str  # in words
    state: str  # "fired", "quiet" or "not made"
    result: str  # how often it fired, or why it could not be made
    places: Sequence[str] = ()  # where it fired, a line a loss
    example: str = ""  # the message of the first flag: what it means, and what to do


def verdicts(numbers: Numbers) -> list[Verdict]:
    """Return every check: those that fired first, then the quiet ones, then those not made."""
    found = []
    for check, flags in _flags_by_check(numbers).items():
        name = check_name(check)
        if flags:
            fired = f"fired {counted(len(flags), 'time')}"
            example = str(flags[0].get("message"))
            found.append(Verdict(name, "fired", fired, _places(flags), example))
        elif reason := why_not_made(numbers, check):
            found.append(Verdict(name, "not made", reason))
        else:
            found.append(Verdict(name, "quiet", "did not fire"))
    states = ("fired", "quiet", "not made")
    return sorted(found, key=lambda verdict: states.index(verdict.state))


def _flags_by_check(numbers: Numbers) -> dict[str, list[Flag]]:
    """Return the flags of every check of ours, then those of checks of a later version."""
    fired = group_rows(numbers.run.flags, lambda flag: str(flag.get("check")))
    return {check: fired.get(check, []) for check in [*CHECKS, *fired]}


def why_not_made(numbers: Numbers, check: str) -> str:
    """Return what a check would need that this run does not have; nothing if it was made."""
    if not numbers.attacking:
        return "needs an attack at eps above 0"
    if check == "zero_gradient":
        return ""
    if "radii" not in numbers.run.results:
        return "this run is older than the check; run it again to have it"
    if check == "too_few_draws" and numbers.draws == 1:
        return "needs an attack with eot"
    if check in _PROBED:
        probes = any(numbers.run.path.glob("cells/*/seed-*/probe-*.npz"))
        return "" if probes else "the cells have no probe"
    if check == "detector_too_good":
        judged = any(row.get(IMPLIED) is not None for row in numbers.run.worst_case)
        halves = any(find_half(eps, attack.strengths) for attack in numbers.attacking
                     for eps in attack.strengths)  # fmt: skip
        return "" if judged and halves else "needs an attack at some eps and at half of it"
    if check == "radius_beyond_grey":
        near = any(attack_kind(a.name) == "minimum_norm" for a in numbers.of_norm("linf"))
        return "" if near else "needs an attack that looks for the nearest image in L∞"
    if check == "transfer_beats_white_box":
        return "" if numbers.run.transfer else "needs an attack with transfer = true"
    if check in ("one_step_training_collapsed", "training_without_direction"):
        words = [str(log.get("adversarial") or "") for log in numbers.run.training]
        asked = "one step" if check == "one_step_training_collapsed" else "trained"
        return "" if any(asked in each for each in words) else "needs adversarial training"
    if check == "unit_test_failed":
        known = numbers.run.results.get("unit_tests")
        return "" if known else "needs unit_test = true in [checks]"
    if check == "noise_beats_attack":
        known = any(row.get("error_noise") is not None for row in numbers.run.rows)
        return "" if known else "needs the noise control, noise = true in [detection]"
    if check in _COMPARED:
        what, first, second = _COMPARED[check]
        for norm in numbers.norms:
            kinds = {attack_kind(attack.name) for attack in numbers.of_norm(norm)}
            if kinds & {*first} and kinds & {*second}:
                return ""
        return f"needs {what} in the same norm"
    return ""


def _places(flags: Sequence[Flag]) -> list[str]:
    """Return one line a loss: its attacks with their eps, its seeds, and what was measured."""
    lines = []
    for label, own in group_rows(flags, lambda flag: str(flag.get("label"))).items():
        by_attack: dict[str, set[float]] = {}
        for flag in own:
            name = str(flag.get("attack_label") or "every number of the loss")
            eps = flag.get("eps")
            by_attack.setdefault(name, set()).update(() if eps is None else (eps,))
        attacks = [
            name + (f" at eps {', '.join(map(eps_text, sorted(eps)))}" if eps else "")
            for name, eps in by_attack.items()
        ]
        seeds = sorted({flag["seed"] for flag in own if flag.get("seed") is not None})
        several = "s" if len(seeds) != 1 else ""
        words = f", seed{several} {', '.join(map(str, seeds))}" if seeds else ""
        lines.append(f"{label}: {listed(attacks)}{words} ({measurement(own)})")
    if len(lines) > MOST_PLACES:
        more = len(lines) - MOST_PLACES
        lines = [*lines[:MOST_PLACES], f"and {more} more losses, in the table of all marks"]
    return lines


def _or(missing: str, form: str = "") -> Callable[[Any], str]:
    return lambda value: missing if value is None else format(value, form)


def _in_percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}"


UNIT_TESTS = "unit-tests"  # name of the table
_TESTS = [
    Column("loss", "label"),
    Column("attack", "attack_label"),
    Column("eps", "eps", words=eps_text),
    Column("test", "test"),
    Column("seed", "seed"),
    Column("networks", "n_networks"),
    Column("broken by chance", "random_success", words=_in_percent),
    Column("others", "n"),
    Column("others broken by the attack", "success", words=_in_percent),
    Column("", "success_low"),
    Column("", "success_high"),
]


def unit_test_table(numbers: Numbers) -> Table | None:
    """Return how many breakable networks each attack broke; None where none was tested."""
    found = numbers.run.results.get("unit_tests") or []
    if not found:
        return None
    return Table(
        UNIT_TESTS,
        "Attacks on networks that are known to be breakable",
        "For each image a linear head replaces that of the loss, and a point in the ball is known "
        "to fool it. A random search tries as many points as the attack makes passes, at most 200. "
        "Of the networks that it does not break the attack should break 95 % (n/a: fewer than 20 "
        "are left). If the attack is on the detector, the detector also accepts the known point. "
        "Inverted: the detector accepts lower scores instead of higher ones.",
        *lay_out(_TESTS, [{column.key: row[column.key] for column in _TESTS} for row in found]),
        left=2,
    )


FLAGS = "flags"  # name of the table
COLUMNS = [
    Column("check", "check", words=lambda check: check_name(str(check))),
    Column("", "loss"),
    Column("loss", "label"),
    Column("", "seed"),
    Column("attack", "attack_label", words=_or("every")),
    Column("eps", "eps", words=lambda eps: "every" if eps is None else eps_text(eps)),
    Column("seed", "seed", in_csv=False),
    Column("value", "value", words=_or(NOTHING, ".3g")),
    Column("threshold", "threshold", words=_or(NOTHING, ".3g")),
    Column("", "message"),
]


def flags_table(numbers: Numbers) -> Table:
    """Return every flag, one row each; the CSV has the messages too."""
    rows = [
        {column.key: flag.get(column.key) for column in COLUMNS}
        for flags in _flags_by_check(numbers).values()
        for flag in flags
    ]
    return Table(
        FLAGS,
        "Every mark",
        "What each check measured, and the threshold above which it fires. A mark without an "
        "attack concerns every number of its loss. The CSV has the messages.",
        *lay_out(COLUMNS, rows),
        left=3,
    )
