"""Margins and scales that cannot be met: the bounds, and who is told of them, once."""

import json
import math
import re
import warnings

import pytest
import torch

from robustloss.cli import commands
from robustloss.data.load import load_dataset
from robustloss.losses import build_loss
from robustloss.losses.contract.check import check_loss
from robustloss.losses.feasibility import (
    LossWarning,
    collecting_warnings,
    largest_angle_rad,
    smallest_radius,
    smallest_scale,
)
from robustloss.models.build import build_classifier
from robustloss.runs.preflight import check_names
from robustloss.spec.data import DataSpec
from robustloss.spec.load import load_spec
from tests.small_run import changed


@pytest.mark.parametrize(
    ("dim", "classes", "angle_deg"),
    [
        (2, 3, 120.0),
        (2, 10, 36.0),
        (3, 4, math.degrees(math.acos(-1 / 3))),
        (9, 10, math.degrees(math.acos(-1 / 9))),
        (100, 10, math.degrees(math.acos(-1 / 9))),
        (3, 6, 90.0),
        (5, 8, 90.0),
        (1, 2, 180.0),
        (1, 3, 0.0),
    ],
)
def test_bound_where_the_best_arrangement_is_known(dim, classes, angle_deg):
    assert math.degrees(largest_angle_rad(dim, classes)) == pytest.approx(angle_deg)


@pytest.mark.parametrize(
    ("classes", "angle_deg"), [(7, 77.87), (8, 74.86), (9, 70.53), (12, 63.43), (24, 43.69)]
)
def test_bound_is_above_the_best_arrangements_of_points_on_the_sphere(classes, angle_deg):
    """Tammes' problem, solved for these numbers."""
    bound = math.degrees(largest_angle_rad(3, classes))
    assert angle_deg <= bound <= angle_deg + 13.0


@pytest.mark.parametrize(("dim", "classes"), [(2, 10), (3, 10), (4, 12), (5, 20)])
def test_no_arrangement_found_by_descent_beats_the_bound(dim, classes):
    torch.manual_seed(0)
    points = torch.randn(classes, dim, requires_grad=True)
    optimizer = torch.optim.Adam([points], lr=0.05)
    best = 0.0
    for step in range(400):
        cosines = torch.nn.functional.normalize(points)
        cosines = cosines @ cosines.T - 2.0 * torch.eye(classes)
        best = max(best, math.acos(float(cosines.detach().max())))
        optimizer.zero_grad()
        torch.logsumexp(cosines.flatten() * (5.0 + step), 0).backward()
        optimizer.step()
    bound = largest_angle_rad(dim, classes)
    assert best <= bound + 1e-5
    assert best >= (0.97 if dim == 2 else 0.75) * bound


def polygon(classes):
    angles_rad = 2 * math.pi / classes * torch.arange(classes, dtype=torch.float64)
    return torch.stack([angles_rad.cos(), angles_rad.sin()], dim=1)


def simplex(classes):
    return torch.eye(classes, dtype=torch.float64) - 1.0 / classes


def worst_gap(name, weight, **params):
    """Training margin left for features on their class weights, in the best arrangement."""
    classes, dim = weight.shape
    with collecting_warnings():
        head = build_loss(name, feature_dim=dim, num_classes=classes, **params).double()
    head.weight.data = weight
    labels = torch.arange(classes)
    logits = head.training_logits(weight, labels, progress=1.0)
    logits = logits.detach()
    true = logits.diagonal().clone()
    return float((true - logits.fill_diagonal_(-math.inf).amax(1)).min())


@pytest.mark.parametrize(
    ("name", "key", "weight", "bound"),
    [
        ("cosface", "margin", polygon(10), 1 - math.cos(math.pi / 5)),
        ("arcface", "margin_rad", polygon(10), math.pi / 5),
        ("cosface", "margin", simplex(10), 10 / 9),
        ("arcface", "margin_rad", simplex(10), math.acos(-1 / 9)),
    ],
    ids=["cosface 2-D", "arcface 2-D", "cosface simplex", "arcface simplex"],
)
def test_a_margin_can_be_met_up_to_the_bound(name, key, weight, bound):
    assert worst_gap(name, weight, **{key: bound - 1e-3}) > 0
    assert worst_gap(name, weight, **{key: bound + 1e-3}) < 0
    classes, dim = weight.shape
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_loss(name, feature_dim=dim, num_classes=classes, **{key: bound - 1e-3})
    with pytest.warns(LossWarning, match=rf"it must be below {bound:.3f}\."):
        build_loss(name, feature_dim=dim, num_classes=classes, **{key: bound + 1e-3})


def test_messages_of_the_published_margins_in_the_plane():
    with pytest.warns(
        LossWarning,
        match=r"^cosface: margin \(=0.35\) cannot be met by 10 classes in 2-D features: it must "
        r"be below 0\.191\. Lower margin or raise model\.feature_dim\.$",
    ):
        build_loss("cosface", feature_dim=2, num_classes=10)
    with pytest.warns(LossWarning, match=r"arcface: margin_rad \(=0.7\) .* below 0\.628\."):
        build_loss("arcface", feature_dim=2, num_classes=10, margin_rad=0.7)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_smallest_scale_gives_the_posterior_it_is_for(classes):
    for posterior in (0.9, 0.9999):
        with collecting_warnings():
            head = build_loss(
                "normface",
                feature_dim=classes,
                num_classes=classes,
                scale=smallest_scale(classes, posterior),
            ).double()
        head.weight.data = simplex(classes)
        reached = head.logits(simplex(classes)).softmax(1).diagonal()
        assert float(reached.min().detach()) == pytest.approx(posterior, rel=1e-6)


