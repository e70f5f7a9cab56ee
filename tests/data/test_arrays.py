"""Data sets in an .npz: images in any form are the same images, and what is none is refused."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from robustloss.data.brought import arrays as brought_arrays
from robustloss.data.brought import pixels
from robustloss.data.files import AbsentError, DataError
from robustloss.data.load import load_dataset
from robustloss.data.streamed import StreamedImages
from robustloss.spec.data import DataSpec
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import changed


def colour(n=60, size=8, seed=0):
    """Images (N, C, H, W) and labels of three classes."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, size, size), np.uint8), np.arange(n) % 3


def save(folder: Path, name="data.npz", **arrays) -> Path:
    x, y = colour()
    given = {"x_train": x, "y_train": y, "x_test": x[:30] ^ 1, "y_test": y[:30]} | arrays
    np.savez(folder / name, **{k: v for k, v in given.items() if v is not None})
    return folder / name


def load(folder: Path, name="arrays", **keys):
    keys = {"file": "data.npz"} | keys if name == "arrays" else keys
    return load_dataset(DataSpec(name=name, **keys), near=folder, root=folder, quiet=True)


def same(one, other):
    assert one.checksum == other.checksum
    assert one.mean == other.mean
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(one, part).images, getattr(other, part).images)
        assert torch.equal(getattr(one, part).labels, getattr(other, part).labels)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x.transpose(0, 2, 3, 1),
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.float32),
        lambda x: (x / 255).astype(np.float16),
        lambda x: np.asfortranarray(x),
    ],
)
def test_images_in_any_form_are_the_same_images(tmp_path, form):
    save(tmp_path)
    whole = load(tmp_path)
    x, _ = colour()
    save(tmp_path, "other.npz", x_train=form(x), x_test=form(x[:30] ^ 1))
    same(whole, load(tmp_path, file="other.npz"))
    assert whole.image_shape == (3, 8, 8)
    position = whole.train.index
    assert torch.equal(whole.train.images, torch.from_numpy(x)[position])


def test_names_of_medmnist_a_validation_set_class_names_and_columns_of_labels(tmp_path):
    x, y = colour()
    parts = {"train": (x, y), "val": (x[:12], y[:12]), "test": (x[:30], y[:30])}
    arrays = {f"{k}_images": v[0] for k, v in parts.items()}
    arrays |= {f"{k}_labels": v[1][:, None] for k, v in parts.items()}
    np.savez_compressed(tmp_path / "data.npz", **arrays, class_names=["a", "b", "c"])
    found = load(tmp_path)
    assert (found.train.n, found.validation.n, found.test.n) == (60, 12, 30)
    assert found.class_names == ("a", "b", "c")
    assert found.label == "data"


def test_sixteenths_keep_their_levels_and_other_numbers_are_rounded_and_told(tmp_path):
    images, y = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    arrays = {"y_train": y, "y_test": y[:500]}
    save(tmp_path, x_train=images / 16, x_test=images[:500] / 16, **arrays)
    found = load(tmp_path)
    assert (found.train.scale, found.summary) == (16.0, "")
    assert torch.equal(
        found.train.images[:, 0].double(), torch.from_numpy(images)[found.train.index]
    )
    odd = np.random.default_rng(0).random(images.shape)
    save(tmp_path, x_train=odd, x_test=odd[:500], **arrays)
    found = load(tmp_path)
    assert found.summary == "floating point images rounded to 256 levels"
    exact = torch.from_numpy(odd)[found.train.index, None]
    assert (found.train.batch(slice(None)) - exact).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (x / 255).transpose(0, 2, 3, 1)])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_that_do_not_fit_in_memory_are_read_from_a_file(tmp_path, monkeypatch, form, write):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = load(save(tmp_path).parent)
    x, y = colour()
    some = {"x_train": form(x), "x_test": form(x[:30] ^ 1), "x_val": form(x[:9])}
    write(tmp_path / "other.npz", y_train=y, y_test=y[:30], y_val=y[:9], **some)
    kept = load(tmp_path, file="other.npz")
    monkeypatch.setattr(pixels, "memory_size", lambda: 1000)
    monkeypatch.setattr(brought_arrays, "_PIECE", 1000)
    streams(load(tmp_path), whole)
    streams(load(tmp_path, file="other.npz"), kept)
    few = {"train_size": 9, "classes": [2, 0], "class_fractions": [0.5, 1.0]}
    found = load(tmp_path, **few)
    monkeypatch.setattr(pixels, "memory_size", lambda: 10**9)
    streams(found, load(tmp_path, **few))


def streams(one, other):
    """Whether images are read from a file, and are those of the other data set in memory."""
    assert (one.checksum, one.training_checksum) == (other.checksum, other.training_checksum)
    assert (one.mean, one.std, one.summary) == (other.mean, other.std, other.summary)
    for part in ("train", "validation", "test"):
        images, expected = getattr(one, part), getattr(other, part)
        assert isinstance(images.images, StreamedImages)
        assert isinstance(expected.images, torch.Tensor)
        assert torch.equal(images.labels, expected.labels)
        for selection in (slice(0, 4), torch.tensor([2, 0, 2]), slice(None)):
            assert torch.equal(images.batch(selection), expected.batch(selection))


def test_a_layout_that_fits_twice_is_asked_for(tmp_path):
    x = colour()[0][:, :, :, :3]
    save(tmp_path, x_train=x, x_test=x[:30])
    with pytest.raises(DataError, match=r'\(60, 3, 8, 3\), which fits both\. Say data.layout = "n'):
        load(tmp_path)
    assert load(tmp_path, layout="nchw").image_shape == (3, 8, 3)
    assert load(tmp_path, layout="nhwc").image_shape == (3, 3, 8)


