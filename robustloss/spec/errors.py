"""From a failed validation to lines that a person can act on: key, value, rule, remedy."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from json import dumps
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from robustloss.spec.text import bound_text, literal

Loc = tuple[int | str, ...]

_MAX_LINES = 12  # more lines than this hide the first ones on a small terminal
_MAX_VALUE = 60  # characters of a value shown in a message

_BOUNDS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}
_KINDS = {
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "finite_number": "must be a finite number",
    "string_too_short": "must not be empty",
}


class SpecError(ValueError):
    """A spec that cannot be used. The text is written for the user: one line per problem."""


def rule_error(rule: str) -> PydanticCustomError:
    """Make an error to raise in a validator.

    Args:
        rule: the rest of the line after "key (=value)": rule and remedy.
    """
    return PydanticCustomError("rule", "{rule}", {"rule": rule})


class Problems:
    """Collects rule violations and raises them together, each at its own key."""

    def __init__(self) -> None:
        self._details: list[InitErrorDetails] = []

    def add(self, loc: Loc, value: object, rule: str) -> None:
        """Note one violation.

        Args:
            loc: path of the key, relative to the value under validation.
            value: what the user wrote.
            rule: the rest of the line after "key (=value)": rule and remedy.
        """
        self._details.append(InitErrorDetails(type=rule_error(rule), loc=loc, input=value))

    def raise_if_any(self) -> None:
        """Raise what was noted.

        Raises:
            ValidationError: pydantic merges it into the error of the enclosing table.
        """
        if self._details:
            raise ValidationError.from_exception_data("spec", self._details)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, else nothing."""
    by_folded = {name.casefold(): name for name in known}
    close = get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.6)
    return f"; did you mean '{by_folded[close[0]]}'?" if close else ""


def choice_rule(word: object, choices: Sequence[str], *, quote: bool = False) -> str:
    """Return the rule for a key that must be one of some words, with the closest one as remedy.

    Args:
        word: what the user wrote.
        choices: what it may be.
        quote: write the choices as TOML.
    """
    hint = did_you_mean(word, choices) if isinstance(word, str) else ""
    return f"must be one of {', '.join(map(literal, choices) if quote else choices)}{hint or '.'}"


def explain(
    error: ValidationError,
    root: type[BaseModel],
    tables: Mapping[str, type[BaseModel]],
    *,
    json: bool = False,
) -> SpecError:
    """Say in the user's words why a validation failed.

    Args:
        error: what pydantic found.
        root: the model of the whole spec.
        tables: its tables by their path, as `base.inner_tables` gives them.
        json: whether the user writes JSON, not TOML.
    """
    writer = _Writer(root, tables, json=json)
    lines = list(dict.fromkeys(writer.line(detail) for detail in error.errors(include_url=False)))
    if len(lines) > _MAX_LINES:
        lines = [*lines[:_MAX_LINES], f"... and {len(lines) - _MAX_LINES} more problems."]
    return SpecError("\n".join(lines))