def test_published_scales_and_radii():
    assert smallest_scale(10, 0.9999) == pytest.approx(10.27, abs=0.01)
    assert smallest_radius(10) == pytest.approx(4.28, abs=0.01)
    assert smallest_radius(100) == pytest.approx(6.78, abs=0.01)
    assert smallest_radius(2) == -math.inf
    for classes in (3, 10, 1000):
        power = math.exp(smallest_radius(classes))
        assert power / (power + classes - 2) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("normface", {"scale": 1.0}, r"normface: scale \(=1\) is too small for 10 classes: below"),
        (
            "cosface",
            {"scale": 3.0},
            r"below 3\.955 even a perfect image has a posterior under 0\.9",
        ),
        ("arcface", {"scale": 1.0}, r"arcface: scale \(=1\) .* Raise scale\."),
        ("fnorm_sphereface", {"scale": 1.0}, r"fnorm_sphereface: scale \(=1\) is too small"),
        ("l2_softmax", {"radius": 4.0}, r"l2_softmax: radius \(=4\) .* below 4\.277 .* Raise rad"),
    ],
)
def test_small_scales_are_told(name, params, message):
    with pytest.warns(LossWarning, match=message):
        build_loss(name, feature_dim=100, num_classes=10, **params)


def test_collected_gives_each_text_once_and_lets_others_through():
    def build() -> list[str]:
        with collecting_warnings() as texts:
            for _ in range(2):
                build_loss("cosface", feature_dim=2, num_classes=10)
            warnings.warn("another", UserWarning, stacklevel=1)
        return texts

    with pytest.warns(UserWarning, match="^another$"):
        (text,) = build()
    assert text.startswith("cosface: margin (=0.35)")


SPEC = changed(
    model={"backbone": "digits_cnn", "feature_dim": 2},
    train={"epochs": 1, "batch_size": 100, "precision": "float32"},
    losses=[
        {"name": "softmax"},
        {"name": "cosface", "label": "CosFace"},
        {"name": "cosface", "label": "CosFace .1", "params": {"margin": 0.1}},
        {"name": "arcface", "label": "ArcFace", "params": {"margin_rad": 0.7, "scale": 1.0}},
    ],
    attacks=[{"name": "fgsm", "eps": [0.1]}],
)
TOLD = [
    r"losses\[1\]: cosface: margin \(=0.35\) cannot be met by 10 classes in 2-D features",
    r"losses\[3\]: arcface: scale \(=1\) is too small for 10 classes",
    r"losses\[3\]: arcface: margin_rad \(=0.7\) cannot be met",
]


def test_check_names_tells_each_once():
    spec = load_spec(SPEC)
    with pytest.warns(LossWarning) as caught:
        check_names(spec, spec.cells(), load_dataset(DataSpec(name="digits")))
    assert len(caught) == len(TOLD)
    for warning, pattern in zip(caught, TOLD, strict=True):
        assert re.match(pattern, str(warning.message))


def test_a_classifier_of_a_checked_spec_is_built_in_silence():
    build_classifier(
        {
            "loss": "cosface",
            "loss_params": {},
            "backbone": "digits_cnn",
            "backbone_params": {},
            "feature_dim": 2,
            "num_classes": 10,
            "image_shape": (1, 8, 8),
            "mean": [0.5],
            "std": [0.5],
        }
    )


def toml(spec):
    lines = [f"name = {json.dumps(spec['name'])}", f"seeds = {spec['seeds']}"]
    for key in ("data", "model", "train", "detection"):
        lines += [f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in spec[key].items())]
    for key in ("losses", "attacks"):
        for entry in spec[key]:
            lines.append(f"[[{key}]]")
            for k, v in entry.items():
                if isinstance(v, dict):
                    v = "{" + ", ".join(f"{a} = {b}" for a, b in v.items()) + "}"
                    lines.append(f"{k} = {v}")
                else:
                    lines.append(f"{k} = {json.dumps(v)}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("command", ["run", "show"])
def test_command_line_tells_each_in_one_line(command, tmp_path, capsys):
    path = tmp_path / "small.toml"
    path.write_text(toml(SPEC))
    words = [command, str(path)]
    if command == "run":
        words += ["--out", str(tmp_path / "out"), "--quiet"]
    with pytest.raises(SystemExit) as end:
        commands.main(words)
    assert end.value.code == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(TOLD)
    for line, pattern in zip(lines, TOLD, strict=True):
        assert re.match(f"warning: {pattern}", line)


def test_check_loss_shows_what_the_loss_warns_of_and_does_not_fail():
    checks = check_loss("cosface", margin=1.4, scale=1.0)
    assert all(check.passed for check in checks)
    assert re.search(r"scale \(=1\) is too small.*; cosface: margin \(=1.4\)", checks[0].detail)
    assert checks[0].name == "builds"
