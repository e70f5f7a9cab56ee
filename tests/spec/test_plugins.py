"""Somebody else's spec: what of it is code, and that looking at it runs nothing."""

import pytest

from robustloss.cli import commands
from robustloss.cli.listing import spec_lines
from robustloss.runs import runner
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec, shipped_specs
from robustloss.spec.plugins import is_plugin, plugins_of
from tests.small_run import changed

TRAP = """
from pathlib import Path
Path(__file__).with_name("executed").write_text("")
from robustloss.losses.softmax import SoftmaxHead as Mine
def score(record):
    return record.logits.max(1)
"""


@pytest.fixture
def trap(tmp_path):
    (tmp_path / "trap.py").write_text(TRAP)
    return tmp_path / "trap.py"


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("lgm", False),
        ("mine.py:Mine", True),
        ("package.module:Mine", True),
        ("torchvision:resnet18", False),
        ("torchattacks:PGD", False),
        ("pml:ArcFaceLoss", False),
    ],
)
def test_a_colon_names_code_unless_a_known_package_has_it(name, own):
    assert is_plugin(name) == own


def test_every_place_of_a_spec_is_looked_at():
    spec = changed(
        model={"backbone": "a.py:B", "feature_dim": 4},
        losses=[{"name": "softmax", "model": {"backbone": "c.py:D"}}, {"name": "e.py:F"}],
        attacks=[{"name": "fgsm", "eps": [0.1]}, {"name": "g.h:i", "eps": [0.1], "label": "I"}],
        detection={"scores": ["knn", "j.py:k"]},
    )
    assert plugins_of(load_spec(spec)) == {
        "model.backbone": "a.py:B",
        "losses[0].model.backbone": "c.py:D",
        "losses[1].name": "e.py:F",
        "attacks[1].name": "g.h:i",
        "detection.scores[1]": "j.py:k",
    }


def test_no_shipped_spec_names_code():
    for name in shipped_specs():
        assert plugins_of(load_spec(name)) == {}


@pytest.mark.parametrize("place", ["loss", "score"])
def test_refused_before_anything_is_loaded(trap, tmp_path, place):
    spec = changed(seeds=[0])
    if place == "loss":
        spec["losses"] = [{"name": f"{trap}:Mine", "label": "mine"}]
    else:
        spec["detection"] = {"scores": [f"{trap}:score"]}
    with pytest.raises(SpecError, match=r"names code of its own: .*trap.py.*without --no-plugins"):
        runner.run(spec, out=tmp_path / "run", plugins=False)
    assert not (tmp_path / "run").exists()
    lines = list(spec_lines(load_spec(spec)))
    assert "show --plugins" in lines[-1]
    assert not trap.with_name("executed").exists()
    list(spec_lines(load_spec(spec), plugins=True))
    assert trap.with_name("executed").exists()


def test_the_command(trap, tmp_path, capsys):
    path = tmp_path / "spec.toml"
    path.write_text(
        'name = "x"\n[data]\nname = "digits"\n[model]\nbackbone = "digits_cnn"\nfeature_dim = 4\n'
        '[[losses]]\nname = "trap.py:Mine"\nlabel = "mine"\n'
        '[[attacks]]\nname = "fgsm"\neps = [0.1]\n'
    )
    with pytest.raises(SystemExit) as end:
        commands.main(["run", str(path), "--no-plugins", "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    assert 'losses[0].name = "trap.py:Mine"' in capsys.readouterr().err
    assert not trap.with_name("executed").exists()
