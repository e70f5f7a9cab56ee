"""Every mistake in a spec is one line: key, value, rule, remedy."""

import datetime
import re
from pathlib import Path

import pytest

from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec

LOSS = {"name": "lgm"}
ATTACK = {"name": "fgsm", "eps": [0.1]}
GOOD = {"name": "good", "losses": [LOSS], "attacks": [ATTACK]}


def attack(**keys):
    return {"attacks": [ATTACK | keys]}


def folder(**keys):
    return {"data": {"name": "image_folder", "folder": "x", **keys}}


def loss(**keys):
    return {"losses": [LOSS | keys]}


def adversarial(text=None, **keys):
    return {"train": {"adversarial": text or keys}}


def two_losses(first, second):
    return {"losses": [LOSS | {"label": first}, LOSS | {"label": second}]}


BAD = [
    # unknown and misplaced keys
    ({"train": {"batchsize": 64}}, "train.batchsize: unknown key; did you mean 'batch_size'?"),
    ({"data": {"Name": "mnist"}}, "data.Name: unknown key; did you mean 'name'?"),
    ({"seed": 1}, "seed: unknown key; did you mean 'seeds'?"),
    ({"epochs": 3}, "epochs: unknown key; did you mean 'train.epochs' or 'tuning.epochs'?"),
    ({"baseline": "GM"}, "baseline: unknown key; did you mean 'report.baseline'?"),
    (
        {"baseline": {"file": "b.npz"}},
        "baseline: a spec has none. Move [baseline] and [[gates]]",
    ),
    ({"xyz": 1}, "xyz: unknown key; the keys here are name, seeds, data, model, train,"),
    (loss(alpha=1), "losses[0].alpha: unknown key; the keys here are .* params = { alpha = ... }."),
    (loss(train={"lrr": 0.1}), "losses[0].train.lrr: unknown key; did you mean 'lr'?"),
    (loss(model={"features": 2}), "losses[0].model.features: unknown key; did you mean"),
    # labels of [report]
    (
        {"report": {"baseline": "lg"}},
        'report.baseline (="lg") is the label of no loss: it must be one of "L-GM"; did you mean',
    ),
    (
        {"report": {"highlight": ["lgm", "gm"]}},
        'report.highlight[1] (="gm") is the label of no loss: it must be one of "L-GM"',
    ),
    (
        {"report": {"highlight": ["lgm", "L-GM"]}},
        'report.highlight[1] (="L-GM") is listed twice. Remove one.',
    ),
    (
        {"report": {"highlight": ["lgm", "lgm"]}},
        'report.highlight[1] (="lgm") is listed twice. Remove one.',
    ),
    ({"report": {"all": 1}}, "report.all (=1) must be true or false. The default is false."),
    ({"report": {"base": "lgm"}}, "report.base: unknown key; did you mean 'baseline'?"),
    # missing and empty
    ({"name": None}, "name (=None) must be text."),
    (loss(name=""), 'losses[0].name (="") must not be empty.'),
    ({"losses": []}, "losses: empty. Add at least one [[losses]] table."),
    ({"attacks": []}, "attacks: empty. Add at least one [[attacks]] table."),
    ({"seeds": []}, "seeds: empty. Write for example seeds = [0]."),
    ({"losses": [{"label": "A"}]}, 'losses[0].name: missing. Write for example name = "lgm".'),
    ({"attacks": [{"name": "fgsm"}]}, "attacks[0].eps: missing. Write for example eps = [0.1, "),
    (attack(eps=[]), "attacks[0].eps: empty. Write for example eps = [0.1, "),
    ({"detection": {"scores": []}}, "detection.scores: empty. Write for example scores = ["),
    # wrong types: nothing is converted
    (
        {"train": {"epochs": "3"}},
        'train.epochs (="3") must be an integer. Write 3, without quotes.',
    ),
    ({"train": {"epochs": 3.0}}, "train.epochs (=3.0) must be an integer. Write 3."),
    ({"train": {"epochs": True}}, "train.epochs (=true) must be an integer. The default is 5."),
    ({"train": {"lr": True}}, "train.lr (=true) must be a number. The default is 0.1."),
    ({"train": {"lr": "0.1"}}, 'train.lr (="0.1") must be a number. Write 0.1, without quotes.'),
    ({"train": {"nesterov": "false"}}, "must be true or false. Write false, without quotes."),
    ({"train": {"nesterov": 1}}, "train.nesterov (=1) must be true or false. The default is true."),
    ({"data": {"name": 5}}, 'data.name (=5) must be text. Write "5", in quotes.'),
    ({"seeds": 3}, "seeds (=3) must be a list. Write seeds = [3]."),
    ({"seeds": [0, "1"]}, 'seeds[1] (="1") must be an integer. Write 1, without quotes.'),
    ({"model": "lenet"}, 'model (="lenet") must be a table. Write [model] and its keys below it.'),
    (loss(params=[1]), "losses[0].params (=[1]) must be a table. Write params = { key = value }."),
    ({"losses": LOSS}, 'losses (={ name = "lgm" }) must be an array of tables. Write [[losses]]'),
    ({"losses": ["lgm"]}, 'losses[0] (="lgm") must be a table. Write [[losses]] and, below it,'),
    ({"train": [{"lr": 1}]}, "must be one table. Write [train], with single brackets."),
    # ranges and choices
    ({"train": {"lr": -1}}, "train.lr (=-1) must be > 0. The default is 0.1."),
    ({"train": {"lr": float("nan")}}, "train.lr (=nan) must be a finite number."),
    ({"train": {"epochs": 0}}, "train.epochs (=0) must be >= 1. The default is 5."),
    ({"train": {"step_every": 0}}, "train.step_every (=0) must be an integer >= 1, or a rising"),
    ({"train": {"step_every": []}}, "train.step_every (=[]) must be an integer >= 1, or a rising"),
    ({"train": {"step_every": [9, 5]}}, "train.step_every (=[9, 5]) must be an integer >= 1, or"),
    ({"train": {"step_every": 3.0}}, "train.step_every (=3.0) must be an integer >= 1, or a"),
    ({"train": {"momentum": 1}}, "train.momentum (=1) must be < 1. The default is 0.9."),
    ({"train": {"max_grad_norm": 0}}, "train.max_grad_norm (=0) must be a number > 0, "),
    ({"train": {"max_grad_norm": True}}, '(=true) must be a number > 0, "if_short", or false'),
    ({"train": {"max_grad_norm": "1"}}, 'train.max_grad_norm (="1") must be a number > 0, '),
    ({"train": {"warmup": 1.0}}, "train.warmup (=1.0) must be <= 0.9."),
    ({"train": {"optimizer": "Adam"}}, 'must be one of "sgd", "adam"; did you mean \'adam\'?'),
    ({"train": {"schedule": "exp"}}, 'must be one of "constant", "step", "cosine", "one_cycle".'),
    ({"train": {"precision": "fp16"}}, 'train.precision (="fp16") must be one of "auto",'),
    # adversarial training
    (adversarial("pgd"), 'train.adversarial (="pgd") must be a table, such as { attack = "pgd",'),
    ({"train": {"adversarial": True}}, "train.adversarial (=true) must be a table, such as {"),
    (adversarial(), 'train.adversarial.eps: missing. Write for example eps = "8/255".'),
    (adversarial(eps=0), "eps (=0.0) must be > 0. For clean training write adversarial = false."),
    (adversarial(eps=8), 'eps (=8.0) must lie in (0, 1]: pixel units, not 0–255. Write "8/255".'),
    (adversarial(eps=-0.1), "train.adversarial.eps (=-0.1) must be >= 0: it is a budget"),
    (adversarial(eps=0.1, attack="pdg"), "did you mean 'pgd'?"),
    (adversarial(eps=0.1, steps=0), "train.adversarial.steps (=0) must be >= 1."),
    (adversarial(eps=0.1, attack="fgsm", steps=2), "steps (=2) must be 1: fgsm is one step."),
    (adversarial(eps=0.1, beta=6.0), 'beta (=6.0) is for attack = "trades" only. Remove it.'),
    (adversarial(eps=0.1, beta=0), "train.adversarial.beta (=0) must be > 0."),
    (adversarial(eps=0.1, attack="trades", objective="ce"), "trades climbs its divergence. Remove"),
    (adversarial(eps=0.1, start=1.0), "train.adversarial.start (=1.0) must be < 1. The default is"),
    (adversarial(eps=0.1, start=-0.1), "train.adversarial.start (=-0.1) must be >= 0."),
    (adversarial(eps=0.1, start=0.6, ramp=0.5), "ramp (=0.5) must be <= 1 - start (=0.4): eps"),
    (adversarial(eps=0.1, norm="l1"), 'train.adversarial.norm (="l1") must be one of "linf", "l2"'),
    (adversarial(eps=0.1, select="best"), "did you mean 'robust'?"),
    (adversarial(eps=0.1, select_images=0), "train.adversarial.select_images (=0) must be >= 1."),
    (adversarial(eps=0.1, step=3), "train.adversarial.step: unknown key; did you mean 'steps'?"),
    ({"train": {"beta": 6.0}}, "train.beta: unknown key; did you mean 'train.adversarial.beta'?"),
    (
        loss(train={"adversarial": {"eps": 8.0}}),
        "losses[0].train.adversarial.eps (=8.0) must lie in (0, 1]: pixel units",
    ),
    (loss(train={"lr": 0}), "losses[0].train.lr (=0) must be > 0. The default is 0.1."),
    (loss(model={"feature_dim": 0}), "losses[0].model.feature_dim (=0) must be >= 1."),
    (
        {"checks": {"images": 0, "unit_test": True}},
        "checks.unit_test (=true) needs checks.images above 0, the images that it is made of.",
    ),
    ({"data": {"train_size": 0}}, "data.train_size (=0) must be >= 1."),
    (
        {"data": {"name": "image_folder"}},
        "data.folder (=None) must be given: image_folder reads the folder it names.",
    ),
    (
        {"data": {"folder": "x"}},
        'data.folder (="x") is for name = "image_folder" or "hugging_face" only, not',
    ),
    ({"data": {"ten_crop": True}}, 'data.ten_crop (=true) is for name = "image_folder" only'),
    (
        {"data": {"in_memory": False}},
        'data.in_memory (=false) is for name = "image_folder" or "hugging_face" only',
    ),
    (folder(resize=9), "data.resize (=9) needs image_size, the side that is cut out of"),
    (
        folder(resize=9, image_size=10),
        "data.resize (=9) must be at least image_size (=10), which is cut out of it.",
    ),
    (folder(ten_crop=True, image_size=8), "data.ten_crop (=true) needs resize larger than image"),
    (folder(channels=2), "data.channels (=2) must be 1 or 3"),
    (folder(in_memory="yes"), 'data.in_memory (="yes") must be true, false or "auto".'),
    (folder(image_size=0), "data.image_size (=0) must be >= 1."),
    (folder(label=""), 'data.label (="") must be one line of 1 to 80 characters.'),
    (
        {"data": {"class_fractions": []}},
        "data.class_fractions: empty. Write for example class_fractions = [0.1, 1.0].",
    ),
    ({"data": {"class_fractions": [1, 0]}}, "data.class_fractions[1] (=0) must be > 0."),
    ({"data": {"class_fractions": [1.5]}}, "data.class_fractions[0] (=1.5) must be <= 1."),
    ({"data": {"class_fractions": 0.5}}, "data.class_fractions (=0.5) must be a list."),
    ({"seeds": [-1]}, "seeds[0] (=-1) must be >= 0."),
    ({"seeds": [2**32]}, "seeds[0] (=4294967296) must be <= 4294967295."),
    ({"seeds": [1, 1]}, "seeds[1] (=1) is listed twice. Remove one."),
    ({"detection": {"scores": ["max_log_posteriors"]}}, "did you mean 'max_log_posterior'?"),
    ({"detection": {"scores": ["max_log_posterior"] * 2}}, "scores[1] .* is listed twice."),
    (loss(params={"a": float("inf")}), "losses[0].params.a (=inf) must be a finite number."),
    (loss(params={"a": [1, None]}), "losses[0].params.a[1] (=None) must be text, a number,"),
    (loss(params={"a": datetime.date(2020, 1, 1)}), "losses[0].params.a (=datetime.date(2020,"),
    # eps
    (
        attack(eps=[0, 0.1, 8]),
        'attacks[0].eps[2] (=8) must lie in [0, 1]: pixel units, not 0–255; write "8/255".',
    ),
    (attack(name="pgd", eps=[8]), "attacks[0].eps[0] (=8) must lie in [0, 1]: pixel units"),
    (attack(name="torchattacks:PGD", eps=[8]), "attacks[0].eps[0] (=8) must lie in [0, 1]"),
    (attack(name="autoattack", eps=[8]), "attacks[0].eps[0] (=8) must lie in [0, 1]"),
    (
        attack(name="pgd", params={"norm": "linf"}, eps=[8]),
        "attacks[0].eps[0] (=8) must lie in [0, 1]: pixel units",
    ),
    (attack(eps=[300]), "attacks[0].eps[0] (=300) must lie in [0, 1]: pixel units, not 0–255."),
    (attack(eps=["8/2"]), "attacks[0].eps[0] (=4) must lie in [0, 1]: pixel units"),
    (attack(eps=[-0.1]), "attacks[0].eps[0] (=-0.1) must be >= 0: it is a budget"),
    (attack(eps=["8 of 255"]), 'must be a number or a fraction as text, such as 0.1 or "8/255".'),
    (attack(eps=["8/0"]), 'attacks[0].eps[0] (="8/0") must be a number or a fraction as text'),
    (attack(eps=["1e999999999"]), 'eps[0] (="1e999999999") must be a number or a fraction'),
    (attack(eps=[True]), "attacks[0].eps[0] (=true) must be a number."),
    (attack(eps=[0.1, float("nan")]), "attacks[0].eps[1] (=nan) must be a finite number."),
    (attack(eps=[8 / 255, "8/255"]), "is listed twice. Remove one."),
    (attack(eps=0.1), "attacks[0].eps (=0.1) must be a list. Write eps = [0.1]."),
    (attack(batch_size=0), "attacks[0].batch_size (=0) must be >= 1. The default is 500."),
    # names and labels
    ({"name": "my run"}, 'it names the run folder. Write name = "my-run".'),
    ({"name": "../out"}, 'it names the run folder. Write name = "out".'),
    ({"name": ""}, 'name (="") must be at most 80 letters a-z'),
    (
        two_losses("L-GM", "l gm"),
        'losses[1].label (="l gm") names the same files as losses[0].label (="L-GM"): \'l-gm\'. '
        "Give it another label.",
    ),
    ({"losses": [LOSS, LOSS]}, 'losses[1].label (="L-GM") names the same files as losses[0].label'),
    (
        {"attacks": [ATTACK, ATTACK]},
        'attacks[1].label (="FGSM") names the same files as attacks[0]',
    ),
    (attack(label="None"), 'attacks[0].label (="None") is the clean pass\'s own.'),
    (loss(label="αβ"), 'losses[0].label (="αβ") must be one line of 1 to 80 characters, with a'),
    (loss(label="a\nb"), r'losses[0].label (="a\nb") must be one line'),
    (loss(label="x" * 81), "must be one line of 1 to 80 characters"),
]


