"""What the terminal shows of a run and of a spec: the result, where the report is, the keys."""

import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robustloss.analysis.gates.judge import describe_gates
from robustloss.analysis.learning import describe_unlearnt
from robustloss.cli.saying import say
from robustloss.notation import one_line, printable
from robustloss.results.published import describe_published
from robustloss.results.run import Run, load_run
from robustloss.spec.text import Key

_NO_TERMINAL_WIDTH = 200  # columns: a log or a pipe has no edge to wrap at


def console() -> Console:
    """Return where results are printed: no colour codes and no folding where it is no terminal."""
    found = Console(highlight=False, emoji=False)
    if found.is_terminal:
        return found
    return Console(highlight=False, emoji=False, width=_NO_TERMINAL_WIDTH)


def print_result(run: Path | Run) -> None:
    """Print the result of a run: losses, marks, what has not learnt, published numbers, gates.

    The rows of losses that the spec highlights are bold.

    Args:
        run: Itself, or its folder.
    """
    run = load_run(run) if isinstance(run, Path) else run
    screen, table = console(), run.table()
    if not table.rows:  # no cell has finished
        return
    text = Text(printable(table.as_text(screen.width)))
    shown = (run.provenance.get("spec") or {}).get("report") or {}
    for label in shown.get("highlight") or ():
        text.highlight_regex(rf"(?m)^{re.escape(one_line(str(label)))} .*$", "bold")
    screen.print(text, soft_wrap=True)
    lines = [*describe_unlearnt(run.results), *describe_published(run.results)]
    gates, _ = describe_gates(run)
    for line in (*lines, *([f"Gates: {gates}"] if gates else [])):
        screen.print(Text(printable(one_line(line))), soft_wrap=True)
    screen.print()


def say_where(report: Path) -> None:
    """Print where the report is, and what else of it there is."""
    parts = {"Tables": "tables", "Figures": "figures", "Details": "details.html"}
    for what, name in (parts | {"Summary": "summary.md"}).items():
        if (path := report.parent / name).exists():
            say(f"{what}: {path}")
    say(f"Report: {report}")


def keys_table(rows: Iterable[Key]) -> Table:
    """Return a table of every key of a spec with its type, default and meaning."""
    table = Table(box=None, pad_edge=False)
    for name in Key._fields:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def bytes_text(count: int) -> str:
    """Return a file size as a person says it: "96 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
