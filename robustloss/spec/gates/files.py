"""Gates from a file, a spec or plain tables."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustloss.spec.base import inner_tables
from robustloss.spec.errors import SpecError, explain
from robustloss.spec.gates.table import GateFile, GateSpec
from robustloss.spec.load import find_spec, load_spec, read_tables, shipped_specs
from robustloss.spec.prefixes import canonical_name

GatesLike = str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]


def load_gates(source: GatesLike) -> tuple[GateSpec, ...]:
    """Read and check gates; see `load_gate_file`."""
    return load_gate_file(source).gates


def load_gate_file(source: GatesLike) -> GateFile:
    """Read and check gates, and the baseline beside them.

    Args:
        source: a TOML file with [[gates]] or [baseline], which may be a spec, or the name of a
            shipped one; or the tables as a list of dicts, or as a dict with the keys "gates" and
            "baseline".

    Returns:
        A gate at least, or a baseline, whose file is then seen from here.

    Raises:
        SpecError: the file cannot be read, has neither, or breaks a rule; one line per problem.
    """
    where, folder = "gates", Path()
    if isinstance(source, str | Path):
        where, path = str(source), Path(os.path.expanduser(source))
        folder = path.parent
        shipped = canonical_name(where, shipped_specs()) in shipped_specs()
        archive = path.is_file() and path.suffix == ".npz"
        if archive or not (path.is_file() or shipped):
            what = "is an .npz" if archive else "is a folder" if path.is_dir() else "no such file"
            remedy = "Write one: robustloss guide gates."
            if archive or (path / "results.json").exists():
                remedy = (
                    "A baseline, which is an earlier run or its file, is named by --baseline "
                    f"{where} (in Python: baseline=)."
                )
            raise SpecError(
                f"gates (={where}) must be a TOML file with tables [[gates]]: {what}. {remedy}"
            )
        tables: Mapping[str, Any] = read_tables(find_spec(source))[1]
    else:
        tables = source if isinstance(source, Mapping) else {"gates": list(source)}
    is_spec = bool({"losses", "attacks"} & tables.keys())
    if not tables.get("gates") and (is_spec or not tables.keys() - {"gates"}):
        raise SpecError(
            f"{where}: no gates. Write for example [[gates]] and, below it, metric = "
            '"clean_error" and max = 0.05.'
        )
    if is_spec:
        gates = load_spec(source if isinstance(source, str | Path) else tables).gates
        return GateFile.model_construct(gates=gates, baseline=None)
    try:
        found = GateFile.model_validate(dict(tables))
    except ValidationError as error:
        raise explain(error, GateFile, inner_tables(GateFile)) from None
    if found.baseline is None:
        return found
    file = str(folder / os.path.expanduser(found.baseline.file))
    return found.model_copy(update={"baseline": found.baseline.model_copy(update={"file": file})})