def pattern(expected):
    """A literal message, in which " .* " stands for anything."""
    return ".*".join(re.escape(part) for part in expected.split(".*"))


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_bad_spec_is_told_in_one_line(change, message):
    with pytest.raises(SpecError, match=pattern(message)) as error:
        load_spec(GOOD | change)
    assert "\n" not in str(error.value)


def test_the_spec_the_mistakes_are_made_in_is_good():
    assert load_spec(GOOD).name == "good"


def test_missing_tables():
    with pytest.raises(SpecError) as error:
        load_spec({})
    assert str(error.value).splitlines() == [
        'name: missing. Write for example name = "my-run".',
        "losses: missing. Add at least one [[losses]] table.",
        "attacks: missing. Add at least one [[attacks]] table.",
    ]


def test_every_problem_of_every_table_is_told_at_once():
    bad = {
        "train": {"lr": 0},
        "losses": [{"name": "lgm", "train": {"epochs": 0}}, {"name": "gm", "oops": 1}],
        "attacks": [{"name": "fgsm", "eps": [2, -1, 3]}],
    }
    with pytest.raises(SpecError) as error:
        load_spec(GOOD | bad)
    keys = [re.split(r"[: ]", line)[0] for line in str(error.value).splitlines()]
    assert keys == [
        "train.lr",
        "losses[0].train.epochs",
        "losses[1].oops",
        "attacks[0].eps[1]",
    ]


