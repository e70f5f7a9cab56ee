"""A table with four faces: CSV of exact numbers, Markdown, LaTeX, and HTML (by the template)."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from robustloss.notation import markdown_text
from robustloss.reports.drawing.album import csv_text, whole, write_text
from robustloss.reports.reading.marks import Marks, names
from robustloss.reports.words import NOTHING, Estimate, estimate

Fold = Literal["never", "of many losses", "always"]


@dataclass(frozen=True)
class Entry:
    """One cell as a reader sees it.

    Attributes:
        text: Already formatted.
        mark: Footnote marks, such as "†1"; empty for most.
        kind: "published" for numbers that are not ours, "detail" for what belongs to the row above,
            "gap" for what is missing, "top" for what to look at first (bold),
            "grey" for what to pass over.
    """

    text: str
    mark: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        name: File name without its ending, made of slugs.
        title, caption: Heading, and how to read it.
        header: Column names.
        rows: Cells, as many as columns.
        data: The exact numbers, for the CSV; fractions as in results.json.
        notes: Footnotes.
        left: Leading columns that hold text.
        section: Attack label, or "" for the whole run.
        fold: When the page shows only its title until a reader opens it: "always" for a table to
            look things up in, "of many losses" for one that has a row for each loss and eps.
        of_errors: It holds errors of test images, so a remark on the data stands under it.
        further: CSV files that are written beside its own: rows by name.
    """

    name: str
    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    data: Sequence[Mapping[str, object]]
    notes: Sequence[str] = field(default_factory=tuple)
    left: int = 1
    section: str = ""
    fold: Fold = "never"
    of_errors: bool = False
    further: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """One column of a table, for the page and for the CSV file at once.

    It serves the tables in which a row of the page is a row of the CSV file. The rows are
    mappings from keys to values; :func:`lay_out` turns columns and rows into what a Table takes::

        columns = [
            Column("loss", "label"),
            Column("", "attack_label"),  # no heading: in the CSV file only
            Column("eps", "eps", words=eps_text),
            Column("AUROC, all", "auroc_all", 1.0, 3),  # "0.957 [0.953, 0.961]"; CSV: three numbers
            Column("fooled", "error", 100.0, 2, parts=("mean",)),  # in percent; CSV: a fraction
        ]
        rows = [
            {"label": label, "attack_label": attack.label, "eps": eps,
             "auroc_all": numbers.get(label, attack.label, eps, "auroc_all"),
             "error": numbers.get(label, attack.label, eps, "error"),
             "flags": numbers.flags(label, attack.label, eps)}
            for label in numbers.labels for eps in attack.strengths
        ]
        marks = Marks(numbers)
        Table(name, title, caption, *lay_out(columns, rows, marks), marks.notes(), left=2)

    Attributes:
        head: Heading on the page; "" keeps the column off it.
        key: Where a row holds the value, and the name of the field in the CSV file.
        unit: Of a column of estimates: 1, or 100 to show fractions in percent. None: plain values.
        digits: Decimals of an estimate on the page; one fewer from 10 on.
        parts: Attributes of an estimate that the CSV file has: KEY for the mean, KEY_PART for
            each other.
        words: From the value to the text on the page, where it is not the usual one.
        checks: The checks that can put a mark on an estimate here; None for all of them.
        in_csv: False keeps the column out of the CSV file.
    """

    head: str
    key: str
    unit: float | None = None
    digits: int = 3
    parts: Sequence[str] = ("mean", "low", "high")
    words: Callable[[Any], str] | None = None
    checks: Collection[str] | None = None
    in_csv: bool = True

    def text(self, value: Any) -> str:
        """Return a value as the page shows it; "n/a" for None."""
        if self.words is not None:
            return self.words(value)
        if value is None:
            return NOTHING
        if isinstance(value, Estimate):
            return estimate(value, unit=self.unit or 1.0, digits=self.digits)
        return f"{value:,}" if isinstance(value, int) else str(value)

    def entry(self, value: Any, mark: str = "", kind: str = "") -> Entry:
        """Return the cell of the page; where there is no value, nothing is marked.

        Args:
            value: Of this column; an Entry stands as it is.
            mark, kind: Of the cell.
        """
        if isinstance(value, Entry):
            return value
        return Entry(self.text(value), "" if value is None else mark, kind)

    def fields(self, value: Any) -> dict[str, object]:
        """Return the fields of the CSV row: the value, or the parts of an estimate."""
        if self.unit is None:
            return {self.key: value}
        return {
            self.key if part == "mean" else f"{self.key}_{part}": getattr(
                value, part, 0 if part == "n_seeds" else None
            )
            for part in self.parts
        }


