"""The answer in plain words, computed from the numbers, claiming no more than the intervals do."""

from dataclasses import replace

from robustloss.notation import eps_text
from robustloss.reports.chapters.detection.adaptive import BEST, Guarded, guarded
from robustloss.reports.page.ranking import Finding, Ranking, rank
from robustloss.reports.reading.marks import flags_of
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate, counted, estimate, few, listed, percent

MOST_NAMED = 5
Found = dict[str, Estimate | None]  # one number of every loss


def headline(numbers: Numbers) -> list[Finding]:
    """Return the findings, in the order of the questions that the project asks.

    With several attacks of one norm the worst case over them leads. Then comes how far the losses
    are from their first mistake, then what becomes of the detector when the attack knows it. The
    errors under the first attack come last, because the paper has them.

    Otherwise the first attack is told in full, and of every other the errors and the undetected
    successes at its largest eps.
    """
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    found: list[Finding | None] = [clean_answer(numbers)]
    if not numbers.worst_cases:
        for i, attack in enumerate(attacks):
            found += attack_answers(numbers, attack, full=i == 0, alone=len(attacks) == 1)
    else:
        for case in numbers.worst_cases:
            found += [worst_answer(numbers, case), radius_answer(numbers, case)]
        for each in guarded(numbers):
            if each.of_kind("naive") and each.of_kind(BEST):
                found += [fall_answer(each), rejection_answer(each)]
        ends = dict.fromkeys((attacks[0].strengths[0], attacks[0].strengths[-1]))
        found += [error_answer(numbers, attacks[0], eps) for eps in ends]
    return [finding for finding in found if finding is not None]


def clean_answer(numbers: Numbers) -> Finding:
    """Return who errs least and most on clean images."""
    order = rank(_errors(numbers, None, 0.0), lower_is_better=True)
    if order is None:
        return Finding("Clean images", "No cell of this run finished, so there is no answer.")
    return Finding("Clean images", _error_words(order), order.verdict())


def attack_answers(
    numbers: Numbers, attack: AttackInfo, *, full: bool, alone: bool
) -> list[Finding | None]:
    """Return the findings of one attack at its largest eps.

    Args:
        numbers: Of the run.
        attack: With at least one eps above 0.
        full: Also the smallest eps, the posterior and the AUROC.
        alone: No other attack needs to be told from it.
    """
    name = "" if alone else f" under {attack.label}"
    first, last = attack.strengths[0], attack.strengths[-1]
    found = [error_answer(numbers, attack, last)]
    if full:
        if first != last:
            found.insert(0, error_answer(numbers, attack, first))
        found += [posterior_answer(numbers, attack, name), auroc_answer(numbers, attack, name)]
    return [*found, unnoticed_answer(numbers, attack, name)]


def posterior_answer(numbers: Numbers, attack: AttackInfo, name: str) -> Finding | None:
    """Return how sure each loss still is of what it says, right or wrong.

    Args:
        numbers: Of the run.
        attack: The attack, at its largest eps.
        name: Behind the question, where there are other attacks.
    """
    eps = attack.strengths[-1]
    found = {k: numbers.get(k, attack.label, eps, "mean_max_posterior") for k in numbers.labels}
    order = rank(found, lower_is_better=True)
    if order is None:
        return None
    each = [f"{label} {estimate(value, digits=2)}" for label, value in order]
    text = listed(each) if len(each) <= 4 else f"from {each[0]} to {each[-1]}"
    return Finding(
        f"How sure it still is{name}",
        f"Mean posterior of its prediction at eps {eps_text(eps)}: {text}.",
    )


def auroc_answer(numbers: Numbers, attack: AttackInfo, name: str) -> Finding | None:
    """Return whose likelihood tells attacked images from clean ones best.

    Args:
        numbers: Of the run.
        attack: The attack, at its largest eps.
        name: Behind the question, where there are other attacks.
    """
    eps = attack.strengths[-1]
    found = {k: numbers.get(k, attack.label, eps, "auroc_all") for k in numbers.labels}
    found, remark = _sound(numbers, attack, eps, found)
    order = rank(found, lower_is_better=False)
    if order is None:
        return None
    best, worst = estimate(order.values[0]), estimate(order.values[-1])
    if len(order.labels) == 1:
        text = f"AUROC of {order.labels[0]} at eps {eps_text(eps)}: {best}."
    elif order.tied:
        text = f"Every loss has the same AUROC at eps {eps_text(eps)}: {best}."
    else:
        text = (
            f"AUROC at eps {eps_text(eps)}: highest for {order.best()} ({best}), lowest for "
            f"{order.worst()} ({worst})."
        )
    return Finding(f"Noticed by its likelihood{name}", text + remark, order.verdict())


