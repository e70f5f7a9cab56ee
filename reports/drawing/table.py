"""A table with four faces: CSV of exact numbers, Markdown, LaTeX, and HTML (by the template)."""

import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robustloss.notation import markdown_text
from robustloss.reports.drawing.album import csv_text, whole, write_text
from robustloss.reports.drawing.style import wrap
from robustloss.reports.reading.marks import Marks, names
from robustloss.reports.words import NOTHING, Estimate, estimate

EMPTY = ("", "–", "—", "-", NOTHING)  # what a cell says that has no value
BELOW = ("published", "detail")  # rows that belong to the one above them


@dataclass(frozen=True)
class Entry:
    """One cell as a reader sees it."""

    text: str  # already formatted
    mark: str = ""  # footnote marks, such as "†1"; empty for most
    # "published" for numbers that are not ours, "detail" for what belongs to the row above, "gap"
    # for what is missing, "top" for what to look at first (bold), "grey" for what to pass over
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    name: str  # file name without its ending, made of slugs
    title: str
    caption: str  # how to read it
    header: Sequence[str]  # column names
    rows: Sequence[Sequence[Entry]]  # cells, as many as columns
    # the exact numbers, for the CSV; fractions as in results.json
    data: Sequence[Mapping[str, object]]
    notes: Sequence[str] = field(default_factory=tuple)  # footnotes
    left: int = 1  # leading columns that hold text
    # it holds errors of test images, so a remark on the data stands under it
    of_errors: bool = False
    # CSV files that are written beside its own: rows by name
    further: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    # headings above the header, each with the number of columns that it spans
    groups: Sequence[tuple[str, int]] = ()
    basis: str = ""  # data, images, seeds, interval: what a LaTeX caption says after the title
    highlight: Sequence[str] = ()  # texts of first columns whose rows a reader shall find at once
    # False for a table that other tables of the page hold; it stands in its files only
    on_page: bool = True

    @property
    def paper_caption(self) -> str:
        """What stands over the table in a paper: its title, and what the numbers rest on."""
        title = self.title if self.title.endswith("?") else f"{self.title}."
        return f"{title} {self.basis}".rstrip()


@dataclass(frozen=True)
class Column:
    """One column of a table, for the page and for the CSV file at once.

    The rows are mappings from keys to values; `lay_out` turns both into what a Table takes.
    """

    head: str  # heading on the page; "" keeps the column off it
    key: str  # where a row holds the value, and the name of the field in the CSV file
    # of a column of estimates: 1, or 100 to show fractions in percent. None: plain values
    unit: float | None = None
    digits: int = 3  # decimals of an estimate on the page; one fewer from 10 on
    # attributes of an estimate that the CSV file has: KEY for the mean, KEY_PART for each other
    parts: Sequence[str] = ("mean", "low", "high")
    # from the value to the text on the page, where it is not the usual one
    words: Callable[[Any], str] | None = None
    # the checks that can put a mark on an estimate here; None for all of them
    checks: Collection[str] | None = None
    in_csv: bool = True  # False keeps the column out of the CSV file
    # zeros alone, which say that a check did not fire, keep the column off the page
    quiet: bool = False

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

    A column in which no row has anything, or in which a `quiet` one has only zeros, is in the data
    alone.

    Args:
        columns: Of the page and of the CSV file, in order.
        rows: A value for the key of every column. "flags" may hold the flags that concern the
            estimates of the row: marks on the page, and a last field "marks" in the CSV file.
        marks: Numbers the flags, and writes the footnotes afterwards.
    """

    def is_shown(column: Column) -> bool:
        values = [row[column.key] for row in rows] if column.quiet else [True]
        return bool(column.head) and any(v.mean if isinstance(v, Estimate) else v for v in values)

    def entry(column: Column, row: Mapping[str, Any]) -> Entry:
        flags = row.get("flags", ()) if isinstance(row[column.key], Estimate) else ()
        if column.checks is not None:
            flags = [flag for flag in flags if flag.get("check") in column.checks]
        return column.entry(row[column.key], marks.of(flags) if marks else "")

    shown = [column for column in columns if is_shown(column)]
    heads, entries = without_empty_columns(
        [column.head for column in shown],
        [[entry(column, row) for column in shown] for row in rows],
    )
    return heads, entries, [fields_of(columns, row) for row in rows]


def without_empty_columns(
    header: Sequence[str], rows: Sequence[Sequence[Entry]]
) -> tuple[list[str], list[list[Entry]]]:
    """Return header and rows of a table without the columns in which no row has anything.

    Args:
        header: Column names.
        rows: Cells, as many as columns.
    """
    kept = [i for i in range(len(header)) if any(row[i].text not in EMPTY for row in rows)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


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
        folder: Where the files go.
        table: What is written.
    """
    texts = {"csv": csv_text(table.data), "md": markdown(table), "tex": latex(table)}
    texts = {ending: whole(text) for ending, text in texts.items()}
    for ending, text in texts.items():
        write_text(folder / f"{table.name}.{ending}", text)
    for name, rows in table.further.items():
        write_text(folder / f"{name}.csv", csv_text(rows))
    return texts


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown; text of the user's cannot become markup."""
    align = [":--" if i < table.left else "--:" for i in range(len(table.header))]
    above = [f"{group}: " if group else "" for group, span in table.groups for _ in range(span)]
    heads = map("".join, zip(above, table.header, strict=True)) if above else table.header
    lines = [
        f"**{markdown_text(table.title)}**",
        "",
        _row(markdown_text(head) for head in heads),
        _row(align),
    ]
    for row in table.rows:
        cells = []
        for entry in row:
            text = markdown_text(entry.text)
            face = _STARS.get(entry.kind, "") if entry.text not in EMPTY else ""
            cells.append(f"{face}{text}{face}{markdown_text(entry.mark)}")
        lines.append(_row(cells))
    below = filter(None, map(markdown_text, (table.caption, *table.notes)))
    return "\n".join([*lines, *(f"\n{text}" for text in below)]) + "\n"


