"""What the numbers of a run cannot show, whatever they are."""

import re
from collections.abc import Sequence
from dataclasses import replace

from robustloss.analysis.learning import describe_unlearnt
from robustloss.reports.drawing.table import Table
from robustloss.reports.reading.facts import data_remark, draws_remark
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import counted, listed, name_files
from robustloss.spec.attack_kinds import attack_kind
from robustloss.spec.detection import score_words

# kind of attack: in words, and what a run without it cannot show
_MISSING = {
    "black_box": ("an attack without gradients", "errors behind a gradient that leads nowhere"),
    "minimum_norm": ("a minimum-norm attack", "the smallest change that fools each image"),
    "adaptive": ("an attack that knows the detector", "what such an attack leaves unnoticed"),
}


def warning(numbers: Numbers) -> str:
    """Return what to keep in mind, depending on what was run."""
    if not numbers.run.rows:
        return "No cell finished: this report says nothing about any loss."
    attacks = numbers.attacking
    kinds = {attack_kind(attack.name) for attack in attacks}
    if not kinds:
        return "No attack was run at eps above 0: this report says nothing about robustness."
    if kinds == {"one_step"}:
        fgsm = all(attack.name == "fgsm" for attack in attacks)
        name = "FGSM" if fgsm else listed([attack.label for attack in attacks])
        return (
            f"{name} alone does not show robustness. It takes one step along the gradient, so a "
            "low error can mean that the gradient was useless, and AUROC often rises with eps only "
            "because one long step overshoots. A stronger attack may find more errors, and one "
            "that also tries to look likely may go unnoticed."
        )
    what = "one attack" if len(attacks) == 1 else counted(len(attacks), "attack")
    parts = [
        f"The errors are those that {what} found: the true error is at least as high, and no "
        "attack proves robustness. At a large eps nearly every image of an undefended network is "
        "fooled, so compare at a small eps, or by the eps that fools half of the images."
    ]
    missing = [f"{name} ({lost})" for kind, (name, lost) in _MISSING.items() if kind not in kinds]
    if missing:
        parts.append(f"Not run, so not known: {listed(missing)}.")
    spared = [score_words(score) for score in numbers.detected.spared]
    if numbers.run.adaptive and spared:
        parts.append(f"No adaptive attack tried to deceive {listed(spared)}.")
    total = numbers.data.get("test")
    if total and numbers.images and numbers.images < total:
        parts.append(f"{numbers.images:,} of {total:,} test images were attacked.")
    return " ".join(parts)


def care(numbers: Numbers) -> str:
    """Return what to keep in mind first: what has not learnt, and what was not run."""
    unlearnt = map(numbers.speak, describe_unlearnt(numbers.run.results))
    return " ".join([*unlearnt, _care_for_attacks(numbers)])


def _care_for_attacks(numbers: Numbers) -> str:
    """Return the one sentence to keep in mind of the attacks."""
    attacks = numbers.attacking
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
    missing = [name for kind, (name, _) in _MISSING.items() if kind not in kinds]
    text = "A stronger attack may find more errors."
    return f"{text} Not run: {listed(missing)}." if missing else text


def count_marks(numbers: Numbers) -> str:
    """Return how many checks put marks on numbers; nothing if none did."""
    fired = len({flag.get("check") for flag in numbers.run.flags})
    if not fired:
        return ""
    return (
        f"{counted(fired, 'check')} fired: a number marked † may be low because an attack failed."
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
    """Return the table as its files need it, with what the page says once for all tables."""
    found = loss_notes(numbers, [label for label in numbers.labels if shows(table, label)])
    notes = [f"{note}." for note in found]
    if table.of_errors and (remark := data_remark(numbers)):
        notes.append(f"Data: {remark}.")
    if table.of_errors and (remark := draws_remark(numbers)):
        notes.append(f"{remark}.")
    brackets = any(entry.text.endswith("]") for row in table.rows for entry in row)
    if brackets and "[low, high]" not in table.caption:
        notes.append(numbers.result.interval_words)
    return replace(table, notes=[*dict.fromkeys(filter(None, [*table.notes, *notes]))])


def loss_notes(numbers: Numbers, labels: Sequence[str]) -> list[str]:
    """Return what training says of some losses after it ended, each note once; often nothing."""
    notes: dict[str, dict[str, None]] = {}  # by label, each once, in order
    for log in numbers.run.training:
        if note := str(log.get("note") or "").strip().rstrip("."):
            label = str(log.get("label"))
            head, _, rest = note.partition(": ")
            named = _bare(head) == _bare(label)
            notes.setdefault(label, {})[rest if named else note] = None
    by_note: dict[str, list[str]] = {}
    for label in labels:
        if label in notes:
            by_note.setdefault("; ".join(notes[label]), []).append(label)
    return [f"{listed(labels)}: {note}" for note, labels in by_note.items()]


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def shows(table: Table, label: str) -> bool:
    """Return whether a loss has a row or a column of its own in a table."""
    texts = (entry.text for row in table.rows for entry in row[: table.left])
    return label in texts or bool({label, f"shown to {label}"} & {*table.header})
