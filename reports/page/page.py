"""The page: everything inline, every text of the user's escaped, and one short script of ours."""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import chain, groupby
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from robustloss.analysis.gates.judge import describe_gates
from robustloss.reports.chapters.result.verdict import verdict
from robustloss.reports.drawing.album import Picture
from robustloss.reports.drawing.table import BELOW, Table
from robustloss.reports.page.checks import verdicts
from robustloss.reports.page.contents import Chapter, Contents, Item
from robustloss.reports.page.notes import care, count_marks, count_problems, list_failures, warning
from robustloss.reports.page.run_facts import describe_run, list_facts, list_provenance, measure_run
from robustloss.results.provenance import write_origin

MOST_LINES = 60
_WITHOUT_BLOCKS = ("result", "trust", "run")  # chapters that have more than tables and figures
MARK = re.compile(r"(†\d+) ([^:(]+?)(?=:| \()")
TALL = 9.0  # inches of height from which on a figure is folded: it is of many losses
MANY_ROWS = 8  # above, an interval stands beside its value where the window has room
ROOM = 960  # pixels for a table in a window of 1280

Shown = dict[str, Any]  # what the template shows of a table, a picture, or a group of them


class Page:
    """What the page shows of a run.

    Args:
        contents: Chapters and their items.
        tables: The tables of each item.
        pictures: The saved figures of each item that was drawn.
        gaps: Files that could not be read, and why.
        spec_text: The spec as it was written.
    """

    def __init__(
        self,
        contents: Contents,
        tables: Sequence[tuple[Item, Sequence[Table]]],
        pictures: Sequence[tuple[Item, Sequence[Picture]]],
        gaps: Sequence[str],
        spec_text: str,
    ) -> None:
        self._contents, self._gaps, self._spec = contents, gaps, spec_text
        self._tables, self._pictures = dict(tables), dict(pictures)
        self._checks = verdicts(contents.numbers)
        self._told: set[str] = set()  # notes that stand on the page, whichever attack is chosen

    def render(self) -> str:
        """Return index.html."""
        numbers, contents = self._contents.numbers, self._contents
        drawn = any(item.detail for item in self._pictures)
        details = [
            (chapter, [item for item in chapter.items if item.detail and not item.draws])
            for chapter in contents.chapters
        ]
        aside = [item for item in contents.list_drawings(details=True) if item.detail]
        self._told.clear()
        chapters = [self._chapter(chapter, detail=False) for chapter in contents.chapters]
        chapters = [c for c in chapters if c["blocks"] or c["key"] in _WITHOUT_BLOCKS]
        blocks = [block for chapter in chapters for block in chapter["blocks"] if block["paper"]]
        return self._fill(
            "report.html.j2",
            chapters=chapters,
            paper=sorted(blocks, key=lambda b: (not b["paper"].startswith("Table"), b["paper"])),
            meta=measure_run(numbers),
            lead=describe_run(numbers),
            verdict=verdict(numbers),
            care=care(numbers),
            gates=describe_gates(numbers.run),
            warning=warning(numbers),
            marked=count_marks(numbers),
            altered=" ".join(_first_lines(numbers.run.doubts)),
            problems=count_problems(numbers, self._gaps),
            facts=list_facts(numbers),
            checks=self._checks,
            failures=_first_lines(list_failures(numbers)),
            gaps=_first_lines(self._gaps),
            provenance=list_provenance(numbers),
            spec=self._spec,
            origin=write_origin(numbers.run.name, numbers.run.provenance),
            details=[(c.title, tables) for c, own in details if (tables := self._all_tables(own))],
            drawn=drawn,
            undrawn=[] if drawn else sorted({item.file for item in aside}),
        )

    def render_details(self) -> str:
        """Return details.html: the figures that index.html leaves out."""
        chapters = [self._chapter(chapter, detail=True) for chapter in self._contents.chapters]
        return self._fill("details.html.j2", chapters=chapters)

    def _fill(self, name: str, **context: Any) -> str:
        script = _read_template("script.js")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return _open_environment().get_template(name).render(
            css=Markup(_read_template("style.css")), script=Markup(script), script_hash=digest,
            name=self._contents.numbers.run.name, choices=self._contents.choices, **context,
        )  # fmt: skip

    def _chapter(self, chapter: Chapter, *, detail: bool) -> Shown:
        """Return a chapter with its blocks: an item in all its variants, one for each attack."""
        labels = {attack.slug: attack.label for attack in self._contents.numbers.attacks}
        blocks = []
        own = [item for item in chapter.items
               if item.detail == detail and (item.draws or not detail)]  # fmt: skip
        for (name, title, _), items in groupby(own, lambda i: (i.name, i.title, i.draws)):
            variants: list[Shown] = []
            for item in items:
                tables = self._all_tables([item])
                pictures = [_picture(picture) for picture in self._pictures.get(item, ())]
                if tables or pictures:
                    variants.append({"choices": item.choices, "tables": tables,
                                     "pictures": pictures,
                                     "attack": labels.get(item.attack, "")})  # fmt: skip
            if variants:
                kind = "table" if variants[0]["tables"] else "figure"
                own_choices = [variant["choices"] for variant in variants]
                blocks.append({
                    "name": f"{chapter.key}-{name}-{kind}",
                    # empty: it shows something whichever attack is chosen
                    "choices": sorted({*chain(*own_choices)}) if all(own_choices) else [],
                    "title": title,
                    "paper": title.partition(":")[0] if ":" in title else "",
                    "variants": variants,
                })  # fmt: skip
        return {"key": chapter.key, "title": chapter.title, "words": chapter.words,
                "blocks": blocks}  # fmt: skip

    def _all_tables(self, items: Sequence[Item]) -> list[Shown]:
        return [
            _table(table) | self._notes(table, item)
            for item in items
            for table in self._tables.get(item, ())
            if table.on_page
        ]

    def _notes(self, table: Table, item: Item) -> Shown:
        """Return the notes under a table: a mark by its name, which links to what it means."""
        fired = {check.name for check in self._checks if check.state == "fired"}
        notes, marks = [], []
        for note in table.notes:
            mark = MARK.match(note)
            if mark and mark[2] in fired:
                marks.append((mark[1], mark[2], _anchor(mark[2])))
            elif item.detail or note not in self._told:
                notes.append(note)
        if not item.detail and (not item.choices or len(self._contents.choices) < 2):
            self._told.update(notes)
        return {"notes": notes, "marks": marks}


