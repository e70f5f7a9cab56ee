"""Notes of cells: what each attack cost, whose weights were taken over, what a trial came to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustloss.results.finished_cell import load_cell
from robustloss.results.provenance import is_cost
from robustloss.storage import CorruptFile, read_json

Place = tuple[str, int, Path]  # label, seed and folder of a cell

REUSED = "reused.json"  # in the folder of a cell whose weights were taken from another run


def read_costs(cells: Sequence[Place], attacks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what each attack spent on each cell when it was last computed there.

    Args:
        cells: of a run.
        attacks: their labels, by slug.
    """
    costs = []
    for label, seed, folder in cells:
        for attack, attack_label in attacks.items():
            try:
                cost = read_json(folder / f"{attack}-cost.json", checked=True)
            except CorruptFile:
                continue
            if is_cost(cost):
                costs.append({**cost, "attack_label": attack_label, "label": label, "seed": seed})
    return costs


def read_reused(cells: Sequence[Place]) -> list[dict[str, Any]]:
    """Return which cells have weights that another run trained, and in which folder that was."""
    found = []
    for label, seed, folder in cells:
        try:
            note = read_json(folder / REUSED, checked=True)
            used = load_cell(folder / "cell.json").files.get("model")
        except ValueError:
            continue
        if note.get("weights") == used and isinstance(note.get("run"), str):
            found.append({"label": label, "seed": seed, "run": note["run"]})
    return found


def read_trial(folder: Path) -> dict[str, Any] | None:
    """Return the content of a finished trial's trial.json, or None where it is not whole."""
    try:
        found = read_json(folder / "trial.json", checked=True)
    except CorruptFile:
        return None
    return found if _is_result(found) else None


def _is_result(found: Mapping[str, Any]) -> bool:
    """Return whether it is what `run_trial` writes: a run folder may come from somebody else."""
    if "validation_error" not in found:
        return isinstance(found.get("reason"), str)
    fgsm = found.get("fgsm")
    numbers = [found["validation_error"]]
    if found.get("validation_loss") is not None:  # null where it is infinite
        numbers.append(found["validation_loss"])
    if not isinstance(fgsm, list) or not all(isinstance(each, dict) for each in fgsm):
        return False
    if type(found.get("n")) is not int or "validation_loss" not in found:
        return False
    numbers += [each.get(name) for each in fgsm for name in ("eps", "fgsm_error")]
    return all(type(number) in (int, float) for number in numbers)
