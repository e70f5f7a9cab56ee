"""A table with four faces: CSV of exact numbers, Markdown, LaTeX, and HTML (by the template)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robustloss.reports.drawing.album import csv_text, whole, write_text


@dataclass(frozen=True)
class Entry:
    """One cell as a reader sees it.

    Attributes:
        text: Already formatted.
        mark: Footnote marks, such as "†1"; empty for most.
        kind: "published" for numbers that are not ours, "detail" for what belongs to the row above,
            "gap" for what is missing, "top" for what to look at first (bold).
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


def write_table(folder: Path, table: Table) -> dict[str, str]:
    """Write NAME.csv, NAME.md and NAME.tex; returns their texts by ending."""
    texts = {"csv": csv_text(table.data), "md": markdown(table), "tex": latex(table)}
    texts = {ending: whole(text) for ending, text in texts.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for ending, text in texts.items():
        write_text(folder / f"{table.name}.{ending}", text)
    return texts


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown; text of the user's cannot become markup."""
    align = [":--" if i < table.left else "--:" for i in range(len(table.header))]
    lines = [
        f"**{markdown_text(table.title)}**",
        "",
        _row(markdown_text(h) for h in table.header),
        _row(align),
    ]
    lines += [_row(_markdown_entry(e) for e in row) for row in table.rows]
    lines += ["", markdown_text(table.caption)]
    lines += [part for note in table.notes for part in ("", markdown_text(note))]
    return "\n".join(lines) + "\n"


def _markdown_entry(entry: Entry) -> str:
    text = markdown_text(entry.text)
    return (f"**{text}**" if entry.kind == "top" and text else text) + markdown_text(entry.mark)


def _row(cells: Sequence[str] | object) -> str:
    return "| " + " | ".join(cells) + " |"  # type: ignore[arg-type]


def markdown_text(text: str) -> str:
    """Escape whatever Markdown or the HTML in it would read as markup."""
    text = re.sub(r"\s+", " ", text).strip()
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", text)


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
    r"""The table as a LaTeX ``table``; needs ``\usepackage{booktabs}``."""
    columns = "l" * table.left + "r" * (len(table.header) - table.left)
    body = [" & ".join(_latex_entry(e) for e in row) + r" \\" for row in table.rows]
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


def _latex_entry(entry: Entry) -> str:
    text = latex_text(entry.text)
    # a row that begins with "[" would be read as an argument of the \\ before it
    text = "{}" + text if text.startswith("[") else text
    text = rf"\textbf{{{text}}}" if entry.kind == "top" else text
    return text + (rf"\textsuperscript{{{latex_text(entry.mark)}}}" if entry.mark else "")
