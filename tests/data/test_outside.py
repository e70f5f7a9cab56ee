"""Images that are not of the data: which they are, and what the tables say of them."""

import csv
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from robustloss.analysis.detection.separation import compare_outside
from robustloss.data import outside
from robustloss.data.files import DataError
from robustloss.data.images import ImageSet
from robustloss.data.load import load_dataset
from robustloss.metrics.rates import auroc
from robustloss.results.run import load_run
from robustloss.results.scores import Pass
from robustloss.runs import runner
from robustloss.spec.data import DataSpec
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.storage import read_json, write_json
from tests.drawing import build_report
from tests.small_run import SPEC, changed, files, numbers


@pytest.fixture(scope="module")
def digits():
    return load_dataset(DataSpec(name="digits"), quiet=True)


def loaded(tables, dataset, **keys):
    return outside.load_outside(load_spec(changed(outside=tables, **keys)), dataset, None)


def test_uniform_noise_is_of_the_shape_and_the_grey_levels_of_the_data(digits):
    (found,) = loaded([{"name": "uniform_noise", "images": 500}], digits)
    images = found.images
    assert tuple(images.images.shape) == (500, 1, 8, 8)
    assert images.scale == 16.0
    counts = torch.bincount(images.images.flatten().long(), minlength=17)
    assert len(counts) == 17
    expected = 500 * 64 / 17
    assert float(((counts - expected) ** 2 / expected).sum()) < 50  # chi-squared, 16 degrees
    again = loaded([{"name": "uniform_noise", "images": 500}], digits)[0]
    assert torch.equal(again.images.images, images.images)
    assert found.label == found.slug.replace("-", "_") == "uniform_noise"


def test_colour_becomes_grey_and_another_size(digits):
    pixels = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    pixels[0, 0] = 255  # red
    pixels[1, :, :, 8:] = 255  # right half white
    images = ImageSet(pixels, torch.tensor([3, 4]), torch.arange(2), 255.0)
    fitted = outside.fit_shape(images, (1, 8, 8))
    assert tuple(fitted.images.shape) == (2, 1, 8, 8)
    assert fitted.images[0].unique().tolist() == [round(0.299 * 255)]
    np.testing.assert_array_equal(fitted.images[1, 0, 4, [0, 1, 6, 7]], [0, 0, 255, 255])
    assert fitted.labels.tolist() == [0, 0]
    back = outside.fit_shape(fitted, (3, 8, 8))
    assert torch.equal(back.images[:, 0], back.images[:, 2])


def test_thinning_is_even_and_keeps_the_order():
    assert outside.spread(10, 4) == [0, 2, 5, 7]
    assert outside.spread(3, 4) == [0, 1, 2]


@pytest.mark.parametrize("archive", [False, True])
def test_a_folder_of_images_at_any_depth(tmp_path, digits, archive):
    folder = tmp_path / "others"
    (folder / "a" / "b").mkdir(parents=True)
    for number, place in enumerate(("x.png", "a/y.png", "a/b/z.png")):
        pixels = np.full((12, 20, 3), 40 * (number + 1), np.uint8)
        Image.fromarray(pixels).save(folder / place)
    (folder / "readme.txt").write_text("no image")
    name = "others"
    if archive:
        name = "others.tar"
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(folder, "others")
    spec = load_spec(changed(outside=[{"name": "image_folder", "folder": str(tmp_path / name)}]))
    (found,) = outside.load_outside(spec, digits, None)
    assert tuple(found.images.images.shape) == (3, 1, 8, 8)
    assert sorted(found.images.images.flatten(1)[:, 0].tolist()) == [40, 80, 120]
    assert found.name == f"images of the folder {name}"


def test_a_damaged_image_is_named(tmp_path, digits):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"outside\[0\] \(image_folder\): .*broken.png"):
        loaded([{"name": "image_folder", "folder": str(tmp_path)}], digits)


