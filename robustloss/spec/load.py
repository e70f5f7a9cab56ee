"""A TOML file, the name of a shipped spec, or a dict becomes a Spec."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustloss.spec.base import MOST_BYTES as MOST_BYTES
from robustloss.spec.base import inner_tables, read_text
from robustloss.spec.errors import SpecError, did_you_mean, explain
from robustloss.spec.prefixes import canonical_name
from robustloss.spec.spec import Spec
from robustloss.spec.text import Key, rows_of

SHIPPED = Path(__file__).parent.parent / "specs"


def load_spec(source: str | Path | Mapping[str, Any], *, folder: Path | None = None) -> Spec:
    """Read and check a spec.

    Args:
        source: path of a TOML file, name of a shipped spec, or the tables as a dict.
        folder: where relative paths in a dict begin; the working folder by default.

    Raises:
        SpecError: the file cannot be read, or breaks a rule; one line per problem.
    """
    if isinstance(source, Mapping):
        spec = _validate(source)
        spec._folder = folder or spec._folder
        return spec
    path = find_spec(source)
    text, tables = read_tables(path)
    if tables and not tables.keys() - {"gates", "baseline"}:
        raise SpecError(
            f"{path}: holds gates and no spec. A run is judged by them when it has finished: "
            f"robustloss check RUN --gates {path}."
        )
    spec = _validate(tables)
    spec._text, spec._folder = text, path.resolve().parent
    return spec


def read_tables(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a TOML file, and its tables.

    Raises:
        SpecError: the file cannot be read or is no TOML.
    """
    text = read_text(path, "a TOML file")
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        placed = re.fullmatch(r"(.*) \(at (.*)\)", str(error), flags=re.DOTALL)
        what, where = placed.groups() if placed else (error, "an unknown place")
        hint = _explain_toml(text, where)
        raise SpecError(f"{path}: not valid TOML at {where}: {what}.{hint}") from None
    except ValueError:  # Python reads no integer of more than some thousand digits
        raise SpecError(f"{path}: not valid TOML: an integer is too long. Shorten it.") from None
    except RecursionError:
        raise SpecError(f"{path}: not valid TOML: arrays or tables are nested too deep.") from None


def _explain_toml(text: str, where: str) -> str:
    """Return what to write instead, after a common mistake in the line of an error; else ""."""
    number = re.match(r"line (\d+)", where)
    if number is None:  # at the end of the document
        return ""
    line = text.splitlines()[int(number[1]) - 1]
    if fraction := re.search(r"(?<![\"'\w./])\d+\s*/\s*\d+(?![\"'\w./])", line):
        return f' Write a fraction in quotes: "{fraction[0]}".'
    if re.search(r'"[^"]*\\', line):
        return " Write a path with / or in single quotes: in double quotes \\ begins an escape."
    return ""


def _validate(tables: Mapping[str, Any]) -> Spec:
    try:
        return Spec.model_validate(dict(tables))
    except ValidationError as error:
        raise explain(error, Spec, inner_tables(Spec)) from None


def find_spec(source: str | Path) -> Path:
    """Return the file of a spec; the name of a shipped one stands before a file of that name.

    Raises:
        SpecError: no such file, nor a shipped spec.
    """
    shipped = shipped_specs()
    if (name := str(source)) in shipped:
        return shipped[name]
    path = Path(os.path.expanduser(source))
    if path.is_file():
        return path
    if (known := canonical_name(name, shipped)) in shipped:
        return shipped[known]
    if path.is_dir():
        inside = path / "spec.toml"
        hint = f" Did you mean {inside}?" if inside.is_file() else " Name a TOML file."
        raise SpecError(f"{path}: is a folder.{hint}")
    hint = did_you_mean(path.stem, list(shipped)) or "."
    raise SpecError(f"{name}: no such file, nor a shipped spec ({', '.join(shipped)}){hint}")


def shipped_specs() -> dict[str, Path]:
    """Return the file of every spec that comes with the package, by its name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"), key=lambda p: p.stem)}


def key_table() -> list[Key]:
    """List every key of every table, with type, default and meaning."""
    tables = inner_tables(Spec)
    own = {path.removesuffix("[]") for path in tables}
    rows = rows_of(Spec, "", skip=own)
    for path, model in tables.items():
        rows += rows_of(model, f"{path}.")
    return rows