class _Writer:
    """Writes one line per problem; knows which keys each table has."""

    def __init__(
        self, root: type[BaseModel], tables: Mapping[str, type[BaseModel]], *, json: bool
    ) -> None:
        self.root = root
        self.json = json
        self.tables = {path.removesuffix("[]"): model for path, model in tables.items()}
        self.arrays = {path.removesuffix("[]") for path in tables if path.endswith("[]")}

    def line(self, detail: ErrorDetails) -> str:
        """Write key, value, rule and remedy of one problem."""
        loc, kind = detail["loc"], detail["type"]
        # ("losses", 0, "train", "lr") -> losses[0].train.lr
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
        key = key.removeprefix(".")
        if kind == "extra_forbidden":
            if loc == ("baseline",) and isinstance(detail["input"], Mapping):
                return (
                    "baseline: a spec has none. Move [baseline] and [[gates]] into a file of "
                    "their own: robustloss check RUN --gates FILE."
                )
            return f"{key}: unknown key{self._hint_for_unknown(loc)}"
        if kind == "missing":
            return f"{key}: missing. {self._example(loc)}"
        if kind == "too_short":
            return f"{key}: empty. {self._example(loc)}"
        shown = literal(detail["input"])
        if len(shown) > _MAX_VALUE:
            shown = shown[: _MAX_VALUE - 3] + "..."
        return f"{key} (={shown}) {self._rule(detail)}"

    def _rule(self, detail: ErrorDetails) -> str:
        """Write the rule that a value breaks, and the remedy."""
        loc, kind, value = detail["loc"], detail["type"], detail["input"]
        context: dict[str, Any] = detail.get("ctx") or {}
        if kind == "rule":
            return str(context["rule"])
        if kind in _BOUNDS:
            name, sign = _BOUNDS[kind]
            return f"must be {sign} {bound_text(context[name])}. {self._default(loc)}".rstrip()
        if kind == "literal_error":
            choices = re.findall(r"'([^']*)'", context["expected"])
            return choice_rule(value, choices, quote=True)
        if kind in _KINDS:
            remedy = self._default(loc)
            if kind == "string_type" and value is not None:
                remedy = f'Write "{literal(value)}", in quotes.'
            elif isinstance(value, str) and re.fullmatch(r"\s*([-+.0-9eE]+|true|false)\s*", value):
                remedy = f"Write {value.strip()}, without quotes."
            elif isinstance(value, float) and value.is_integer():
                remedy = f"Write {value:.0f}."
            return f"{_KINDS[kind]}. {remedy}".rstrip()
        if self.json and kind in ("model_type", "dict_type", "tuple_type"):
            form = '[{"loss": "...", ...}]' if kind == "tuple_type" else "{...}"
            return f"must be {'a list' if kind == 'tuple_type' else 'an object'}: {form}."
        if kind in ("model_type", "dict_type"):
            if isinstance(loc[-1], int):
                return f'must be a table. Write [[{loc[-2]}]] and, below it, name = "...".'
            if len(loc) > 1:
                return f"must be a table. Write {loc[-1]} = {{ key = value }}."
            if isinstance(value, list):
                return f"must be one table. Write [{loc[-1]}], with single brackets."
            return f"must be a table. Write [{loc[-1]}] and its keys below it."
        if kind == "tuple_type":
            if loc[-1] in self.arrays:
                return f"must be an array of tables. Write [[{loc[-1]}]], with double brackets."
            inner = '"..."' if value is None or isinstance(value, Mapping) else literal(value)
            return f"must be a list. Write {loc[-1]} = [{inner}]."
        return f"is not valid: {detail['msg']}."

    def _default(self, loc: Loc) -> str:
        field = self._model(loc[:-1]).model_fields.get(str(loc[-1]))
        if field is None or field.is_required() or field.default is None:
            return ""
        return f"The default is {literal(field.default)}."

    def _example(self, loc: Loc) -> str:
        if self.json:
            examples = self._model(loc[:-1]).model_fields[str(loc[-1])].examples or ["..."]
            return f'Write for example "{loc[-1]}": {dumps(examples[0])}.'
        if loc[-1] in self.arrays:
            return f"Add at least one [[{loc[-1]}]] table."
        field = self._model(loc[:-1]).model_fields[str(loc[-1])]
        example = (field.examples or [field.default])[0]
        return f"Write for example {loc[-1]} = {literal(example)}."

    def _hint_for_unknown(self, loc: Loc) -> str:
        key, model = str(loc[-1]), self._model(loc[:-1])
        if hint := did_you_mean(key, list(model.model_fields)):
            return hint
        if homes := [f"{path}.{key}" for path, m in self.tables.items() if key in m.model_fields]:
            return f"; did you mean {' or '.join(repr(home) for home in homes)}?"
        end = ""
        if {"params", "label"} <= set(model.model_fields):
            end = f" Its own parameters go into params = {{ {key} = ... }}."
        return f"; the keys here are {', '.join(model.model_fields)}.{end}"

    def _model(self, loc: Loc) -> type[BaseModel]:
        """Find the table at a place; losses[0].train has the keys of [train]."""
        by_name = {path.rpartition(".")[2]: model for path, model in self.tables.items()}
        names = [part for part in loc if part in by_name]
        return by_name[names[-1]] if names else self.root
