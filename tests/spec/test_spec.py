"""Good specs: what they resolve to, that they survive being written, and what is shipped."""

import math
import re
import subprocess
import sys
import tomllib

import pytest
from pydantic import ValidationError

from robustloss.spec.detection import SCORE_NAMES
from robustloss.spec.load import load_spec, shipped_specs
from robustloss.spec.spec import CellSpec
from robustloss.spec.text import to_toml
from tests.small_run import changed

MINIMAL = {
    "name": "minimal",
    "losses": [{"name": "softmax"}],
    "attacks": [{"name": "fgsm", "eps": [0.1]}],
}


def with_eps(*eps):
    return load_spec(MINIMAL | {"attacks": [{"name": "fgsm", "eps": list(eps)}]}).attacks[0].eps


def test_defaults_of_the_smallest_spec():
    spec = load_spec(MINIMAL)
    assert spec.seeds == (0,)
    assert spec.data.name == "digits"
    assert spec.losses[0].label == "Softmax"
    assert spec.attacks[0].label == "FGSM"
    assert spec.detection.scores == SCORE_NAMES


def test_digits_get_a_network_that_fits_them_unless_one_is_named():
    small = {"name": "x", "losses": [{"name": "lgm"}], "attacks": [{"name": "fgsm", "eps": [0.1]}]}
    for more, backbone in (
        ({}, "digits_cnn"),
        ({"model": {"feature_dim": 2}}, "digits_cnn"),
        ({"model": {"backbone": "lenet_plus"}}, "lenet_plus"),
        ({"data": {"name": "mnist"}}, "lenet_plus"),
    ):
        spec = load_spec(small | more)
        assert spec.model.backbone == spec.cells()[0].model.backbone == backbone
        assert load_spec(spec.as_written()).plain() == spec.plain()


def test_a_fraction_is_the_nearest_float():
    # Python divides two integers with correct rounding: an oracle that knows no Fraction.
    for denominator in (3, 7, 10, 49, 128, 255, 999):
        for numerator in range(1, denominator):
            assert with_eps(f"{numerator}/{denominator}") == (numerator / denominator,)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        (" 8 / 255 ", 8 / 255),
        ("0", 0.0),
        ("1", 1.0),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("0.5/255", 0.5 / 255),
        (1, 1.0),
        (-0.0, 0.0),
    ],
)
def test_ways_to_write_a_budget(text, value):
    (eps,) = with_eps(text)
    assert isinstance(eps, float)
    assert eps == value
    assert math.copysign(1, eps) == 1


def test_budgets_are_sorted():
    assert with_eps(0.3, "8/255", 0) == (0.0, 8 / 255, 0.3)


def test_an_l2_attack_may_have_budgets_beyond_one():
    attack = {"name": "my.attacks:l2", "label": "mine", "eps": [0.5, 3]}
    assert load_spec(MINIMAL | {"attacks": [attack]}).attacks[0].eps == (0.5, 3.0)


def test_cells_are_losses_in_order_then_seeds():
    losses = [{"name": "lgm", "label": "L-GM (alpha 1)"}, {"name": "center"}]
    cells = load_spec(MINIMAL | {"seeds": [3, 1], "losses": losses}).cells()
    assert [(cell.label, cell.seed) for cell in cells] == [
        ("L-GM (alpha 1)", 3),
        ("L-GM (alpha 1)", 1),
        ("Center", 3),
        ("Center", 1),
    ]
    assert cells[0].folder == "cells/l-gm-alpha-1/seed-3"
    assert isinstance(cells[0], CellSpec)


def test_other_seeds_may_be_asked_for():
    cells = load_spec(MINIMAL | {"seeds": [0]}).cells(seeds=[5, 6])
    assert [cell.seed for cell in cells] == [5, 6]


