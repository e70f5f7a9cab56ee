"""What the tables of a spec have in common: their base class, and the types of their values."""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from robustloss.spec.errors import Problems, SpecError, rule_error
from robustloss.spec.prefixes import is_plugin
from robustloss.spec.text import slug

T = TypeVar("T")
MOST_BYTES = 2**20  # of a spec or a published table; the longest specs that ship have 4,000
MAX_LABEL = 80  # characters: file names hold the slug of a label, eps and a key
BUILT_IN = "robustloss uses this name itself"  # why a parameter may not have it


class Table(BaseModel):
    """A table of a spec: no unknown key, no silent conversion, no change afterwards."""

    # Strict: "3" is no number and 3.0 is no integer; a silent conversion hides a mistake.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def override(self, keys: Mapping[str, Any]) -> Self:
        """Return this table with some keys replaced; defaults that follow from them change too."""
        return self.model_validate({**self.model_dump(exclude_unset=True), **keys})

    def _refuse(self, key: str, rule: str) -> None:
        """Raise the problem of one key; the rule is as for `rule_error`."""
        raise_at(key, getattr(self, key), rule)

    def _complete(self, values: Mapping[str, object]) -> None:
        """Set keys whose defaults follow from other keys; for validators, before the table is used.

        The keys do not count as given: `override` works their defaults out anew.
        """
        for key, value in values.items():
            object.__setattr__(self, key, value)  # the table is frozen


def inner_tables(model: type[BaseModel]) -> dict[str, type[Table]]:
    """Return the tables inside a table by their path, as "train", "losses[]", "train.adversarial".

    Those of the first level come first, in the order of the fields.
    """
    found: dict[str, type[Table]] = {}
    level: list[tuple[str, type[BaseModel]]] = [("", model)]
    while level:
        inner: list[tuple[str, type[BaseModel]]] = []
        for prefix, outer in level:
            for name, field in outer.model_fields.items():
                end = "[]" if get_origin(field.annotation) is tuple else ""
                for kind in (field.annotation, *get_args(field.annotation)):
                    if isinstance(kind, type) and issubclass(kind, Table):
                        found[f"{prefix}{name}{end}"] = kind
                        inner.append((f"{prefix}{name}{end}.", kind))
        level = inner
    return found


