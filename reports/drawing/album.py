"""The figures of one report: saved with their numbers, kept with the words that explain them."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from robustloss.reports.drawing.style import DPI, save

Rows = Sequence[Mapping[str, object]]
Arrays = Mapping[str, np.ndarray]


# What a spreadsheet might take for the end of a row or a field, and for the beginning of a formula:
# it skips spaces and invisible marks, reads wide signs as the usual ones, and in some countries
# takes a semicolon for the end of a field.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OBEYED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_FORMULA = re.compile(
    r"((?:^|;)[\s\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])"
)


@dataclass(frozen=True)
class Plot:
    """A figure, drawn and not yet saved, with its numbers and the words that explain it."""

    name: str  # file name without its ending, made of slugs only
    figure: Figure  # drawn
    numbers: Rows | Arrays  # what it shows: rows for a CSV file, or arrays by name for an .npz file
    title: str  # what it shows, for the heading
    caption: str  # how to read it
    alt: str  # what a reader who cannot see it needs to know


@dataclass(frozen=True)
class Picture:
    """One figure on the page: name, title, caption and alt as in :class:`Plot`."""

    name: str
    title: str
    caption: str
    alt: str
    folder: Path  # where its files lie, NAME with an ending for each format
    numbers: Path  # the file with the numbers behind it
    inches: tuple[float, float]  # width and height at which it was drawn

    @property
    def source(self) -> Path:
        """The file embedded in the page: lines, which stay sharp at any size, else pixels."""
        lines = self.folder / f"{self.name}.svg"
        return lines if lines.exists() else lines.with_suffix(".png")


@dataclass
class Album:
    """Saves figures into one folder and remembers them in order."""

    folder: Path
    dpi: int = DPI
    formats: Sequence[str] = ("png", "svg")
    pictures: list[Picture] = field(default_factory=list)

    def add(self, plots: Iterable[Plot]) -> None:
        """Save each plot in every format, and its numbers."""
        for plot in plots:
            self.folder.mkdir(parents=True, exist_ok=True)
            save(plot.figure, self.folder, plot.name, dpi=self.dpi, formats=self.formats)
            if isinstance(plot.numbers, Mapping):
                data = self.folder / f"{plot.name}.npz"
                np.savez_compressed(data, **dict(plot.numbers))  # type: ignore[arg-type]
            else:
                data = self.folder / f"{plot.name}.csv"
                write_text(data, csv_text(plot.numbers))
            words = plot.name, plot.title, plot.caption, plot.alt
            inches = plot.figure.get_size_inches()
            size = float(inches[0]), float(inches[1])
            self.pictures.append(Picture(*words, self.folder, data, size))


def by_model(parts: Mapping[str, Mapping[str, np.ndarray | None]]) -> dict[str, np.ndarray]:
    """Return the arrays of several models by "MODEL:PART"; a part that is None is left out."""
    return {
        f"{model}:{name}": array
        for model, arrays in parts.items()
        for name, array in arrays.items()
        if array is not None
    }


def whole(text: str) -> str:
    """Return the text as a file may hold it, with ? for what is no letter.

    That is half a character, which JSON can name, and what a terminal or an editor obeys: escape
    characters and marks of direction, which names of somebody else's may have.
    """
    return _OBEYED.sub("?", text.encode("utf-8", "replace").decode())


def write_text(path: Path, text: str) -> None:
    """Write the `whole` text as UTF-8, with the line ends as they are."""
    path.write_text(whole(text), encoding="utf-8", newline="")


def csv_text(rows: Rows, columns: Sequence[str] | None = None) -> str:
    """Return rows as CSV with every digit; a missing number is an empty field.

    Text, of the header too, may be a stranger's. It stays one field of one row, and no spreadsheet
    takes it for a formula: characters that could begin a new row become spaces, and text that
    could be a formula begins with an apostrophe.

    Args:
        rows: Values by column.
        columns: Which, in order; None for those of the first row.
    """
    columns = list(columns or (rows[0] if rows else []))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_field(name) for name in columns])
    for row in rows:
        writer.writerow([_field(row.get(c)) for c in columns])
    return out.getvalue()


def _field(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, np.floating | np.integer):
        value = value.item()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bool | int):
        return value
    return _FORMULA.sub(r"\1'", _CONTROLS.sub(" ", str(value)))
