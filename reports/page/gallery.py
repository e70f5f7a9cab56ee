"""A run as one page of Markdown with two figures beside it, for a gallery of results."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from robustloss.analysis.unfinished import open_run
from robustloss.notation import eps_text
from robustloss.reports.chapters.detection.adaptive import FETAYA, auroc_table
from robustloss.reports.chapters.detection.table import detection_table
from robustloss.reports.chapters.differences.comparison import Compared
from robustloss.reports.chapters.differences.matrix import FEW, differences_table
from robustloss.reports.chapters.differences.order import order_table
from robustloss.reports.chapters.paper.error import error_table, introduce_paper
from robustloss.reports.chapters.result.verdict import verdict
from robustloss.reports.drawing.album import Album, Picture, write_text
from robustloss.reports.drawing.style import DPI, report_style
from robustloss.reports.drawing.table import (
    EMPTY,
    Table,
    markdown,
    markdown_text,
    without_empty_columns,
)
from robustloss.reports.page.build import read_spec
from robustloss.reports.page.checks import verdicts
from robustloss.reports.page.contents import Contents, leaving_gap
from robustloss.reports.page.notes import care, warning
from robustloss.reports.page.run_facts import list_facts, list_provenance
from robustloss.reports.page.summary import describe_status
from robustloss.reports.reading.guarded import guarded
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.published import published_errors
from robustloss.reports.reading.scene import Scene, strongest
from robustloss.reports.words import counted, few, listed
from robustloss.results.checking import naming_missing_columns
from robustloss.results.run import Run
from robustloss.run_files import check_no_link, read_file
from robustloss.work_folders import making_folder

NOTES, END = "<!-- notes -->", "<!-- end notes -->"
MOST_BYTES = 2**24  # of a page that is made again
_FIRST = ("Command", "Machine", "Versions", "Time", "About the data")  # facts that stand at the top


def write_gallery_page(run_dir: str | Path | Run, file: str | Path | None = None, *,
                       dpi: int = DPI) -> Path:  # fmt: skip
    """Write a finished run as one page of Markdown, with its figures beside it, without torch.

    What somebody has written between ``<!-- notes -->`` and ``<!-- end notes -->`` in an earlier
    page stays when the page is made again. The figures are called STEM-FIGURE.png.

    Args:
        run_dir: A folder that ``robustloss run`` wrote, or the run in it as `open_run` gives it.
        file: The page, a name that ends in .md; RUN/report/page.md by default.
        dpi: Resolution of the figures.

    Returns:
        The path of the page.

    Raises:
        ValueError: No run folder, one that is unfinished, empty or cannot be read; or `file` is no
            page.
        OSError: The page cannot be written; one reason is a link in its place.
    """
    run = run_dir if isinstance(run_dir, Run) else open_run(run_dir)
    if run.unfinished:
        raise ValueError(f"run (={run.path}) has not finished: {' '.join(run.unfinished)}")
    if not run.rows:
        why = "`robustloss report` tells why they failed; run it again when that is mended."
        raise ValueError(f"run (={run.path}) has no finished cell to show. {why}")
    page = run.path / "report" / "page.md" if file is None else Path(file)
    if page.suffix != ".md":
        raise ValueError(f"page (={page}) must end in .md, as in results/mnist.md.")
    if file is None:
        check_no_link(page.parent)
        page.parent.mkdir(exist_ok=True)
    elif not page.parent.is_dir():
        raise ValueError(f"page (={page}) needs a folder that exists: make {page.parent} first.")
    notes, gaps = _read_notes(page), list[str]()
    spec = read_spec(run.path, gaps)
    with (
        naming_missing_columns(run.path / "results.json", run.results),
        making_folder(page, f".{page.name}-") as work,
    ):
        numbers = Numbers(run)
        pictures = _draw(Contents(numbers), work, dpi)
        gaps += numbers.shown.gaps
        write_text(work / page.name, _compose(numbers, spec, notes, page.stem, pictures, gaps))
        for picture in filter(None, pictures):
            (work / f"{picture.name}.png").replace(page.parent / _file_name(page.stem, picture))
        (work / page.name).replace(page)
    return page


def _read_notes(page: Path) -> str:
    """Return what somebody has written into an earlier page; nothing where there is none."""
    if not page.exists() and not page.is_symlink():
        return ""
    try:
        text = read_file(page, MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"page (={page}) is no UTF-8 text: name another file.") from None
    start, end = text.find(NOTES), text.rfind(END)
    if start < 0 or end < start:
        raise ValueError(
            f"page (={page}) exists and has no text between {NOTES} and {END}, so it would be lost "
            "as a whole: add the two lines around what shall stay, or name another file."
        )
    return text[start + len(NOTES) : end].strip()


def _draw(contents: Contents, folder: Path, dpi: int) -> tuple[Picture | None, Picture | None]:
    """Draw error against eps, and AUROC against eps of the first attack; None: nothing to draw."""
    first = next((a.slug for a in contents.numbers.attacking), "")
    found: list[Picture | None] = []
    drawings = contents.list_drawings(details=True)
    for name, attack in (("error-vs-eps", ""), ("detection-vs-eps", first)):
        album = Album(folder, dpi, formats=("png",))
        for item in drawings:
            if (item.name, item.attack) == (name, attack):
                with leaving_gap("a figure", contents.numbers.shown.gaps), report_style():
                    album.add(item.make())
        found.append(album.pictures[0] if album.pictures else None)
    return found[0], found[1]


def _compose(
    numbers: Numbers, spec: str, notes: str, stem: str,
    pictures: tuple[Picture | None, Picture | None], gaps: Sequence[str],
) -> str:  # fmt: skip
    """Return the page: question, answer, what was run, then a section for each kind of number."""
    errors, areas = (_show_picture(picture, stem) for picture in pictures)
    table, told = numbers.result, set[str]()
    sections = {
        "Result": [table.as_markdown() if table.rows else "", errors],
        "Is the attack noticed?": [*_show(_detection(numbers), told), areas],
        "Which differences are shown?": list_differences(numbers, told),
        "Beside the paper": _paper(numbers, told),
        "Checks": [_items(_checks(numbers, [*table.notes]))],
        "What was not tested": [markdown_text(warning(numbers))],
        "What was run": [_items(_facts(numbers))],
    }
    about = _description(spec)
    head = [
        f"# {markdown_text(numbers.run.name)}",
        f"**Question.** {markdown_text(_question(numbers))}",
        f"**Answer.** {markdown_text(' '.join([*verdict(numbers), care(numbers)]))}",
        f"The spec says: {markdown_text(about)}" if about else "",
        _items(_first_facts(numbers, table.interval_words, gaps)),
        f"{NOTES}\n{notes}{chr(10) if notes else ''}{END}",
    ]
    blocks = [block for block in head if block]
    for title, parts in sections.items():
        own = [part.strip() for part in parts if part]
        blocks += [f"## {title}", *own] if own else []
    return "\n\n".join(blocks) + "\n"


def _question(numbers: Numbers) -> str:
    attacks = [attack.label for attack in numbers.attacking]
    labels = few(numbers.labels)
    what = labels if numbers.nothing_trained else f"a network trained with {labels}"
    if not attacks:
        return f"How often is {what} wrong on {numbers.data_label}?"
    verb = "does" if len(attacks) == 1 else "do"
    text = f"How often {verb} {few(attacks)} fool {what} on {numbers.data_label}"
    return f"{text}, and is the attack noticed?"


def _description(spec: str) -> str:
    """Return the first paragraph of the comment that a spec begins with."""
    lines = []
    for line in spec.splitlines():
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or not text:
            break
        lines.append(text)
    return " ".join(lines)


def _first_facts(numbers: Numbers, intervals: str, gaps: Sequence[str]) -> list[tuple[str, str]]:
    known = dict([*list_facts(numbers), *list_provenance(numbers)])
    trained = numbers.data.get("train")
    sizes = [
        f"{numbers.images:,} test images" if numbers.images else "",
        f"{trained:,} training images" if trained else "",
        ""
        if numbers.nothing_trained
        else f"{counted(len(numbers.seeds), 'seed')} ({', '.join(map(str, numbers.seeds))})",
    ]
    facts = [
        *((name, known.get(name, "")) for name in _FIRST),
        ("n", listed([*filter(None, sizes)])),
        ("Intervals", intervals),
        ("Status", describe_status(numbers, gaps)),
    ]
    return [(name, text) for name, text in facts if text]


def _detection(numbers: Numbers) -> Iterable[Table]:
    """Yield detection of the first attack, and what is left of it when the attack knows it.

    Of many losses it is the first alone, at the largest eps; the result has the other.
    """
    attack = next(iter(numbers.attacking), None)
    table = detection_table(Scene(numbers, attack)) if attack else None
    knowing = guarded(numbers)
    if attack and table and len(numbers.labels) > FEW:
        largest = eps_text(attack.strengths[-1])
        rows = [row for row in table.rows if row[1].text == largest]
        yield replace(table, rows=rows, notes=[*table.notes, *([FETAYA] if knowing else [])])
        return
    if table and table.rows:
        yield table
    for each in knowing:
        yield auroc_table(each)


def list_differences(numbers: Numbers, told: set[str]) -> list[str]:
    """Return the differences under the strongest attack that are shown, or that none is.

    Many losses stand in their order instead.

    Args:
        numbers: Of the run.
        told: See `_show`.
    """
    order = order_table(numbers) if len(numbers.labels) > FEW else None
    if order:
        return _show([order], told)
    attack = strongest(numbers, numbers.attacking)
    table = differences_table(Scene(numbers, attack)) if attack else None
    if attack is None or table is None:
        return []
    unit = Compared(Scene(numbers, attack)).unit_words()
    places = [i for i, head in enumerate(table.header) if i >= table.left and head != "rank"]
    # Markdown has no grey letters for what is not shown: it stands there in words
    rows = [
        [replace(cell, text="not shown") if cell.kind == "grey" else cell for cell in row]
        for row in table.rows
        if any(row[i].text not in EMPTY and row[i].kind != "grey" for i in places)
    ]
    if not rows:
        words = f"No difference between two losses is shown on clean images or under {attack.label}"
        return [markdown_text(f"{words}, which does not mean that they are equal. {unit}")]
    side = "the baseline" if len(numbers.labels) > FEW else "column"
    caption = (
        f"Row minus {side}, with 95 % intervals: error in percentage points, and AUROC over all "
        "attacked images. Only what is shown has a number (p at most .05, adjusted by Benjamini "
        "and Hochberg for all comparisons of the run); what is not shown may differ all the same. "
        f"{unit} Rank 1 is best; “2 to 4” is what the shown differences leave open."
    )
    header, rows = without_empty_columns(table.header, rows)
    return _show([replace(table, header=header, rows=rows, caption=caption)], told)


def _paper(numbers: Numbers, told: set[str]) -> list[str]:
    """Return the attacks of which somebody published errors, beside them; nothing for none."""
    attacks = [attack for attack in numbers.attacks if published_errors(numbers, attack)]
    if not attacks:
        return []
    tables = (error_table(Scene(numbers, attack)) for attack in attacks)
    return [markdown_text(introduce_paper(numbers)), *_show(tables, told)]


def _show(tables: Iterable[Table], told: set[str]) -> list[str]:
    """Return tables as Markdown, without notes that are told and words on CSV files."""
    shown = []
    for table in tables:
        notes = [note for note in table.notes if note not in told]
        told.update(notes)
        caption = table.caption.partition(" The CSV ")[0]
        shown.append(markdown(replace(table, caption=caption, notes=notes)))
    return shown


def _checks(numbers: Numbers, told: Sequence[str]) -> list[tuple[str, str]]:
    """Return each check that fired with its places, and the names of all others.

    The meaning of those that are told already stands under the result table.
    """
    found, lines = verdicts(numbers), []
    said = {check.replace("_", " ") for check in told}
    for check in found:
        if check.state == "fired":
            why = "" if check.name in said else check.example
            lines.append((check.name, f"{check.result}. {'; '.join(check.places)}. {why}"))
    for state, words in (("quiet", "Did not fire"), ("not made", "Could not be made")):
        names = [check.name for check in found if check.state == state]
        lines += [(words, f"{listed(names)}.")] if names else []
    return lines


def _facts(numbers: Numbers) -> list[tuple[str, str]]:
    every = [*list_facts(numbers), *list_provenance(numbers)]
    return [(name, text) for name, text in every if name not in _FIRST]


def _items(facts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- **{markdown_text(name)}**: {markdown_text(text)}" for name, text in facts)


def _show_picture(picture: Picture | None, stem: str) -> str:
    """Return a figure with its caption; nothing for none."""
    if picture is None:
        return ""
    link = f"![{markdown_text(picture.alt)}]({quote(_file_name(stem, picture))})"
    return f"{link}\n\n*{markdown_text(picture.caption)}*"


def _file_name(stem: str, picture: Picture) -> str:
    return f"{stem}-{picture.name}.png"