def test_parameters_of_a_loss_keep_their_types():
    losses = [
        {"name": "weighted_softmax", "params": {"class_weights": [1.0, 2, 3.5], "bias": False}},
        {"name": "l_softmax", "params": {"margin": 3, "anneal_min": 0.5}},
        {"name": "arcface", "params": {"margin_rad": 0.2}},
    ]
    spec = load_spec(MINIMAL | {"losses": losses})
    for loss, given in zip(spec.losses, losses, strict=True):
        assert loss.params == given["params"]
        assert [type(v) for v in loss.params.values()] == [
            type(v) for v in given["params"].values()
        ]


def test_a_loss_overrides_single_keys_of_train_and_model():
    loss = {"name": "lgm", "train": {"lr": 0.01}, "model": {"feature_dim": 2}}
    tables = {"train": {"epochs": 7, "lr": 0.2}, "model": {"backbone": "small_cnn"}}
    spec = load_spec(MINIMAL | tables | {"losses": [loss, {"name": "softmax"}]})
    changed, plain = spec.cells()
    assert (changed.train.lr, changed.train.epochs) == (0.01, 7)
    assert (changed.model.feature_dim, changed.model.backbone) == (2, "small_cnn")
    assert (plain.train.lr, plain.model.feature_dim) == (0.2, 100)


def test_the_default_rate_follows_the_optimizer():
    losses = [{"name": "gm", "train": {"optimizer": "adam"}}, {"name": "softmax"}]
    losses.append({"name": "lgm", "train": {"optimizer": "adam", "lr": 0.1}})
    rates = [cell.train.lr for cell in load_spec(MINIMAL | {"losses": losses}).cells()]
    assert rates == [0.002, 0.1, 0.1]


@pytest.mark.parametrize("value", [False, "if_short", 5.0])
def test_the_longest_gradient_is_written_and_read_back(value):
    spec = load_spec(MINIMAL | {"train": {"max_grad_norm": value}})
    assert load_spec(tomllib.loads(to_toml(spec.plain()))).train.max_grad_norm == value


def test_null_of_an_older_run_means_that_no_gradient_was_shortened():
    assert load_spec(MINIMAL | {"train": {"max_grad_norm": None}}).train.max_grad_norm is False


@pytest.mark.parametrize(
    ("base", "override", "warmup"),
    [
        ({"schedule": "one_cycle"}, {}, 0.2),
        ({"schedule": "constant"}, {}, 0.0),
        ({"schedule": "one_cycle", "warmup": 0.0}, {}, 0.0),
        ({"schedule": "constant"}, {"schedule": "one_cycle"}, 0.2),
        ({"schedule": "one_cycle"}, {"schedule": "cosine"}, 0.0),
        ({"schedule": "one_cycle", "warmup": 0.3}, {"schedule": "cosine"}, 0.3),
    ],
)
def test_the_default_warmup_follows_the_schedule(base, override, warmup):
    spec = load_spec(MINIMAL | {"train": base, "losses": [{"name": "gm", "train": override}]})
    assert spec.cells()[0].train.warmup == warmup


def test_a_spec_cannot_be_changed():
    source = {**MINIMAL, "losses": [{"name": "lgm", "params": {"alpha": 1.0}}]}
    spec = load_spec(source)
    with pytest.raises(ValidationError, match="frozen"):
        spec.train.lr = 1.0
    source["losses"][0]["params"]["alpha"] = 9.0
    assert spec.losses[0].params == {"alpha": 1.0}


def test_the_text_of_a_file_is_kept_verbatim(tmp_path):
    text = "# a comment\n" + to_toml(MINIMAL).replace("\n", " # why\n", 1)
    (tmp_path / "mine.toml").write_text(text)
    spec = load_spec(tmp_path / "mine.toml")
    assert spec.text == text
    assert spec.folder == tmp_path
    assert spec.plain() == load_spec(MINIMAL).plain()


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf" + to_toml(MINIMAL).encode())
    assert load_spec(tmp_path / "mine.toml").plain() == load_spec(MINIMAL).plain()


