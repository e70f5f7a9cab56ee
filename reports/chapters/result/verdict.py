"""The result in two or three sentences that claim no more than the tests and intervals do."""

from collections.abc import Callable, Mapping, Sequence

from robustloss.reports.chapters.detection.adaptive import BEST, guarded
from robustloss.reports.reading.featured import strongest
from robustloss.reports.reading.marks import flags_of
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate, counted, eps_name, few, listed

Found = Mapping[str, Estimate]  # one number of every loss that has it


def verdict(numbers: Numbers) -> list[str]:
    """Return at most three sentences: errors, which differences are shown, detection.

    Args:
        numbers: Of the run.
    """
    if not numbers.run.rows:
        return ["No cell finished, so there is no result."]
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    sentences = [_errors(numbers, attacks)]
    if attacks:
        sentences += [_differences(numbers, attacks), _detection(numbers, attacks[0])]
    return [sentence for sentence in sentences if sentence]


def _errors(numbers: Numbers, attacks: Sequence[AttackInfo]) -> str:
    """Say how often the losses err, clean and at the smallest eps of the worst case."""
    clean = _of_all(numbers, lambda label: numbers.get(label, "none", 0.0, "error"))
    start = f"{_span(clean, 100.0)} % of the clean test images are classified wrongly"
    if not attacks:
        return f"{start}; no attack was run."
    attack = (*numbers.worst_cases, attacks[0])[0]
    eps = attack.strengths[0]
    found = _of_all(numbers, lambda label: numbers.error(label, attack, eps))
    place = "in the worst case" if attack in numbers.worst_cases else f"under {attack.label}"
    text = f"{start}, and {_span(found, 100.0)} % {place} at {eps_name(eps)}"
    sound = {k: v for k, v in found.items() if not flags_of(numbers, k, attack, eps)}
    if len(sound) > 1 and (best := _best(sound, min)):
        text += f" (fewest: {best})"
    if marked := len(found) - len(sound):
        text += f"; {counted(marked, 'loss')} marked † {'is' if marked == 1 else 'are'} not ranked"
    return f"{text}."


def _differences(numbers: Numbers, attacks: Sequence[AttackInfo]) -> str:
    """Say which losses are shown to differ from the first one under the strongest attack."""
    baseline = numbers.labels[0]
    own = [attack for attack in attacks if attack.norm == attacks[0].norm]
    attack = strongest(numbers, own) or attacks[0]
    eps = attack.strengths[0]
    rows = [
        row for row in numbers.run.comparisons
        if (row["metric"], row["attack_label"], row["eps"]) == ("error", attack.label, eps)
        and baseline in (row["label_a"], row["label_b"])
    ]  # fmt: skip
    unit = "seeds" if any(row["unit"] == "seeds" for row in rows) else "images"
    groups: dict[str, list[str]] = {"fewer": [], "more": [], "": []}
    for row in rows:
        other = row["label_b"] if row["label_a"] == baseline else row["label_a"]
        if row["unit"] != unit or other in {name for group in groups.values() for name in group}:
            continue
        sign = row["difference"] * (1 if row["label_a"] == other else -1)
        groups["" if not row["shown"] else "more" if sign > 0 else "fewer"].append(other)
    parts = [
        f"{what} errors are shown for {few(names)}"
        for what, names in groups.items()
        if what and names
    ]
    if groups[""]:
        parts.append(f"no difference is shown for {few(groups[''])}")
    if not parts:
        return ""
    one = "" if unit == "seeds" else ", one training seed"
    return f"Against {baseline}, {'; '.join(parts)} ({attack.label}, {eps_name(eps)}{one})."


def _detection(numbers: Numbers, attack: AttackInfo) -> str:
    """Say what the likelihood notices of the first attack, and of one that knows the detector."""
    known = [each for each in guarded(numbers) if each.norm == attack.norm and each.of_kind(BEST)]
    shared = [eps for eps in attack.strengths if not known or eps in known[0].eps]
    if not shared:
        known, shared = [], [*attack.strengths]
    eps = shared[-1]
    naive = _of_all(numbers, lambda label: numbers.get(label, attack.label, eps, "auroc_all"))
    if not naive:
        return ""
    text = (
        f"The likelihood tells {attack.label} at {eps_name(eps)} from clean images with AUROC "
        f"{_span(naive, 1.0)}"
    )
    if not known:
        return f"{text}; no attack that knows the detector was run."
    best = known[0].of_kind(BEST)[0]
    fallen = _of_all(numbers, lambda label: known[0].get(label, best, eps, "auroc_all"))
    return f"{text}, and the best attack that knows the detector with {_span(fallen, 1.0)}."


def _of_all(numbers: Numbers, get: Callable[[str], Estimate | None]) -> Found:
    return {label: value for label in numbers.labels if (value := get(label)) is not None}


def _span(found: Found, unit: float) -> str:
    """Return the lowest and the highest mean: "0.66 to 1.40", or ".031 to .089"."""
    digits = 3 if unit == 1.0 else 1
    ends = [f"{unit * end(v.mean for v in found.values()):.{digits}f}" for end in (min, max)]
    return " to ".join(dict.fromkeys(ends))


def _best(found: Found, end: Callable[..., float]) -> str:
    """Return who has the best mean, with its number's name; nothing where all are equal."""
    best = end(value.mean for value in found.values())
    names = [label for label, value in found.items() if value.mean == best]
    return listed(names) if len(names) < len(found) else ""
