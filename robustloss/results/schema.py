"""What results.json holds, declared once: every table and every column.

What is written and in which order, what is refused when a file is read, and the JSON Schema that
`robustloss schema` prints all follow from `TABLES`. A new column is a line in the file of its table
in `results/tables` and a value where its rows are made. A line reads NAME KIND Meaning. [marks],
see `columns`.
"""

import math
from collections.abc import Mapping
from typing import Any

from robustloss.results.columns import Row, Table, parse_columns
from robustloss.results.provenance import Provenance
from robustloss.results.tables.compared import COMPARED
from robustloss.results.tables.detailed import DETAILED
from robustloss.results.tables.first import FIRST, RISK

SCHEMA_VERSION = 1  # of cell.json and results.json; more tables and columns do not raise it
KEEPING_LABEL = ("confidence",)  # attacks that change only how sure the model is
WORST_CASE = {"attack": "worst_case", "attack_label": "worst case"}
# Image by image over attacks, where a score judges: those that know it, and every attack.
BEST_ADAPTIVE = {"attack": "best_of_adaptive", "attack_label": "best of adaptive"}
ANY_ATTACK = {"attack": "best_of_all", "attack_label": "any attack"}

TABLES: dict[str, Table] = FIRST | DETAILED | COMPARED
AREAS = tuple(column.name for column in parse_columns(RISK))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of results.json, with a sentence for every table and column."""
    provenance = Provenance.model_json_schema(ref_template="#/$defs/{model}")
    definitions = provenance.pop("$defs")
    head = {
        "schema_version": {"const": SCHEMA_VERSION, "description": "Version of this schema."},
        "name": {"type": "string", "description": "Name of the run."},
        "provenance": provenance,
    }
    digest = (
        "sha256 over everything else, see storage.digest_content; runs of versions before this "
        "value have none."
    )
    properties = head | {name: table.json_schema() for name, table in TABLES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "results.json of robustloss",
        "type": "object",
        "properties": properties | {"digest": {"type": "string", "description": digest}},
        "required": [*head, *(name for name, table in TABLES.items() if not table.optional)],
        "$defs": definitions,
    }


def cell_place(cell: Mapping[str, Any]) -> Row:
    """Return the columns that name a cell: loss, label and seed."""
    return {name: cell[name] for name in ("loss", "label", "seed")}


def finite_or_null(value: float) -> float | None:
    """Return a number as results.json holds it: null for what does not exist or is not finite."""
    return value if math.isfinite(value) else None


def aims_at_label(name: str) -> bool:
    """Return whether an attack tries to change the predicted class.

    Errors, worst cases and checks are about these. The others keep the class and change how sure
    the model is of it: they stand in the tables of single passes alone, such as calibration.

    Args:
        name: of the attack, as a spec names it.
    """
    return name not in KEEPING_LABEL
