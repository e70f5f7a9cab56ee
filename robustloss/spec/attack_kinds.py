"""The plain facts of every attack by its name: kind and norm, known without torch.

Specs, tables and reports read them here. The attacks are the other side of the same facts, and
tests/spec/test_attack_kinds.py holds the two together.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "none", "one_step", "iterative", "black_box", "minimum_norm", "ensemble", "adaptive",
    "confidence", "other",
]  # fmt: skip


class AttackFacts(NamedTuple):
    """What is known of an attack without building it.

    Attributes:
        kind: how it works.
        norm: of its eps, unless its parameter `norm` says otherwise; None where only the attack
            itself knows.
    """

    kind: Kind
    norm: str | None


ATTACK_FACTS: dict[str, AttackFacts] = {
    "none": AttackFacts("none", None),  # the clean pass
    "fgsm": AttackFacts("one_step", "linf"),
    "pgd": AttackFacts("iterative", "linf"),
    "mifgsm": AttackFacts("iterative", "linf"),
    "apgd_ce": AttackFacts("iterative", "linf"),
    "apgd_dlr": AttackFacts("iterative", "linf"),
    "deepfool": AttackFacts("minimum_norm", "l2"),
    "cw": AttackFacts("minimum_norm", "l2"),
    "fab": AttackFacts("minimum_norm", "linf"),
    "fmn": AttackFacts("minimum_norm", "linf"),
    "square": AttackFacts("black_box", "linf"),
    "autoattack": AttackFacts("ensemble", "linf"),
    "adaptive_joint": AttackFacts("adaptive", "linf"),
    "adaptive_selective": AttackFacts("adaptive", "linf"),
    "adaptive_orthogonal": AttackFacts("adaptive", "linf"),
    "adaptive_matching": AttackFacts("adaptive", "linf"),
    "confidence": AttackFacts("confidence", "linf"),
}
"""The attacks of `robustloss.attacks.ATTACKS`, in its order, after the clean pass."""

ATTACK_LABELS = {
    "fgsm": "FGSM",
    "pgd": "PGD",
    "mifgsm": "MIFGSM",
    "apgd_ce": "APGD-CE",
    "apgd_dlr": "APGD-DLR",
    "deepfool": "DeepFool",
    "cw": "CW",
    "fab": "FAB",
    "fmn": "FMN",
    "square": "Square",
    "autoattack": "AutoAttack",
    "adaptive_joint": "Adaptive, joint",
    "adaptive_selective": "Adaptive, selective",
    "adaptive_orthogonal": "Adaptive, orthogonal",
    "adaptive_matching": "Adaptive, matching",
    "confidence": "Confidence",
}
"""How tables call an attack whose label is left out. Its slug is that of the name: arrays of the
trial attacks are named by it."""

_TORCHATTACKS = "torchattacks:"
# The classes of torchattacks 3.5 with an L-inf or L2 budget; the others are refused elsewhere, and
# so are the two ensembles, which run shorter than published or are listed one by one.
_TORCHATTACKS_FACTS: dict[AttackFacts, str] = {
    AttackFacts("one_step", "linf"): "FGSM FFGSM",
    AttackFacts("iterative", "linf"): "PGD PGDRS EOTPGD TPGD UPGD APGD APGDT BIM RFGSM MIFGSM "
    "NIFGSM SINIFGSM VMIFGSM VNIFGSM DIFGSM TIFGSM PIFGSM PIFGSMPP Jitter",
    AttackFacts("iterative", "l2"): "PGDL2 PGDRSL2",
    AttackFacts("black_box", "linf"): "Square SPSA",
    AttackFacts("minimum_norm", "linf"): "FAB",
    AttackFacts("minimum_norm", "l2"): "CW DeepFool",
    AttackFacts("ensemble", "linf"): "AutoAttack MultiAttack",
}
ATTACK_FACTS |= {
    _TORCHATTACKS + name: facts
    for facts, names in _TORCHATTACKS_FACTS.items()
    for name in names.split()
}


def attack_kind(name: str) -> Kind:
    """Return the kind of an attack by the name that a spec gives it.

    Args:
        name: a key of ATTACKS, "torchattacks:NAME", a plug-in, or "none" for the clean pass.

    Returns:
        For a user's own attack "adaptive" where its name begins with "adaptive_", else "other".
    """
    if name in ATTACK_FACTS:
        return ATTACK_FACTS[name].kind
    return "adaptive" if name.startswith("adaptive_") else "other"


def attack_norm(name: str, params: Mapping[str, Any]) -> str | None:
    """Return the norm of an attack's eps, as a spec names it with its parameters.

    Args:
        name: as for `attack_kind`.
        params: the attack's parameters; `norm` decides where it is given.

    Returns:
        "linf", "l2" or "l1"; None for a user's own attack, which says so only once it is loaded.
    """
    # An unknown name of torchattacks is refused later; until then its eps are read as L-inf ones.
    fallback = "linf" if name.startswith(_TORCHATTACKS) else None
    default = ATTACK_FACTS[name].norm if name in ATTACK_FACTS else fallback
    return params.get("norm", default) if default else None
