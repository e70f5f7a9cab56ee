"""Kept images as files for others, and the images of others against a model of a run."""

import csv
import errno
import io
import json
import os
import pickle
import re
import resource
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import robustloss
from robustloss.image_files import writing_images
from robustloss.results.finished_cell import digest_files
from robustloss.runs import runner
from robustloss.storage import CorruptFile, read_json, write_json
from tests.small_run import SPEC as SMALL
from tests.small_run import changed

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")

N, SHAPE = 70, (1, 8, 8)


SPEC = changed(
    seeds=[0, 1],
    model={"backbone": "digits_cnn", "feature_dim": 3},
    train={"epochs": 4, "batch_size": 15, "lr": 0.05, "precision": "float32"},
    losses=[{"name": "softmax"}, {"name": "lgm"}],
    attacks=[
        {"name": "fgsm", "eps": [0.1, "60/255"], "eight_bit": True},
        {"name": "pgd", "params": {"steps": 3}, "eps": [0.1]},
        {"name": "pgd", "label": "PGD L2", "params": {"steps": 3, "norm": "l2"}, "eps": [0.1, 1]},
    ],
    checks={"images": 0},
    detection={"fit_size": 30, "noise": False, "scores": ["class_log_likelihood"]},
)  # fmt: skip
FGSM = {"attack": "FGSM", "loss": "L-GM", "seed": 0, "eps": 0.1}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data and three runs, which keep all, the worst, and 64 images."""
    from robustloss import reports

    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", 90), ("test", N)):
        labels = np.arange(n) % 3
        images = random.integers(0, 60, (n, 8, 8))
        for position, label in enumerate(labels):
            images[position, 2 * label : 2 * label + 3] += 120
        arrays |= {f"{name}_images": images.astype(np.uint8), f"{name}_labels": labels}
    np.savez(folder / "data.npz", **arrays)
    data = {"name": "arrays", "file": str(folder / "data.npz"), "validation_size": 9}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "build_report", lambda path: path)
        for images in ("all", "worst", 64):
            spec = SPEC | {"data": data, "records": {"images": images}}
            assert runner.run(spec, out=folder / str(images)).exit_code == 0
    return folder


@pytest.fixture
def run(made):
    return made / "all"


@pytest.fixture
def record(run):
    (cell,) = [c for c in robustloss.load_run(run).cells if (c.label, c.seed) == ("L-GM", 0)]
    return cell.record("FGSM", 0.1), cell


def test_an_npz_holds_what_is_documented(run, record, tmp_path):
    path = robustloss.export(run, **FGSM, out=tmp_path / "a" / "fgsm.npz")
    expected, cell = record
    with np.load(path, allow_pickle=False) as found:
        assert set(found) == {
            *("images", "labels", "indices", "clean_predictions", "predictions"),
            *("predictions_8bit", "eps", "norm", "attack", "loss", "seed", "data", "weights"),
        }
        assert found["images"].shape == (N, *SHAPE)
        assert found["images"].dtype == np.float32
        assert np.array_equal(found["images"][:64], expected.images)
        assert np.array_equal(found["labels"], expected.labels)
        assert np.array_equal(found["indices"], expected.index)
        assert np.array_equal(found["predictions"], expected.predictions)
        assert np.array_equal(found["clean_predictions"], cell.record().predictions)
        assert (float(found["eps"]), str(found["norm"]), int(found["seed"])) == (0.1, "linf", 0)
        assert (str(found["attack"]), str(found["loss"])) == ("FGSM", "L-GM")
        assert str(found["weights"]) == cell.weights
    again = robustloss.export(run, **FGSM, out=tmp_path / "b.npz")
    assert again.read_bytes() == path.read_bytes()


def test_a_pt_holds_the_same_and_is_loaded_with_weights_only(run, tmp_path):
    with np.load(robustloss.export(run, **FGSM, out=tmp_path / "a.npz")) as arrays:
        found = torch.load(
            robustloss.export(run, **FGSM, format="pt", out=tmp_path / "a.pt"), weights_only=True
        )
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            value = found[name].numpy() if isinstance(found[name], torch.Tensor) else found[name]
            assert np.array_equal(value, array), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "a.pt"]


def test_a_folder_of_png_is_exact_in_8_bits_and_verified(run, record, tmp_path):
    path = robustloss.export(run, **FGSM, format="png", out=tmp_path / "pictures")
    rows = list(csv.DictReader(io.StringIO((path / "index.csv").read_text())))
    expected, _ = record
    assert len(rows) == N == len(list(path.glob("*.png")))
    assert rows[5]["file"] == "000005.png"
    assert [int(row["label"]) for row in rows] == expected.labels.tolist()
    assert [int(row["prediction_8bit"]) for row in rows] == expected.predictions_8bit.tolist()
    assert json.loads((path / "export.json").read_text())["eps"] == 0.1
    pixels = np.asarray(Image.open(path / "000005.png"))
    assert np.abs(pixels / 255 - expected.images[5, 0]).max() <= 1 / 255
    found = robustloss.verify(run, path, loss="lgm", seed=0)
    assert found, str(found)
    assert "box and ball: all 70 images lie in [0, 1] and in the ball (L∞, eps 0.1)" in str(found)
    assert found.fooled["fooled"] == int((expected.predictions_8bit != expected.labels).sum())


@pytest.mark.parametrize("images", ["all", "worst"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.0)])
def test_a_worst_case_fools_as_often_as_results_say(made, tmp_path, images, norm, eps):
    run = made / images
    path = robustloss.export(
        run, "worst-case", loss="Softmax", seed=1, eps=eps, norm=norm, out=tmp_path / "a.npz"
    )
    (row,) = [
        row
        for row in robustloss.load_run(run).worst_case
        if (row["label"], row["seed"], row["norm"], row["eps"]) == ("Softmax", 1, norm, eps)
    ]
    found = robustloss.verify(run, path, loss="Softmax", seed=1)
    assert found, str(found)
    assert found.fooled["share"] == row["error"]
    assert (found.fooled["low"], found.fooled["high"]) == (row["error_low"], row["error_high"])
    with np.load(path) as arrays:
        known = {"FGSM", "PGD", "none"} if norm == "linf" else {"PGD L2", "none"}
        assert set(arrays["attacks"].tolist()) <= known
    other = {"all": "worst", "worst": "all"}[images]
    again = robustloss.export(
        made / other, "worst-case", loss="Softmax", seed=1, eps=eps, norm=norm,
        out=tmp_path / "b.npz",
    )  # fmt: skip
    assert again.read_bytes() == path.read_bytes()


def test_images_made_on_one_model_against_another(run, tmp_path):
    path = robustloss.export(run, **FGSM, out=tmp_path / "a.npz")
    found = robustloss.verify(run, path, loss="softmax", seed=1)
    assert found
    assert "IMAGES states them for another model than Softmax seed 1" in str(found)
    assert found.fooled["n"] == N


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attack": "PDG"}, "attack (=PDG) must be one of worst-case, FGSM, PGD, PGD L2; did you"),
        ({"loss": "lgn"}, "loss (=lgn) must be one of Softmax, L-GM; did you mean 'lgm'?"),
        ({"loss": None, "seed": None}, "loss: this run has 2. Name one of Softmax, L-GM."),
        ({"seed": None}, "seed: several models are meant (L-GM seed 0, L-GM seed 1)."),
        ({"seed": 7}, "seed (=7) must be one of 0, 1."),
        ({"eps": 0.2}, "eps (=0.2) is not an eps of FGSM, which has 0.1 (L∞), 60/255 (L∞). "
                       "The nearest is 60/255."),
        ({"eps": "1/0"}, "eps (=1/0) must be a number >= 0 or a fraction"),
        ({"eps": 0.0}, "eps (=0) is not an eps of FGSM"),
        ({"eps": None}, "eps: FGSM has 0.1 (L∞), 60/255 (L∞). Name one."),
        ({"attack": "worst-case"},
         "norm: worst-case has several at this eps. Name one of l2, linf."),
        ({"norm": "l1"}, "norm (=l1) must be one of l2, linf."),
        ({"format": "jpg"}, "format (=jpg) must be one of npz, pt, png"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_exported_is_refused(run, tmp_path, command, changes, told):
    asked = FGSM | {"out": tmp_path / "a.npz"} | changes
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        robustloss.export(run, **asked)
    words = [w for k, v in asked.items() if v is not None for w in (f"--{k}", v)]
    status, out, err = command("export", run, *words)
    assert (status, out) == (2, "")
    assert told in err
    assert not list(tmp_path.iterdir())


def test_images_that_were_not_kept_name_the_key(made, tmp_path, command):
    words = ("--loss", "L-GM", "--seed", 0, "--eps", 0.1, "--norm", "linf", "--out", tmp_path / "a")
    for run, attack, key in (("64", "fgsm", "all"), ("64", "worst-case", "worst"),
                             ("worst", "fgsm", "all")):  # fmt: skip
        status, _, err = command("export", made / run, "--attack", attack, *words)
        assert status == 2
        assert (
            f'Write [records] and, below it, images = "{key}" in the spec, and run it again' in err
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_and_no_attack_at_all(made, tmp_path, command):
    for words, told in [
        ((tmp_path, "--attack", "fgsm"), "has no results.json (no run folder)"),
        ((made / "all",), "Missing option '--attack'"),
    ]:
        status, out, err = command("export", *words)
        assert (status, out) == (2, "")
        assert told in err


def test_what_exists_is_not_replaced(run, tmp_path, command):
    (tmp_path / "a.npz").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "b").touch()
    (tmp_path / "link.npz").symlink_to(tmp_path / "nowhere")
    for name, form in (("a.npz", "npz"), ("a.npz", "pt"), ("full", "png"), ("link.npz", "npz")):
        with pytest.raises(ValueError, match=r"out \(=.*\) exists. Name another with --out, or"):
            robustloss.export(run, **FGSM, format=form, out=tmp_path / name)
    assert (tmp_path / "a.npz").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    robustloss.export(run, **FGSM, format="png", out=tmp_path / "empty")
    assert (tmp_path / "empty" / "index.csv").is_file()


@pytest.mark.parametrize("form", ["npz", "pt", "png"])
def test_a_full_disk_leaves_nothing(run, tmp_path, command, form, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [w for k, v in FGSM.items() for w in (f"--{k}", v)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        status, out, err = command("export", run, *words, "--format", form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (status, out) == (2, "")
    assert os.strerror(errno.EFBIG) in err
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_told(made, tmp_path, command):
    shutil.copytree(made / "all", tmp_path / "run")
    path = next((tmp_path / "run").glob("cells/lgm/seed-0/images-fgsm-0.1-*"))
    path.write_bytes(path.read_bytes()[:-70])
    with pytest.raises(CorruptFile, match="is no file of kept images"):
        robustloss.export(tmp_path / "run", **FGSM, out=tmp_path / "a.npz")
    with writing_images(path, (N + 1, *SHAPE)) as out:
        out.write(np.zeros((N + 1, *SHAPE), np.float32))
    content = read_json(path.with_name("cell.json"))  # forged with its digest
    del content["sha256"]
    content["digests"] = digest_files(path.parent, content["files"])
    write_json(path.with_name("cell.json"), content, checked=True)
    with pytest.raises(CorruptFile, match="has 71, which is more than its record has"):
        robustloss.export(tmp_path / "run", **FGSM, out=tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


# --- images of any origin ------------------------------------------------------------------------


def test_kept_images_that_were_changed_are_not_exported(made, tmp_path):
    copy = shutil.copytree(made / "all", tmp_path / "run")
    (path,) = (copy / "cells/lgm/seed-0").glob("images-fgsm-0.1-*.npy")
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is another file than cell"):
        robustloss.export(copy, **FGSM, out=tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


@pytest.fixture
def arrays(run, record):
    expected, _ = record
    return {
        "images": np.zeros((4, *SHAPE), np.float32) + expected.images[:4],
        "indices": expected.index[:4],
        "labels": expected.labels[:4],
    }


def against(run, path, **how):
    return robustloss.verify(run, path, **{"loss": "L-GM", "seed": 0, **how})


def test_the_least_that_images_need(run, arrays, tmp_path):
    np.savez(tmp_path / "a.npz", images=arrays["images"], labels=arrays["labels"])
    found = against(run, tmp_path / "a.npz")
    assert found
    assert "open  ball: without indices the originals are not known" in str(found)
    np.savez_compressed(tmp_path / "b.npz", images=arrays["images"], indices=arrays["indices"])
    other = against(run, tmp_path / "b.npz")
    assert other.fooled == found.fooled
    assert "open  ball: nothing says norm and eps. Give --norm and --eps" in str(other)
    assert "in the ball (L∞, eps 0.1)" in str(
        against(run, tmp_path / "b.npz", norm="linf", eps="0.1")
    )
    tight = against(run, tmp_path / "b.npz", norm="linf", eps="5/255")
    assert not tight
    assert "outside the ball of eps 5/255: 4 of 4 images" in str(tight)
    assert (tight.fooled["fooled"], tight.fooled["outside"]) == (0, 4)


def test_uint8_and_other_floats_are_read(run, arrays, tmp_path):
    clean = np.load(run.parent / "data.npz")["test_images"][:4, None]
    labels = arrays["labels"]
    for dtype, images in (("uint8", clean), ("float64", clean / 255), (">f4", clean / 255)):
        np.savez(tmp_path / "a.npz", images=images.astype(dtype), labels=labels, eps=0.0,
                 norm="linf", indices=arrays["indices"])  # fmt: skip
        assert "all 4 images lie in [0, 1] and in the ball (L∞, eps 0)" in str(
            against(run, tmp_path / "a.npz")
        )


def test_what_is_wrong_with_images_is_found(run, arrays, tmp_path):
    path = tmp_path / "a.npz"
    wrong = arrays["labels"].copy()
    wrong[[0, 1]] = wrong[[1, 0]]
    np.savez(path, **arrays | {"labels": wrong})
    assert "FAIL  labels: not those of the data: 2 of 4 images" in str(against(run, path))
    images = arrays["images"].copy()
    images[2, 0, 0, 0] = -0.2
    np.savez(path, **arrays | {"images": images})
    assert "FAIL  box and ball: outside the box [0, 1]: 1 of 4 images" in str(against(run, path))
    np.savez(path, **arrays, predictions=np.full(4, 9))
    assert "FAIL  predictions: L-GM seed 0 predicts otherwise than IMAGES states: 4 of 4" in str(
        against(run, path)
    )


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)  # where the test stands


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": None}, "has no array 'images'; it has indices, labels"),
        ({"images": None, "image": np.zeros(3)}, "has no array 'images'"),
        ({"images": np.zeros((4, 3, 8, 8), "f4")}, "must be (N, 1, 8, 8), as those of arrays"),
        ({"images": np.zeros((4, 8, 8), "f4")}, "Grey ones need their channel: images[:, None]"),
        ({"images": np.zeros((0, 1, 8, 8), "f4")}, "with at least one image"),
        ({"images": np.zeros((4, 1, 8, 8), "i8")}, "(=int64) must be floating in [0, 1], or uint8"),
        ({"images": np.full((4, 1, 8, 8), 255.0)}, "(highest value 255) must lie in [0, 1]"),
        ({"images": np.full((4, 1, 8, 8), np.nan)}, "images hold NaN or infinite values"),
        ({"labels": None, "indices": None}, "has neither labels nor indices"),
        ({"labels": np.zeros(3, int)}, "labels (=(3,)) must be (4,), one for each image"),
        ({"labels": np.array([0, 1, 2, 3])}, "labels (from 0 to 3) must lie in [0, 2]"),
        ({"labels": np.zeros(4)}, "labels (=float64) must be integers"),
        ({"indices": np.array([0, 1, 2, 70])}, "indices (70) are not positions of test images"),
        ({"indices": np.array([0, 1, -1, 3])}, "indices (-1) are not positions of test images"),
        ({"indices": np.array([0, 1, 2, 2])}, "indices hold 2 more than once"),
        ({"images": np.zeros((80, 1, 8, 8), "f4"), "labels": None, "indices": np.arange(80)},
         "indices (70, 71, 72) are not positions of test images"),
        ({"eps": -1.0}, "eps (=-1.0) must be a number >= 0"),
        ({"eps": np.zeros(3)}, "eps (=None) must be a number >= 0"),
        ({"norm": "l0"}, "norm (=l0) must be one of linf, l2"),
        ({"images": np.array([Evil()])}, "holds objects, which only pickle reads"),
        ({"labels": np.array([Evil()])}, "holds objects, which only pickle reads"),
        ({"labels": np.zeros((4, 9999), int)}, "must be one value an image"),
    ],
)  # fmt: skip
def test_an_npz_that_cannot_be_used_is_refused(
    run, arrays, tmp_path, command, monkeypatch, changes, told
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.npz"
    content = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(path, **content)
    status, out, err = command("verify", run, path, "--loss", "L-GM", "--seed", 0)
    assert (status, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda a: Evil(), "holds more than tensors, numbers and text, and is not loaded"),
        (lambda a: {"images": Evil()}, "is not loaded"),
        (lambda a: a["images"], "must hold a dict"),
        (lambda a: {"adv": a["images"]}, "has no array 'images'; it has adv"),
        (lambda a: {**a, "images": a["images"].tolist()}, "images must be a dense tensor"),
        (lambda a: {**a, "images": a["images"].to(torch.bfloat16)}, "(=bfloat16) must be floating"),
        (lambda a: {**a, "labels": a["labels"].float()}, "(=torch.float32) must be integers"),
        (lambda a: {**a, "eps": "0.1"}, "eps (=0.1) must be a number"),
    ],
)
def test_a_pt_that_cannot_be_used_is_refused(
    run, arrays, tmp_path, command, monkeypatch, content, told
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    torch.save(content({name: torch.from_numpy(array) for name, array in arrays.items()}), path)
    status, out, err = command("verify", run, path, "--loss", "L-GM", "--seed", 0)
    assert (status, out) == (2, "")
    assert told in err
    assert not (tmp_path / "executed").exists()


def test_files_that_are_none_are_refused(run, tmp_path, command):
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "a.txt").write_text("0.1")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Evil()))
    os.mkfifo(tmp_path / "pipe.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("images.npy", "no array")
    with zipfile.ZipFile(tmp_path / "names.npz", "w") as archive:
        archive.writestr("../images.npy", "outside")
        archive.writestr("/etc/labels.npy", "outside")
    with zipfile.ZipFile(tmp_path / "size.npz", "w") as archive:
        header = io.BytesIO()
        facts = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 1, 8, 8)}
        np.lib.format.write_array_header_1_0(header, facts)
        archive.writestr("images.npy", header.getvalue())
    for name, told in {
        "none.npz": "there is no such file", "pickle.npz": "is no whole .npz file",
        "cut.npz": "is no whole .npz file", "empty.npz": "is empty (0 bytes)",
        "a.txt": "must be an .npz or .pt file, or a folder",
        "old.pt": "is not loaded", "pipe.npz": "is a device, a pipe or a socket",
        "text.npz": "is no array", "names.npz": "has no array 'images'",
        "size.npz": "which is not its size",
    }.items():  # fmt: skip
        status, out, err = command("verify", run, tmp_path / name, "--loss", "L-GM", "--seed", 0)
        assert (status, out) == (2, ""), name
        assert told in err, err


def test_a_folder_of_png_from_elsewhere(run, tmp_path, command):
    folder = tmp_path / "pictures"
    folder.mkdir()
    clean = np.load(run.parent / "data.npz")["test_images"]
    for position in (3, 0, 12):
        Image.fromarray(clean[position]).save(folder / f"{position:04d}.png")
    found = against(run, folder, eps=0, norm="linf")
    assert "all 3 images lie in [0, 1] and in the ball (L∞, eps 0)" in str(found)

    def refused(told):
        status, out, err = command("verify", run, folder, "--loss", "L-GM", "--seed", 0)
        assert (status, out) == (2, "")
        assert told in err, err

    (folder / "0005.png").symlink_to(folder / "0003.png")
    refused("is a link")
    (folder / "0005.png").unlink()
    (folder / "0005.png").write_bytes(b"GIF89a")
    refused("cannot be read")
    Image.new("L", (9, 8)).save(folder / "0005.png")
    refused("must be (1, 8, 8), as the others")
    Image.new("RGBA", (8, 8)).save(folder / "0005.png")
    refused("must be grey or RGB, of 8 bits, without transparency")
    (folder / "0005.png").rename(folder / "cat.png")
    refused("must hold index.csv with the columns file and label or index, or PNG files whose")
    for name in ("../0003.png", "/etc/passwd", "a\\b.png", ""):
        (folder / "index.csv").write_text(f"file,label\n{name},1\n")
        refused("names a file outside the folder")
    (folder / "index.csv").write_text("file,label\n0003.png,x\n")
    refused("label must be integers")
    (folder / "index.csv").write_text("file\n0003.png\n")
    refused("has neither labels nor indices")
    (folder / "index.csv").write_text("file,label\n0003.png,0\n")
    assert against(run, folder).fooled["n"] == 1


def test_records_of_few_images_hold_all_and_png_needs_images_of_8_bits(tmp_path):
    spec = changed(
        seeds=[0], losses=[{"name": "softmax"}], attacks=[{"name": "fgsm", "eps": [0.1]}],
        checks={"images": 0}, data=SMALL["data"] | {"test_size": 30},
    )  # fmt: skip
    run = runner.run(spec, out=tmp_path / "run").path
    (cell,) = robustloss.load_run(run).cells
    for attack in ("fgsm", "worst-case"):
        with np.load(robustloss.export(run, attack, out=tmp_path / f"{attack}.npz")) as arrays:
            assert np.array_equal(arrays["predictions"], cell.record("FGSM", 0.1).predictions)
            assert arrays["images"].shape == (30, *SHAPE)
        assert robustloss.verify(run, tmp_path / f"{attack}.npz")
    with pytest.raises(ValueError, match=r"format \(=png\) needs images of 8 bits; the pixels of"):
        robustloss.export(run, "fgsm", format="png", out=tmp_path / "a")
    path = cell.path_of(cell.files["records"][1]["file"])
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptFile, match=r"is another file than cell\.json states"):
        robustloss.export(run, "fgsm", out=tmp_path / "a.npz")