def declare(
    meaning: str,
    default: Any = ...,
    *,
    shown: str = "",
    kind: str = "",
    example: object = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> Any:
    """Declare one key of a table.

    Args:
        meaning: for the table of keys.
        default: left out where the user must give the key.
        shown: the default in words, where it follows from other keys.
        kind: the type in words, where that of the field says too little.
        example: for the message that the key is missing.
        gt: least value, excluded.
        ge: least value.
        lt: greatest value, excluded.
        le: greatest value.
    """
    # Words for `text.rows_of`; pydantic itself does nothing with them.
    words = {"shown_default": shown, "shown_type": kind}
    return Field(
        default,
        description=meaning,
        examples=None if example is None else [example],
        json_schema_extra={name: text for name, text in words.items() if text},
        gt=gt,
        ge=ge,
        lt=lt,
        le=le,
    )


def check_each(values: tuple[T, ...], rule: Callable[[T], str] = lambda value: "") -> tuple[T, ...]:
    """Return values, if none is listed twice and none breaks a rule.

    Args:
        values: of a key that is a list.
        rule: returns what is wrong with one value; "" where nothing is.
    """
    problems = Problems()
    seen: set[T] = set()
    for i, value in enumerate(values):
        if broken := rule(value):
            problems.add((i,), value, broken)
        elif value in seen:
            problems.add((i,), value, "is listed twice. Remove one.")
        seen.add(value)
    problems.raise_if_any()
    return values


def raise_at(key: str, value: object, rule: str) -> None:
    """Raise the problem of one key of a table.

    Args:
        key: of the table under validation.
        value: what the user wrote.
        rule: the rest of the line after "key (=value)": rule and remedy.
    """
    problems = Problems()
    problems.add((key,), value, rule)
    problems.raise_if_any()


def as_tuple(value: object) -> object:
    """Turn a list into a tuple: frozen tables hold tuples, TOML holds lists."""
    return tuple(value) if isinstance(value, list) else value


ListOf = Annotated[tuple[T, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2})?"
_LONGEST = 100  # characters of a number or fraction as text
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?")


def _parse_eps(value: object) -> object:
    """Read a number, or an exact fraction as text: ``"8/255"`` is the float nearest to 8/255."""
    if isinstance(value, str):
        parts = _FRACTION.fullmatch(value)
        # A number of thousands of digits would overflow a float, or Python's own reading of it.
        if len(value) > _LONGEST or parts is None or (parts[2] and not Fraction(parts[2])):
            raise rule_error('must be a number or a fraction as text, such as 0.1 or "8/255".')
        value = float(Fraction(parts[1]) / Fraction(parts[2] or 1))
    if isinstance(value, (int, float)) and value < 0:
        raise rule_error("must be >= 0: it is a budget, a distance in pixel units.")
    return value


Eps = Annotated[float, BeforeValidator(_parse_eps)]


def only(rule: str, *values: object) -> BeforeValidator:
    """Make the validator that accepts some values and no others; 1 is not true."""

    def check(value: object) -> object:
        if not any(type(value) is type(each) and value == each for each in values):
            raise rule_error(rule)
        return value

    return BeforeValidator(check)


def pixel_rule(eps: float) -> str:
    """Say why an L-inf budget outside (0, 1] is refused, and what is probably meant."""
    hint = f' Write "{eps:g}/255".' if 1 < eps <= 255 else ""
    return f"must lie in (0, 1]: pixel units, not 0–255.{hint}"


def plain_table(value: object) -> object:
    """Copy a table, if it holds only what TOML and JSON both hold: it is hashed and sent."""
    problems = Problems()
    copy = _copy_plain(value, (), problems) if isinstance(value, Mapping) else value
    problems.raise_if_any()
    return copy


def _copy_plain(value: object, loc: tuple[int | str, ...], problems: Problems) -> object:
    if isinstance(value, Mapping):
        return {str(k): _copy_plain(v, (*loc, str(k)), problems) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy_plain(item, (*loc, i), problems) for i, item in enumerate(value)]
    if isinstance(value, float) and not abs(value) < float("inf"):
        problems.add(loc, value, "must be a finite number.")
    elif not isinstance(value, (str, bool, int, float)):
        problems.add(loc, value, "must be text, a number, true or false, or a list or table.")
    return value


PlainTable = Annotated[dict[str, Any], BeforeValidator(plain_table)]


def refuse_keys(
    params: dict[str, Any], reasons: Mapping[str, str], table: str = "params"
) -> dict[str, Any]:
    """Return the parameters, if none of them is decided elsewhere.

    Args:
        params: what the user wrote.
        reasons: parameter that is refused -> where it is decided.
        table: where the user wrote them.
    """
    problems = Problems()
    for key, reason in reasons.items():
        if key in params:
            problems.add((key,), params[key], f"cannot stand in {table}: {reason}. Remove it.")
    problems.raise_if_any()
    return params


def without(**reasons: str) -> AfterValidator:
    """Make the validator that refuses parameters which robustloss passes itself."""
    return AfterValidator(lambda params: refuse_keys(params, reasons))


def default_label(name: str, labels: Mapping[str, str]) -> str:
    """Return what tables and figures call a name where nobody says otherwise.

    Code of one's own is called by its class or function: "ring.py:Ring" is "Ring". What a package
    brings keeps its prefix.

    Args:
        name: Of a loss or attack, as it is stored.
        labels: Of the names of our own.
    """
    if name in labels:
        return labels[name]
    return name.rpartition(":")[2] if is_plugin(name) else name


class Labelled(Table):
    """A table of an array: what is named, and how tables and figures call it."""

    labels: ClassVar[Mapping[str, str]] = {}
    """The label of a name where the spec gives none; others are called by their `short_name`, and
    code of one's own by its class or function."""

    name: Name
    label: str = declare(
        "how tables and figures call it; its slug names files", "", shown="the name, as L-GM"
    )

    @model_validator(mode="after")
    def complete_label(self) -> Self:
        """Call it by its name, unless the spec says otherwise."""
        if "label" not in self.model_fields_set:
            self._complete({"label": default_label(self.short_name, self.labels)})
        if not (self.label.isprintable() and 0 < len(self.slug) <= MAX_LABEL):
            rule = f"must be one line of 1 to {MAX_LABEL} characters, with a letter a-z or a digit."
            self._refuse("label", rule)
        return self

    @property
    def short_name(self) -> str:
        """The name without what stands before it."""
        return self.name

    @property
    def file_label(self) -> str:
        """What names of files rest on: the label that the spec gives, else the short name.

        So a default label can change and no stored file gets another name: a loss "lgm" without a
        label is called L-GM and keeps its folder "lgm", "ring.py:Ring" is called Ring and keeps
        "ring-py-ring".
        """
        if "label" in self.model_fields_set:
            return self.label
        # Longer names were refused before, so no folder has one: the long path of a file of code.
        return self.short_name if len(slug(self.short_name)) <= MAX_LABEL else self.label

    @property
    def slug(self) -> str:
        """Its file name."""
        return slug(self.file_label)

    def is_called(self, text: str) -> bool:
        """Tell whether a text means this table: its label in any wording of one slug, or its name.

        Args:
            text: as a person wrote it.
        """
        return slug(text) in (slug(self.label), self.slug) or text in (self.name, self.label)


def read_text(path: Path, wanted: str) -> str:
    """Return the text of a file that a person wrote.

    Args:
        path: of the file.
        wanted: what it should be, for messages.

    Raises:
        SpecError: it cannot be read, is too large, or is no UTF-8.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
            raise SpecError(f"{path}: is no file. Name {wanted}.")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            most = f"{MOST_BYTES // 2**20} MiB"
            raise SpecError(f"{path}: has more than {most}, which is too much for {wanted}.")
        return content.decode("utf-8-sig")  # Windows editors begin a file with a mark
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise SpecError(
            f"{path}: is not UTF-8 text (byte {error.start}). Name {wanted} in UTF-8."
        ) from None