def test_mistakes_are_told_before_anything_is_trained(tmp_path, digits):
    every = {**SPEC["data"], "classes": list(range(10))}
    with pytest.raises(DataError, match="held_out_classes needs classes that are held out"):
        loaded([{"name": "held_out_classes"}], digits, data=every)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image file"):
        loaded([{"name": "image_folder", "folder": str(tmp_path / "empty")}], digits)
    spec = changed(outside=[{"name": "image_folder", "folder": "nowhere"}])
    message = r"outside\[0\] \(image_folder\): folder \(='nowhere'\) is not there.*folder of images"
    with pytest.raises(DataError, match=message):
        runner.run(spec, out=tmp_path / "run")
    assert not (tmp_path / "run" / "cells").exists()


@pytest.mark.parametrize(
    ("place", "part"),
    [(".", "train"), ("train", "train"), ("train/cat", "train"), ("test/dog", "test")],
)
def test_a_folder_that_shares_images_with_the_data_is_refused(tmp_path, place, part):
    root = tmp_path / "pets"
    rng = np.random.default_rng(0)
    for own, n in (("train/cat", 4), ("train/dog", 4), ("test/cat", 2), ("test/dog", 2)):
        (root / own).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / own / f"{i}.png")
    own = {"name": "image_folder", "folder": str(root)}
    dataset = load_dataset(load_spec(changed(data=own)).data, near=tmp_path, quiet=True)
    table = {"name": "image_folder", "folder": str(root / place)}
    with pytest.raises(DataError, match=rf"shares images with {part} of data.folder"):
        loaded([table], dataset, data=own)
    # beside the parts is a fair place for other images
    (root / "abnormal").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "abnormal" / "x.png")
    (found,) = loaded([table | {"folder": str(root / "abnormal")}], dataset, data=own)
    assert found.images.n == 1


def test_a_copy_of_the_test_images_is_told_by_its_pixels(digits, monkeypatch):
    monkeypatch.setattr(
        outside, "_load_table", lambda *_: (outside._drop_labels(digits.test), "copy")
    )
    with pytest.raises(DataError, match="500 of these 500 images are test images themselves"):
        loaded([{"name": "mnist"}], digits)


FACTORY = """
import numpy as np

def other(size=8, sides=1, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (24, 3, size, sides * size), dtype=np.uint8)
    return {"train": (images[:12], np.arange(12) % 2), "test": (images[12:], np.arange(12) % 2)}

def own():
    from sklearn.datasets import load_digits
    found = load_digits()
    images, labels = (found.images / 16).astype(np.float32)[:, None], found.target
    return {"train": (images[:900], labels[:900]), "test": (images[900:], labels[900:])}
"""


def test_any_door_of_the_data_is_one_of_outside_images(tmp_path, digits):
    (tmp_path / "mine.py").write_text(FACTORY)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 3, 1, 3), dtype=np.uint8)  # both layouts fit
    labels = np.arange(6) % 2
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    factory = {"name": f"{tmp_path}/mine.py:other"}
    tables = [
        factory | {"label": "wide", "params": {"size": 16, "sides": 2}, "images": 5},
        factory | {"label": "small"},
        {"name": "arrays", "file": str(tmp_path / "a.npz"), "layout": "nchw"},
    ]
    found = loaded(tables, digits)
    assert [each.images.n for each in found] == [5, 12, 6]
    assert {each.images.shape for each in found} == {(1, 8, 8)}  # as digits
    assert [each.name for each in found] == [
        "test images of mine.py:other", "test images of mine.py:other", "test images of a",
    ]  # fmt: skip
    with pytest.raises(
        DataError, match=r"\(arrays\): file .*which fits both. Say layout = \"nchw\""
    ):
        loaded([tables[2] | {"layout": None}], digits)


def test_other_proportions_are_cut_to_the_center_first():
    pixels = torch.zeros(1, 1, 8, 16, dtype=torch.uint8)
    pixels[..., 4:12] = 255  # the square in the middle
    images = ImageSet(pixels, torch.zeros(1, dtype=torch.int64), torch.arange(1), 255.0)
    assert (outside.fit_shape(images, (1, 4, 4)).images == 255).all()
    whole = outside.fit_shape(images, (1, 4, 8)).images
    assert whole[0, 0, 0, [0, 3, 4, 7]].tolist() == [0, 255, 255, 0]