_STARS = {"top": "**", "published": "*"}  # bold, and italics for what is not ours


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


@dataclass(frozen=True)
class _Size:
    """Letters of a LaTeX table: command and points, of intervals under numbers too; gaps."""

    command: str
    points: float
    under: str
    points_under: float
    gap: float


SMALL = _Size(r"\small", 9.0, "", 9.0, 6.0)
SMALLER = _Size(r"\footnotesize", 8.0, r"\scriptsize", 7.0, 3.0)
SMALLEST = _Size(r"\scriptsize", 7.0, r"\tiny", 5.0, 3.0)
ONE, BOTH = 246.0, 500.0  # points: width of a column of a journal, and of two
PAGE = 30  # lines; of more, with intervals under the numbers, only the smallest fit a page
_Group = tuple[list[str], int, float]  # lines of a heading, columns, about how many points wide
_FACES = {"top": r"\textbf", "published": r"\textit"}

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"{\ttfamily\char34}",
    "±": r"$\pm$", "†": r"$\dagger$", "–": "--", "−": "$-$", "∞": r"$\infty$", "✓": "ok",
    "è": r"\`e",
    "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "“": "``", "”": "''", "’": "'",
    "÷": r"$\div$", "°": r"$^\circ$", "½": r"$\frac12$", "π": r"$\pi$", "→": r"$\to$",
    "≈": r"$\approx$", "…": r"\ldots{}", "\u2009": " ",
    "λ": r"$\lambda$", "`": r"\textasciigrave{}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Escape every character that LaTeX reads as a command."""
    text = re.sub(r"\s+", " ", text).strip()
    return "".join(_LATEX.get(c, c) for c in text)


