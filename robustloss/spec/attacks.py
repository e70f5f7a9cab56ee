"""Table [[attacks]]: names, norms, eps."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import ValidationInfo, field_validator, model_validator

from robustloss.spec import base
from robustloss.spec.attack_kinds import ATTACK_FACTS, ATTACK_LABELS, attack_kind, attack_norm
from robustloss.spec.detection import SCORE_NAMES
from robustloss.spec.errors import Problems, choice_rule
from robustloss.spec.prefixes import canonical_name, placed

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
        "budgets in pixel units: L-inf in [0, 1], L2 >= 0",
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
