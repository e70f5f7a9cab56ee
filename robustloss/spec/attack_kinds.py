"""What kind of attack a name stands for, without building it: tables and checks need no torch."""

from typing import Literal

Kind = Literal[
    "none",
    "one_step",
    "iterative",
    "black_box",
    "minimum_norm",
    "ensemble",
    "adaptive",
    "other",
]

_ADAPTED = "torchattacks:"
_KINDS: dict[Kind, frozenset[str]] = {
    "none": frozenset({"none"}),
    "one_step": frozenset({"fgsm"}),
    "iterative": frozenset({"pgd", "mifgsm", "apgd_ce", "apgd_dlr"}),
    "black_box": frozenset({"square"}),
    "minimum_norm": frozenset({"deepfool", "cw", "fab"}),
    "ensemble": frozenset({"autoattack"}),
}
# The classes of torchattacks 3.5; those without an L-inf or L2 budget are refused elsewhere.
_ADAPTED_KINDS: dict[Kind, frozenset[str]] = {
    "one_step": frozenset({"FGSM", "FFGSM"}),
    "iterative": frozenset(
        {
            *("PGD", "PGDL2", "PGDRS", "PGDRSL2", "EOTPGD", "TPGD", "UPGD", "APGD", "APGDT"),
            *("BIM", "RFGSM", "MIFGSM", "NIFGSM", "SINIFGSM", "VMIFGSM", "VNIFGSM", "DIFGSM"),
            *("TIFGSM", "PIFGSM", "PIFGSMPP", "Jitter"),
        }
    ),
    "black_box": frozenset({"Square", "SPSA"}),
    "minimum_norm": frozenset({"CW", "DeepFool", "FAB"}),
    "ensemble": frozenset({"AutoAttack", "MultiAttack"}),
}


def attack_kind(name: str) -> Kind:
    """The kind of an attack, by the name that a spec gives it.

    Args:
        name: a key of ATTACKS, "torchattacks:NAME", a plug-in, or "none" for the clean pass.

    Returns:
        "other" for what is not known: a user's own attack.
    """
    if name.startswith("adaptive_"):
        return "adaptive"
    adapted = name.startswith(_ADAPTED)
    key = name.removeprefix(_ADAPTED)
    for kind, names in (_ADAPTED_KINDS if adapted else _KINDS).items():
        if key in names:
            return kind
    return "other"
