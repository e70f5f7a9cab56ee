"""The one page: everything inline, every text of the user's escaped, no script."""

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from robustloss.reports.drawing.album import OTHERS, SPACE, Picture
from robustloss.reports.drawing.style import CROWD
from robustloss.reports.drawing.table import Table
from robustloss.reports.page.checks import FLAGS, checks_summary, verdicts
from robustloss.reports.page.headline import headline
from robustloss.reports.page.notes import count_marks, count_problems, list_failures, warning
from robustloss.reports.page.run_facts import describe_run, list_facts, list_provenance
from robustloss.reports.reading.featured import FEW
from robustloss.reports.reading.numbers import Numbers

KINDS = {"csv": ("CSV", "text/csv"), "md": ("Markdown", "text/markdown"),
         "tex": ("LaTeX", "application/x-tex")}  # fmt: skip
BELOW = ("published", "detail")  # rows that belong to the one above them
MOST_LINES = 60

Written = tuple[Table, Mapping[str, str]]  # a table with its texts by file ending
Shown = dict[str, Any]  # what the template shows of a table, a picture, or a group of them


def render_page(
    numbers: Numbers,
    tables: Sequence[Written],
    pictures: Sequence[Picture],
    gaps: Sequence[str],
    spec_text: str,
) -> str:
    """Fill the template.

    Args:
        numbers: Of the run.
        tables: Each with its texts by file ending.
        pictures: Saved figures, in order.
        gaps: Files that could not be read, and why.
        spec_text: The spec as it was written.
    """
    # the feature space and the checks have sections of their own
    space = [written for written in tables if written[0].section == SPACE]
    flags = [_table(*written) for written in tables if written[0].name == FLAGS]
    others = [t for t in tables if t[0].section != SPACE and t[0].name != FLAGS]
    found = verdicts(numbers)
    folder = files("robustloss.reports") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        css=Markup((folder / "style.css").read_text(encoding="utf-8")),
        name=numbers.run.name,
        lead=describe_run(numbers),
        findings=headline(numbers),
        warning=warning(numbers),
        marked=count_marks(numbers),
        altered=" ".join(_first_lines(numbers.run.doubts)),
        problems=count_problems(numbers, gaps),
        facts=list_facts(numbers),
        **_arrange(numbers, others, [p for p in pictures if not p.section]),
        sections=_sections([p for p in pictures if p.section not in ("", SPACE)]),
        space=_arrange(numbers, space, [p for p in pictures if p.section == SPACE]),
        space_title=SPACE,
        checks=found,
        checks_summary=checks_summary(found),
        flags_table=flags[0] if flags else None,
        failures=_first_lines(list_failures(numbers)),
        gaps=_first_lines(gaps),
        provenance=list_provenance(numbers),
        spec=spec_text,
    )


def _arrange(
    numbers: Numbers, tables: Sequence[Written], pictures: Sequence[Picture]
) -> dict[str, list[Shown]]:
    """Return figures, tables that stand open, and groups folded away under one line each.

    With many attacks only the first keeps its tables open: the overview has the others.
    """
    attacks = [attack.label for attack in numbers.attacks if attack.strengths]
    aside = attacks[1:] if len(attacks) > FEW else []
    fold = ("always", "of many losses") if len(numbers.labels) > CROWD else ("always",)
    shown, folded = [], []
    groups: dict[str, list[Shown]] = {}
    for table, texts in tables:
        drawn = _table(table, texts)
        if table.section in aside:
            groups.setdefault(table.section, []).append(drawn)
        elif table.fold in fold:
            folded.append({"title": table.title, "tables": [drawn]})
        else:
            shown.append(drawn)
    of_attacks = [{"title": f"Tables of {name}", "tables": own} for name, own in groups.items()]
    return {
        "tables": shown,
        "folded": [*of_attacks, *folded],
        "pictures": [_picture(picture) for picture in pictures],
    }


def _table(table: Table, texts: Mapping[str, str]) -> Shown:
    first = [row[0] for row in table.rows]
    grouped = len({entry.text for entry in first}) < len(first)
    again = [i > 0 and entry.text == first[i - 1].text for i, entry in enumerate(first)]
    classes = []
    for i, entry in enumerate(first):
        below = entry.kind in BELOW
        new_group = i > 0 and grouped and not below and not again[i]
        classes.append("below" if below else "group" if new_group else "")
    heads = list(table.header[: table.left])
    return {
        **{k: getattr(table, k) for k in ("name", "title", "caption", "header", "notes", "left")},
        "rows": table.rows,
        # the column that stays in sight while one scrolls: the loss, wherever it stands
        "key": heads.index("loss") if "loss" in heads else 0,
        "again": again,
        "classes": classes,
        "files": [
            {"name": f"{table.name}.{end}", "kind": KINDS[end][0],
             "uri": _data_uri(text.encode(), KINDS[end][1])}
            for end, text in texts.items()
        ],
    }  # fmt: skip


def _sections(pictures: Sequence[Picture]) -> list[Shown]:
    """Return the figures by attack in the order of their making; what is set aside comes last."""
    own: dict[str, list[Shown]] = {}
    for picture in pictures:
        own.setdefault(picture.section, []).append(_picture(picture))
    order = sorted(own, key=lambda name: name == OTHERS)
    return [
        {"title": f"Figures of {name}", "open": i == 0 and name != OTHERS, "pictures": own[name]}
        for i, name in enumerate(order)
    ]


def _picture(picture: Picture) -> Shown:
    kind = "image/svg+xml" if picture.source.suffix == ".svg" else "image/png"
    pixels = round(96 * picture.inches)
    return {
        "name": picture.name, "title": picture.title, "caption": picture.caption,
        "alt": picture.alt, "uri": _data_uri(picture.source.read_bytes(), kind),
        "numbers": picture.numbers.name,
        # narrower than 60 % the smallest letters are lost: the frame scrolls instead
        "least": min(round(0.62 * pixels), 640), "most": pixels,
    }  # fmt: skip


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _first_lines(lines: Sequence[str]) -> list[str]:
    if len(lines) <= MOST_LINES:
        return [*lines]
    return [*lines[:MOST_LINES], f"And {len(lines) - MOST_LINES} more in results.json."]
