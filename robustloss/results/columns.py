"""What a table of results.json is: its columns, their kinds, the order of its rows."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from robustloss.results.provenance import Text

Row = dict[str, Any]
KINDS: dict[str, Any] = {
    "text": Text,
    "integer": int,
    "number": float,
    "boolean": bool,
    "texts": list[Text],
    "integers": list[int],
    "numbers": list[float],
    "settings": dict,
    "curve": list[dict[Text, float | None]],
}
_LINE = re.compile(r"(\w+) +([a-z]+)(\??) +(\S.*?\.)(?: \[([a-z, ]+)\])?")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its key in a row.
        kind: key of `KINDS`.
        meaning: a sentence.
        nullable: a value may be null.
        optional: a row may lack it. A column that is added later is optional: older runs lack it.
        summarised: the table `summary` gives its mean over the seeds.
        scale: of a share in [0, 1], how tables show it: "percent", or "fraction" as it is; "" for
            any other number.
    """

    name: str
    kind: str
    meaning: str
    nullable: bool
    optional: bool
    summarised: bool
    scale: str

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a value, with its meaning."""
        kind = KINDS[self.kind]
        mean = " The table summary has its mean over the seeds." if self.summarised else ""
        types = TypeAdapter(kind | None if self.nullable else kind).json_schema()
        return {"description": f"{self.meaning}{mean}", **types}


@dataclass(frozen=True)
class Table:
    """A table of results.json: a list of flat rows.

    Attributes:
        of: "cell" where each cell.json holds the rows of its cell, "run" where the rows are made
            once all cells are finished.
        meaning: a sentence.
        columns: in the order in which a row has them.
        sorted_by: columns that together tell the rows apart; none where the rows keep the order in
            which they are made.
        optional: results may lack it. A table that is added later is optional: older runs lack it.
    """

    of: Literal["cell", "run"]
    meaning: str
    columns: tuple[Column, ...]
    sorted_by: tuple[str, ...] = ()
    optional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    def arrange(self, rows: Iterable[Mapping[str, Any]]) -> list[Row]:
        """Return the rows in the order of the table, and the columns of each likewise.

        Args:
            rows: one that lacks a column stays without it. Columns that are not declared come
                last, by alphabet.
        """
        # what null counts as where rows are sorted
        blank = {c.name: "" if c.kind == "text" else 0 for c in self.columns}

        def key(row: Mapping[str, Any]) -> tuple:
            return tuple(row.get(name) or blank[name] for name in self.sorted_by)

        return [
            {name: row[name] for name in (*blank, *sorted(row.keys() - blank)) if name in row}
            for row in sorted(rows, key=key)
        ]

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the table, with its meaning and the order of its rows."""
        order = f" Sorted by {', '.join(self.sorted_by)}." if self.sorted_by else ""
        rows = {
            "type": "object",
            "properties": {column.name: column.json_schema() for column in self.columns},
            "required": [column.name for column in self.columns if not column.optional],
        }
        return {"description": f"{self.meaning}{order}", "type": "array", "items": rows}


def parse_columns(text: str) -> tuple[Column, ...]:
    """Return the columns that a text declares, one in each line.

    A line reads NAME KIND Meaning. [marks]: a question mark behind the kind says that a value may
    be null, the marks are "optional", "summarised", and "percent" or "fraction" for a share.

    Args:
        text: lines; empty ones are skipped, and so are spaces beyond the first.
    """
    found = []
    for line in filter(None, text.split("\n")):
        match = _LINE.fullmatch(" ".join(line.split()))
        assert match, line
        name, kind, null, meaning, marks = match.groups("")
        known = marks.split(", ")
        scale = next((each for each in ("percent", "fraction") if each in known), "")
        optional, summarised = "optional" in known, "summarised" in known
        found.append(Column(name, kind, meaning, null == "?", optional, summarised, scale))
    return tuple(found)
