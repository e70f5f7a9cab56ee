"""A TOML file or a shipped name becomes a Spec."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustloss.spec.attacks import AttackSpec
from robustloss.spec.base import Table
from robustloss.spec.data import DataSpec
from robustloss.spec.detection import ChecksSpec, DetectionSpec, OutsideSpec
from robustloss.spec.errors import SpecError, did_you_mean, explain
from robustloss.spec.losses import LossSpec, ModelSpec, TuningSpec
from robustloss.spec.spec import ResourcesSpec, Spec
from robustloss.spec.text import Key, rows_of
from robustloss.spec.training import AdversarialSpec, TrainSpec

SHIPPED = Path(__file__).parent.parent / "specs"


_TABLES: dict[str, type[Table]] = {
    "data": DataSpec,
    "model": ModelSpec,
    "train": TrainSpec,
    "detection": DetectionSpec,
    "checks": ChecksSpec,
    "resources": ResourcesSpec,
    "tuning": TuningSpec,
    "losses": LossSpec,
    "attacks": AttackSpec,
    "outside": OutsideSpec,
}

_ARRAYS = ("losses", "attacks", "outside")  # of tables

_INNER: dict[str, type[Table]] = {"adversarial": AdversarialSpec}  # of the table train


def load_spec(source: str | Path | Mapping[str, Any]) -> Spec:
    """Reads and checks a spec.

    Args:
        source: path of a TOML file, name of a shipped spec, or the tables as a dict.

    Raises:
        SpecError: the file cannot be read, or breaks a rule; one line per problem.
    """
    if isinstance(source, Mapping):
        return _validated(source)
    path = _find(source)
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Windows editors begin a file with a mark
        tables = tomllib.loads(text)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text (byte {error.start}).") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(_toml_problem(path, str(error))) from None
    spec = _validated(tables)
    spec._text, spec._folder = text, path.resolve().parent
    return spec


def shipped_specs() -> dict[str, Path]:
    """Name -> file of every spec that comes with the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"), key=lambda p: p.stem)}


def key_table() -> list[Key]:
    """Every key of every table: (key, type, default, meaning)."""
    rows = rows_of(Spec, "", skip=_TABLES)
    for name, model in _TABLES.items():
        prefix = f"{name}[]." if name in _ARRAYS else f"{name}."
        rows += rows_of(model, prefix)
    for name, model in _INNER.items():
        rows += rows_of(model, f"train.{name}.")
    return rows


def _validated(tables: Mapping[str, Any]) -> Spec:
    try:
        return Spec.model_validate(dict(tables))
    except ValidationError as error:
        raise explain(error, Spec, _TABLES | _INNER) from None


def _find(source: str | Path) -> Path:
    shipped = shipped_specs()
    if (name := str(source)) in shipped:
        return shipped[name]
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        inside = path / "spec.toml"
        hint = f" Did you mean {inside}?" if inside.is_file() else " Name a TOML file."
        raise SpecError(f"{path}: is a folder.{hint}")
    known = ", ".join(shipped)
    hint = did_you_mean(path.stem, list(shipped)) or "."
    raise SpecError(f"{name}: no such file, nor a shipped spec ({known}){hint}")


def _toml_problem(path: Path, message: str) -> str:
    found = re.fullmatch(r"(.*) \(at (.*)\)", message, flags=re.DOTALL)
    what, where = (found[1], found[2]) if found else (message, "an unknown place")
    return f"{path}: not valid TOML at {where}: {what}."