def test_the_square_that_is_cut_out_of_a_picture_is_brought_to_the_size_of_the_data(
    tmp_path, digits
):
    for name, wide in (("a", 32), ("b", 40)):
        pixels = np.zeros((32, wide), np.uint8)
        pixels[12:20, wide // 2 - 4 : wide // 2 + 4] = 255
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    table = {"name": "image_folder", "folder": str(tmp_path), "image_size": 8, "resize": 32}
    (found,) = loaded([table], digits)
    assert (found.images.images == 255).all()


@pytest.mark.parametrize("size", [{}, {"test_size": 80}])
def test_the_data_by_another_door_are_told_by_their_pixels(tmp_path, digits, size):
    (tmp_path / "mine.py").write_text(FACTORY)
    dataset = load_dataset(DataSpec(name="digits", **size), quiet=True)
    with pytest.raises(DataError, match="images are test images themselves"):
        loaded([{"name": f"{tmp_path}/mine.py:own"}], dataset, data={"name": "digits", **size})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"name": "mine.py:other", "params": {"side": 3}},
            "side: unknown parameter; did you mean 'sides'",
        ),
        ({"name": "mine.py:none"}, r"mine.py has no.*'none'"),
        ({"name": "nowhere.py:other"}, "nowhere.py"),
        ({"name": "torchvision:SVNH"}, "is no data set of torchvision.*did you mean 'SVHN'"),
        (
            {"name": "torchvision:SVHN", "params": {"root": "/"}},
            r"\): params.root: robustloss deci",
        ),
        ({"name": "arrays", "file": "none.npz"}, r"\): file .*is not there"),
        ({"name": "arrays", "file": "mine.py"}, "cannot be read .*Write it by np.savez"),
    ],
)
def test_a_set_that_cannot_be_read_names_table_rule_and_remedy(tmp_path, digits, table, said):
    (tmp_path / "mine.py").write_text(FACTORY)
    spec = load_spec(changed(outside=[table | {"label": "Other"}]), folder=tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        outside.load_outside(spec, digits, tmp_path)
    assert str(caught.value).startswith("outside[0] (Other): ")
    assert str(caught.value).endswith("the rest of the run does not need it.")


@pytest.mark.parametrize("data", [{}, {"test_size": 80}, {"classes": [0, 1, 2]}])
@pytest.mark.parametrize("images", [30, 2000])
def test_the_data_set_itself_is_refused_however_much_of_it_is_used(data, images):
    data = {"name": "digits", **data}
    with pytest.raises(SpecError, match=r"outside\[0\].name .*is the data set itself"):
        load_spec(changed(data=data, outside=[{"name": "digits", "images": images}]))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([{"name": "held_out_classes"}], r"outside\[0\].name .*needs data.classes"),
        ([{"name": "fashon_mnist"}], r"outside\[0\].name .*did you mean 'fashion_mnist'"),
        ([{"name": "image_folder"}], r"outside\[0\].folder.*must be given"),
        ([{"name": "mnist", "folder": "x"}], r"folder.*is for name = \"image_folder\" or"),
        ([{"name": "mnist"}, {"name": "mnist"}], r"outside\[1\].label .*names the same files"),
        ([{"name": "mnist", "images": 0}], r"outside\[0\].images"),
        ({"name": "mnist"}, r"must be an array of tables. Write \[\[outside\]\]"),
        ([{"name": "mnist", "params": {"split": "x"}}], r"outside\[0\].params .*torchvision:NAME"),
        ([{"name": "uniform_noise", "image_size": 8}], r"outside\[0\].image_size .*is for name ="),
        ([{"name": "mnist", "layout": "nchw"}], r"outside\[0\].layout .*is for name = \"arrays\""),
        ([{"name": "torchvision:SVHN", "resize": 9}], r"outside\[0\].resize .*needs image_size"),
        ([{"name": "arrays", "file": "a.npz", "layout": "hwc"}], r"outside\[0\].layout .*must be"),
        ([{"name": "arrays"}], r"outside\[0\].file .*must be given: arrays reads"),
    ],
)
def test_a_wrong_table_is_refused(tables, message):
    with pytest.raises(SpecError, match=message):
        load_spec(changed(outside=tables))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 1, 10], r"has 10, but the classes of digits are 0 to 9"),
        ([1, 1], "two or more different classes"),
    ],
)
def test_wrong_classes_are_refused(classes, message):
    with pytest.raises(DataError, match=message):
        load_dataset(DataSpec(name="digits", classes=classes), quiet=True)


