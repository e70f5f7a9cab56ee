"""Which models have not learnt, or not enough: told in one place for terminal, page and summary."""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from robustloss.results.columns import Row
from robustloss.results.numbers import is_given, number, ordered
from robustloss.results.provenance import find_reference_labels

UNLEARNT = 0.75  # of the error of guessing
WEAK = 0.25  # likewise
FEW_STEPS = 500  # fewer leave a network weak
SMALL_BATCH = 32  # images; more steps for the same work
ANNEALED = ("l_softmax", "a_softmax", "fnorm_sphereface")  # losses with a parameter anneal_min
WEAKER = 20.0  # anneal_min with which they learn in 27 steps: 26 % in place of 33 and 41 %


def find_unlearnt(results: Mapping[str, Any]) -> tuple[dict[str, list[Row]], float]:
    """Return the clean rows of networks that classify about as well as guessing does.

    Guessing the most frequent class has the error 1 - its share of the test images. The rule goes
    by the 95 % interval (Wilson, over images) of the clean error. Either it reaches the error of
    guessing, and images are enough for it to lie above half of that; or the whole of it lies above
    UNLEARNT of that. For 10 equal classes these are 90, 45 and 67.5 %.

    Args:
        results: The content of results.json.

    Returns:
        By label, a row for each such seed; and the error of guessing. A run that does not say how
        many classes its data have gives no rows.
    """
    data = results["provenance"].get("data") or {}
    counts = data.get("test_class_counts") or [1] * len(data.get("class_names") or ())
    guessing = 1 - max(counts) / sum(counts) if any(counts) else 0.0
    found: dict[str, list[Row]] = {}
    for row in results["rows"]:
        low, high = (number(row.get(f"error_{end}")) for end in ("low", "high"))
        if row["attack"] != "none" or low is None or high is None or not guessing:
            continue
        if low > UNLEARNT * guessing or high >= guessing < 2 * low:
            found.setdefault(row["label"], []).append(row)
    return found, guessing


_WHOLE_MODEL = (
    "may miss its normalisation",
    'Say what it was trained with, as normalize = "imagenet" or { mean = [...], std = [...] }; or '
    "look at its weights and the order of its classes.",
)
_DOUBTS = {
    "trained": ("has not learnt", "Lower train.lr or train longer."),
    "model": _WHOLE_MODEL,
    "given": (
        "does no better than guessing",
        "Look at its weights, the order of its classes and how images are normalised.",
    ),
    "reference": ("has not learnt", "Comparisons with untrained networks say little."),
}
"""Kind of a model -> what its clean error says of it, and what to do."""