def latex(table: Table) -> str:
    r"""Return the table as LaTeX that fits a column, or both; needs ``\usepackage{booktabs}``.

    The caption is the title and the basis; how to read the table stands above it as a comment. An
    interval stands under its number where it would not fit beside it.
    """
    rows = _named_once(table)
    under = [line for row in rows for line in _in_two_lines(row, table.left)]
    forms = [(False, SMALL, rows), (False, SMALLER, under), (True, SMALL, rows),
             (True, SMALLER, under), (True, SMALLEST, under)]  # fmt: skip
    if long := len(rows) <= PAGE < len(under):
        forms = [form for form in forms if form[2] is rows or form[1] is SMALLEST]
    for wide, size, body in forms:
        groups = _groups(table, body, size)
        if sum(own for *_, own in groups) + size.gap * (len(groups) - 1) <= (BOTH if wide else ONE):
            break
    several = len(body) > len(rows) or any(not row[0].text for row in rows)
    lines: list[str] = []
    for row in body:
        if several and lines and row[0].text and row[0].kind not in BELOW:
            lines.append(r"\addlinespace[1pt]" if long else r"\addlinespace")
        lines.append(_latex_row(row, size))
    sides = ["l" if i < table.left else "r" for i in range(len(table.header))]
    environment, below = "table*" if wide else "table", r"\scriptsize" if long else r"\footnotesize"
    lines = [
        r"% needs \usepackage{booktabs}",
        *(f"% {line}" for line in textwrap.wrap(re.sub(r"\s+", " ", table.caption), 98)),
        rf"\begin{{{environment}}}",
        r"\centering",
        rf"{size.command}\setlength{{\tabcolsep}}{{{size.gap / 2:g}pt}}",
        rf"\caption{{{latex_text(table.paper_caption)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{@{{}}{''.join(sides)}@{{}}}}",
        r"\toprule",
        *(_latex_groups(groups) if table.groups else ()),
        " & ".join(map(_latex_head, map(_lines_of, table.header), sides)) + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip{below}\raggedright {latex_text(note)}" for note in table.notes),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _named_once(table: Table) -> list[list[Entry]]:
    """Return rows that name a loss once."""
    rows: list[list[Entry]] = []
    last = ""
    for first, *others in table.rows:
        again = bool(others) and first.text == last
        rows.append([replace(first, text="") if again else first, *others])
        last = first.text
    return rows


def _lines_of(head: str, letters: int = 11) -> list[str]:
    """Return a heading in lines as long as its longest word, or so many letters."""
    words = head.replace(" %", "\u00a0%").split(" ")
    return wrap(" ".join(words), max(letters, *map(len, words)))


def _groups(table: Table, rows: Sequence[Sequence[Entry]], size: _Size) -> list[_Group]:
    """Return the groups of columns; a table without groups has one for each column."""

    def length(entry: Entry) -> float:
        own = size.points_under if entry.kind == "interval" else size.points
        return own * _ems(entry.text) + 6.0 * _ems(entry.mark)

    columns = zip(table.header, zip(*rows, strict=True), strict=True) if rows else ()
    longest = [
        max(*(size.points * _ems(line) for line in _lines_of(head)), *map(length, column))
        for head, column in columns
    ]
    found, start = [], 0
    for group, span in table.groups or [("", 1)] * len(longest):
        room = sum(longest[start : start + span]) + size.gap * (span - 1)
        lines = _lines_of(group, max(11, int(room / size.points / 0.45)))
        found.append((lines, span, max(room, *(size.points * _ems(line) for line in lines))))
        start += span
    return found


def _ems(text: str) -> float:
    return sum(0.28 if c in ".,:;[]()|'!ijlt" else 0.7 if c.isupper() else 0.5 for c in text)


def _in_two_lines(row: Sequence[Entry], left: int) -> Iterator[list[Entry]]:
    """Yield the row with its numbers, and a row with their intervals if there are any."""
    parts = [entry.text.split(" [", 1) if i >= left and entry.text.endswith("]") else [entry.text]
             for i, entry in enumerate(row)]  # fmt: skip
    yield [replace(entry, text=part[0]) for entry, part in zip(row, parts, strict=True)]
    if any(len(part) == 2 for part in parts):
        yield [Entry("[" + part[1] if len(part) == 2 else "", kind="interval") for part in parts]


def _latex_head(lines: Sequence[str], side: str) -> str:
    said = [_guarded(latex_text(line)) for line in lines]
    if len(said) == 1:
        return said[0]
    return rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}" + r"\\".join(said) + r"\end{tabular}"


def _latex_groups(groups: Sequence[_Group]) -> list[str]:
    """Return the headings above the header, and the rules under them."""
    cells, rules, end = [], "", 0
    for number, (lines, span, _) in enumerate(groups, 1):
        first, end = end + 1, end + span
        side = "c@{}" if number == len(groups) else "c"  # no gap at the edge of the table
        cells.append(rf"\multicolumn{{{span}}}{{{side}}}{{{_latex_head(lines, 'c')}}}")
        rules += rf"\cmidrule(lr){{{first}-{end}}}" if any(lines) else ""
    return [" & ".join(cells) + r" \\", rules]


def _latex_row(row: Sequence[Entry], size: _Size) -> str:
    cells = []
    for entry in row:
        text = latex_text(entry.text)
        if text and entry.kind in _FACES:
            text = rf"{_FACES[entry.kind]}{{{text}}}"
        elif text and entry.kind == "interval":
            text = rf"{{{size.under} {text}}}"
        mark = rf"\textsuperscript{{{latex_text(entry.mark)}}}" if entry.mark else ""
        cells.append(_guarded(text) + mark)
    return " & ".join(cells) + r" \\"


def _guarded(text: str) -> str:
    r"""Return text that cannot be read as an argument of the ``\\`` before it."""
    return "{}" + text if text.startswith(("[", "*")) else text
