"""What `list` and `show` say: names with a meaning, specs that can be run, true counts."""

import tomllib

import pytest

from robustloss.cells import work
from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob
from robustloss.cli import cost
from robustloss.cli.listing import KINDS, entries, spec_lines
from robustloss.cli.terminal import bytes_text
from robustloss.data.files import DataError
from robustloss.data.load import load_dataset
from robustloss.spec.data import DataSpec
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.folders import write_folder

SLOW_LOSS = """
import time
from robustloss.losses.softmax import SoftmaxHead

class Slow(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        time.sleep(0.05)
        return super().loss(features, labels, progress=progress)

class Broken(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        raise RuntimeError("out of ideas")
"""


def small(**changes):
    return load_spec(
        {
            "name": "small",
            "model": {"backbone": "digits_cnn", "feature_dim": 4},
            "train": {"epochs": 10, "batch_size": 90, "precision": "float32"},
            "losses": [{"name": "softmax"}],
            "attacks": [{"name": "fgsm", "eps": [0.1, 0.2]}],
        }
        | changes
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_has_a_meaning_of_one_line(kind):
    found = entries(kind)
    assert found or kind == "references"  # none need ship
    for name, meaning in found.items():
        assert len(meaning) > 15, name
        assert "\n" not in meaning


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("losses", {"softmax", "center", "gm", "lgm", "weighted_softmax", "l2_softmax"}),
        ("losses", {"l_softmax", "a_softmax", "modified_softmax", "fnorm_sphereface"}),
        ("losses", {"normface", "cosface", "arcface"}),
        ("attacks", {"fgsm", "autoattack", "torchattacks:NAME"}),
        ("scores", {"class_log_likelihood", "max_log_posterior"}),
        (
            "datasets",
            {"digits", "mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "image_folder"},
        ),
        ("backbones", {"lenet_plus", "small_cnn", "digits_cnn", "torchvision:NAME"}),
        ("specs", {"quickstart", "mnist", "mnist-2d", "mnist-paper"}),
    ],
)
def test_what_is_listed(kind, names):
    assert names <= set(entries(kind))


def test_a_shown_spec_can_be_run_again(monkeypatch):
    monkeypatch.setattr(cost, "measure", lambda *words: cost.Timing(None, "not now"))
    spec = small(losses=[{"name": "lgm", "label": "L-GM", "train": {"lr": 0.01}}], seeds=[0, 7])
    text = "\n".join(spec_lines(spec))
    assert load_spec(tomllib.loads(text)).plain() == spec.plain()
    assert "# 2 cells (losses x seeds)" in text
    assert "L-GM  seeds 0, 7; digits_cnn, 4-D features; 10 epochs, batch 90, sgd; lr = 0.01" in text
    assert "training  19,940 images" in text  # 2 cells x 10 epochs x 997 images
    assert "attacks   2,000 adversarial images" in text  # 2 cells x 2 eps x 500 images
    assert "time      unknown: not now" in text


def test_a_shown_spec_has_each_eps_as_it_was_written(monkeypatch):
    monkeypatch.setattr(cost, "measure", lambda *words: cost.Timing(None, "not now"))
    attack = {
        "name": "pgd",
        "eps": ["0", "2/255", "0.1", "3/255"],
        "params": {"step_size": 2 / 255},
    }
    adversarial = {"attack": "pgd", "eps": "8/255", "steps": 7}
    spec = small(attacks=[attack], train={"adversarial": adversarial})
    text = "\n".join(spec_lines(spec))
    assert 'eps = [0.0, "2/255", "3/255", 0.1]' in text
    assert 'eps = "8/255"' in text
    assert load_spec(tomllib.loads(text)).plain() == spec.plain()


def test_no_name_of_a_shown_spec_goes_on_in_a_line_of_its_own():
    name = "a\n[[losses]]\nname = 'softmax'\n# {}"
    given = {"label": "b", "weights": name.format("w"), "name": "softmax"}
    spec = small(
        model={"backbone": name.format("c.py:C")},
        losses=[{"model": name.format("f.py:f"), "label": "a"}, given],
        detection={"scores": [name.format("s.py:s")]},
    )
    text = "\n".join(spec_lines(spec))
    assert load_spec(tomllib.loads(text)).plain() == spec.plain()


def test_showing_needs_no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTLOSS_DATA", str(tmp_path))
    lines = list(spec_lines(load_spec("mnist")))
    assert lines[-1].startswith(
        "# No estimate of the cost before `robustloss run` downloads the data: "
    )
    assert str(tmp_path) in lines[-1]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"data": {"name": "minst"}}, DataError, "[Dd]id you mean 'mnist'"),
        ({"data": {"test_size": 501}}, DataError, r"data.test_size \(=501\)"),
        ({"data": {"name": "mnist", "test_size": 10001}}, DataError, r"data.test_size \(=10001\)"),
        ({"losses": [{"name": "sofmax"}]}, SpecError, "sofmax"),
    ],
)
def test_showing_tells_what_a_run_would_refuse(monkeypatch, tmp_path, change, kind, message):
    monkeypatch.setenv("ROBUSTLOSS_DATA", str(tmp_path))
    with pytest.raises(kind, match=message):
        list(spec_lines(small(**change)))