def test_a_file_beats_no_shipped_name_but_a_path_does(tmp_path, monkeypatch):
    (tmp_path / "mnist").write_text(to_toml(MINIMAL))
    monkeypatch.chdir(tmp_path)
    assert load_spec("mnist").name == "mnist"
    assert load_spec("./mnist").name == "minimal"


PAPER = ["Softmax", "Center", "GM", "L-GM"]
SEVEN = ["Softmax", "Center", "CosFace", "ArcFace", "Triplet", "GM", "L-GM"]
CONTROLS = ["Softmax", "Softmax, nearest mean", "Center", "GM", "L-GM", "L-GM, spectral"]
DEFENDED = ["Softmax, clean", "Softmax", "Center", "L-GM"]
ALPHAS = ["L-GM (alpha 0.1)", "L-GM (alpha 0.2)", "L-GM (alpha 0.3)"]
ALL = [
    *("Softmax", "Weighted softmax", "Center", "L-Softmax (m 2)", "L-Softmax (m 3)"),
    *("L-Softmax (m 4)", "A-Softmax (m 4)", "Modified softmax", "F-norm SphereFace (m 4)"),
    *("L2-softmax", "NormFace", "CosFace", "ArcFace", "Contrastive", "Triplet (semi-hard)"),
    *("Triplet (batch-hard)", "MMC", "GM", "L-GM", "Label smoothing", "Focal", "LogitNorm"),
    "One-vs-rest",
]
TWENTY = [
    *("Softmax", "Weighted softmax", "Center", "L-Softmax", "A-Softmax", "Modified softmax"),
    *("F-norm SphereFace", "L2-softmax", "NormFace", "CosFace", "ArcFace", "Contrastive"),
    *("Triplet", "MMC", "GM", "L-GM", "Label smoothing", "Focal", "LogitNorm", "One-vs-rest"),
]
SHIPPED = {
    "cifar10-losses": SEVEN,
    "cifar10-losses-cpu": SEVEN,
    "cifar100-paper": ["Softmax", "Center", "L-Softmax (m 4)", *ALPHAS],
    "cifar100-paper-augmented": ["Softmax", "Center", "L-Softmax (m 4)", *ALPHAS],
    "fashion-mnist-all": TWENTY,
    "imagenet-paper": ["Softmax", "L-GM (alpha 0.01)"],
    "mnist": PAPER,
    "mnist-2d": PAPER,
    "mnist-adv": DEFENDED,
    "mnist-adversarial": ["Softmax", "Center", "L-GM"],
    "mnist-all": TWENTY,
    "mnist-controls": CONTROLS,
    "mnist-losses": ALL,
    "mnist-losses-2d": ALL,
    "mnist-paper": PAPER,
    "mnist-scores": PAPER,
    "mnist-strong": PAPER,
    "mnist-strong-full": PAPER,
    "mnist-tuned": PAPER,
    "quickstart": PAPER,
}
IMAGES = {"digits": (1, 8, 8), "cifar100": (3, 32, 32), "image_folder": (3, 32, 32)}


def test_what_is_shipped():
    assert list(shipped_specs()) == list(SHIPPED)


@pytest.mark.parametrize(
    ("data", "label"),
    [
        ({"name": "fashion_mnist"}, "Fashion-MNIST"),
        ({"name": "digits"}, "digits"),
        ({"name": "arrays", "file": "my/mnist.npz"}, "mnist"),
        ({"name": "torchvision:SVHN"}, "SVHN"),
        ({"name": "mnist", "label": "small MNIST"}, "small MNIST"),
    ],
    ids=str,
)
def test_reports_call_data_by_their_proper_name(data, label):
    attacks = [{"name": "fgsm", "eps": [0.1]}]
    spec = load_spec(
        {"name": "x", "data": data, "losses": [{"name": "softmax"}], "attacks": attacks}
    )
    assert spec.data.label == label


def test_all_losses_stand_in_the_comparison_of_all():
    from robustloss.losses import LOSSES

    for name in ("fashion-mnist-all", "mnist-all", "mnist-losses", "mnist-losses-2d"):
        assert {loss.name for loss in load_spec(name).losses} == set(LOSSES)


