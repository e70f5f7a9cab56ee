"""An evaluation as a spec: the attacks, however they were asked for, and what is beside them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustloss.attacks.build import ATTACKS
from robustloss.spec.errors import SpecError, did_you_mean
from robustloss.spec.load import load_spec
from robustloss.spec.spec import Spec

Asked = Spec | str | Path | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]

GREY = (0.1, 0.2, 0.3)  # L-inf budgets that the literature uses for MNIST
COLOUR = ("2/255", "4/255", "8/255")  # and for colour images


@dataclass(frozen=True)
class Extras:
    """What is asked for beside the attacks; see `evaluate`."""

    checks: bool | int
    noise: bool
    quick: bool

    def __post_init__(self) -> None:
        if not isinstance(self.checks, int):
            raise ValueError(
                f"checks (={self.checks!r}) must be True, False or a number of images."
            )

    def fits(self, asked: Asked | None) -> bool:
        """Return whether the number of images for trial attacks is left open by all."""
        if self.quick or self.checks is not True or isinstance(asked, Spec | str | Path):
            return False
        table = asked.get("checks", {}) if isinstance(asked, Mapping) else {}
        return not (isinstance(table, Mapping) and "images" in table)

    def tables(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tables [detection], [checks] and [records], with what is left out of them."""
        tables = {key: asked[key] for key in ("detection", "checks", "records") if key in asked}
        changes: dict[str, dict[str, Any]] = {"detection": {}, "checks": {}}
        if self.quick or self.checks is not True:
            changes["checks"]["images"] = 0 if self.quick else int(self.checks)
        if self.quick or not self.noise:
            changes["detection"]["noise"] = False
        if self.quick:
            changes["detection"]["scores"] = ["class_log_likelihood"]
        for name, change in changes.items():
            if change and isinstance(tables.get(name, {}), Mapping):
                tables[name] = {**tables.get(name, {}), **change}
        return tables


def build_spec(spec: Any, losses: list[dict[str, Any]], channels: int, extras: Extras) -> Spec:
    """Return the spec of the evaluation: the models as its losses, and the attacks asked for.

    Args:
        spec: What was asked for; None for the default attacks.
        losses: A table [[losses]] for each model.
        channels: C of the images, which decides the usual eps.
        extras: What is asked for beside the attacks.

    Raises:
        SpecError: As `load_spec`; ValueError: nothing that names attacks.
    """
    eps = list(GREY if channels == 1 else COLOUR)
    asked: Mapping[str, Any]
    folder = Path.cwd()
    if spec is None:
        asked = {"attacks": ["fgsm", {"name": "pgd", "params": {"objective": "margin"}}]}
    elif isinstance(spec, Mapping):
        if "eps" in spec or spec.keys() & ATTACKS.keys():
            raise ValueError(
                "attacks must be a list. Write [{'name': 'fgsm', 'eps': [0.1]}], or ['fgsm'] for "
                "the usual eps."
            )
        asked = spec
    elif isinstance(spec, str) and spec in ATTACKS:
        raise ValueError(f"attacks (={spec!r}) must be a list. Write [{spec!r}].")
    elif isinstance(spec, Spec | str | Path):
        loaded = spec if isinstance(spec, Spec) else load_spec(spec)
        asked, folder = loaded.plain(), loaded.folder
    elif isinstance(spec, Iterable):
        asked = {"attacks": list(spec)}
    else:
        raise ValueError(f"attacks (={spec!r}) must be a list of attacks, a spec, or its name.")
    if unknown := sorted(asked.keys() - Spec.model_fields):
        hint = did_you_mean(unknown[0], list(Spec.model_fields))
        raise SpecError(f"{unknown[0]}: unknown key{hint or '.'}")
    if isinstance(asked.get("attacks"), str):
        raise SpecError(f"attacks (={asked['attacks']!r}) must be a list. Write a list of names.")
    attacks = []
    for number, each in enumerate(asked.get("attacks", ())):
        if not isinstance(each, str | Mapping):
            raise ValueError(
                f"attacks[{number}] (={type(each).__name__}) must be a name, as 'fgsm', or a table "
                "with name and eps. Code of your own is named by its file: 'file.py:name'."
            )
        attacks.append({"eps": eps, **({"name": each} if isinstance(each, str) else each)})
    found = load_spec(
        {
            "name": "evaluation",
            "seeds": list(asked.get("seeds", (0,)))[:1],
            "data": {"name": "in_memory"},
            "losses": losses,
            "attacks": attacks,
            **extras.tables(asked),
        }
    )
    found._folder = folder
    return found
