"""Is results.json what a report can read? A run folder may be somebody else's, or damaged."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustloss.results.schema import (
    ALWAYS,
    COUNTS,
    FLAGS,
    LATER,
    LISTS,
    MAY_BE_NULL,
    NEVER_NULL,
    TABLES,
    TEXT,
)
from robustloss.storage import CorruptFile


def check_tables(file: Path, results: Mapping[str, Any]) -> None:
    """Refuse tables with a row that has a value of another kind than its column.

    Args:
        file: for the message.
        results: the content of results.json, or of a cell.json.

    Raises:
        CorruptFile: the text names table, row and column.
    """
    for table in TABLES:
        rows = results.get(table, [])
        if not isinstance(rows, list):
            _refuse(file, f"{table} is {_brief(rows)}")
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                _refuse(file, f"{table}[{number}] is no table row")
            for name, value in row.items():
                if not _fits(table, name, value):
                    _refuse(file, f"{table}[{number}].{name} is {_brief(value)}")


@contextmanager
def missing_told(file: Path, results: Mapping[str, Any]) -> Iterator[None]:
    """Names the column that a table lacks, or has null in, where the block stumbles over one.

    Rows of fewer columns are no mistake as long as nobody asks for the others.

    Raises:
        CorruptFile: in place of a KeyError, a TypeError or an IndexError.
    """
    try:
        yield
    except (KeyError, TypeError, IndexError):
        for table, names in TABLES.items():
            for number, row in enumerate(results.get(table, ())):
                for name in names:
                    half = row.get(_other_end(name)) is not None
                    if name not in row and (name not in LATER or half):
                        _refuse(file, f"{table}[{number}] has no {name!r}")
                    if row.get(name) is None and (_needed(table, name) or half):
                        _refuse(file, f"{table}[{number}].{name} is null")
        raise


def _other_end(name: str) -> str:
    """Returns the column of an interval's other end; the name of any other column."""
    ends = {"low": "high", "high": "low"}
    start, _, end = name.rpartition("_")
    return f"{start}_{ends[end]}".lstrip("_") if end in ends else name


def _needed(table: str, name: str) -> bool:
    if (table, name) in MAY_BE_NULL:
        return False
    return name in NEVER_NULL or name in ALWAYS.get(table, ())


def check_files(file: Path, files: Mapping[str, Any]) -> None:
    """Refuse the list of files of a cell.json that is not of the kinds that are read.

    Raises:
        CorruptFile: the text names the entry.
    """
    for kind, value in files.items():
        if kind in ("records", "outside"):
            fits = _are_tables(value) and all(_is_entry(kind, each) for each in value)
        else:
            fits = _is_text(value)
        if not fits:
            _refuse(file, f"files.{kind} is {_brief(value)}")
    for kind in ("training", "scores", "records"):
        if kind not in files:
            _refuse(file, f"files has no {kind!r}")


def _is_entry(kind: str, entry: Mapping[str, Any]) -> bool:
    texts = [entry.get("file"), entry.get("noise", "")]
    texts += [entry.get("label")] if kind == "outside" else [entry.get("attack_label")]
    eps = entry.get("eps", 0.0) if kind == "outside" else entry.get("eps")
    norm = entry.get("norm")
    return all(map(_is_text, texts)) and _is_number(eps) and (norm is None or _is_text(norm))


def check_provenance(file: Path, results: Mapping[str, Any]) -> None:
    """Refuse a provenance whose parts are not of the kind that a report reads.

    Raises:
        CorruptFile: the text names the part.
    """
    provenance = results["provenance"]
    wanted: dict[str, Callable[[Any], bool]] = {
        "data": _is_table, "spec": _is_table, "seeds": _is_list, "command": _is_command,
        "attack_cost": _are_costs, "merged": _are_tables, "notes": _are_texts,
        "seconds": _is_number,
    }  # fmt: skip
    _check_parts(file, "provenance", provenance, wanted)
    spec = provenance.get("spec") or {}
    _check_parts(
        file, "provenance.spec", spec,
        {"losses": _are_named, "attacks": _are_attacks, "model": _is_table, "train": _is_table,
         "data": _is_table, "detection": _is_table, "checks": _is_table, "seeds": _is_list},
    )  # fmt: skip
    data = provenance.get("data") or {}
    _check_parts(
        file, "provenance.data", data,
        {"name": _is_text, "label": _is_text, "summary": _is_text, "checksum": _is_text,
         "train": _is_count, "validation": _is_count, "test": _is_count,
         "class_names": _are_texts, "class_counts": _are_counts, "converted": _is_table},
    )  # fmt: skip


def _check_parts(
    file: Path, place: str, table: Mapping[str, Any], wanted: Mapping[str, Callable[[Any], bool]]
) -> None:
    for name, fits in wanted.items():
        value = table.get(name)
        if value is not None and not fits(value):
            _refuse(file, f"{place}.{name} is {_brief(value)}")


def _fits(table: str, name: str, value: object) -> bool:
    if value is None:  # what does not exist; whether it may be missing, a report finds out
        return True
    if name in TEXT:
        return _is_text(value)
    if name in COUNTS:
        return _is_count(value)
    if name in FLAGS:
        return isinstance(value, bool)
    if name == "settings":
        return _is_table(value)
    if name == "curve":
        return _are_tables(value) and all(map(_is_line, value))  # type: ignore[call-overload]
    if name == "values":
        return _is_list(value) and all(map(_is_number, value))  # type: ignore[call-overload]
    if name in LISTS:
        return _are_texts(value) if name == "attacks" else _are_counts(value)
    known = TABLES[table]
    return _is_number(value) if name in known else isinstance(value, str | int | float | bool)


def _is_line(line: Mapping[str, Any]) -> bool:
    """Whether it is one epoch of a learning curve: numbers, or none where there is none."""
    return all(value is None or _is_number(value) for value in line.values())


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_command(value: object) -> bool:
    return isinstance(value, str | list)


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_table, value))


def is_cost(value: Mapping[str, Any]) -> bool:
    """Whether it is what a cell notes of an attack's cost: whose, how many images, how long."""
    counts = ("images", "budgets", "forward", "backward")
    return (
        _is_text(value.get("attack_label"))
        and all(map(_is_count, (value.get(name) for name in counts)))
        and _is_number(value.get("seconds"))
    )


def _are_costs(value: object) -> bool:
    return _are_tables(value) and all(
        is_cost(each) and _is_text(each.get("label")) and _is_count(each.get("seed"))
        for each in value  # type: ignore[attr-defined]
    )


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _are_named(value: object) -> bool:
    if not isinstance(value, list) or not _are_tables(value):
        return False
    parts = ("params", "train", "search")
    return all(
        _is_text(each.get("label"))
        and _is_text(each.get("name", ""))
        and all(_is_table(each.get(part) or {}) for part in parts)
        and isinstance(each.get("model") or {}, dict | str)
        for each in value
    )


def _are_attacks(value: object) -> bool:
    return _are_named(value) and all(
        _is_list(each.get("eps", [])) and all(map(_is_number, each.get("eps", [])))
        for each in value  # type: ignore[attr-defined]
    )


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(file: Path, what: str) -> None:
    raise CorruptFile(f"{file}: {what}. Run `robustloss run` again to rewrite it.")
