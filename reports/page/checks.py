"""The checks of a run as a reader wants them: which exist, which could be made, which fired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustloss.analysis.checks.catalogue import CHECKS, explained
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Flag, check_name, measurement
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, listed
from robustloss.spec.attack_kinds import attack_kind

MOST_PLACES = 12
FLAG_KEYS = (
    *("check", "loss", "label", "seed", "attack_label", "eps", "value", "threshold", "message"),
)
_PROBED = (
    *("not_finite_gradient", "margin_beats_cross_entropy", "rescaled_logits_beat_cross_entropy"),
    *("unbounded_attack_fails", "loss_still_rising", "output_not_repeatable"),
    "output_is_probability",
)
_MANY_STEPS = ("iterative", "minimum_norm", "ensemble")


@dataclass(frozen=True)
class Verdict:
    """One check and what became of it in this run.

    Attributes:
        name: In words.
        state: "fired", "quiet" or "not made".
        result: The state with its number or its reason.
        words: When it fires, and what to do then.
        places: Where it fired, a line a loss.
        example: The message of the first flag.
    """

    name: str
    state: str
    result: str
    words: str
    places: Sequence[str] = ()
    example: str = ""


def verdicts(numbers: Numbers) -> list[Verdict]:
    """Every check: those that fired first, then the quiet ones, then those that were not made."""
    by_check: dict[str, list[Flag]] = {}
    for flag in numbers.run.flags:
        by_check.setdefault(str(flag.get("check")), []).append(flag)
    order = [*CHECKS, *(check for check in by_check if check not in CHECKS)]
    found = [_verdict(numbers, check, by_check.get(check, [])) for check in order]
    states = ("fired", "quiet", "not made")
    return sorted(found, key=lambda verdict: states.index(verdict.state))


def _verdict(numbers: Numbers, check: str, flags: Sequence[Flag]) -> Verdict:
    name = check_name(check)
    words = explained(check) if check in CHECKS else ""
    if flags:
        count = f"fired {len(flags)} time{'s' if len(flags) != 1 else ''}"
        places = _places(flags)
        return Verdict(name, "fired", count, words, places, str(flags[0].get("message")))
    if reason := why_not_made(numbers, check):
        return Verdict(name, "not made", f"not made: {reason}", words)
    return Verdict(name, "quiet", "did not fire", words)


def why_not_made(numbers: Numbers, check: str) -> str:
    """What a check would need that this run does not have; nothing if it was made."""
    if not any(attack.strengths for attack in numbers.attacks):
        return "no attack was run at eps above 0"
    if check == "zero_gradient":
        return ""
    if "radii" not in numbers.run.results:
        return "this run is older than the check; run it again to have it"
    if check in _PROBED:
        probes = any(numbers.run.path.glob("cells/*/seed-*/probe-*.npz"))
        return "" if probes else "the cells have no probe"
    if check == "transfer_beats_white_box":
        return "" if numbers.run.transfer else "no images were shown to another loss"
    if check in ("one_step_training_collapsed", "training_without_direction"):
        words = [str(log.get("adversarial") or "") for log in numbers.run.training]
        asked = "one step" if check == "one_step_training_collapsed" else "trained"
        return "" if any(asked in each for each in words) else "no loss was trained so"
    if check == "one_step_beats_many":
        return _needs(numbers, "a one-step attack", ("one_step",), _MANY_STEPS)
    if check == "black_box_beats_white_box":
        return _needs(numbers, "a black-box attack", ("black_box",), ("one_step", *_MANY_STEPS))
    return ""


def _needs(numbers: Numbers, words: str, first: Sequence[str], second: Sequence[str]) -> str:
    for norm in numbers.norms:
        kinds = {attack_kind(attack.name) for attack in numbers.of_norm(norm)}
        if kinds & set(first) and kinds & set(second):
            return ""
    return f"it needs {words} and another to compare it with, in the same norm"


def _places(flags: Sequence[Flag]) -> list[str]:
    """One line a loss: its attacks with their eps, its seeds, and what was measured."""
    by_label: dict[str, list[Flag]] = {}
    for flag in flags:
        by_label.setdefault(str(flag.get("label")), []).append(flag)
    lines = [f"{label}: {_attacks(own)} ({measurement(own)})" for label, own in by_label.items()]
    if len(lines) > MOST_PLACES:
        more = len(lines) - MOST_PLACES
        lines = [*lines[:MOST_PLACES], f"and {more} more losses, in the table of all flags"]
    return lines


def _attacks(flags: Sequence[Flag]) -> str:
    by_attack: dict[str, set[float | None]] = {}
    for flag in flags:
        name = str(flag.get("attack_label") or "every number of the loss")
        by_attack.setdefault(name, set()).add(flag.get("eps"))
    parts = [name + _eps(eps) for name, eps in by_attack.items()]
    seeds = sorted({flag["seed"] for flag in flags if flag.get("seed") is not None})
    words = f", seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}" if seeds else ""
    return listed(parts) + words


def _eps(values: set[float | None]) -> str:
    known = sorted(v for v in values if v is not None)
    return f" at eps {', '.join(f'{v:.4g}' for v in known)}" if known else ""


def checks_summary(found: Sequence[Verdict]) -> str:
    """How many checks there are and what became of them, in one sentence."""
    counts = {state: sum(v.state == state for v in found) for state in ("fired", "quiet")}
    rest = len(found) - sum(counts.values())
    return (
        f"Of {len(found)} checks {counts['fired']} fired, {counts['quiet']} did not, and {rest} "
        "could not be made in this run. A check looks for a sign that a number is an artefact of "
        "the attack; one that fires is a reason to look, one that does not is no proof."
    )


def flags_table(numbers: Numbers) -> Table:
    """Every flag, one row each; the CSV has the messages too."""
    flags = [flag for check in _order(numbers) for flag in check]
    return Table(
        "flags",
        "Every flag",
        "What each check measured and from where on it fires. A flag without an attack concerns "
        "every number of its loss. The CSV holds the messages.",
        ["check", "loss", "attack", "eps", "seed", "value", "threshold"],
        [_flag_row(flag) for flag in flags],
        [{key: flag.get(key) for key in FLAG_KEYS} for flag in flags],
        left=3,
    )


def _order(numbers: Numbers) -> list[list[Mapping]]:
    by_check: dict[str, list[Mapping]] = {check: [] for check in CHECKS}
    for flag in numbers.run.flags:
        by_check.setdefault(str(flag.get("check")), []).append(flag)
    return list(by_check.values())


def _flag_row(flag: Flag) -> list[Entry]:
    def text(key: str, form: str = "") -> Entry:
        value = flag.get(key)
        return Entry(NOTHING if value is None else format(value, form))

    return [
        Entry(check_name(str(flag.get("check")))),
        Entry(str(flag.get("label"))),
        Entry(str(flag.get("attack_label") or "every")),
        Entry("every" if flag.get("eps") is None else f"{flag['eps']:.4g}"),
        text("seed"),
        text("value", ".3g"),
        text("threshold", ".3g"),
    ]