def test_classes_are_numbered_anew_and_the_rest_is_held_out(digits):
    found = load_dataset(DataSpec(name="digits", classes=[7, 2, 5]), quiet=True)
    assert found.num_classes == 3
    assert found.class_names == tuple(digits.class_names[i] for i in (7, 2, 5))
    for part in ("train", "validation", "test"):
        whole, kept = getattr(digits, part), getattr(found, part)
        old = {7: 0, 2: 1, 5: 2}
        mine = [i for i, y in enumerate(whole.labels.tolist()) if y in old]
        assert kept.index.tolist() == whole.index[mine].tolist()
        assert kept.labels.tolist() == [old[int(whole.labels[i])] for i in mine]
        assert torch.equal(kept.images, whole.images[mine])
    assert found.held_out is not None
    rest = [i for i, y in enumerate(digits.test.labels.tolist()) if y not in (7, 2, 5)]
    assert found.held_out.index.tolist() == digits.test.index[rest].tolist()
    assert "3 of 10 classes" in found.summary
    assert found.checksum != digits.checksum


def test_against_is_an_auroc_of_independent_images():
    rng = np.random.default_rng(0)
    clean, other = rng.normal(1, 1, 400), rng.normal(0, 1, 100)
    found = compare_outside(clean, other, threshold=-0.5)
    assert found["auroc"] == pytest.approx(auroc(clean, other))
    assert found["auroc_low"] < found["auroc"] < found["auroc_high"]
    # Hanley and McNeil 1982, independent sides
    a = found["auroc"]
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + 99 * (q1 - a * a) + 399 * (q2 - a * a)) / (400 * 100)
    width = (found["auroc_high"] - found["auroc_low"]) / 2
    assert width == pytest.approx(1.96 * np.sqrt(variance), rel=0.15)
    assert found["caught_at_5fpr"] == pytest.approx((other < -0.5).mean())
    assert (found["n_clean"], found["n_outside"]) == (400, 100)