def unnoticed_answer(numbers: Numbers, attack: AttackInfo, name: str) -> Finding | None:
    """Return who is fooled and accepted most rarely, with 5 % of clean images rejected.

    Args:
        numbers: Of the run.
        attack: The attack, at its largest eps.
        name: Behind the question, where there are other attacks.
    """
    eps = attack.strengths[-1]
    metric = "undetected_success_at_5fpr"
    found = {k: numbers.get(k, attack.label, eps, metric) for k in numbers.labels}
    found, remark = _sound(numbers, attack, eps, found)
    order = rank(found, lower_is_better=True)
    if order is None:
        return None
    text = _rejection_words(order, eps, "of the images that were right")
    return Finding(f"Fooled and not noticed{name}", text + remark, order.verdict())


def error_answer(numbers: Numbers, attack: AttackInfo, eps: float) -> Finding | None:
    """Return who errs least and most under one attack.

    Args:
        numbers: Of the run.
        attack: The attack.
        eps: One of its eps above 0.
    """
    found, remark = _sound(numbers, attack, eps, _errors(numbers, attack, eps))
    order = rank(found, lower_is_better=True)
    if order is None:
        return None
    text = _error_words(order)
    if numbers.classes and eps == attack.strengths[-1]:
        text += f" Guessing: {100 * (1 - 1 / numbers.classes):.3g} %."
    return Finding(f"{attack.label}, eps {eps_text(eps)}", text + remark, order.verdict())


def _errors(numbers: Numbers, attack: AttackInfo | None, eps: float) -> Found:
    """Return the error of every loss, fit for comparison; attack None is the clean pass.

    Seeds that agree to the image have a t-interval of no width, which would "differ" from
    anything: there the interval over images stands in.
    """
    name = "none" if attack is None else attack.label
    out: Found = {}
    for label in numbers.labels:
        found = numbers.get(label, name, eps, "error")
        if found is not None and len(found.values) > 1 and len(set(found.values)) == 1:
            low, high = numbers.error_over_images(label, name, eps)
            found = replace(found, low=low, high=high, interval="Wilson over images")
        out[label] = found
    return out


def _sound(numbers: Numbers, attack: AttackInfo, eps: float, found: Found) -> tuple[Found, str]:
    """Return the numbers without a mark, and a sentence on the others; all if all are marked.

    A number that may be an artefact of the attack must not win a comparison.
    """
    marked = [k for k, v in found.items() if v and flags_of(numbers, k, attack, eps)]
    sound = {k: v for k, v in found.items() if k not in marked}
    if not marked:
        return found, ""
    if not any(sound.values()):
        return found, " All of them are marked †."
    names = listed(marked) if len(marked) <= MOST_NAMED else f"{len(marked)} losses"
    return sound, f" Not ranked, because marked †: {names}."


def _error_words(order: Ranking) -> str:
    best, worst = percent(order.values[0]), percent(order.values[-1])
    if len(order.labels) == 1:
        return f"{order.labels[0]} is wrong on {best} of the test images."
    if order.tied:
        return f"Every loss is wrong on the same share of the test images: {best}."
    return f"Fewest errors: {order.best()} ({best}). Most: {order.worst()} ({worst})."


def _rejection_words(order: Ranking, eps: float, of: str) -> str:
    best, worst = percent(order.values[0]), percent(order.values[-1])
    start = f"With 5 % of clean images rejected, at eps {eps_text(eps)}: "
    if len(order.labels) == 1 or order.tied:
        who = order.labels[0] if len(order.labels) == 1 else "every loss"
        return f"{start}{who} {best} {of}."
    return f"{start}fewest for {order.best()} ({best} {of}), most for {order.worst()} ({worst})."


