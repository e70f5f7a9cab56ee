"""A spec as text: TOML literals, whole TOML documents, slugs, and the table of all keys."""

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def slug(label: str) -> str:
    """Return the folder name of a label: ``"L-GM (alpha 0.1)"`` -> ``"l-gm-alpha-0.1"``.

    Lower case, accents dropped, every run of other characters one hyphen; a dot stays between
    two digits only, so that no slug is hidden, ends in a dot or climbs to a parent folder.
    Empty when the label has no letter a-z and no digit.
    """
    plain = unicodedata.normalize("NFKD", label).casefold()
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    plain = re.sub(r"(?<![0-9])\.|\.(?![0-9])", "-", plain)
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-")


def identifier(label: str) -> str:
    """Return the slug of a label as an identifier, of which names of arrays are made."""
    return slug(label).replace("-", "_").replace(".", "_")


def literal(value: object) -> str:
    """Write one value as TOML. What TOML cannot hold (an object, None) is shown by its repr."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, except that TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(float(value))  # float(): numpy's float64 has a repr of its own
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {literal(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return repr(value)


def bound_text(value: float) -> str:
    """Write a bound of a range: whole numbers in full, others as short as they are."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def to_toml(plain: Mapping[str, Any]) -> str:
    """Write nested plain values as a TOML document; keys whose value is None are left out.

    Args:
        plain: values, tables (mappings) and arrays of tables (lists of mappings). Tables inside
            tables are written inline.
    """
    values, tables = [], []
    for key, value in plain.items():
        if isinstance(value, Mapping):
            tables.append((f"[{_key(key)}]", value))
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            tables += [(f"[[{_key(key)}]]", table) for table in value]
        else:
            values.append((key, value))
    blocks = [_lines(dict(values))] if values else []
    blocks += [f"{header}\n{_lines(table)}" for header, table in tables]
    return "\n".join(blocks)


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_key(k)} = {literal(v)}\n" for k, v in table.items() if v is not None)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else literal(key)


class Key(NamedTuple):
    """One row of the table of keys."""

    key: str
    type: str
    default: str
    meaning: str


def rows_of(model: type[BaseModel], prefix: str, skip: Collection[str] = ()) -> list[Key]:
    """List the keys of one table, as the descriptions of its fields say them.

    Args:
        model: the table's model.
        prefix: what stands before each key, such as ``"train."``.
        skip: names of fields that are tables of their own.
    """
    rows = []
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        schema = properties[name]
        shown = schema.get("shown_default")
        if shown is None:
            shown = "required" if field.is_required() else literal(field.default)
        rows.append(Key(prefix + name, _type(schema), shown, field.description or ""))
    return rows


def _type(schema: Mapping[str, Any]) -> str:
    if shown := schema.get("shown_type"):
        return str(shown)
    if branches := [b for b in schema.get("anyOf", []) if b.get("type") != "null"]:
        return " or ".join(_type(branch) for branch in branches)
    if choices := schema.get("enum"):
        return " | ".join(map(literal, choices))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    names = {"integer": "integer", "number": "number", "boolean": "true | false"}
    name = names.get(schema.get("type", ""), "table" if schema.get("type") == "object" else "text")
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    bounds = [f"{sign} {bound_text(schema[key])}" for key, sign in signs.items() if key in schema]
    return f"{name} {', '.join(bounds)}".rstrip()
