"""The answer in plain words, computed from the numbers, claiming no more than the intervals do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reports.numbers import AttackInfo, Estimate, Numbers
from reports.words import estimate, listed, percent


@dataclass(frozen=True)
class Finding:
    """One answer: what was asked, what the numbers say, and how far that carries."""

    question: str
    answer: str
    limit: str = ""


@dataclass(frozen=True)
class Ranking:
    """Losses from best to worst on one number."""

    labels: Sequence[str]
    values: Sequence[Estimate]

    @property
    def tied(self) -> bool:
        """Whether every loss has the very same mean."""
        return self.values[0].mean == self.values[-1].mean

    def best(self) -> str:
        """Whoever shares the first place, in words."""
        return self._at(self.values[0])

    def worst(self) -> str:
        """Whoever shares the last place, in words."""
        return self._at(self.values[-1])

    def _at(self, place: Estimate) -> str:
        return listed(
            [
                label
                for label, value in zip(self.labels, self.values, strict=True)
                if value.mean == place.mean
            ]
        )

    def verdict(self) -> str:
        """What the intervals allow to say about best and worst."""
        if len(self.labels) < 2 or self.tied:
            return ""
        best = self.values[0]
        apart = best.overlaps(self.values[-1])
        if apart is None:
            return "No difference shown: one training seed gives no interval here."
        if apart:
            return "No difference shown: the 95 % intervals of best and worst overlap."
        near = [
            label
            for label, value in zip(self.labels[1:], self.values[1:], strict=True)
            if best.overlaps(value) is not False
        ]
        if near:
            text = (
                "Best and worst differ: their 95 % intervals do not overlap. "
                f"{listed(near)} {'are' if len(near) > 1 else 'is'} not told apart from "
                f"{self.labels[0]}."
            )
        else:
            text = f"The 95 % interval of {self.labels[0]} overlaps no other."
        if min(value.n_seeds for value in self.values) < 2:
            text += " With one training seed this is about these models, not yet about the losses."
        return text


def ranking(found: dict[str, Estimate | None], *, lower_is_better: bool) -> Ranking | None:
    """Sort the losses that have a number; None when none has."""
    known = [(label, value) for label, value in found.items() if value is not None]
    if not known:
        return None
    known.sort(key=lambda pair: pair[1].mean if lower_is_better else -pair[1].mean)
    return Ranking([k for k, _ in known], [v for _, v in known])


def headline(numbers: Numbers) -> list[Finding]:
    """The findings, in the order of the questions that the project asks.

    The first attack is told in full; of every other the error and the undetected successes at
    its largest eps.
    """
    out = [_clean(numbers)]
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    for i, attack in enumerate(attacks):
        name = f" under {attack.label}" if len(attacks) > 1 else ""
        first, last = attack.strengths[0], attack.strengths[-1]
        parts = [_fooled(numbers, attack, last), _unnoticed(numbers, attack, name)]
        if i == 0:
            parts[1:1] = [_confident(numbers, attack, name), _noticed(numbers, attack, name)]
            if first != last:
                parts.insert(0, _fooled(numbers, attack, first))
        out += [part for part in parts if part is not None]
    return out


def _error(numbers: Numbers, attack: AttackInfo | None, eps: float) -> dict[str, Estimate | None]:
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


def _errors(order: Ranking) -> str:
    """Who errs least and most."""
    best, worst = percent(order.values[0]), percent(order.values[-1])
    if len(order.labels) == 1:
        return f"{order.labels[0]} is wrong on {best} of the test images."
    if order.tied:
        return f"Every loss is wrong on the same share of the test images: {best}."
    return f"Fewest errors: {order.best()} ({best}). Most: {order.worst()} ({worst})."


def _clean(numbers: Numbers) -> Finding:
    order = ranking(_error(numbers, None, 0.0), lower_is_better=True)
    if order is None:
        return Finding("Clean images", "No cell of this run finished, so there is no answer.")
    return Finding("Clean images", _errors(order), order.verdict())


def _fooled(numbers: Numbers, attack: AttackInfo, eps: float) -> Finding | None:
    order = ranking(_error(numbers, attack, eps), lower_is_better=True)
    if order is None:
        return None
    text = _errors(order)
    if numbers.classes and eps == attack.strengths[-1]:
        text += f" Guessing: {100 * (1 - 1 / numbers.classes):.3g} %."
    return Finding(f"{attack.label}, eps {eps:.4g}", text, order.verdict())


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
    return Finding(f"Noticed by its likelihood{name}", text, order.verdict())


def _unnoticed(numbers: Numbers, attack: AttackInfo, name: str) -> Finding | None:
    eps = attack.strengths[-1]
    metric = "undetected_success_at_5fpr"
    found = {k: numbers.get(k, attack.label, eps, metric) for k in numbers.labels}
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
    return Finding(f"Fooled and not noticed{name}", text, order.verdict())


def warning(numbers: Numbers) -> str:
    """What these numbers cannot show, whatever they are."""
    if not numbers.run.rows:
        return "No cell finished: this report says nothing about any loss."
    if not any(attack.strengths for attack in numbers.attacks):
        return "No attack was run at eps above 0: this report says nothing about robustness."
    return (
        "FGSM alone does not show robustness. It is a single step along one gradient: a low error "
        "under it can mean that the gradient was useless, and its detection AUROC often rises with "
        "eps only because one long step overshoots. Errors are those that the attacks of this run "
        "found; a stronger attack may find more, and one that also tries to stay likely may not be "
        "noticed."
    )