def worst_answer(numbers: Numbers, case: AttackInfo) -> Finding | None:
    """Return the errors of a worst case at its smallest eps, where losses differ most.

    The largest eps follows in one number or two.

    Args:
        numbers: Of the run.
        case: One of its worst cases.
    """
    first, last = case.strengths[0], case.strengths[-1]
    order = rank(_errors(numbers, case, first), lower_is_better=True)
    if order is None:
        return None
    text = _error_words(order)
    largest = rank(_errors(numbers, case, last), lower_is_better=True)
    if largest is not None and last != first:
        low, high = (100 * largest.values[i].mean for i in (0, -1))
        reach = f"{low:.1f} %" if low == high else f"{low:.1f} to {high:.1f} %"
        text += f" At eps {eps_text(last)}: {reach}."
    rows = [row for label in order.labels for row in numbers.rows(label, case.label, first)]
    attacks = counted(len({name for row in rows for name in row["attacks"]}), "attack")
    question = f"Worst of {attacks}, {case.norm_name} eps {eps_text(first)}"
    return Finding(question, text, order.verdict())


def radius_answer(numbers: Numbers, case: AttackInfo) -> Finding | None:
    """Return how far a worst case must go: the median radius, or else the eps at 50 % error.

    Args:
        numbers: Of the run.
        case: One of its worst cases.
    """
    name, metric = "Median radius", "median_radius"
    found = {k: numbers.get(k, case.label, None, metric) for k in numbers.labels}
    if not any(found.values()):
        name, metric = "Eps at 50 % error", "eps_at_50_error"
        found = {k: numbers.get(k, case.label, None, metric) for k in numbers.labels}
    order = rank(found, lower_is_better=False)
    if order is None:
        return None
    each = [f"{k} {estimate(v, digits=4 if v.mean < 0.1 else 3)}" for k, v in order]
    most = listed(each) if len(each) <= MOST_NAMED else f"from {each[0]} down to {each[-1]}"
    text = f"{name} of the worst case, largest first: {most}."
    never = [
        k for k, value in found.items()
        if value is None and numbers.get(k, case.label, None, "area_under_error_curve")
    ]  # fmt: skip
    if never:
        text += f" Not half of the images of {few(never)} fall within the eps of this run."
    limit = "" if never else order.verdict()
    return Finding(f"How far to the first mistake, {case.norm_name}", text, limit)


def fall_answer(found: Guarded) -> Finding | None:
    """Return what the best adaptive attack makes of the AUROC that a naive attack leaves."""
    eps, start = found.eps[-1], found.of_kind("naive")[0]
    (best,) = found.of_kind(BEST)
    known = {k: found.get(k, best, eps, "auroc_all") for k in found.numbers.labels}
    order = rank(known, lower_is_better=False)
    if order is None:
        return None
    each = [
        f"{label} {estimate(found.get(label, start, eps, 'auroc_all'))} to {estimate(value)}"
        for label, value in order
    ]
    # the table has all of them
    told = "; ".join(each)
    if len(each) > MOST_NAMED:
        told = f"highest for {each[0]}, lowest for {each[-1]}"
    limit = order.verdict()
    below = [label for label, value in order if value.mean < 0.5]
    if below:
        who = "every loss" if len(below) == len(order.labels) else few(below)
        limit = f"Below 0.5 attacked images look more typical than clean ones: {who}. {limit}"
    return Finding(
        f"Noticed when the attack knows it, {found.norm_name}",
        f"AUROC of the likelihood at eps {eps_text(eps)}, from {start.label} to the best adaptive "
        f"attack: {told}.",
        limit.strip(),
    )


def rejection_answer(found: Guarded) -> Finding | None:
    """Return who is wrong and accepted under the best adaptive attack, with 5 % rejected."""
    eps = found.eps[-1]
    (best,) = found.of_kind(BEST)
    metric = "error_with_rejection_at_5fpr"
    known = {k: found.get(k, best, eps, metric) for k in found.numbers.labels}
    order = rank(known, lower_is_better=True)
    if order is None:
        return None
    return Finding(
        f"Wrong and accepted all the same, {found.norm_name}",
        _rejection_words(order, eps, "of all images"),
        order.verdict(),
    )