@cache
def _open_environment() -> Environment:
    """Return where templates are compiled: once in a process, which takes longer than a page."""
    loader = FunctionLoader(_read_template)
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=loader)
    environment.filters["anchor"] = _anchor
    return environment


@cache
def _read_template(name: str) -> str:
    return (files("robustloss.reports") / "templates" / name).read_text(encoding="utf-8")


def _anchor(check: str) -> str:
    return "check-" + re.sub(r"[^a-z0-9]+", "-", check.lower())


def _table(table: Table) -> Shown:
    first = [row[0] for row in table.rows]
    grouped = len({entry.text for entry in first}) < len(first)
    again = [i > 0 and entry.text == first[i - 1].text for i, entry in enumerate(first)]
    classes = []
    for i, entry in enumerate(first):
        below = entry.kind in BELOW
        new_group = i > 0 and grouped and not below and not again[i]
        kind = "below" if below else "group" if new_group else ""
        classes.append("highlight" if entry.text in table.highlight else kind)
    heads = list(table.header[: table.left])
    # whether the intervals of a long table have room beside their values
    longest = [max(len(row[i].text) for row in table.rows) for i in range(len(table.header))]
    lined = len(table.rows) > MANY_ROWS and sum(19 + 7.7 * n for n in longest) <= ROOM
    return {
        **{k: getattr(table, k) for k in ("name", "title", "header", "left", "groups")},
        "paper_caption": table.paper_caption,
        "caption": split_caption(table.caption),
        "rows": table.rows,
        "spacing": "lined" if lined else "many" if len(table.header) > 8 else "",
        # the column that stays in sight while one scrolls: the loss, wherever it stands
        "key": heads.index("loss") if "loss" in heads else 0,
        "again": again,
        "classes": classes,
    }


def _picture(picture: Picture) -> Shown:
    kind = "image/svg+xml" if picture.source.suffix == ".svg" else "image/png"
    pixels = round(96 * picture.inches[0])
    data = base64.b64encode(picture.source.read_bytes()).decode("ascii")
    return {
        "name": picture.name, "title": picture.title,
        "caption": split_caption(picture.caption), "tall": picture.inches[1] > TALL,
        "alt": picture.alt, "uri": f"data:{kind};base64,{data}", "numbers": picture.numbers.name,
        # narrower than 60 % the smallest letters are lost: the frame scrolls instead
        "least": min(round(0.62 * pixels), 640), "most": pixels,
    }  # fmt: skip


def split_caption(caption: str) -> tuple[str, str]:
    """Return the first sentence of a caption, which the page shows, and the rest to fold."""
    end = re.search(r"(?<!\bal)\.\s+(?=[^a-z])", caption)
    return (caption[: end.start() + 1], caption[end.end() :]) if end else (caption, "")


def _first_lines(lines: Sequence[str]) -> list[str]:
    if len(lines) <= MOST_LINES:
        return [*lines]
    return [*lines[:MOST_LINES], f"And {len(lines) - MOST_LINES} more in results.json."]
