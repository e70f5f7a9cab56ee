"""Names in any case, default labels, and that neither moves a stored file."""

import pickle

import pytest

from robustloss.attacks import ATTACKS
from robustloss.losses import LOSSES
from robustloss.models import backbones
from robustloss.spec import attack_kinds, losses
from robustloss.spec.data import OUTSIDE_SETS
from robustloss.spec.detection import SCORE_NAMES
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec, shipped_specs
from robustloss.spec.prefixes import canonical_name
from robustloss.spec.text import slug

PLAIN = {
    "name": "small",
    "losses": [{"name": "softmax"}, {"name": "lgm"}],
    "attacks": [{"name": "fgsm", "eps": [0.1]}],
}


def test_names_may_be_written_in_any_case_and_are_stored_in_one():
    spec = load_spec(
        {
            "name": "small",
            "data": {"name": "Fashion-MNIST"},
            "model": {"backbone": "LeNet_Plus"},
            "losses": [{"name": "SoftMax", "model": {"backbone": "Small_CNN"}}, {"name": "L-GM"}],
            "attacks": [{"name": "FGSM", "eps": [0.1]}, {"name": "torchattacks:pgd", "eps": [0.1]}],
            "detection": {"scores": ["Energy"]},
            "outside": [{"name": "MNIST"}],
        }
    )
    assert [loss.name for loss in spec.losses] == ["softmax", "lgm"]
    assert [attack.name for attack in spec.attacks] == ["fgsm", "torchattacks:PGD"]
    assert (spec.data.name, spec.model.backbone) == ("fashion_mnist", "lenet_plus")
    assert spec.cells()[0].model.backbone == "small_cnn"
    assert spec.detection.scores == ("energy",)
    assert spec.outside[0].name == "mnist"


def test_a_users_own_name_stays_as_it_is_and_a_prefix_is_in_lower_case():
    losses = [{"name": "Mine.py:LGM"}, {"name": "PML:ArcFaceLoss"}]
    spec = load_spec({**PLAIN, "losses": losses, "model": {"backbone": "TorchVision:resnet18"}})
    assert (spec.losses[0].name, spec.losses[0].label) == ("Mine.py:LGM", "LGM")
    assert spec.losses[1].name == "pml:ArcFaceLoss"
    assert spec.model.backbone == "torchvision:resnet18"


def test_every_built_in_name_is_known_to_the_spec_and_no_two_are_alike():
    for known, all_of_them in [
        (losses.LOSS_LABELS, LOSSES),
        (attack_kinds.ATTACK_LABELS, ATTACKS),
        (losses.BACKBONES, backbones.BACKBONES),
    ]:
        assert list(known) == list(all_of_them)
    for names in (
        LOSSES,
        attack_kinds.ATTACK_FACTS,
        backbones.BACKBONES,
        SCORE_NAMES,
        OUTSIDE_SETS,
    ):
        wanted = [name for name in names if not name.startswith("torchattacks:")]
        assert [canonical_name(name.upper(), names) for name in wanted] == wanted


def test_default_labels_are_pretty_and_name_the_files_of_before():
    spec = load_spec(PLAIN)
    assert [loss.label for loss in spec.losses] == ["Softmax", "L-GM"]
    assert [attack.label for attack in spec.attacks] == ["FGSM"]
    folders = ["cells/softmax/seed-0", "cells/lgm/seed-0"]
    assert [cell.folder for cell in spec.cells()] == folders
    assert [attack.slug for attack in spec.attacks] == ["fgsm"]
    # wherever a spec goes: to another process, through a search, into a file and back
    for same in (
        pickle.loads(pickle.dumps(spec)),
        spec.substitute({}),
        load_spec(spec.as_written()),
    ):
        assert [cell.folder for cell in same.cells()] == folders
    given = load_spec({**PLAIN, "losses": [{"name": "lgm", "label": "L-GM"}]})
    assert given.cells()[0].folder == "cells/l-gm/seed-0"


def test_code_of_ones_own_is_called_by_its_class_and_keeps_its_folder():
    losses = [{"name": "ring.py:Ring"}, {"name": "criterion:mine.py:focal"}]
    spec = load_spec({**PLAIN, "losses": losses})
    assert [loss.label for loss in spec.losses] == ["Ring", "focal"]
    assert spec.cells()[0].folder == "cells/ring-py-ring/seed-0"


def test_classes_of_one_name_are_told_apart_by_their_files():
    twins = [{"name": f"{file}.py:Ring", "search": {"lr": [0.1, 0.2]}} for file in "ab"]
    spec = load_spec({**PLAIN, "losses": twins})
    for each in (spec, spec.first_trial, load_spec(spec.as_written())):
        assert [loss.label for loss in each.losses] == ["a.py:Ring", "b.py:Ring"]
    called = load_spec(
        {**PLAIN, "losses": [{"name": "a.py:Ring"}, {"name": "gm", "label": "Ring"}]}
    )
    assert [loss.label for loss in called.losses] == ["a.py:Ring", "Ring"]


def test_default_labels_of_attacks_have_the_slugs_of_their_names():
    for name, label in attack_kinds.ATTACK_LABELS.items():
        assert slug(label) == slug(name)


@pytest.mark.parametrize("twin", [{"name": "gm", "label": "lgm"}, {"name": "gm", "label": "l-gm"}])
def test_a_default_label_is_taken_and_so_is_its_folder(twin):
    with pytest.raises(
        SpecError, match=r"losses\[1\].label .* names the same files as losses\[0\]"
    ):
        load_spec({**PLAIN, "losses": [{"name": "lgm"}, twin]})


@pytest.mark.parametrize("text", ["lgm", "L-GM", "l-gm"])
def test_a_baseline_is_named_by_label_or_name(text):
    spec = load_spec({**PLAIN, "report": {"baseline": text, "highlight": ["softmax"]}})
    assert (spec.report.baseline, spec.report.highlight) == ("L-GM", ("Softmax",))


@pytest.mark.parametrize("name", shipped_specs())
def test_every_shipped_spec_is_read_back_as_it_is_written(name):
    spec = load_spec(name)
    again = load_spec(spec.as_written())
    assert again.plain() == spec.plain()
    assert [cell.folder for cell in again.cells()] == [cell.folder for cell in spec.cells()]


def test_code_in_a_deep_folder_is_called_by_its_class_and_so_are_its_files():
    deep = "/".join(["a-folder-of-somebody"] * 5) + "/ring.py:Ring"
    loss = load_spec({**PLAIN, "losses": [{"name": deep}]}).losses[0]
    assert (loss.label, loss.slug) == ("Ring", "ring")
