"""ATTACKS by name, and build_attack."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustloss.attacks.adapted.autoattack import AutoAttack
from robustloss.attacks.adapted.torchattacks_adapter import PREFIX, adapt
from robustloss.attacks.adaptive.gradients import (
    AdaptiveJoint,
    AdaptiveOrthogonal,
    AdaptiveSelective,
)
from robustloss.attacks.adaptive.matching import AdaptiveMatching
from robustloss.attacks.base import Attack
from robustloss.attacks.bounded.apgd import APGDCE, APGDDLR
from robustloss.attacks.bounded.fgsm import FGSM
from robustloss.attacks.bounded.pgd import MIFGSM, PGD
from robustloss.attacks.bounded.square import Square
from robustloss.attacks.functions import as_attack, attack_from_function
from robustloss.attacks.nearest.carlini_wagner import CarliniWagner
from robustloss.attacks.nearest.deepfool import DeepFool
from robustloss.attacks.nearest.fab import FAB
from robustloss.attacks.plugins import PluginError, check_parameters, did_you_mean, load_object

VERSION = 1
"""Raised by hand when a number that leaves this package changes; part of every record's key."""

ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgsm": FGSM,
    "pgd": PGD,
    "mifgsm": MIFGSM,
    "apgd_ce": APGDCE,
    "apgd_dlr": APGDDLR,
    "deepfool": DeepFool,
    "cw": CarliniWagner,
    "fab": FAB,
    "square": Square,
    "autoattack": AutoAttack,
    "adaptive_joint": AdaptiveJoint,
    "adaptive_selective": AdaptiveSelective,
    "adaptive_orthogonal": AdaptiveOrthogonal,
    "adaptive_matching": AdaptiveMatching,
}


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
        return _constructed(ATTACKS[name], name, params)
    if name.startswith(PREFIX):
        return adapt(name, params)
    if ":" not in name:
        raise PluginError(
            f"attack '{name}': unknown name{did_you_mean(name, ATTACKS)} Known: "
            f"{', '.join(ATTACKS)}, {PREFIX}NAME; your own: 'package.module:name' or "
            "'path/to/file.py:name'."
        )
    found = load_object(name, folders)
    if inspect.isfunction(found):
        return attack_from_function(found, name, params)
    if isinstance(found, type):
        return as_attack(_constructed(found, name, params), name)
    if params:
        raise PluginError(f"{name}.{next(iter(params))}: an object is built already; name a class.")
    return as_attack(found, name)


def _constructed(factory: Callable[..., Any], name: str, params: dict[str, Any]) -> Any:
    check_parameters(factory, params, name)
    try:
        return factory(**params)
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"attack '{name}': {reason}") from error
