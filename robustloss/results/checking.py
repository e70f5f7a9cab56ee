"""Is a file what it should be? A run folder may be damaged, or somebody else's."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from robustloss.results.columns import KINDS
from robustloss.results.schema import TABLES
from robustloss.storage import CorruptFile


def check(file: Path, place: str, model: type[BaseModel], value: Any) -> None:
    """Refuse a value whose parts are not of the types that are read.

    Args:
        file: that holds it, for the message.
        place: of the value in the file, for the message; "" for the whole file.
        model: names and types of its parts.
        value: as read from JSON.

    Raises:
        CorruptFile: the text names the part, its value and what it should be.
    """
    try:
        model.__pydantic_validator__.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        for key in first["loc"]:
            # the location goes on with names of pydantic's own where a type has alternatives
            if not ((isinstance(value, dict) and key in value) or isinstance(key, int)):
                break
            value = value[key]
            place += f"[{key}]" if isinstance(key, int) else f".{key}"
        place = place.lstrip(".")
        if first["type"] == "missing":
            refuse(file, f"{place} has no {first['loc'][-1]!r}".lstrip())
        # "Input should be a valid dictionary or instance of CLASS": of a class that no reader knows
        rule = first["msg"].replace("Input should", "it should").split(" or instance")[0]
        refuse(file, f"{place} is {_brief(value)}: {rule}")


def check_tables(file: Path, results: Mapping[str, Any]) -> None:
    """Refuse tables with a value of another kind than its column.

    A row may lack columns, and null may stand anywhere: a report names what it misses, see
    `naming_missing_columns`.

    Args:
        file: for the message.
        results: the content of results.json or of a cell.json.

    Raises:
        CorruptFile: the text names table, row and column.
    """
    for name, table in TABLES.items():
        rows = results.get(name, [])
        if not isinstance(rows, list):
            refuse(file, f"{name} is {_brief(rows)}")
        model, declared = _row_model(name), frozenset(table.names)
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                refuse(file, f"{name}[{number}] is no table row")
            check(file, f"{name}[{number}]", model, row)
            for key in row.keys() - declared:
                if not isinstance(row[key], str | int | float | None):
                    refuse(file, f"{name}[{number}].{key} is {_brief(row[key])}")


@cache
def _row_model(table: str) -> type[BaseModel]:
    fields: dict[str, Any] = {c.name: (KINDS[c.kind] | None, None) for c in TABLES[table].columns}
    return create_model(table, __config__=ConfigDict(strict=True), **fields)


@contextmanager
def naming_missing_columns(file: Path, results: Mapping[str, Any]) -> Iterator[None]:
    """Raise what a missing value makes the block raise as an error that names the value.

    Args:
        file: for the message.
        results: its tables, in which the block looks for values.

    Raises:
        CorruptFile: a row lacks a column, or has null in one that is never null. Without such a
            row the error is raised as it is.
    """
    try:
        yield
    except CorruptFile:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):
        refuse_missing(file, results)
        raise


def refuse_missing(file: Path, results: Mapping[str, Any]) -> None:
    """Raise a CorruptFile if a row lacks a column, or has null in one that is never null.

    Args:
        file: for the message.
        results: its tables.
    """
    for name, table in TABLES.items():
        for number, row in enumerate(results.get(name, ())):
            for column in table.columns:
                # of an interval both ends are there, or none
                half = row.get(_other_end(column.name)) is not None
                if column.name not in row and (not column.optional or half):
                    refuse(file, f"{name}[{number}] has no {column.name!r}")
                if row.get(column.name, "") is None and (not column.nullable or half):
                    refuse(file, f"{name}[{number}].{column.name} is null")


def _other_end(name: str) -> str:
    """Return the column of an interval's other end, or the name of any other column."""
    return re.sub(r"(?<![a-z])(low|high)$", lambda end: "high" if end[0] == "low" else "low", name)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def refuse(file: Path, what: str) -> NoReturn:
    """Raise a CorruptFile that says what is wrong with a file, and how to mend it."""
    raise CorruptFile(f"{file}: {what}. Run `robustloss run` again to rewrite it.")
