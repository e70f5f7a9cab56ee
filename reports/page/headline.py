"""The answer in plain words, computed from the numbers, claiming no more than the intervals do."""

from collections.abc import Sequence
from dataclasses import replace

from robustloss.reports.chapters.detection.adaptive import BEST, Guarded, guarded
from robustloss.reports.page.ranking import Finding, Ranking, ranking
from robustloss.reports.reading.marks import flags_of
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import NORM_NAMES, Estimate, estimate, few, listed, percent

MOST_NAMED = 5


def headline(numbers: Numbers) -> list[Finding]:
    """The findings, in the order of the questions that the project asks.

    With several attacks of one norm the worst case over them leads, then how far the losses are
    from their first mistake, then what becomes of the detector when the attack knows it; of the
    first attack the error remains, because the paper has it. Otherwise the first attack is told in
    full; of every other the error and the undetected successes at its largest eps.
    """
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    if not numbers.worst_cases:
        parts = [
            part
            for i, attack in enumerate(attacks)
            for part in answers_of_one(numbers, attack, full=i == 0, alone=len(attacks) == 1)
        ]
        return [clean_answer(numbers), *parts]
    found: list[Finding | None] = [clean_answer(numbers)]
    for case in numbers.worst_cases:
        found += [worst_answer(numbers, case), radius_answer(numbers, case)]
    found += adaptive_answers(numbers)
    first = attacks[0]
    if len(first.strengths) > 1:
        found.append(fooled(numbers, first, first.strengths[0]))
    found.append(fooled(numbers, first, first.strengths[-1]))
    return [finding for finding in found if finding is not None]


def answers_of_one(
    numbers: Numbers, attack: AttackInfo, *, full: bool, alone: bool
) -> list[Finding]:
    """The findings of one attack at its largest eps.

    Args:
        numbers: Of the run.
        attack: With at least one eps above 0.
        full: Also the smallest eps, the posterior and the AUROC.
        alone: No other attack needs to be told from it.
    """
    name = "" if alone else f" under {attack.label}"
    first, last = attack.strengths[0], attack.strengths[-1]
    parts = [fooled(numbers, attack, last), _unnoticed(numbers, attack, name)]
    if full:
        parts[1:1] = [_confident(numbers, attack, name), _noticed(numbers, attack, name)]
        if first != last:
            parts.insert(0, fooled(numbers, attack, first))
    return [part for part in parts if part is not None]


def error_of(numbers: Numbers, attack: AttackInfo | None, eps: float) -> dict[str, Estimate | None]:
    """Error of every loss, fit for comparison.

    Seeds that agree to the image have a t-interval of no width, which would "differ" from
    anything: there the interval over images stands in.
    """
    out: dict[str, Estimate | None] = {}
    for label in numbers.labels:
        name = "none" if attack is None else attack.label
        found = numbers.get(label, name, eps, "error")
        if found is not None and len(found.values) > 1 and len(set(found.values)) == 1:
            low, high = numbers.error_over_images(label, name, eps)
            found = replace(found, low=low, high=high, interval="Wilson over images")
        out[label] = found
    return out


def errors_in_words(order: Ranking) -> str:
    """Who errs least and most."""
    best, worst = percent(order.values[0]), percent(order.values[-1])
    if len(order.labels) == 1:
        return f"{order.labels[0]} is wrong on {best} of the test images."
    if order.tied:
        return f"Every loss is wrong on the same share of the test images: {best}."
    return f"Fewest errors: {order.best()} ({best}). Most: {order.worst()} ({worst})."


def clean_answer(numbers: Numbers) -> Finding:
    """Error on clean images."""
    order = ranking(error_of(numbers, None, 0.0), lower_is_better=True)
    if order is None:
        return Finding("Clean images", "No cell of this run finished, so there is no answer.")
    return Finding("Clean images", errors_in_words(order), order.verdict())


def _sound(
    numbers: Numbers, attack: AttackInfo, eps: float, found: dict[str, Estimate | None]
) -> tuple[dict[str, Estimate | None], str]:
    """The numbers without a mark, and a sentence about the others; all of them if all are marked.

    A number that may be an artefact of the attack must not win a comparison.
    """
    marked = [k for k, v in found.items() if v and flags_of(numbers, k, attack, eps)]
    kept = {k: v for k, v in found.items() if k not in marked}
    if not marked:
        return found, ""
    if not any(kept.values()):
        return found, " All of them are marked †."
    names = listed(marked) if len(marked) <= 5 else f"{len(marked)} losses"
    return kept, f" Not ranked, because marked †: {names}."