TABLES = [
    {"name": "uniform_noise", "label": "Noise", "images": 50},
    {"name": "held_out_classes", "label": "other digits"},
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside") / "run"
    data = {**SPEC["data"], "train_size": 150, "validation_size": 40, "classes": [0, 1, 2, 3, 4]}
    spec = changed(outside=TABLES, data=data, seeds=[0])
    runner.run(spec, out=folder)
    build_report(folder)
    return folder, spec


def test_a_run_tells_of_every_set_and_score(done):
    folder, _ = done
    run = load_run(folder)
    rows = run.out_of_distribution
    places = {(r["label"], r["outside"], r["score"]) for r in rows}
    for label, density in (("softmax", False), ("L-GM", True)):
        for name in ("Noise", "other digits"):
            own = {score for a, b, score in places if (a, b) == (label, name)}
            assert ("marginal_log_likelihood" in own) == density
            assert {"class_log_likelihood", "knn", "energy"} <= own
    cell = next(cell for cell in run.cells if cell.label == "L-GM")
    clean, other = cell.record(), cell.outside("Noise")
    score = [record.class_log_likelihood.max(1) for record in (clean, other)]
    row = next(
        r
        for r in rows
        if (r["label"], r["outside"], r["score"]) == ("L-GM", "Noise", "class_log_likelihood")
    )
    assert row["auroc"] == pytest.approx(auroc(*score), abs=1e-6)
    assert (row["n_clean"], row["n_outside"]) == (80, 50)
    assert row["outside_name"].startswith("every pixel drawn uniformly")
    assert cell.outside("other digits").n == next(
        e["n"] for e in cell.files["outside"] if e["label"] == "other digits"
    )
    with pytest.raises(ValueError, match="no outside set 'x'; there are: Noise, other digits"):
        cell.outside("x")
    # nothing counts an error rate from images that have no true class
    assert {r["attack"] for r in run.rows} == {"none", "fgsm"}


def test_the_histogram_holds_every_image_of_every_set(done):
    folder, _ = done
    run = load_run(folder)
    with (folder / "report/figures/outside.csv").open(newline="") as file:
        bars = list(csv.DictReader(file))
    names = [(cell.label, table["label"]) for cell in run.cells for table in TABLES]
    assert {(b["label"], b["outside"]) for b in bars} == {
        (cell.label, name) for cell in run.cells for name in ("Noise", "other digits")
    }
    for label, name in names:
        own = [b for b in bars if (b["label"], b["outside"]) == (label, name)]
        for side in ("clean_percent", "outside_percent"):
            assert sum(float(b[side]) for b in own) == pytest.approx(100)
        # an inner bin holds what the stored scores say, and both sets of a loss share the bins
        cell = next(cell for cell in run.cells if cell.label == label)
        other = cell.scores().get("class_log_likelihood", Pass("outside", name))
        bar = max(own[1:-1], key=lambda b: float(b["outside_percent"]))
        inside = (other >= float(bar["low"])) & (other < float(bar["high"]))
        assert float(bar["outside_percent"]) == pytest.approx(100 * inside.mean())
        edges = [[b["low"] for b in bars if (b["label"], b["outside"]) == (label, each)]
                 for each in ("Noise", "other digits")]  # fmt: skip
        assert edges[0] == edges[1]


def test_a_run_of_before_is_reported_without_tables_and_figure(done, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(done[0], old)
    shutil.rmtree(old / "report")
    content = read_json(old / "results.json")
    del content["out_of_distribution"]
    write_json(old / "results.json", content, sort_keys=False)
    assert load_run(old).out_of_distribution == []
    build_report(old)
    made = {p.stem for p in (old / "report").rglob("*.csv")}
    assert "rows" in made
    assert not made & {"outside", "out-of-distribution", "scores-out-of-distribution"}
    kept = {p.stem for p in (done[0] / "report").rglob("*.csv")}
    assert kept >= {"outside", "out-of-distribution", "scores-out-of-distribution"}


def test_the_same_run_again_computes_nothing_and_a_damaged_file_is_made_anew(done, monkeypatch):
    folder, spec = done
    before, kept = numbers(folder), files(folder)
    path = next(folder.glob("cells/l-gm/seed-0/outside-noise-*.npz"))
    path.write_bytes(path.read_bytes()[:100])
    runner.run(spec, out=folder)
    assert numbers(folder) == before
    assert files(folder) == kept


def test_without_the_table_every_file_keeps_its_name(tmp_path):
    """Runs of before must not be computed again because a key was added to the spec."""
    runner.run(changed(seeds=[0]), out=tmp_path / "plain")
    plain = set(files(tmp_path / "plain"))
    runner.run(
        changed(seeds=[0], outside=[{"name": "uniform_noise", "images": 20}]),
        out=tmp_path / "more",
    )
    more = set(files(tmp_path / "more"))
    new = {path.name.rsplit("-", 1)[0] for path in more - plain}
    assert new == {"outside-uniform-noise", "scores"}
    cell = read_json(tmp_path / "plain/cells/l-gm/seed-0/cell.json", checked=True)
    assert "outside" not in cell["files"]
    assert cell["out_of_distribution"] == []
