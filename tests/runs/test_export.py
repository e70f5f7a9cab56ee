"""Kept images as files for others."""

import csv
import errno
import io
import json
import os
import re
import resource
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import robustloss
from robustloss.image_files import writing_images
from robustloss.results.finished_cell import digest_files
from robustloss.runs import runner
from robustloss.storage import CorruptFile, read_json, write_json
from tests.kept_images import SHAPE, N, write_runs
from tests.small_run import SPEC, changed

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")

FGSM = {"attack": "FGSM", "loss": "L-GM", "seed": 0, "eps": 0.1}


@pytest.fixture(scope="module")
def made(make_once):
    return make_once("kept-images", write_runs)


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


def test_records_of_few_images_hold_all_and_png_needs_images_of_8_bits(tmp_path):
    spec = changed(
        seeds=[0], losses=[{"name": "softmax"}], attacks=[{"name": "fgsm", "eps": [0.1]}],
        checks={"images": 0}, data=SPEC["data"] | {"test_size": 30},
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
