"""What must be said of a loss or of the data beside every number: one way for all tables."""

from collections.abc import Sequence
from dataclasses import replace

from robustloss.reports.numbers import Numbers
from robustloss.reports.table import Table
from robustloss.reports.words import listed

_ERRORS = ("losses", "error-", "worst-case", "overview", "per-class", "balanced", "top5", "seeds")


def annotated(numbers: Numbers, table: Table) -> Table:
    """The table with the notes of the losses that it shows, each said once."""
    notes = [*_schedules(numbers, table), *_data_notes(numbers, table)]
    fresh = [note for note in notes if note not in table.notes]
    return replace(table, notes=[*table.notes, *fresh]) if fresh else table


def loss_notes(numbers: Numbers) -> dict[str, str]:
    """By label: what training says of the loss after it ended; losses without are left out."""
    out: dict[str, list[str]] = {}
    for log in numbers.run.training:
        note = str(log.get("note") or "").strip()
        if note and note not in out.setdefault(str(log.get("label")), []):
            out[str(log.get("label"))].append(note)
    return {label: "; ".join(out[label]) for label in numbers.labels if out.get(label)}


def shows(table: Table, label: str) -> bool:
    """Whether a loss has a row or a column of its own."""
    heads = {label, f"shown to {label}"}
    texts = (entry.text for row in table.rows for entry in row[: table.left])
    return bool(heads & {*table.header}) or any(text == label for text in texts)


def _schedules(numbers: Numbers, table: Table) -> list[str]:
    by_note: dict[str, list[str]] = {}
    for label, note in loss_notes(numbers).items():
        if shows(table, label):
            by_note.setdefault(note, []).append(label)
    return [f"{_names(labels)}: {note.rstrip('.')}." for note, labels in by_note.items()]


def _names(labels: Sequence[str]) -> str:
    return listed(list(labels))


def _data_notes(numbers: Numbers, table: Table) -> list[str]:
    data = numbers.run.provenance.get("data") or {}
    remark = str(data.get("summary") or "").strip().rstrip(".")
    return [f"Data: {remark}."] if remark and table.name.startswith(_ERRORS) else []
