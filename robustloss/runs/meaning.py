"""What an attack, a loss and a network are, every default filled in: by this runs are compared.

What two runs wrote alike is the same and takes no look at the code. Only where they differ are the
defaults of our own losses, attacks and backbones looked up, which imports torch. Parameters of code
of others, and of the user's own, count as they were written: looking them up would execute it.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from robustloss.results.run import Run
from robustloss.spec.losses import IMAGENET, ModelSpec
from robustloss.spec.training import TrainSpec

Differences = dict[str, tuple[Any, Any]]
"""What differs, as "params.objective", with both values."""


def spec_of(run: Run) -> Mapping[str, Any]:
    """Return the resolved spec that a run was made with; {} if it does not say."""
    return run.provenance.get("spec") or {}


def find_attack_differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> Differences:
    """Return in what two tables [[attacks]] differ, apart from label and budgets.

    Args:
        first: of a resolved spec.
        other: of another.
    """
    things = []
    for table in (first, other):
        thing = {key: table.get(key) for key in ("name", "params", "eight_bit")}
        if ":" in table["name"]:  # code of others may give other images in other batches
            thing["batch_size"] = table.get("batch_size")
        things.append(thing)

    def fill(thing: Mapping[str, Any]) -> dict[str, Any]:
        from robustloss.attacks import ATTACKS

        return {
            **thing,
            "params": _fill_params(ATTACKS, thing["name"], thing["params"]),
            "eight_bit": bool(thing["eight_bit"]),
        }

    return _find_differences(things[0], things[1], fill)


def find_loss_differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> Differences:
    """Return in what two losses differ: the loss itself, its network, or how it is trained.

    Args:
        first: As `loss_settings` returns it.
        other: Likewise.
    """

    def fill(settings: Mapping[str, Any]) -> dict[str, Any]:
        from robustloss.losses import LOSSES

        filled = dict(settings, params=_fill_params(LOSSES, settings["name"], settings["params"]))
        if isinstance(filled["model"], Mapping):
            filled["model"] = fill_network(filled["model"])
        return filled

    return _find_differences(first, other, fill)


def fill_network(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table [model] with every default, those of the backbone too."""
    from robustloss.models.backbones import BACKBONES

    filled = ModelSpec().model_dump(mode="json") | dict(model)
    return {**filled, "params": _fill_params(BACKBONES, filled["backbone"], filled["params"])}


def loss_settings(run: Run, loss: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a loss's training beside seed and data.

    Args:
        run: The run that has the loss.
        loss: Its table [[losses]] in the resolved spec.
    """
    spec = spec_of(run)
    own = {"name": loss["name"], "params": loss.get("params") or {}}
    if isinstance(loss.get("model"), str):  # a whole model from elsewhere
        found = loss.get("normalize")
        normalize = IMAGENET if found == "imagenet" else found
        own |= {"model": loss["model"], "normalize": normalize}
        return {**own, "weights": loss.get("weights"), "train": {}}
    return {
        **own,
        "train": {} if loss.get("weights") else fill_training(run, loss.get("train") or {}),
        "model": (spec.get("model") or {}) | (loss.get("model") or {}),
        "weights": loss.get("weights"),
    }


def fill_training(run: Run, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a run trains: [train] with every default, and the arithmetic that was used.

    Args:
        run: The run.
        own: The keys that one of its losses has for itself.
    """
    train = {**(spec_of(run).get("train") or {}), **own}
    if not train.get("adversarial"):  # false and absent both mean clean training
        train.pop("adversarial", None)
    try:
        train = TrainSpec.model_validate(train).model_dump(mode="json")
    except ValueError:  # of another version, or forged: it counts as it was written
        return train
    if train["precision"] == "auto":
        train["precision"] = run.provenance.get("precision") or "auto"
    return train


def list_differences(differences: Differences, first: str, other: str) -> str:
    """Write differences with both values: "train.lr is 0.1 in one, 0.2 in two".

    Args:
        differences: What differs.
        first: The name of what has the first values.
        other: Likewise of the second ones.
    """
    each = []
    for key, values in differences.items():
        one, two = (text if len(text) <= 80 else f"{text[:77]}..." for text in map(repr, values))
        each.append(f"{key} is {one} in {first}, {two} in {other}")
    return "; ".join(each)


def _find_differences(
    first: Mapping[str, Any],
    other: Mapping[str, Any],
    fill: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Differences:
    """Return what differs between two tables of tables, after filling them where they differ."""
    if first == other:
        return {}
    if first["name"] != other["name"]:
        return {"name": (first["name"], other["name"])}
    return _compare_tables(fill(first), fill(other), "")


def _compare_tables(first: Mapping[str, Any], other: Mapping[str, Any], prefix: str) -> Differences:
    found: Differences = {}
    for key in [*first, *(key for key in other if key not in first)]:
        one, two = first.get(key), other.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found |= _compare_tables(one, two, f"{prefix}{key}.")
        elif one != two:
            found[prefix + key] = one, two
    return found


def _fill_params(
    kinds: Mapping[str, Callable[..., object]], name: str, params: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return parameters with the defaults of what has that name, if it is one of ours."""
    given = dict(params or {})
    if name not in kinds:
        return given
    own = inspect.signature(kinds[name]).parameters.values()
    return {each.name: each.default for each in own if each.default is not each.empty} | given
