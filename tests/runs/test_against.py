"""A run against a baseline: networks made worse on purpose, and runs that cannot be compared."""

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest

from robustloss.analysis.baseline.reduce import reduce_run
from robustloss.results.compact.file import load_baseline, save_baseline
from robustloss.results.run import load_run
from robustloss.runs.comparable import NotComparableError
from robustloss.runs.judging.against import compare_with_baseline, open_baseline
from robustloss.storage import digest_content, read_json, write_json
from tests.reports.synthetic import write_run
from tests.reports.world import MOCKS, Layout, MockAttack

ATTACKS = [
    {"name": "fgsm", "eps": [0.05, 0.1]},
    {"name": "pgd", "params": {"steps": 5}, "eps": [0.05, 0.1]},
]


@pytest.fixture(scope="module")
def digits():
    """A small trained network, and 500 images that it has not seen."""
    import torch
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    images = torch.tensor(data.images[order] / 16.0, dtype=torch.float32)[:, None]
    labels = torch.tensor(data.target[order])
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
    head = (torch.nn.Linear(256, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), *head)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(12):
        for batch in torch.randperm(1200).split(100):
            optimizer.zero_grad()
            outputs = model(images[batch])
            torch.nn.functional.cross_entropy(outputs, labels[batch]).backward()
            optimizer.step()
    return model.eval(), images[1200:1700], labels[1200:1700]


@pytest.fixture(scope="module")
def evaluate(digits, tmp_path_factory):
    import robustloss
    from robustloss.progress import Silent

    _, images, labels = digits
    root = tmp_path_factory.mktemp("evaluated")

    def run(model, name, attacks=ATTACKS, **more):
        return robustloss.evaluate(
            {"net": model}, images, labels, attacks,
            quick=True, out=root / name, progress=Silent(), **more,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def baseline(digits, evaluate, tmp_path_factory):
    """The file of the network as it was."""
    file = tmp_path_factory.mktemp("kept") / "net.npz"
    save_baseline(file, reduce_run(evaluate(digits[0], "as-it-was")))
    return load_baseline(file)


def scale(model):
    for parameter in model.parameters():
        parameter.data *= 1.5


def add_noise(model):
    import torch

    weight = model[4].weight
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    weight.data += 0.7 * weight.std() * noise


@pytest.mark.parametrize(
    ("spoil", "more", "metrics"),
    [
        (scale, {}, {"auroc", "undetected_success"}),  # the same decisions, surer of them
        (add_noise, {}, {"error", "worst_case_error", "undetected_success"}),
        (None, {"normalize": {"mean": [0.25], "std": [0.8]}}, {"error", "worst_case_error"}),
    ],
)
def test_a_network_made_worse_is_shown_worse(digits, evaluate, baseline, spoil, more, metrics):
    model = copy.deepcopy(digits[0])
    if spoil is not None:
        spoil(model)
    run = evaluate(model, f"{spoil.__name__ if spoil else 'normalized'}", **more)
    found = compare_with_baseline(run, baseline)
    shown = {one.place.metric for one in found.findings if one.worse}
    assert shown >= metrics
    assert any("normalize" in note for note in found.notes) == bool(more)


def test_the_same_network_again_is_no_difference(digits, evaluate, baseline):
    found = compare_with_baseline(evaluate(digits[0], "again"), baseline)
    assert len(found.findings) == 5 + 4 + 4 + 2
    assert {one.p_value for one in found.findings} == {1.0}
    assert found.notes == ()


def test_other_images_are_refused_with_both_values(digits, evaluate, baseline):
    import robustloss
    from robustloss.progress import Silent

    model, images, labels = digits
    other = robustloss.evaluate(
        {"net": model}, images[:400], labels[:400], ATTACKS[:1],
        quick=True, out=baseline.path.parent / "other", progress=Silent(),
    )  # fmt: skip
    with pytest.raises(NotComparableError, match=r"data\.validation is 400 in the first and 500"):
        compare_with_baseline(other, baseline)


def test_another_attack_under_the_same_label_is_refused_with_both_values(
    digits, evaluate, baseline
):
    steps = [ATTACKS[0], {"name": "pgd", "params": {"steps": 6}, "eps": [0.05]}]
    with pytest.raises(NotComparableError, match=r"params\.steps is 6 in the first, 5 in the sec"):
        compare_with_baseline(evaluate(digits[0], "steps", steps), baseline)
    norm = [{"name": "pgd", "params": {"steps": 5, "norm": "l2"}, "eps": [0.05]}]
    with pytest.raises(NotComparableError, match=r"params\.norm is 'l2' in the first, 'linf' in"):
        compare_with_baseline(evaluate(digits[0], "norm", norm), baseline)


def test_what_only_one_side_has_is_named_and_left_out(digits, evaluate, baseline):
    fewer = [{"name": "fgsm", "label": "Fast", "eps": [0.1, 0.2]}]
    found = compare_with_baseline(evaluate(digits[0], "fewer", fewer), baseline)
    places = {(f.place.metric, f.place.attack_label, f.place.eps) for f in found.findings}
    assert places == {
        ("error", "none", 0.0), ("error", "Fast", 0.1), ("auroc", "Fast", 0.1),
        ("undetected_success", "Fast", 0.1),
    }  # fmt: skip
    told = " ".join(found.notes)
    assert "FGSM of net.npz is Fast" in told
    assert "Fast at 0.2" in told
    assert "PGD at 0.05, 0.1" in told


SMALL = Layout(
    mocks=MOCKS[:3],
    seeds=(0, 1),
    n=120,
    dim=8,
    attacks=(MockAttack(eps=(0.1, 0.2)), MockAttack("deepfool", "DeepFool", eps=(0.1,))),
)


@pytest.fixture(scope="module")
def synthetic(make_once):
    return load_run(make_once("against", lambda path: write_run(path, SMALL)))


def altered(run, folder, change):
    """A copy of the run with another results.json, sealed as if it had been written so."""
    copied = shutil.copytree(run.path, folder)
    results = read_json(copied / "results.json")
    change(results)
    results.pop("digest")
    results["digest"] = digest_content(results)
    write_json(copied / "results.json", results, sort_keys=False)
    return load_run(copied)


def test_a_run_folder_is_a_baseline_too(synthetic):
    found = compare_with_baseline(synthetic, open_baseline(synthetic.path))
    assert {one.label for one in found.findings} == {"softmax", "center", "GM"}
    assert {one.place.metric for one in found.findings} == {
        "error", "worst_case_error", "auroc", "undetected_success", "median_radius",
    }  # fmt: skip
    assert not any(one.worse for one in found.findings)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda data: data.update(name="cifar10"),
            r"data\.name is 'mnist' in the first and 'cifar",
        ),
        (lambda data: data.update(checksum="1"), r"data\.checksum is '.*' in the first and '1' in"),
    ],
)
def test_other_data_are_refused(synthetic, tmp_path, change, why):
    other = altered(synthetic, tmp_path / "o", lambda r: change(r["provenance"]["data"]))
    with pytest.raises(NotComparableError, match=why):
        compare_with_baseline(synthetic, reduce_run(other))