def test_all_budgets_beyond_one_are_told():
    with pytest.raises(SpecError) as error:
        load_spec(GOOD | attack(eps=[2, 0.1, 3]))
    assert [line[:18] for line in str(error.value).splitlines()] == [
        "attacks[0].eps[0] ",
        "attacks[0].eps[2] ",
    ]


def test_a_flood_of_problems_is_cut():
    with pytest.raises(SpecError) as error:
        load_spec(GOOD | {f"zz{i}": 1 for i in range(30)})
    lines = str(error.value).splitlines()
    assert len(lines) == 13
    assert lines[-1] == "... and 18 more problems."


def test_a_long_value_is_shortened():
    with pytest.raises(SpecError, match=re.escape('(="' + "x" * 56 + "...) must be")) as error:
        load_spec(GOOD | {"train": {"lr": "x" * 5000}})
    assert len(str(error.value)) < 200


FILES = [
    (b"name = \n", r"bad.toml: not valid TOML at line 1, column 8: Invalid value."),
    (b'name = "a"\n[train\n', r"bad.toml: not valid TOML at line 2, column 7:"),
    (b'name = "a"\nname = "b"\n', r"bad.toml: not valid TOML at line 2, column 11: Cannot overwr"),
    (b'name = "a', r"bad.toml: not valid TOML at end of document"),
    (b'name = "\xff"\n', r"bad.toml: is not UTF-8 text (byte 8). Name a TOML file"),
    (b"[[gates]]\nmetric = 'error'\nmax = 1\n", "holds gates and no spec. A run is judged by"),
]


