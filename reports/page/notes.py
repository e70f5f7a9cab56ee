"""What the numbers of a run cannot show, whatever they are."""

from collections.abc import Sequence
from dataclasses import replace

from robustloss.reports.drawing.table import Table
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import counted, listed, name_files
from robustloss.spec.attack_kinds import attack_kind

_MISSING = {
    "black_box": "an attack without gradients, which finds errors that a hidden gradient hides",
    "minimum_norm": "a minimum-norm attack, which gives every image its radius",
    "adaptive": "an attack that knows the detector: every detection number holds only against "
    "attacks that ignore it",
}

_LACKING = {
    "black_box": "an attack without gradients",
    "minimum_norm": "a minimum-norm attack",
    "adaptive": "an attack that knows the detector",
}


def warning(numbers: Numbers) -> str:
    """Return what to keep in mind, depending on what was run."""
    if not numbers.run.rows:
        return "No cell finished: this report says nothing about any loss."
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    kinds = {attack_kind(attack.name) for attack in attacks}
    if not kinds:
        return "No attack was run at eps above 0: this report says nothing about robustness."
    if kinds == {"one_step"}:
        fgsm = all(attack.name == "fgsm" for attack in attacks)
        name = "FGSM" if fgsm else listed([attack.label for attack in attacks])
        return (
            f"{name} alone does not show robustness. It is a single step along one gradient: a low "
            "error under it can mean that the gradient was useless, and its detection AUROC often "
            "rises with eps only because one long step overshoots. Errors are those that the "
            "attacks of this run found; a stronger attack may find more, and one that also tries "
            "to stay likely may not be noticed."
        )
    what = "one attack" if len(attacks) == 1 else counted(len(attacks), "attack")
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
    total = numbers.data.get("test")
    if total and numbers.images and numbers.images < total:
        parts.append(f"{numbers.images:,} of {total:,} test images were attacked.")
    return " ".join(parts)


def care(numbers: Numbers) -> str:
    """Return the one sentence to keep in mind, depending on what was run."""
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    kinds = {attack_kind(attack.name) for attack in attacks}
    if not numbers.run.rows:
        return "No cell finished: this says nothing about any loss."
    if not attacks:
        return "No attack was run at eps above 0: this says nothing about robustness."
    if kinds == {"one_step"}:
        name = listed([attack.label for attack in attacks])
        return (
            f"{name} alone does not show robustness: a stronger attack may find more errors, and "
            "one that knows the detector may go unnoticed."
        )
    missing = [words for kind, words in _LACKING.items() if kind not in kinds]
    text = "A stronger attack may find more errors."
    return f"{text} Not run: {listed(missing)}." if missing else text


def count_marks(numbers: Numbers) -> str:
    """Return how many numbers carry a mark; nothing if none does."""
    flags = numbers.run.flags
    if not flags:
        return ""
    kinds = counted(len({flag.get("check") for flag in flags}), "kind")
    return (
        f"{counted(len(flags), 'sign')} of {kinds} that an attack, not the loss, made a number "
        "look good: such numbers are marked †."
    )


def count_problems(numbers: Numbers, gaps: Sequence[str]) -> str:
    """Return how many cells did not finish and how many files could not be read.

    Args:
        numbers: Of the run.
        gaps: The files.
    """
    parts = [*numbers.run.unfinished]
    if failed := len(numbers.run.failures):
        parts.append(f"{counted(failed, 'cell')} of this run did not finish.")
    if gaps:
        parts.append(f"{counted(len(gaps), 'stored file')} could not be read.")
    return " ".join(parts)


def list_failures(numbers: Numbers) -> list[str]:
    """Return which cells did not finish, and why."""
    return [
        f"{f.get('label')}, seed {f.get('seed')}, stage {f.get('stage')}: "
        + name_files(str(f.get("reason")))
        for f in numbers.run.failures
    ]


def annotate(numbers: Numbers, table: Table) -> Table:
    """Return the table with the notes of the losses that it shows, each said once.

    Args:
        numbers: Of the run.
        table: A table of it.
    """
    by_note: dict[str, list[str]] = {}
    for label, note in loss_notes(numbers).items():
        if shows(table, label):
            by_note.setdefault(note, []).append(label)
    notes = [f"{listed(labels)}: {note.rstrip('.')}." for note, labels in by_note.items()]
    if table.of_errors and (remark := data_remark(numbers)):
        notes.append(f"Data: {remark}.")
    return replace(table, notes=[*dict.fromkeys([*table.notes, *notes])])


def loss_notes(numbers: Numbers) -> dict[str, str]:
    """Return by label what training says of the loss after it ended; most losses have nothing."""
    out: dict[str, list[str]] = {}
    for log in numbers.run.training:
        note = str(log.get("note") or "").strip()
        if note and note not in out.setdefault(str(log.get("label")), []):
            out[str(log.get("label"))].append(note)
    return {label: "; ".join(out[label]) for label in numbers.labels if out.get(label)}


def shows(table: Table, label: str) -> bool:
    """Return whether a loss has a row or a column of its own in a table.

    Args:
        table: Of the report.
        label: Of the loss.
    """
    texts = (entry.text for row in table.rows for entry in row[: table.left])
    return label in texts or bool({label, f"shown to {label}"} & {*table.header})


def data_remark(numbers: Numbers) -> str:
    """Return what must be known of the data, as their provenance says it."""
    return str(numbers.data.get("summary") or "").strip().rstrip(".")