def without(label):
    def change(results):
        for table in ("rows", "worst_case", "radii"):
            results[table] = [row for row in results[table] if row["label"] != label]

    return change


def test_losses_of_one_side_are_named(synthetic, tmp_path):
    other = altered(synthetic, tmp_path / "o", without("center"))
    found = compare_with_baseline(other, reduce_run(synthetic))
    assert {one.label for one in found.findings} == {"softmax", "GM"}
    assert any("Left out, because only " in note and "center" in note for note in found.notes)


def test_a_label_may_change_its_case_and_hyphens(synthetic, tmp_path):
    kept = tmp_path / "b.npz"
    baseline = reduce_run(synthetic)
    cells = tuple(replace(c, label={"GM": "gm"}.get(c.label, c.label)) for c in baseline.cells)
    save_baseline(kept, replace(baseline, cells=cells))
    (tmp_path / "link.npz").symlink_to(kept)
    found = compare_with_baseline(synthetic, open_baseline(tmp_path / "link.npz"))
    assert {one.label for one in found.findings} == {"softmax", "center", "GM"}


def test_a_loss_that_failed_is_no_loss_that_passed(synthetic, tmp_path):
    def fail(results):
        without("center")(results)
        results["failures"] = [
            {"loss": "center", "label": "center", "seed": s, "stage": "train", "reason": "NaN"}
            for s in (0, 1)
        ]

    found = compare_with_baseline(altered(synthetic, tmp_path / "o", fail), reduce_run(synthetic))
    assert found.lost == {"center": "center seed 1 failed (train): NaN"}


def test_doubts_about_the_run_are_told(synthetic, tmp_path):
    def doubt(results):
        flag = {"loss": "gm", "label": "GM", "seed": 0, "check": "zero_gradient", "message": "..."}
        results["flags"] = [flag | {"attack_label": "FGSM", "eps": eps} for eps in (0.1, 0.2)]

    found = compare_with_baseline(altered(synthetic, tmp_path / "o", doubt), reduce_run(synthetic))
    (note,) = (note for note in found.notes if note.startswith("In doubt"))
    assert note.startswith("In doubt: GM (zero gradient). Their errors may be too low")


def test_nothing_in_common_is_refused(synthetic, tmp_path):
    def rename(results):
        for label in ("softmax", "center"):
            without(label)(results)

    few = altered(synthetic, tmp_path / "few", rename)
    other = altered(synthetic, tmp_path / "other", without("GM"))
    with pytest.raises(NotComparableError, match="have no loss in common: the first has GM, the"):
        compare_with_baseline(few, reduce_run(other))


@pytest.mark.parametrize(
    ("tolerance", "metrics", "why"),
    [
        ({"eror": 0.1}, (), r"tolerance\.eror \(=0\.1\) must name one of error, worst_case_error"),
        ({"error": -0.1}, (), r"tolerance\.error \(=-0\.1\) must be a share in \[0, 1\): 0\.01 is"),
        ({"error": 5}, (), r"tolerance\.error \(=5\) must be a share"),
        ({"error": float("nan")}, (), r"tolerance\.error \(=nan\) must be"),
        ({"error": True}, (), r"tolerance\.error \(=True\) must be"),
        ({"error": "1"}, (), r"tolerance\.error \(='1'\) must be"),
        ({}, ("ece",), r"metrics \(='ece'\) must be of error, "),
    ],
)
def test_a_tolerance_that_is_none_is_refused(synthetic, tolerance, metrics, why):
    with pytest.raises(ValueError, match=why):
        compare_with_baseline(synthetic, open_baseline(synthetic.path), tolerance, metrics)