@pytest.mark.parametrize(("content", "message"), FILES)
def test_unreadable_file(tmp_path, content, message):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=re.escape(message)):
        load_spec(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quickstrat", "quickstrat: no such file, nor a shipped spec (.*quickstart); did you mean"),
        ("MNST", "MNST: no such file, nor .*; did you mean 'mnist'?"),
        ("specs/mnist.toml", "specs/mnist.toml: no such file, .* did you mean 'mnist'?"),
        (
            "zzzz.toml",
            "zzzz.toml: no such file, nor a shipped spec (cifar10-losses, cifar10-losses-cpu,",
        ),
    ],
)
def test_no_such_spec(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=pattern(message)):
        load_spec(name)


def test_a_folder_is_no_spec_but_may_hold_one(tmp_path):
    with pytest.raises(SpecError, match=r"is a folder. Name a TOML file."):
        load_spec(tmp_path)
    (tmp_path / "spec.toml").write_text("")
    with pytest.raises(SpecError, match=r"is a folder. Did you mean .*spec.toml\?"):
        load_spec(Path(tmp_path))


@pytest.mark.parametrize("label", ["none", "Worst case", "best of adaptive"])
def test_labels_that_tables_use_themselves_are_refused(label):
    attack = {"name": "fgsm", "label": label, "eps": [0.1]}
    with pytest.raises(SpecError, match=r"attacks\[0\].label .* Give it another label"):
        load_spec({"name": "a", "losses": [{"name": "softmax"}], "attacks": [attack]})
