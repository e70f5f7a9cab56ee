"""What many attacks say together: the worst case, the radius, the detector that they know."""

from collections.abc import Sequence

from robustloss.reports.guarded import BEST, Guarded, guarded
from robustloss.reports.headline_one import error_of, errors_in_words
from robustloss.reports.numbers import NORM_NAMES, AttackInfo, Estimate, Numbers
from robustloss.reports.ranking import Finding, ranking
from robustloss.reports.words import estimate, few, listed, percent

MOST_NAMED = 5


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
