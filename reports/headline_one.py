"""What one attack says: who is fooled, how sure it is then, and whether it is noticed."""

from dataclasses import replace

from robustloss.reports.marks import flags_of
from robustloss.reports.numbers import AttackInfo, Estimate, Numbers
from robustloss.reports.ranking import Finding, Ranking, ranking
from robustloss.reports.words import estimate, listed, percent


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