@pytest.mark.parametrize("name", SHIPPED, ids="shipped-{}".format)
def test_a_shipped_spec_says_what_it_is_and_builds(name):
    import torch

    from robustloss.attacks import build_attack
    from robustloss.losses import build_loss
    from robustloss.models.backbones import build_backbone

    spec = load_spec(name)
    assert spec.name == name
    comment = spec.text[: spec.text.index("name =")]
    assert re.match(r"# [A-Z].*\.\n", comment)
    for part in (f"# Command:  robustloss run {name}", "# Cost:", "# Expect:"):
        assert part in comment
    assert [loss.label for loss in spec.losses] == SHIPPED[name]
    shape = IMAGES.get(spec.data.name, (1, 28, 28))
    for cell in spec.cells(seeds=[0]):
        dim = cell.model.feature_dim
        build_loss(cell.loss.name, feature_dim=dim, num_classes=10, **cell.loss.params)
        with torch.device("meta"):  # ResNet-101 takes a second to fill
            build_backbone(
                cell.model.backbone, image_shape=shape, feature_dim=dim, **cell.model.params
            )
    for attack in spec.attacks:
        norm = build_attack(attack.name, **attack.params).norm
        assert (max(attack.eps) <= 1) == (norm == "linf")


def test_the_released_schedule():
    # Learning rate 0.03 x 0.7 every 3,000 of 20,000 steps of 64 images, five seeds.
    spec = load_spec("mnist-paper")
    train = spec.train
    assert (train.lr, train.step_factor, train.step_every, train.batch_size) == (
        0.03,
        0.7,
        3000,
        64,
    )
    assert (train.momentum, train.nesterov, train.weight_decay) == (0.9, False, 1e-3)
    assert 19_500 < train.epochs * (55_000 // 64) <= 20_000
    assert len(spec.seeds) == 5


@pytest.mark.parametrize("name", ["cifar100-paper", "cifar100-paper-augmented"])
def test_the_released_schedule_on_cifar100(name):
    # 120,000 steps of 128 images, rate 0.1 times 0.1 after 60,000 and 90,000; alpha full by 10,000.
    spec = load_spec(name)
    train = spec.train
    assert (train.lr, train.step_factor, train.step_every) == (0.1, 0.1, (60_000, 90_000))
    assert (train.momentum, train.nesterov, train.weight_decay) == (0.9, True, 5e-4)
    assert train.augment == ("crop_flip" if "augmented" in name else "none")
    steps = train.epochs * (45_000 // train.batch_size)
    assert 120_000 <= steps < 120_000 + 45_000 // train.batch_size
    margins = {loss.params["alpha"]: loss.params for loss in spec.losses if loss.name == "lgm"}
    full = {alpha: params.get("schedule_until", 0) * steps for alpha, params in margins.items()}
    assert full == pytest.approx({0.1: 0, 0.2: 5_000, 0.3: 10_000}, rel=2e-3)
    assert {params["center_lr_ratio"] for params in margins.values()} == {2.0}


def test_specs_are_read_without_torch():
    code = (
        "import sys; from robustloss import load_spec\n"
        "from robustloss.spec.load import shipped_specs\n"
        "for name in shipped_specs(): load_spec(name).cells()\n"
        "print([m for m in ('torch', 'numpy', 'matplotlib', 'rich', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["fgsm", "pgd", "mifgsm", "autoattack", "torchattacks:APGD"])
def test_an_l2_budget_may_exceed_one(name):
    attack = {"name": name, "params": {"norm": "l2"}, "eps": [0.5, 1.5]}
    assert load_spec({**MINIMAL, "attacks": [attack]}).attacks[0].eps == (0.5, 1.5)


@pytest.mark.timeout(20)
def test_a_list_as_long_as_a_spec_may_be_takes_no_minute():
    assert len(load_spec(changed(seeds=list(range(150_000)))).seeds) == 150_000
