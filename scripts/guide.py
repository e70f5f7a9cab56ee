"""Write what the pages of the guide and the README list, from the code.

    python scripts/guide.py

In a page a list stands between two lines, and this script fills in what is between them:

    <!-- generated: losses -->
    <!-- end -->

BLOCKS has the names. `keys TABLE` is one table of a spec, such as `keys train`, and `keys -` is
what stands above the tables. A test fails while a page is out of date.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from robustloss.attacks import ATTACKS
from robustloss.cli.commands import app
from robustloss.cli.listing import entries
from robustloss.losses import LOSSES
from robustloss.progress import EVENTS
from robustloss.results.schema import TABLES
from robustloss.spec.load import key_table
from robustloss.spec.text import literal

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "robustloss" / "guide").glob("*.md")))
WIDTH = 100  # characters of a line
_BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
Told = tuple[str, str]  # a parameter and what is said of it
_SECTION = re.compile(r"^(Args|Raises|Returns|Warns|Source|Attributes):", re.MULTILINE)


def fill(page: str) -> str:
    """Return a page with every generated list written anew.

    Args:
        page: Its text.

    Raises:
        KeyError: A marker names no list.
    """

    def write(found: re.Match[str]) -> str:
        name, _, table = found[2].partition(" ")
        lines = list_keys(table) if table else BLOCKS[name]()
        return f"{found[1]}{chr(10).join(lines)}\n{found[3]}"

    return _BLOCK.sub(write, page)


def list_names(kind: str) -> Iterator[str]:
    """Yield the names of a kind, as `robustloss list` has them."""
    for name, meaning in entries(kind).items():
        yield from bullet(f"`{name}`: {meaning}")


def list_keys(table: str) -> Iterator[str]:
    """Yield the keys of one table of a spec with type, default and meaning."""
    keys = [key for key in key_table() if key.key.rpartition(".")[0] == table.strip("-")]
    if not keys:
        raise KeyError(f"no table of a spec is called {table}")
    for key in keys:
        default = f"default {key.default}; "
        if key.default == "None":
            default = ""
        elif key.default.startswith("required"):
            default = f"{key.default}; "
        yield from bullet(f"`{key.key}` ({default}{key.type}): {key.meaning}")


def list_losses() -> Iterator[str]:
    """Yield every loss with its formula, parameters and source."""
    told: dict[Told, str] = {}
    for name, kind in LOSSES.items():
        yield from describe(name, kind, kind.__init__, told)
    yield from list_others("losses", LOSSES)


def list_attacks() -> Iterator[str]:
    """Yield every attack with its formula, parameters and source."""
    told: dict[Told, str] = {}
    for name, kind in ATTACKS.items():
        yield from describe(name, kind, kind, told)
    yield from list_others("attacks", ATTACKS)


def list_others(kind: str, known: Mapping[str, Any]) -> Iterator[str]:
    """Yield the entries of a kind that stand for many, such as `pml:NAME`."""
    for name, meaning in entries(kind).items():
        if name not in known:
            yield from ("", f"### {name}", "", *wrap(meaning))


def describe(
    name: str, kind: Any, call: Callable[..., Any], told: dict[Told, str]
) -> Iterator[str]:
    """Yield what the docstring of a loss or an attack says, and its parameters with their defaults.

    Args:
        name: The key that a spec uses.
        kind: The class, which has the docstring.
        call: What takes the parameters.
        told: Which entry has told a parameter before, by its name and text; it is added to.
    """
    pieces = _SECTION.split(inspect.getdoc(kind) or "")
    sections = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    yield from ("", f"### {name}", "", *_space_code(pieces[0].strip().splitlines()), "")
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        texts |= _arguments(inspect.cleandoc(base.__doc__ or ""))
    groups: dict[str, list[str]] = {}  # parameters by their text
    for p in inspect.signature(call).parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            first = told.setdefault((p.name, texts[p.name]), name)
            meaning = texts[p.name] if first == name else f"as for {first}."
            groups.setdefault(meaning, []).append(f"`{p.name}` ({literal(p.default)})")
    for meaning, names in groups.items():
        yield from bullet(f"{', '.join(names)}: {meaning}")
    if source := sections.get("Source"):
        yield from (*([""] if groups else []), *wrap(f"Source: {' '.join(source.split())}"))


def _space_code(lines: list[str]) -> Iterator[str]:
    """Yield lines with an empty one around each indented block, so that it is shown as it is."""
    before = ""
    for line in lines:
        if before and line and line.startswith("    ") != before.startswith("    "):
            yield ""
        yield line
        before = line


def _arguments(docstring: str) -> dict[str, str]:
    """Return the text of each argument that a docstring's section Args names."""
    pieces = _SECTION.split(docstring)
    section = dict(zip(pieces[1::2], pieces[2::2], strict=True)).get("Args", "")
    found: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(section.strip("\n")).splitlines():
        if start := re.match(r"(\w+): (.*)", line):
            name, found[start[1]] = start[1], start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def list_tables() -> Iterator[str]:
    """Yield the tables of results.json with their meaning."""
    for name, table in TABLES.items():
        yield from bullet(f"`{name}`: {table.meaning}")


def list_events() -> Iterator[str]:
    """Yield the events of a run with their values."""
    for name, values in EVENTS.items():
        yield from bullet(f"`{name}`: {values}.")


def list_commands() -> Iterator[str]:
    """Yield every command with its words and what it does."""
    yield "```text"
    rows = {_usage(command): _summary(command) for command in commands().values()}
    width = max(map(len, rows))
    yield from (f"{usage:{width}}  {summary}" for usage, summary in rows.items())
    yield "```"


def list_options() -> Iterator[str]:
    """Yield every command with its options."""
    for command in commands().values():
        yield from bullet(f"`{_usage(command)}`: {_summary(command)}")
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                value = f" {option.metavar}" if option.metavar else ""
                text = f"`{option.opts[0]}{value}`" + (f": {option.help}" if option.help else "")
                yield from (f"  {line}" for line in bullet(text))


def commands() -> dict[str, Any]:
    """Return the commands of the command line by name."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def _usage(command: Any) -> str:
    words = []
    for param in command.params:
        if param.param_type_name == "argument":
            metavar = param.metavar if len(param.metavar) < 16 else "WHAT"
            words.append(metavar if param.required else f"[{metavar}]")
    return " ".join(["robustloss", command.name, *words])


def _summary(command: Any) -> str:
    first_line = str(command.help).strip().splitlines()[0]
    return first_line.partition(". ")[0].rstrip(".")


def wrap(text: str, indent: str = "") -> list[str]:
    """Return a text in lines; all but the first are indented. Code spans may be broken."""
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def bullet(text: str) -> list[str]:
    """Return a text as one entry of a list."""
    return wrap(f"- {text}", "  ")


BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    **{
        kind: lambda kind=kind: list_names(kind)  # type: ignore[misc]
        for kind in ("scores", "datasets", "backbones", "specs", "metrics", "references")
    },
    "losses": list_losses,
    "attacks": list_attacks,
    "tables": list_tables,
    "events": list_events,
    "commands": list_commands,
    "options": list_options,
}


if __name__ == "__main__":
    for path in PAGES:
        before = path.read_text("utf-8")
        if (after := fill(before)) != before:
            path.write_text(after, "utf-8")
            print(f"written: {path.relative_to(ROOT)}")
