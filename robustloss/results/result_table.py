"""The result table: a row for each loss, errors by eps, detection, and marks on doubtful numbers.

Page, terminal, comparison and notebook show this table, so that each number is chosen and said
once. `result` builds it; labels in it can neither steer a terminal nor become markup.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from robustloss.notation import interval_text, markdown_text, one_line

_GAP = "  "
_OVER_IMAGES = {
    "Wilson over images": "Wilson for shares",
    "clustered DeLong over images": "Obuchowski's clustered DeLong for AUROC",
}


@dataclass(frozen=True)
class ResultColumn:
    """What stands in one column.

    Attributes:
        key: Its name for programs: "clean", "error-0.1", "auroc-naive", "auroc-adaptive" or
            "unnoticed".
        head: Short heading: "clean", an eps, or the attack.
        group: Heading that it shares with its neighbours, such as "error, FGSM".
        metric: Column of results.json: "error", "auroc_all" or "undetected_success_at_5fpr".
        attack, attack_label, norm: As results.json has them: "none" for clean images,
            "worst_case" and "best_of_adaptive" for what is taken image by image over attacks.
        eps: Budget; 0 for clean images.
        percent: Whether the numbers are shown in percent.
        lower_is_better: Else higher is.
    """

    key: str
    head: str
    group: str
    metric: str
    attack: str
    attack_label: str
    norm: str | None
    eps: float
    percent: bool = True
    lower_is_better: bool = True


@dataclass(frozen=True)
class ResultCell:
    """One number over seeds.

    Attributes:
        mean: As in results.json, a fraction; None where the run has no such number.
        low, high: Ends of its 95 % interval; None where there is none.
        n_seeds: Seeds behind it.
        interval: What the interval is taken over, as the table `summary` says it.
        checks: Names of the checks that doubt the number.
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n_seeds: int = 0
    interval: str | None = None
    checks: tuple[str, ...] = ()

    def text(self, column: ResultColumn) -> str:
        """Return the number as a person reads it: "13.4 [11.9, 15.0]", "0.957", "n/a"."""
        if self.mean is None:
            return "n/a"
        unit, digits = (100.0, 2) if column.percent else (1.0, 3)
        return interval_text(self.mean, self.low, self.high, unit=unit, digits=digits)


@dataclass(frozen=True)
class ResultRow:
    """One loss: its label, and a cell for each column."""

    label: str
    cells: tuple[ResultCell, ...]


