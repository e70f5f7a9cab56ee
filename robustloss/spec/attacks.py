"""Table [[attacks]]: names, norms, eps; and the attacks that `[detection] adapt` adds."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import ValidationInfo, field_validator, model_validator

from robustloss.spec import base
from robustloss.spec.attack_kinds import ATTACK_FACTS, ATTACK_LABELS, attack_kind, attack_norm
from robustloss.spec.detection import LIKELIHOOD, SCORE_NAMES, DetectionSpec, score_words
from robustloss.spec.errors import Problems, choice_rule
from robustloss.spec.prefixes import canonical_name, placed
from robustloss.spec.text import slug

_ADAPTIVE = "adaptive_selective"  # of those that a spec adds: no weight to choose, and one path
_RESERVED = {
    "none": "the clean pass's own",
    "worst-case": "that of the worst over all attacks",
    "best-of-adaptive": "that of the best over the adaptive attacks",
}

AttackParams = Annotated[base.PlainTable, base.without(folders=base.BUILT_IN)]


class AttackSpec(base.Labelled):
    """One table [[attacks]]: an attack, its parameters and its budgets."""

    labels: ClassVar[Mapping[str, str]] = ATTACK_LABELS

    name: Annotated[base.Name, placed("attack", ATTACK_FACTS)] = base.declare(
        "attack: robustloss list attacks, module:name, file.py:name", example="fgsm"
    )
    params: AttackParams = base.declare("its own parameters", {})
    eps: base.ListOf[base.Eps] = base.declare(
        "budgets in pixel units: L-inf in [0, 1], L2 and L1 >= 0",
        kind='list of numbers or fractions as text ("8/255")',
        example=(0.1, "8/255"),
    )
    batch_size: base.Count = base.declare("images attacked at once", 500)
    eight_bit: bool = base.declare(
        "also count errors on the images rounded to 8 bits, inside the ball", False
    )
    transfer: bool = base.declare("also show its images to the models of the other losses", False)

    @model_validator(mode="after")
    def _label_is_free(self) -> Self:
        if self.slug in _RESERVED:
            base.raise_at("label", self.label, f"is {_RESERVED[self.slug]}. Give it another label.")
        return self

    @field_validator("params")
    @classmethod
    def _score(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Refuse an unknown score to aim at; a name with a colon is the user's own."""
        score = params.get("score")
        name = info.data.get("name", "")
        if not isinstance(score, str) or ":" in name or attack_kind(name) != "adaptive":
            return params
        score = canonical_name(score, SCORE_NAMES)
        if ":" not in score and score not in SCORE_NAMES:
            base.raise_at("score", score, choice_rule(score, SCORE_NAMES))
        return params | {"score": score}

    @field_validator("eps")
    @classmethod
    def _budgets(cls, eps: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        problems = Problems()
        norm = attack_norm(info.data.get("name", ""), info.data.get("params") or {})
        for i, value in enumerate(eps):
            if value > 1 and norm == "linf":
                remedy = f'; write "{value:g}/255".' if value <= 255 else "."
                rule = f"must lie in [0, 1]: pixel units, not 0–255{remedy}"
                problems.add((i,), int(value) if value.is_integer() else value, rule)
            if value in eps[:i]:
                problems.add((i,), value, "is listed twice. Remove one.")
        problems.raise_if_any()
        return tuple(sorted(value + 0.0 for value in eps))  # + 0.0: no negative zero


def find_aim(attack: AttackSpec) -> str | None:
    """Return the score that an attack of ours deceives; None of one that knows no detector."""
    if attack_kind(attack.name) != "adaptive" or ":" in attack.name:
        return None
    return str(attack.params.get("score", LIKELIHOOD))


def add_adaptive(attacks: Sequence[AttackSpec], detection: DetectionSpec) -> tuple[AttackSpec, ...]:
    """Return the attacks of a spec with one on every score, in the order of the scores.

    Each added one is like the spec's own `adaptive_selective` where there is one. Its eps are those
    of the adaptive attacks, else those of all attacks in the norm of the first.

    Args:
        attacks: of the spec.
        detection: its table [detection].

    Raises:
        ValueError: no attack has an eps above 0, or one has the label of an added one.
    """
    if not detection.adapt:
        return tuple(attacks)
    knowing = [attack for attack in attacks if find_aim(attack)]
    like = next((attack for attack in knowing if attack.name == _ADAPTIVE), None)
    first = like or next((a for a in (*knowing, *attacks) if _norm(a) and max(a.eps) > 0), None)
    if first is None:
        raise ValueError("needs an attack with an eps above 0: the added ones get its budgets.")
    alike = [a for a in knowing or attacks if _norm(a) == _norm(first)]
    eps = sorted({each for attack in alike for each in attack.eps if each > 0})
    params = {"norm": _norm(first)} if like is None else like.params
    aims, slugs = {find_aim(attack) for attack in attacks}, {attack.slug for attack in attacks}
    added = []
    for score in detection.scores:
        if score in aims:
            continue
        label = f"Adaptive on {score_words(score.rpartition('/')[2])}"  # a file without its folders
        if slug(label) in slugs:
            raise ValueError(f'adds an attack "{label}". Give yours another label.')
        added.append(
            AttackSpec(
                name=_ADAPTIVE,
                label=label,
                params={**params, "score": score},
                eps=tuple(eps),
                batch_size=first.batch_size,
            )
        )
    return (*attacks, *added)


def _norm(attack: AttackSpec) -> str | None:
    return attack_norm(attack.name, attack.params)