def lay_out(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], marks: Marks | None = None
) -> tuple[list[str], list[list[Entry]], list[dict[str, object]]]:
    """Return header, rows and data of a Table, in the order in which it takes them.

    Args:
        columns: Of the page and of the CSV file, in order.
        rows: A value for the key of every column. "flags" may hold the flags that concern the
            estimates of the row: marks on the page, and a last field "marks" in the CSV file.
        marks: Numbers the flags, and writes the footnotes afterwards.
    """
    shown = [column for column in columns if column.head]

    def entry(column: Column, row: Mapping[str, Any]) -> Entry:
        flags = row.get("flags", ()) if isinstance(row[column.key], Estimate) else ()
        if column.checks is not None:
            flags = [flag for flag in flags if flag.get("check") in column.checks]
        return column.entry(row[column.key], marks.of(flags) if marks else "")

    entries = [[entry(column, row) for column in shown] for row in rows]
    return [column.head for column in shown], entries, [fields_of(columns, row) for row in rows]


def fields_of(columns: Iterable[Column], row: Mapping[str, Any]) -> dict[str, object]:
    """Return the CSV row of one row, as :func:`lay_out` does.

    Args:
        columns: Of the table.
        row: A value for the key of every column, and flags where it has them.
    """
    fields: dict[str, object] = {}
    for column in columns:
        if column.in_csv:
            fields |= column.fields(row[column.key])
    return fields | ({"marks": names(row["flags"])} if "flags" in row else {})


def write_table(folder: Path, table: Table) -> dict[str, str]:
    """Write NAME.csv, NAME.md, NAME.tex and further CSV files; return the first texts by ending.

    Args:
        folder: Where the files go; made if it is not there.
        table: What is written.
    """
    texts = {"csv": csv_text(table.data), "md": markdown(table), "tex": latex(table)}
    texts = {ending: whole(text) for ending, text in texts.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for ending, text in texts.items():
        write_text(folder / f"{table.name}.{ending}", text)
    for name, rows in table.further.items():
        write_text(folder / f"{name}.csv", csv_text(rows))
    return texts


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown; text of the user's cannot become markup."""
    align = [":--" if i < table.left else "--:" for i in range(len(table.header))]
    lines = [
        f"**{markdown_text(table.title)}**",
        "",
        _row(markdown_text(h) for h in table.header),
        _row(align),
    ]
    for row in table.rows:
        cells = []
        for entry in row:
            text = markdown_text(entry.text)
            text = f"**{text}**" if entry.kind == "top" and text else text
            cells.append(text + markdown_text(entry.mark))
        lines.append(_row(cells))
    lines += ["", markdown_text(table.caption)]
    lines += [part for note in table.notes for part in ("", markdown_text(note))]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "±": r"$\pm$", "†": r"$\dagger$", "–": "--", "−": "$-$", "∞": r"$\infty$", "✓": "ok",
    "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "“": "``", "”": "''", "’": "'",
    "λ": r"$\lambda$", "`": r"\textasciigrave{}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Escape every character that LaTeX reads as a command."""
    text = re.sub(r"\s+", " ", text).strip()
    return "".join(_LATEX.get(c, c) for c in text)


def latex(table: Table) -> str:
    r"""Return the table as a LaTeX ``table``; needs ``\usepackage{booktabs}``."""
    columns = "l" * table.left + "r" * (len(table.header) - table.left)
    body = []
    for row in table.rows:
        cells = []
        for entry in row:
            text = latex_text(entry.text)
            # a row that begins with "[" would be read as an argument of the \\ before it
            text = "{}" + text if text.startswith("[") else text
            text = rf"\textbf{{{text}}}" if entry.kind == "top" else text
            mark = rf"\textsuperscript{{{latex_text(entry.mark)}}}" if entry.mark else ""
            cells.append(text + mark)
        body.append(" & ".join(cells) + r" \\")
    notes = [rf"\par\footnotesize {latex_text(note)}" for note in table.notes]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(table.title)}. {latex_text(table.caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(latex_text(h) for h in table.header) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