def describe_unlearnt(results: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each kind of model that does no better than guessing, with its names.

    After them stands one on losses that few steps have left behind.

    Args:
        results: The content of results.json.
    """
    found, guessing = find_unlearnt(results)
    losses = (results["provenance"].get("spec") or {}).get("losses", ())
    kinds = {loss["label"]: _kind_of(loss) for loss in losses}
    kinds |= dict.fromkeys(find_reference_labels(results["provenance"]), "reference")
    seeds = Counter(row["label"] for row in results["rows"] if row["attack"] == "none")
    lines = []
    for kind, (what, remedy) in _DOUBTS.items():
        names, errors = [], []
        own = {label: rows for label, rows in found.items() if kinds.get(label, "trained") == kind}
        for label in ordered((loss["label"] for loss in losses if loss["label"] in own), own):
            which = ", ".join(str(row["seed"]) for row in own[label])
            names.append(label if len(own[label]) == seeds[label] else f"{label} (seed {which})")
            errors += [100 * row["error"] for row in own[label]]
        if names:
            ends = dict.fromkeys(f"{end:.0f}" for end in (min(errors), max(errors)))
            if names[1:]:
                what, remedy = _in_plural(what), _in_plural(remedy)
            steps, ways = _find_more_steps(results, own) if kind == "trained" else (0, "")
            if 0 < steps < FEW_STEPS:
                remedy = f"Lower train.lr, or take more steps than {steps:,}: {ways}."
            lines.append(
                f"{_listed(names)} {what}: clean error {' to '.join(ends)} %, guessing is "
                f"{100 * guessing:.0f} %. {remedy}"
            )
    return [*lines, *_describe_weak(results)]


def find_weak(results: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Return the clean rows of losses that were trained for few steps and err much, by label.

    These are losses with fewer than FEW_STEPS steps whose whole 95 % interval lies, with every
    seed, above WEAK of the error of guessing, or above twice that of the best loss of the run.
    Attacked training is left out: it raises the clean error by itself. So are losses of a
    reference, which nobody can train longer here; one of them may still be the best.

    Args:
        results: The content of results.json.
    """
    unlearnt, guessing = find_unlearnt(results)
    steps = {(row["label"], row["seed"]): row.get("steps") for row in _trainings(results)}
    clean: dict[str, list[Row]] = {}
    for row in results["rows"]:
        known = row["attack"] == "none" and number(row.get("error_low")) is not None
        if known and (row["label"], row["seed"]) in steps:
            clean.setdefault(row["label"], []).append(row)
    ends = [max(row["error_high"] for row in rows) for rows in clean.values()]
    limit = min([WEAK * guessing, *(2 * end for end in ends)])
    left_out = unlearnt.keys() | find_reference_labels(results["provenance"])
    return {
        label: rows
        for label, rows in clean.items()
        if label not in left_out
        and all(0 < (steps[label, row["seed"]] or 0) < FEW_STEPS for row in rows)
        and all(row["error_low"] > limit > 0 for row in rows)
    }


def _trainings(results: Mapping[str, Any]) -> list[Row]:
    return [row for row in results.get("training", ()) if not row.get("adversarial")]


def _describe_weak(results: Mapping[str, Any]) -> list[str]:
    """Return the sentence on losses that few steps have left behind, and what to write, if any."""
    weak = find_weak(results)
    if not weak:
        return []
    spec = results["provenance"].get("spec") or {}
    losses = {loss["label"]: loss for loss in spec.get("losses", ())}
    names = ordered((label for label in losses if label in weak), weak)
    errors = [100 * row["error"] for rows in weak.values() for row in rows]
    ends = dict.fromkeys(f"{end:.0f}" for end in (min(errors), max(errors)))
    fewest, ways = _find_more_steps(results, weak)
    text = (
        f"{_listed(names)} {'are' if names[1:] else 'is'} weakly trained: clean error "
        f"{' to '.join(ends)} % after {fewest:,} steps. Write {ways}."
    )
    annealed = [
        label
        for label in names
        if losses.get(label, {}).get("name") in ANNEALED
        and (losses[label].get("params") or {}).get("anneal_min", 0.0) < WEAKER
    ]
    if annealed:
        text += (
            " In few steps the margin comes too fast. For a weaker one, which the notes from "
            f"training then tell: params = {{ anneal_min = {WEAKER} }} of {_listed(annealed)}."
        )
    return [text]


def _find_more_steps(results: Mapping[str, Any], labels: Collection[str]) -> tuple[int, str]:
    """Return the fewest steps of some losses, and the keys that make more; 0 where none is known.

    Args:
        results: The content of results.json.
        labels: Of the losses.
    """
    known = [r for r in _trainings(results) if r["label"] in labels and r.get("steps")]
    if not known:
        return 0, ""
    training = min(known, key=lambda row: row["steps"])
    steps, spec = training["steps"], results["provenance"].get("spec") or {}
    own = [e.get("train") for e in spec.get("losses", ()) if e["label"] == training["label"]]
    train = {"batch_size": 0, **(spec.get("train") or {}), **(own[0] if own and own[0] else {})}
    ways = [f"train.epochs = {math.ceil(training['epochs'] * FEW_STEPS / steps)}"]
    ways[0] += f" ({FEW_STEPS} steps or more)"
    if train["batch_size"] > SMALL_BATCH:
        more = steps * train["batch_size"] // SMALL_BATCH
        ways = [f"train.batch_size = {SMALL_BATCH} (about {more:,} steps)", *ways]
    return steps, " or ".join(ways)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _kind_of(loss: Mapping[str, Any]) -> str:
    """Return how messages call what the spec's table of a loss is, as in _DOUBTS."""
    if not is_given(loss):
        return "trained"
    whole = isinstance(loss.get("model"), str)
    return "model" if whole and not loss.get("normalize") else "given"


def _in_plural(text: str) -> str:
    words = {"has": "have", "does": "do", "its": "their", "it was": "they were"}
    return re.sub(r"\b(has|does|its|it was)\b", lambda found: words[found[0]], text)
