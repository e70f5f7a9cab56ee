"""Every attack that can be named has its facts, and the attacks themselves agree with them."""

import inspect
from importlib.util import find_spec

import pytest

from robustloss.attacks import ATTACKS, build_attack
from robustloss.spec.attack_kinds import ATTACK_FACTS, attack_kind, attack_norm


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("none", "none"),
        ("one_step", "fgsm torchattacks:FGSM torchattacks:FFGSM"),
        ("iterative", "pgd mifgsm apgd_ce apgd_dlr torchattacks:PGD torchattacks:APGDT"),
        ("iterative", "torchattacks:RFGSM torchattacks:PGDL2 torchattacks:Jitter"),
        ("black_box", "square torchattacks:Square torchattacks:SPSA"),
        ("minimum_norm", "deepfool cw fab fmn torchattacks:CW torchattacks:FAB"),
        ("ensemble", "autoattack torchattacks:AutoAttack"),
        ("adaptive", "adaptive_joint adaptive_selective adaptive_orthogonal adaptive_matching"),
        ("confidence", "confidence"),
        ("adaptive", "adaptive_mine.py:attack"),
        ("other", "mine:attack path/to/file.py:fgsm FGSM torchattacks:fgsm torchattacks:Pixle"),
    ],
)
def test_kinds(kind, names):
    assert {attack_kind(name) for name in names.split()} == {kind}


def test_every_built_in_attack_has_a_kind():
    assert not [name for name in ATTACKS if attack_kind(name) in ("other", "none")]
    own = [name for name in ATTACK_FACTS if not name.startswith("torchattacks:")]
    assert own == ["none", *ATTACKS]


IN_TWO_NORMS = ("deepfool", "fab", "square", "autoattack")


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", None])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_facts_are_those_of_the_attacks(name, norm):
    takes = "norm" in inspect.signature(ATTACKS[name]).parameters
    params = {"norm": norm} if norm and takes else {}
    if name == "autoattack" and find_spec("pyautoattack") is None:
        pytest.skip("needs pyautoattack")
    if norm == "l1" and name in IN_TWO_NORMS:
        with pytest.raises(
            ValueError, match="Attacks in L1 are fgsm, pgd, mifgsm, apgd_ce, apgd_dlr"
        ):
            build_attack(name, **params)
        return
    attack = build_attack(name, **params)
    assert attack.norm == attack_norm(name, params)
    kind, backward = attack_kind(name), attack.passes(1).backward
    assert (kind == "black_box") == (backward == 0)
    assert (kind == "one_step") == (backward == 1)
    assert (kind == "adaptive") == (attack.needs == "likelihood")
    # One path whatever the eps: only an attack that looks for the nearest image takes no more.
    same = kind in ("minimum_norm", "one_step")
    assert same == (attack.passes(2) == attack.passes(1))


@pytest.mark.parametrize("name", ["mine:attack", "path/to/file.py:fgsm"])
def test_only_a_users_own_attack_has_no_known_norm(name):
    assert attack_norm(name, {"norm": "l2"}) is None


def test_every_attack_of_torchattacks_with_a_budget_has_a_kind():
    torchattacks = pytest.importorskip("torchattacks")
    refused = ["VANILA", "GN", "JSMA", "OnePixel", "Pixle", "SparseFool", "EADL1", "EADEN", "LGV"]
    names = {n for n in torchattacks.__all__ if n.isidentifier() and n[0].isupper()}
    assert len(names) > 30
    unknown = {n for n in names if attack_kind(f"torchattacks:{n}") == "other"}
    assert unknown <= set(refused)
