"""Every attack that can be named has a kind, and only a user's own is "other"."""

import pytest

from robustloss.attacks import ATTACKS
from robustloss.spec.attack_kinds import attack_kind


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("none", "none"),
        ("one_step", "fgsm torchattacks:FGSM torchattacks:FFGSM"),
        ("iterative", "pgd mifgsm apgd_ce apgd_dlr torchattacks:PGD torchattacks:APGDT"),
        ("iterative", "torchattacks:RFGSM torchattacks:PGDL2 torchattacks:Jitter"),
        ("black_box", "square torchattacks:Square torchattacks:SPSA"),
        ("minimum_norm", "deepfool cw fab torchattacks:CW torchattacks:DeepFool torchattacks:FAB"),
        ("ensemble", "autoattack torchattacks:AutoAttack"),
        ("adaptive", "adaptive_joint adaptive_selective adaptive_orthogonal adaptive_matching"),
        ("other", "mine:attack path/to/file.py:fgsm FGSM torchattacks:fgsm torchattacks:Pixle"),
    ],
)
def test_kinds(kind, names):
    assert {attack_kind(name) for name in names.split()} == {kind}


def test_every_built_in_attack_has_a_kind():
    assert not [name for name in ATTACKS if attack_kind(name) in ("other", "none")]


def test_every_attack_of_torchattacks_with_a_budget_has_a_kind():
    torchattacks = pytest.importorskip("torchattacks")
    refused = ["VANILA", "GN", "JSMA", "OnePixel", "Pixle", "SparseFool", "EADL1", "EADEN", "LGV"]
    names = {n for n in torchattacks.__all__ if n.isidentifier() and n[0].isupper()}
    assert len(names) > 30
    unknown = {n for n in names if attack_kind(f"torchattacks:{n}") == "other"}
    assert unknown <= set(refused)
