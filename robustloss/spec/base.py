"""What the tables of a spec have in common: their base, budgets as exact fractions, errors."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from robustloss.spec.errors import Problems, rule_error
from robustloss.spec.text import slug

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2})?"
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?")

MAX_LABEL = 80  # characters: file names hold the slug of a label, eps and a key


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Name = Annotated[str, Field(min_length=1)]


def as_tuple(value: object) -> object:
    """A list as a tuple: frozen tables hold tuples, TOML holds lists."""
    return tuple(value) if isinstance(value, list) else value


def _parse_eps(value: object) -> object:
    """A number, or an exact fraction as text: ``"8/255"`` is the float nearest to 8/255."""
    if isinstance(value, str):
        parts = _FRACTION.fullmatch(value)
        if parts is None or (parts[2] and not Fraction(parts[2])):
            raise rule_error('must be a number or a fraction as text, such as 0.1 or "8/255".')
        value = float(Fraction(parts[1]) / Fraction(parts[2] or 1))
    if isinstance(value, (int, float)) and value < 0:
        raise rule_error("must be >= 0: it is a budget, a distance in pixel units.")
    return value


def raise_at(key: str, value: object, rule: str) -> None:
    """Raises the problem of one key of a table."""
    problems = Problems()
    problems.add((key,), value, rule)
    problems.raise_if_any()


Count = Annotated[int, Field(ge=1)]
Eps = Annotated[float, BeforeValidator(_parse_eps)]


class Table(BaseModel):
    """A table of a spec: no unknown key, no silent conversion, no change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def overridden(self, keys: Mapping[str, Any]) -> Self:
        """This table with some keys replaced; defaults that depend on others follow."""
        return self.model_validate({**self.model_dump(exclude_unset=True), **keys})


def plain_table(value: object) -> object:
    """A deep copy holding only what TOML and JSON both hold, so that it can be hashed and sent."""
    problems = Problems()
    copy = _plain(value, (), problems) if isinstance(value, Mapping) else value
    problems.raise_if_any()
    return copy


def _plain(value: object, loc: tuple[int | str, ...], problems: Problems) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, (*loc, str(key)), problems) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, (*loc, i), problems) for i, item in enumerate(value)]
    if isinstance(value, float) and not abs(value) < float("inf"):
        problems.add(loc, value, "must be a finite number.")
    elif not isinstance(value, (str, bool, int, float)):
        problems.add(loc, value, "must be text, a number, true or false, or a list or table.")
    return value


def without(**given: str) -> AfterValidator:
    """Refuses parameters that robustloss passes itself: name -> where they are decided."""

    return AfterValidator(lambda params: refuse_keys(params, given))


def refuse_keys(params: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Returns the parameters if none of those is among them that are decided elsewhere."""
    problems = Problems()
    for key, reason in given.items():
        if key in params:
            problems.add((key,), params[key], f"cannot stand in params: {reason}. Remove it.")
    problems.raise_if_any()
    return params


PlainTable = Annotated[dict[str, Any], BeforeValidator(plain_table)]
BUILT_IN = "robustloss uses this name itself"


class Labelled(Table):
    """A table of an array: what is named, and how tables and figures call it."""

    name: Name
    label: str = Field(
        default="",
        description="how tables and figures call it; its slug names files",
        json_schema_extra={"shown_default": "the name"},
    )

    @model_validator(mode="after")
    def _default_label(self) -> Self:
        if "label" not in self.model_fields_set:
            object.__setattr__(self, "label", self._plain_label())
        if not (self.label.isprintable() and 0 < len(self.slug) <= MAX_LABEL):
            rule = f"must be one line of 1 to {MAX_LABEL} characters, with a letter a-z or a digit."
            raise_at("label", self.label, rule)
        return self

    def _plain_label(self) -> str:
        return self.name

    @property
    def slug(self) -> str:
        """The label as a file name."""
        return slug(self.label)