def fooled(numbers: Numbers, attack: AttackInfo, eps: float) -> Finding | None:
    """Error under one attack at one eps."""
    found, remark = _sound(numbers, attack, eps, error_of(numbers, attack, eps))
    order = ranking(found, lower_is_better=True)
    if order is None:
        return None
    text = errors_in_words(order)
    if numbers.classes and eps == attack.strengths[-1]:
        text += f" Guessing: {100 * (1 - 1 / numbers.classes):.3g} %."
    return Finding(f"{attack.label}, eps {eps:.4g}", text + remark, order.verdict())


def _confident(numbers: Numbers, attack: AttackInfo, name: str) -> Finding | None:
    eps = attack.strengths[-1]
    found = {k: numbers.get(k, attack.label, eps, "mean_max_posterior") for k in numbers.labels}
    order = ranking(found, lower_is_better=True)
    if order is None:
        return None
    each = [
        f"{label} {estimate(value, digits=2)}"
        for label, value in zip(order.labels, order.values, strict=True)
    ]
    start = f"Mean posterior of its prediction at eps {eps:.4g}: "
    text = listed(each) if len(each) <= 4 else f"from {each[0]} to {each[-1]}"
    return Finding(f"How sure it still is{name}", f"{start}{text}.")


def _noticed(numbers: Numbers, attack: AttackInfo, name: str) -> Finding | None:
    eps = attack.strengths[-1]
    found = {k: numbers.get(k, attack.label, eps, "auroc_all") for k in numbers.labels}
    found, remark = _sound(numbers, attack, eps, found)
    order = ranking(found, lower_is_better=False)
    if order is None:
        return None
    best, worst = estimate(order.values[0]), estimate(order.values[-1])
    if len(order.labels) == 1:
        text = f"AUROC of {order.labels[0]} at eps {eps:.4g}: {best}."
    elif order.tied:
        text = f"Every loss has the same AUROC at eps {eps:.4g}: {best}."
    else:
        text = (
            f"AUROC at eps {eps:.4g}: highest for {order.best()} ({best}), lowest for "
            f"{order.worst()} ({worst})."
        )
    return Finding(f"Noticed by its likelihood{name}", text + remark, order.verdict())


def _unnoticed(numbers: Numbers, attack: AttackInfo, name: str) -> Finding | None:
    eps = attack.strengths[-1]
    metric = "undetected_success_at_5fpr"
    found = {k: numbers.get(k, attack.label, eps, metric) for k in numbers.labels}
    found, remark = _sound(numbers, attack, eps, found)
    order = ranking(found, lower_is_better=True)
    if order is None:
        return None
    best, worst = percent(order.values[0]), percent(order.values[-1])
    start = f"With 5 % of clean images rejected, at eps {eps:.4g}: "
    if len(order.labels) == 1 or order.tied:
        who = order.labels[0] if len(order.labels) == 1 else "every loss"
        text = f"{start}{who} {best} of the images that were right."
    else:
        text = (
            f"{start}fewest for {order.best()} ({best} of the images that were right), most "
            f"for {order.worst()} ({worst})."
        )
    return Finding(f"Fooled and not noticed{name}", text + remark, order.verdict())


def worst_answer(numbers: Numbers, case: AttackInfo) -> Finding | None:
    """Error of the worst case at the smallest eps, where losses differ most, and at the largest."""
    first, last = case.strengths[0], case.strengths[-1]
    order = ranking(error_of(numbers, case, first), lower_is_better=True)
    if order is None:
        return None
    text = errors_in_words(order)
    largest = ranking(error_of(numbers, case, last), lower_is_better=True)
    if largest is not None and last != first:
        low, high = (100 * largest.values[i].mean for i in (0, -1))
        reach = f"{low:.1f} %" if low == high else f"{low:.1f} to {high:.1f} %"
        text += f" At eps {last:.4g}: {reach}."
    count = len({n for k in order.labels for r in numbers.rows(k, case.label, first)
                 for n in r["attacks"]})  # fmt: skip
    norm = NORM_NAMES.get(case.norm or "", case.norm)
    attacks = "1 attack" if count == 1 else f"{count} attacks"
    return Finding(f"Worst of {attacks}, {norm} eps {first:.4g}", text, order.verdict())