@dataclass(frozen=True, repr=False)
class ResultTable:
    """The result of a run.

    Attributes:
        name: Of the run.
        baseline: Label of the loss that the others are compared with; None without losses.
        columns: From left to right.
        rows: The baseline, then the other losses in the order of the spec.
        notes: By the name of each check that doubts a number, in the order of the marks: where it
            fired and what that means, in one line.
        kind: What a row is: "loss", or "model" where nothing was trained in the run.
        draws: Calls of a model whose mean posterior every number is about.
    """

    name: str
    baseline: str | None
    columns: tuple[ResultColumn, ...]
    rows: tuple[ResultRow, ...]
    notes: Mapping[str, str]
    kind: str = "loss"
    draws: int = 1

    def mark(self, cell: ResultCell) -> str:
        """Return the marks of a cell, such as "†1 †2"; nothing where no check doubts it."""
        places = [*self.notes]
        return " ".join(f"†{places.index(check) + 1}" for check in cell.checks)

    @property
    def caption(self) -> str:
        """What the numbers and the brackets are, and what two seeds are too few for."""
        cells = [cell for row in self.rows for cell in row.cells]
        seeds = max((cell.n_seeds for cell in cells), default=0)
        one = ", one training seed" if self.kind == "loss" else ""
        over = f", means over {seeds} training seeds" if seeds > 1 else one
        if any(cell.n_seeds == 2 and cell.interval == "t over seeds" for cell in cells):
            over += " (two say little about the spread: use three or more)"
        if self.draws > 1:
            over += f", of the mean posterior of {self.draws} calls (eot)"
        return f"Errors in percent{over}. {self.interval_words}".rstrip()

    @property
    def interval_words(self) -> str:
        """The sentence that says what [low, high] is; nothing where no number has an interval."""
        cells = [cell for row in self.rows for cell in row.cells]
        kinds = {cell.interval for cell in cells if cell.low is not None}
        known = ["over training seeds (t)"] if "t over seeds" in kinds else []
        if ways := [words for kind, words in _OVER_IMAGES.items() if kind in kinds]:
            known.append(f"over test images ({', '.join(ways)})")
        return f"[low, high] is a 95 % interval {', or '.join(known)}." if known else ""

    def as_text(self, width: int = 100) -> str:
        """Return the table in aligned columns, the caption above it and the notes below.

        Args:
            width: Characters in a line. Columns that do not fit beside each other stand below each
                other, each time with the labels of the losses.
        """
        blocks: list[list[int]] = [[]]  # places of the columns that stand beside each other
        for place in range(len(self.columns)):
            wider = self._block([*blocks[-1], place])
            if blocks[-1] and max(map(len, wider)) > width:
                blocks.append([])
            blocks[-1].append(place)
        lines = [one_line(self.caption)]
        for block in blocks:
            lines += [*self._block(block), ""]
        return "\n".join([*lines, *self._notes()]).rstrip()

    def as_markdown(self) -> str:
        """Return the table in GitHub's Markdown, the caption above it and the notes below."""
        heads = [markdown_text(one_line(_full_head(column))) for column in self.columns]
        lines = [
            markdown_text(self.caption),
            "",
            f"| {' | '.join([self.kind, *heads])} |",
            "|".join(["", " :-- ", *([" --: "] * len(heads)), ""]),
        ]
        for row in self.rows:
            cells = [markdown_text(self._cell(row, i)) for i in range(len(heads))]
            lines.append(f"| {' | '.join([markdown_text(self.name_of(row)), *cells])} |")
        return "\n".join([*lines, *(f"\n{markdown_text(note)}" for note in self._notes())]) + "\n"

    def as_html(self) -> str:
        """Return the table as HTML without style or script, the caption and the notes below it."""
        groups = [(group, len([*own])) for group, own in groupby(c.group for c in self.columns)]
        spans = "".join(
            f'<th colspan="{size}">{escape(one_line(group))}</th>' for group, size in groups
        )
        heads = "".join(f"<th>{escape(one_line(column.head))}</th>" for column in self.columns)
        body = "".join(
            f"<tr><th>{escape(self.name_of(row))}</th>"
            + "".join(f"<td>{escape(self._cell(row, i))}</td>" for i in range(len(self.columns)))
            + "</tr>\n"
            for row in self.rows
        )
        below = as_paragraphs([self.caption, *self._notes()])
        return (
            f"<table>\n<thead>\n<tr><th></th>{spans}</tr>\n<tr><th>{self.kind}</th>{heads}</tr>\n</thead>\n"
            f"<tbody>\n{body}</tbody>\n</table>\n{below}"
        )

    def __repr__(self) -> str:
        return self.as_text()

    def name_of(self, row: ResultRow) -> str:
        """Return the loss, and how many seeds it has where others have more: "GM (1 seed)"."""
        most = max((cell.n_seeds for each in self.rows for cell in each.cells), default=0)
        own = max((cell.n_seeds for cell in row.cells), default=0)
        fewer = f" ({own} seed{'' if own == 1 else 's'})" if own < most else ""
        return one_line(row.label) + fewer

    def _repr_html_(self) -> str:
        return self.as_html()

    def _block(self, places: Sequence[int]) -> list[str]:
        """Return some columns beside the labels of the losses, as lines."""
        parts = [[self.kind, *(self.name_of(row) for row in self.rows)]]
        for group, own in groupby(places, lambda place: self.columns[place].group):
            columns = [
                [one_line(self.columns[i].head), *(self._cell(row, i) for row in self.rows)]
                for i in own
            ]
            parts.append(_under(one_line(group), columns))
        return _beside(parts)

    def _notes(self) -> list[str]:
        """Return a line for each mark: "†1 zero gradient (softmax, FGSM, eps 0.3): ..."."""
        return [
            one_line(f"†{number} {text}")
            for number, text in enumerate(self.notes.values(), start=1)
        ]

    def _cell(self, row: ResultRow, place: int) -> str:
        cell = row.cells[place]
        mark = self.mark(cell)
        return cell.text(self.columns[place]) + (f" {mark}" if mark else "")


def _under(group: str, columns: Sequence[Sequence[str]]) -> list[str]:
    """Return columns of texts as lines under the heading that they share."""
    widths = [max(map(len, column)) for column in columns]
    body = [
        _GAP.join(text.rjust(size) for text, size in zip(line, widths, strict=True))
        for line in zip(*columns, strict=True)
    ]
    head = textwrap.wrap(group, max(16, len(body[0])))
    size = max(map(len, [*head, *body]))
    return [*head, *(line.rjust(size) for line in body)]


def _beside(parts: Sequence[Sequence[str]]) -> list[str]:
    """Return parts of several lines beside each other; shorter ones end where the longest does."""
    height, sizes = max(map(len, parts)), [max(map(len, part)) for part in parts]
    parts = [[""] * (height - len(part)) + [*part] for part in parts]
    return [
        _GAP.join(text.ljust(size) for text, size in zip(line, sizes, strict=True)).rstrip()
        for line in zip(*parts, strict=True)
    ]


def _full_head(column: ResultColumn) -> str:
    return column.head if column.attack == "none" else f"{column.group}: {column.head}"


def as_paragraphs(texts: Iterable[str]) -> str:
    """Return a paragraph of HTML for each text."""
    return "".join(f"<p>{escape(text)}</p>\n" for text in texts)
