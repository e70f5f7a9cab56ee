"""Which names of a spec point at somebody's own code, which is executed when the spec is run."""

from robustloss.spec.prefixes import is_plugin
from robustloss.spec.spec import CellSpec, Spec, TrialSpec
from robustloss.spec.text import literal


def plugins_of(spec: Spec) -> dict[str, str]:
    """Return the spec's own code by the key that names it: ``"losses[0].name": "mine.py:Mine"``."""
    named = {"data.name": spec.data.name, "model.backbone": spec.model.backbone}
    named |= {f"outside[{i}].name": table.name for i, table in enumerate(spec.outside)}
    for number, loss in enumerate(spec.losses):
        named[f"losses[{number}].name"] = loss.name
        if "backbone" in loss.model_keys:
            named[f"losses[{number}].model.backbone"] = str(loss.model_keys["backbone"])
        if loss.factory:
            named[f"losses[{number}].model"] = loss.factory
    named |= {f"attacks[{i}].name": attack.name for i, attack in enumerate(spec.attacks)}
    named |= {f"detection.scores[{i}]": name for i, name in enumerate(spec.detection.scores)}
    return {key: name for key, name in named.items() if is_plugin(name)}


def plugins_of_cell(spec: Spec, cell: CellSpec) -> dict[str, str]:
    """Return somebody's own code that one cell or trial runs, as `plugins_of`.

    Args:
        spec: Of the run.
        cell: Of the spec. A trial asks neither its attacks nor its scores.
    """
    (own,) = (n for n, loss in enumerate(spec.losses) if loss.label == cell.label)
    used: tuple[str, ...] = (f"losses[{own}].", "model.")
    if not isinstance(cell, TrialSpec):
        used = (*used, "attacks[", "detection.scores[")
    found = {key: name for key, name in plugins_of(spec).items() if key.startswith(used)}
    if "backbone" in spec.losses[own].model_keys:
        found.pop("model.backbone", None)  # the loss has a network of its own
    return found


def describe_plugins(plugins: dict[str, str]) -> str:
    """Write plug-ins in one line: ``losses[0].name = "mine.py:Mine", ...``."""
    return ", ".join(f"{key} = {literal(name)}" for key, name in plugins.items())
