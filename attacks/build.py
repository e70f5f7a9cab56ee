"""Build an attack by its name: one of ATTACKS, one of torchattacks, or the user's own."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustloss.attacks.adapted.autoattack import AutoAttack
from robustloss.attacks.adapted.torchattacks_adapter import PREFIX, adapt
from robustloss.attacks.adaptive import gradients, matching
from robustloss.attacks.base import Attack
from robustloss.attacks.bounded import apgd, confidence, fgsm, pgd, square
from robustloss.attacks.functions import as_attack, attack_from_function
from robustloss.attacks.nearest import carlini_wagner, deepfool, fab, fmn
from robustloss.attacks.plugins import PluginError, check_parameters, did_you_mean, load_object
from robustloss.attacks.settings import preserving_settings

VERSION = 1
"""Raised by hand when a number that leaves this package changes; part of every record's key."""

ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgsm": fgsm.FGSM,
    "pgd": pgd.PGD,
    "mifgsm": pgd.MIFGSM,
    "apgd_ce": apgd.APGDCE,
    "apgd_dlr": apgd.APGDDLR,
    "deepfool": deepfool.DeepFool,
    "cw": carlini_wagner.CarliniWagner,
    "fab": fab.FAB,
    "fmn": fmn.FMN,
    "square": square.Square,
    "autoattack": AutoAttack,
    "adaptive_joint": gradients.AdaptiveJoint,
    "adaptive_selective": gradients.AdaptiveSelective,
    "adaptive_orthogonal": gradients.AdaptiveOrthogonal,
    "adaptive_matching": matching.AdaptiveMatching,
    "confidence": confidence.Confidence,
}
"""Our own attacks by name. Their torch-free facts stand in `robustloss.spec.attack_kinds`."""


def build_attack(name: str, /, *, folders: Sequence[str | Path] = (), **params: Any) -> Attack:
    """Build an attack by name.

    Args:
        name: a key of ATTACKS, "torchattacks:NAME", or the user's own "package.module:name" or
            "path/to/file.py:name": a function (model, inputs, labels, eps), or a class or object
            with the Attack signature.
        folders: where a relative path of a plug-in is looked for first.
        **params: the attack's own parameters.

    Raises:
        PluginError: unknown name or parameter, a plug-in that does not load, a refused value.
    """
    if name in ATTACKS:
        return _construct(ATTACKS[name], name, params)
    if name.startswith(PREFIX):
        return adapt(name, params)
    if ":" not in name:
        raise PluginError(
            f"attack '{name}': unknown name{did_you_mean(name, ATTACKS)} Known: "
            f"{', '.join(ATTACKS)}, {PREFIX}NAME; your own: 'package.module:name' or "
            "'path/to/file.py:name'."
        )
    plugin = load_object(name, folders)
    if inspect.isfunction(plugin):
        return attack_from_function(plugin, name, params)
    if isinstance(plugin, type):
        return as_attack(_construct(plugin, name, params), name)
    if params:
        raise PluginError(f"{name}.{next(iter(params))}: an object is built already; name a class.")
    return as_attack(plugin, name)


def _construct(factory: Callable[..., Any], name: str, params: dict[str, Any]) -> Any:
    if "eot" in params and name in ATTACKS and "eot" not in inspect.signature(factory).parameters:
        having = [
            each for each, one in ATTACKS.items() if "eot" in inspect.signature(one).parameters
        ]
        instead = 'version = "rand"' if name == "autoattack" else ", ".join(having)
        reason = f"{name} cannot average calls of the model. Use {instead}."
        if name == "confidence":  # no other attack does what it does
            reason = (
                "confidence keeps the class that the model predicts, and a model that draws at "
                "random may predict another at the next call. Leave eot out."
            )
        raise PluginError(f"{name}.eot: {reason}")
    check_parameters(factory, params, name)
    try:
        with preserving_settings():
            return factory(**params)
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"attack '{name}': {reason}") from error
