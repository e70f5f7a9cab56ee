"""Images of any origin against a model of a run: what is read, what is found, what is refused."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import robustloss
from tests.kept_images import SHAPE, write_runs

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")


@pytest.fixture(scope="module")
def run(make_once):
    return make_once("kept-images", write_runs) / "all"


@pytest.fixture
def arrays(run):
    (cell,) = [c for c in robustloss.load_run(run).cells if (c.label, c.seed) == ("L-GM", 0)]
    expected = cell.record("FGSM", 0.1)
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
