"""What the numbers of a run cannot show, whatever they are."""

from collections.abc import Sequence
from dataclasses import replace

from robustloss.reports.drawing.table import Table
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import listed
from robustloss.spec.attack_kinds import attack_kind

_MISSING = {
    "black_box": "an attack without gradients, which finds errors that a hidden gradient hides",
    "minimum_norm": "a minimum-norm attack, which gives every image its radius",
    "adaptive": "an attack that knows the detector: every detection number holds only against "
    "attacks that ignore it",
}


def warning(numbers: Numbers) -> str:
    """What to keep in mind, depending on what was run."""
    if not numbers.run.rows:
        return "No cell finished: this report says nothing about any loss."
    kinds = {attack_kind(attack.name) for attack in numbers.attacks if attack.strengths}
    if not kinds:
        return "No attack was run at eps above 0: this report says nothing about robustness."
    if kinds == {"one_step"}:
        return _one_step(numbers)
    attacks = sum(bool(attack.strengths) for attack in numbers.attacks)
    what = "one attack" if attacks == 1 else f"{attacks} attacks"
    parts = [
        f"Errors are those that {what} found with the settings of this run: the true error is at "
        "least as high, and no attack proves robustness. Networks trained without a defence end "
        "near 100 % error under strong attacks, so losses are ranked by radius, not by the error "
        "at a large eps."
    ]
    if missing := [words for kind, words in _MISSING.items() if kind not in kinds]:
        parts.append(f"Not run: {listed(missing)}.")
    if numbers.run.adaptive:
        parts.append(
            "The adaptive attacks aim at the likelihood only; scores marked “not adapted” were "
            "never attacked."
        )
    if (few := _images_left_out(numbers)) is not None:
        parts.append(few)
    return " ".join(parts)


def _one_step(numbers: Numbers) -> str:
    known = [a for a in numbers.attacks if a.strengths]
    name = "FGSM" if all(attack.name == "fgsm" for attack in known) else listed(
        [attack.label for attack in known])  # fmt: skip
    return (
        f"{name} alone does not show robustness. It is a single step along one gradient: a low "
        "error under it can mean that the gradient was useless, and its detection AUROC often "
        "rises with eps only because one long step overshoots. Errors are those that the attacks "
        "of this run found; a stronger attack may find more, and one that also tries to stay "
        "likely may not be noticed."
    )


def _images_left_out(numbers: Numbers) -> str | None:
    total = (numbers.run.provenance.get("data") or {}).get("test")
    if not total or not numbers.images or numbers.images >= total:
        return None
    return f"{numbers.images:,} of {total:,} test images were attacked."


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
    return [f"Data: {remark}."] if remark and table.of_errors else []
