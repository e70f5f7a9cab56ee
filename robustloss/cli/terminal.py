"""Tables for the terminal: the error rates of a run, the keys of a spec."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robustloss.notation import eps_text, interval_text
from robustloss.progress import printable
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


def error_tables(run: "Run") -> list[Group]:
    """Return one table per attack: error in percent, losses × eps, with 95 % intervals."""
    errors = [row for row in run.summary if row["metric"] == "error"]
    if not errors:
        return []
    spec, tables = run.provenance["spec"], []
    for attack in [attack["label"] for attack in spec["attacks"]]:
        # At eps 0 an attack returns the clean images: the column "clean" says it already.
        found = {
            (row["label"], row["eps"]): row
            for row in errors
            if row["attack_label"] == "none" or (row["attack_label"] == attack and row["eps"] > 0)
        }
        seeds = max((row["n_seeds"] for row in found.values()), default=0)
        over = f"mean over {seeds} seeds" if seeds > 1 else "one seed"
        title = Text(printable(f"Error in %, {attack}, {over} (95 % interval)"), style="bold")
        table = Table(box=None, pad_edge=False)
        table.add_column("loss")
        budgets = sorted({eps for _, eps in found})
        for eps in budgets:
            head = f"eps {eps_text(eps)}" if eps else "clean"
            table.add_column(head, justify="right", no_wrap=True)
        for label in [loss["label"] for loss in spec["losses"]]:
            rows = [found.get((label, eps)) for eps in budgets]
            if any(rows):
                fewer = min(row["n_seeds"] for row in rows if row)
                note = f" ({fewer} of {seeds} seeds)" if fewer < seeds else ""
                table.add_row(escape(printable(label + note)), *map(_percent, rows))
        tables.append(Group(title, table))
    return tables


def _percent(row: dict | None) -> str:
    if row is None or row["mean"] is None:
        return "n/a"
    return interval_text(row["mean"], row["low"], row["high"], unit=100.0)


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