X, Y = colour()
WRONG = {
    "no labels": ({"y_train": None}, r"has no x_train and y_train; it has x_test, x_train, y_te"),
    "fewer labels": ({"y_train": Y[:50]}, r"y_train has shape \(50,\), but must have \(60,\): one"),
    "one-hot": ({"y_train": np.eye(3)[Y]}, r"y_train has shape \(60, 3\).*labels\.argmax\(1\)"),
    "text": ({"y_train": Y.astype(str)}, r"y_train holds text, but .*np\.unique\(labels, return"),
    "fractions": ({"y_train": Y / 2}, r"y_train holds float64, but labels must be integers"),
    "from one": (
        {"y_train": Y + 1, "y_test": Y[:30] + 1},
        r"no image of class 0, but each class from 0 to 3 .*begin at 1: take 1 off",
    ),
    "negative": ({"y_train": Y - 1}, r"y_train lie in \[-1, 1\], but must lie in 0 to K - 1"),
    "regression": ({"y_train": Y * 10**6}, r"y_train lie in \[0, 2000000\]"),
    "one class": ({"y_train": Y * 0, "y_test": Y[:30] * 0}, r"has one class, but .* two or more"),
    "new in test": ({"y_test": Y[:30] + 1}, r"y_train has no image of class 3"),
    "names": ({"class_names": ["a", "b"]}, r"y_train lie in \[0, 2\], but must lie in 0 to 1"),
    "empty test": ({"x_test": X[:0], "y_test": Y[:0]}, r"x_test holds no images"),
    "0 to 255": ({"x_train": X * 1.0}, r"x_train lies in \[0, 255\], but .* Divide by 255"),
    "normalised": ({"x_train": X / 128 - 1}, r"x_train lies in \[-1, .*Undo the normalisation"),
    "a little": (
        {"x_train": X / 254},
        r"x_train lies in \[0, 1\.00394\].* Clip what lies a little",
    ),
    "NaN": ({"x_train": np.where(X == 7, np.nan, X / 255)}, r"x_train holds NaN or infinity"),
    "int64": ({"x_train": X.astype(np.int64)}, r"x_train is int64, but.*images\.astype\(np\.uint8"),
    "bands": ({"x_train": np.tile(X, (1, 2, 1, 1))}, r"\(60, 6, 8, 8\), but images have 1 or 3"),
    "flat": ({"x_train": X.reshape(60, -1)}, r"x_train has shape \(60, 192\), but must be"),
    "other size": (
        {"x_test": X[:30, :, :4]},
        r"one shape .* x_train \(3, 8, 8\), x_test \(3, 4, 8",
    ),
    "objects": ({"y_train": Y.astype(object)}, r"y_train\.npy holds Python objects"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_arrays_that_are_no_data_set_are_refused_with_the_reason(tmp_path, kind):
    arrays, message = WRONG[kind]
    save(tmp_path, **arrays)
    with pytest.raises(DataError, match=rf"data\.file \(='data\.npz'\).*{message}"):
        load(tmp_path)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "bit":
        path.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    elif how == "text":
        path.write_text("x_train, y_train\n")
    elif how == "empty":
        path.touch()
    elif how in ("others", "none"):
        np.savez(path, **{name: np.zeros(1) for name in ("labels", "images") if how == "others"})
    elif how == "lfs":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how in ("claim", "bomb"):
        header = io.BytesIO()
        shape = (10**6, 3, 32, 32) if how == "claim" else (10**6, 2000)
        about = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, about)
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("x_train.npy", "w", force_zip64=True) as member,
        ):
            member.write(header.getvalue())
            for _ in range(2000 if how == "bomb" else 1):
                member.write(bytes(10**6))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", r"cannot be read \(File is not a zip file\)\. Write it by np\.savez"),
        ("bit", r"cannot be read \(Bad CRC-32"),
        ("text", r"cannot be read \(File is not a zip file"),
        ("empty", r"cannot be read \(it is empty, 0 bytes\)\. Write it by np\.savez"),
        ("others", r"has no x_train and y_train; it has images, labels\. Write x_train, y_train"),
        ("none", r"has no x_train and y_train; it has no arrays\. Write x_train, y_train"),
        ("lfs", r"a pointer of Git LFS\)\. Fetch it by git lfs pull"),
        ("pipe", r"is no file"),
        ("folder", r"is no file"),
        ("claim", r"x_train\.npy is cut off"),
        ("bomb", r"unpacks to 2,000,000,\d+ bytes, more than 100 times its own"),
    ],
)
def test_files_that_are_no_arrays_are_refused_and_waited_for_by_nobody(tmp_path, how, message):
    damage(save(tmp_path), how)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_an_absent_file_is_absent_and_keys_of_others_are_refused(tmp_path):
    with pytest.raises(AbsentError, match=r"data.file \(='data.npz'\) is not there; looked for"):
        load(tmp_path)
    for keys, message in [
        ({"name": "arrays"}, r"data.file \(=None\) must be given"),
        ({"name": "digits", "file": "x"}, r'data.file .* is for name = "arrays" only, not'),
        ({"name": "digits", "params": {"a": 1}}, r'params .*for name = "hugging_face" or "torch'),
        ({"name": "arrays", "file": "x", "layout": "hwc"}, r'layout .* must be "nchw" or "nhwc"'),
        ({"name": "arrays", "file": "x", "image_size": 8}, r"image_size .* only, not 'arrays'"),
        ({"name": "pml:Digits"}, r'begins with "pml:", which names a loss and no data set'),
    ]:
        with pytest.raises(SpecError, match=message):
            load_spec(changed(data=keys))
