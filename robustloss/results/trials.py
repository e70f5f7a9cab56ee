"""A finished trial of a search, read from its trial.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustloss.storage import CorruptFile, read_json


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
