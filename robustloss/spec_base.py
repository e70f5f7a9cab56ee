"""What the tables of a spec have in common: their base, budgets as exact fractions, errors."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from robustloss.spec_errors import Problems, rule_error

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2})?"
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?")


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