def radius_answer(numbers: Numbers, case: AttackInfo) -> Finding | None:
    """How far the worst case must go: the median radius, or the eps at 50 % error without one."""
    metric, name = "median_radius", "Median radius"
    found = {k: numbers.get(k, case.label, None, metric) for k in numbers.labels}
    if not any(found.values()):
        metric, name = "eps_at_50_error", "Eps at 50 % error"
        found = {k: numbers.get(k, case.label, None, metric) for k in numbers.labels}
    never = [
        k for k, value in found.items()
        if value is None and numbers.get(k, case.label, None, "area_under_error_curve")
    ]  # fmt: skip
    order = ranking(found, lower_is_better=False)
    if order is None:
        return None
    each = [f"{k} {_length(v)}" for k, v in zip(order.labels, order.values, strict=True)]
    most = listed(each) if len(each) <= MOST_NAMED else f"from {each[0]} down to {each[-1]}"
    text = f"{name} of the worst case, largest first: {most}."
    if never:
        text += f" Not half of the images of {few(never)} fall within the eps of this run."
    norm = NORM_NAMES.get(case.norm or "", case.norm)
    return Finding(f"How far to the first mistake, {norm}", text, "" if never else order.verdict())


def _length(value: Estimate) -> str:
    return estimate(value, digits=4 if value.mean < 0.1 else 3)


def adaptive_answers(numbers: Numbers) -> list[Finding]:
    """For each norm: what adaptive attacks make of the AUROC, and what rejection still saves."""
    parts = []
    for found in guarded(numbers):
        if found.of_kind("naive") and found.of_kind(BEST):
            parts += [_fallen(found), _rejecting(found)]
    return [part for part in parts if part is not None]


def _fallen(found: Guarded) -> Finding | None:
    eps, start = found.eps[-1], found.of_kind("naive")[0]
    (best,) = found.of_kind(BEST)
    each, below = [], []
    known = {k: found.get(k, best, eps, "auroc_all") for k in found.numbers.labels}
    order = ranking(known, lower_is_better=False)
    if order is None:
        return None
    for label, value in zip(order.labels, order.values, strict=True):
        naive = found.get(label, start, eps, "auroc_all")
        each.append(f"{label} {estimate(naive)} to {estimate(value)}")
        below += [label] if value.mean < 0.5 else []
    text = (
        f"AUROC of the likelihood at eps {eps:.4g}, from {start.label} to the best adaptive "
        f"attack: {_from_to(each)}."
    )
    limit = order.verdict()
    if below:
        who = "every loss" if len(below) == len(order.labels) else few(below)
        limit = f"Below 0.5 attacked images look more typical than clean ones: {who}. {limit}"
    return Finding(f"Noticed when the attack knows it, {found.norm_name}", text, limit.strip())


def _from_to(each: Sequence[str]) -> str:
    """Every loss, or of many the two ends: the table has them all."""
    if len(each) <= MOST_NAMED:
        return "; ".join(each)
    return f"highest for {each[0]}, lowest for {each[-1]}"


def _rejecting(found: Guarded) -> Finding | None:
    eps = found.eps[-1]
    (best,) = found.of_kind(BEST)
    metric = "error_with_rejection_at_5fpr"
    known = {k: found.get(k, best, eps, metric) for k in found.numbers.labels}
    order = ranking(known, lower_is_better=True)
    if order is None:
        return None
    low, high = percent(order.values[0]), percent(order.values[-1])
    start = f"With 5 % of clean images rejected, at eps {eps:.4g}: "
    text = f"{start}{order.best()} {low} of all images."
    if len(order.labels) > 1 and not order.tied:
        text = f"{start}fewest for {order.best()} ({low} of all images), most for "
        text += f"{order.worst()} ({high})."
    return Finding(f"Wrong and accepted all the same, {found.norm_name}", text, order.verdict())
