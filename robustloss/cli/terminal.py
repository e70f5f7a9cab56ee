"""Tables for the terminal: the result of a run, the keys of a spec."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robustloss.notation import printable
from robustloss.spec.text import Key

if TYPE_CHECKING:
    from robustloss.results.run import Run


_NO_TERMINAL_WIDTH = 200  # columns: a log or a pipe has no edge to wrap at


def console() -> Console:
    """Return where results are printed: no colour codes and no folding where it is no terminal."""
    found = Console(highlight=False, emoji=False)
    if found.is_terminal:
        return found
    return Console(highlight=False, emoji=False, width=_NO_TERMINAL_WIDTH)


def print_result(run: "Run") -> None:
    """Print the result of a run: a row for each loss, and a line for each mark."""
    screen, table = console(), run.table()
    if not table.rows:  # no cell has finished
        return
    screen.print(printable(table.as_text(screen.width)), markup=False, soft_wrap=True)
    screen.print()


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
