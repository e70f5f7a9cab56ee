"""Somebody else's spec: what of it is code, and that looking at it runs nothing."""

import itertools
import os
import subprocess
import sys

import pytest

from robustloss.attacks import build_attack
from robustloss.attacks.plugins import RESERVED, PluginError, load_object, source_digest
from robustloss.cells import score_plugins
from robustloss.cli import commands
from robustloss.cli.listing import spec_lines
from robustloss.losses import build_loss
from robustloss.models.backbones import build_backbone
from robustloss.models.given import build_given
from robustloss.runs import runner
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec, shipped_specs
from robustloss.spec.plugins import plugins_of
from robustloss.spec.prefixes import PREFIXES, is_plugin
from tests.guard import ROOT
from tests.small_run import changed

TRAP = """
from pathlib import Path
Path(__file__).with_name("executed").write_text("")
from robustloss.losses.softmax import SoftmaxHead as Mine
def score(record):
    return record.logits.max(1)
def cost(logits, labels):
    return logits.logsumexp(1) - logits.gather(1, labels[:, None])[:, 0]
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
        ("criterion:torch.nn:CrossEntropyLoss", False),
        ("criterion:torch.nn.functional:cross_entropy", False),
        ("criterion:mine.py:focal", True),
        ("criterion:torch.py:Evil", True),
        ("criterion:torch.hub:load", True),
        ("criterion:package.module:Focal", True),
        ("criterion", False),
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
    spec["losses"].append({"name": "criterion:l.py:m"})
    assert plugins_of(load_spec(spec)) == {
        "model.backbone": "a.py:B",
        "losses[0].model.backbone": "c.py:D",
        "losses[1].name": "e.py:F",
        "losses[2].name": "criterion:l.py:m",
        "attacks[1].name": "g.h:i",
        "detection.scores[1]": "j.py:k",
    }


def test_no_shipped_spec_names_code():
    for name in shipped_specs():
        assert plugins_of(load_spec(name)) == {}


@pytest.mark.parametrize("place", ["loss", "criterion", "score"])
def test_refused_before_anything_is_loaded(trap, tmp_path, place):
    spec = changed(seeds=[0])
    if place == "loss":
        spec["losses"] = [{"name": f"{trap}:Mine", "label": "mine"}]
    elif place == "criterion":
        spec["losses"] = [{"name": f"criterion:{trap}:cost", "label": "mine"}]
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


PLACES = {  # where a spec names code, as TOML: the table, and what else it needs
    "loss": '[[losses]]\nname = "{name}"\nlabel = "a"\n',
    "model": '[[losses]]\nmodel = "{name}"\n',
    "data set": '[[losses]]\nname = "softmax"\n',
    "data set of outside": '[[losses]]\nname = "softmax"\n[[outside]]\nname = "{name}"\n',
    "backbone": '[[losses]]\nname = "softmax"\n[model]\nbackbone = "{name}"\nfeature_dim = 4\n',
    "backbone of a loss": '[[losses]]\nname = "softmax"\nmodel = {{ backbone = "{name}" }}\n',
    "attack": '[[losses]]\nname = "softmax"\n',
    "score": '[[losses]]\nname = "softmax"\n[detection]\nscores = ["{name}"]\n',
}


def misplaced():
    """Every prefix in every place but its own, with the name as a class and as a file."""
    for prefix, place in itertools.product(PREFIXES, PLACES):
        if place.partition(" of ")[0] not in PREFIXES[prefix]:
            yield from ((place, f"{prefix}:{rest}") for rest in ("evil", "evil.py:evil", ""))


@pytest.fixture
def traps(tmp_path):
    """A folder whose files have the names that prefixes and their names could be taken for."""
    for name in (*PREFIXES, "evil", *(f"{prefix}:evil" for prefix in PREFIXES)):
        (tmp_path / f"{name}.py").write_text(TRAP + "evil = score\n")
    return tmp_path


@pytest.mark.parametrize(("place", "name"), list(misplaced()))
@pytest.mark.parametrize("words", [("show",), ("show", "--plugins"), ("run", "--no-plugins")])
def test_a_prefix_in_another_place_is_refused_and_runs_nothing(
    traps, command, monkeypatch, place, name, words
):
    monkeypatch.chdir(traps)
    attack = name if place == "attack" else "fgsm"
    data = name if place == "data set" else "digits"
    text = f'name = "x"\n[data]\nname = "{data}"\n{PLACES[place].format(name=name)}'
    (traps / "spec.toml").write_text(f'{text}[[attacks]]\nname = "{attack}"\neps = [0.1]\n')
    code, _, err = command(words[0], "spec.toml", *words[1:])
    assert (code, "Traceback" in err) == (2, False)
    assert f'(="{name}") ' in err
    assert not (traps / "executed").exists()


@pytest.mark.parametrize("prefix", PREFIXES)
def test_no_builder_takes_a_prefix_for_a_module(traps, prefix):
    here, name = (traps,), f"{prefix}:evil"
    builders = {
        "loss": lambda: build_loss(name, feature_dim=4, num_classes=3, folders=here),
        "attack": lambda: build_attack(name, folders=here),
        "backbone": lambda: build_backbone(
            name, image_shape=(1, 8, 8), feature_dim=4, folders=here
        ),
        "model": lambda: build_given(name, {}, here),
        "score": lambda: score_plugins.check([name], here),
        "object": lambda: load_object(name, here),
        "digest": lambda: source_digest(name, here),
    }
    for place, build in builders.items():
        with pytest.raises(ValueError, match="evil") as refused:
            build()
        if place not in PREFIXES[prefix]:
            assert isinstance(refused.value, PluginError)
    assert not (traps / "executed").exists()
    assert set(PREFIXES) == RESERVED


def test_no_package_is_taken_from_the_folder_of_the_spec(tmp_path):
    packages = ("torchattacks", "torchvision", "torch", "rich", "pydantic", "numpy", "typer")
    for package in packages:
        (tmp_path / f"{package}.py").write_text(TRAP)
    (tmp_path / "spec.toml").write_text(
        'name = "x"\n[data]\nname = "digits"\n[model]\nbackbone = "digits_cnn"\nfeature_dim = 4\n'
        '[[losses]]\nname = "softmax"\n[[attacks]]\nname = "torchattacks:PGD"\neps = [0.1]\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "robustloss", "show", "spec.toml"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "# Cost to expect" in done.stdout
    assert not (tmp_path / "executed").exists()


def test_the_remedy_names_code_of_ones_own(traps):
    spec = changed(detection={"scores": ["pml:evil"]})
    with pytest.raises(SpecError, match=r'"path/to/file.py:evil" or "package') as refused:
        load_spec(spec)
    key = 'detection.scores[0] (="pml:evil") begins with "pml:", which names a loss and no score.'
    assert str(refused.value).startswith(key)
    spec["detection"] = {"scores": ["knn", f"{traps}/pml.py:evil"]}
    assert load_spec(spec).detection.scores[1].endswith("pml.py:evil")