@pytest.mark.parametrize(("feature_dim", "images"), [(2, 64), (64, "all"), (2, "worst")])
def test_the_disk_that_a_cell_takes(tmp_path, feature_dim, images):
    network = {"backbone": "digits_cnn", "feature_dim": feature_dim}
    spec = small(model=network, train={"epochs": 1}, records={"images": images})
    dataset = load_dataset(DataSpec(name="digits"))
    (cell,) = spec.cells()
    failure = run_cell(CellJob(spec, cell, tmp_path, "cpu", None), dataset, lambda event: None)
    assert failure is None
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.np?"))
    counted = cost.count(spec, [cell], (997, 300, 500), 64, 10).disk
    assert counted == pytest.approx(written, rel=0.1)


def test_the_time_of_a_loss_that_sleeps(tmp_path):
    # 10 epochs of 11 steps that sleep 0.05 s each: 5.5 s, and the rest of the work above it.
    (tmp_path / "slow.py").write_text(SLOW_LOSS)
    loss = {"name": str(tmp_path / "slow.py:Slow"), "label": "slow"}
    spec = small(losses=[loss], seeds=[0, 1])
    started = work.read_clock()  # the clock of the estimate, which others' work does not move
    timing = cost.measure(spec, spec.cells(), load_dataset(DataSpec(name="digits")), budget=2.0)
    assert timing.seconds is not None
    assert 11.0 < timing.seconds < 60.0
    assert work.read_clock() - started < timing.seconds
    assert "rough, on a quiet machine" in timing.note


def test_jobs_are_given_out_in_their_order_to_the_first_free_worker():
    assert cost.schedule([3, 1, 1, 1], 2) == 3
    assert cost.schedule([1, 1, 3], 2) == 4
    assert cost.schedule([3, 1, 1, 1], 0) == cost.schedule([3, 1, 1, 1], 1) == 6
    assert cost.schedule([], 4) == 0


@pytest.mark.parametrize("loss", ["weighted_softmax", "triplet"])
def test_a_loss_that_needs_every_class_is_timed_on_every_class(loss):
    spec = small(losses=[{"name": loss}], train={"batch_size": 2})
    timing = cost.measure(spec, spec.cells(), load_dataset(DataSpec(name="digits")), budget=0.1)
    assert timing.seconds is not None, timing.note


def test_a_loss_that_fails_has_no_time(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_LOSS)
    spec = small(losses=[{"name": str(tmp_path / "slow.py:Broken"), "label": "B"}])
    timing = cost.measure(spec, spec.cells(), load_dataset(DataSpec(name="digits")))
    assert timing == cost.Timing(None, "B fails when it is tried: out of ideas")


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12 bytes"), (1500, "1.5 kB"), (125_400_000, "125 MB"), (2_000_000_000, "2 GB")],
)
def test_sizes_in_words(count, text):
    assert bytes_text(count) == text


def test_an_image_folder_is_shown_with_its_cost(monkeypatch, tmp_path):
    measured = []
    monkeypatch.setattr(
        cost, "measure", lambda *words: measured.append(words) or cost.Timing(1, "")
    )
    write_folder(tmp_path / "pictures")
    data = {"name": "image_folder", "folder": "pictures", "image_size": 8}
    monkeypatch.setenv("ROBUSTLOSS_DATA", str(tmp_path / "elsewhere"))
    lines = list(spec_lines(small(data=data)))
    assert lines[-1].startswith("# No estimate of the cost: data.folder (='pictures') is not there")
    monkeypatch.setenv("ROBUSTLOSS_DATA", str(tmp_path))
    text = "\n".join(spec_lines(small(data=data)))
    assert "training  270 images" in text  # 10 epochs x 27 images
    assert "attacks   24 adversarial images" in text  # 2 eps x 12 images
    assert measured[0][2].image_shape == (3, 8, 8)
    for path in (tmp_path / "pictures/test/bee").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="without an image: bee"):
        list(spec_lines(small(data=data)))


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_time_of_a_run_on_a_folder_with_ten_crops(tmp_path, in_memory):
    data = {"name": "image_folder", "folder": str(write_folder(tmp_path)), "image_size": 8}
    data |= {"resize": 10, "ten_crop": True, "in_memory": in_memory}
    spec = small(data=data, train={"epochs": 2, "batch_size": 9, "augment": "crop_flip"})
    timing = cost.measure(spec, spec.cells(), load_dataset(spec.data, near=tmp_path, quiet=True))
    assert timing.seconds is not None, timing.note
