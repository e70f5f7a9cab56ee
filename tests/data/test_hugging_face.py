"""Folders of Hugging Face datasets have the images that other doors give."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.datasets import FashionMNIST

from robustloss.cli.listing import find_data
from robustloss.data import outside, streamed
from robustloss.data.brought import hugging_face
from robustloss.data.files import DataError
from robustloss.data.load import load_dataset
from robustloss.data.streamed import StreamedImages
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.spec.data import DataSpec
from robustloss.spec.load import load_spec
from tests.data.test_arrays import colour, same, save
from tests.data.test_load import need_files_of
from tests.small_run import changed, files

X, Y = colour()
TEST = X[:30] ^ 1


def encode(image, form="PNG") -> bytes:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    image.save(content := io.BytesIO(), form)
    return content.getvalue()


PNGS, TESTS = [encode(each) for each in X], [encode(each) for each in TEST]


def table(images=None, labels=Y, *, names=None, image="image", label="label", **more):
    """A table as `datasets` writes it: a struct of bytes and path, and labels."""
    rows = [{"bytes": each, "path": None} for each in (PNGS if images is None else images)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {image: pa.array(rows, kind)}
    if labels is not None:
        columns[label] = labels if isinstance(labels, pa.Array) else pa.array(labels)
    features = {image: {"_type": "Image"}}
    if names:
        features[label] = {"names": names, "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table({**columns, **more}).replace_schema_metadata(metadata)


def plain(images=PNGS, labels=Y, **more):
    """A table of binary images and integers, as others write it."""
    return pa.table({"image": pa.array(images, pa.binary()), "label": labels, **more})


def write(folder: Path, **tables) -> Path:
    """Write tables by the names of their files, `__` for a folder."""
    for name, each in tables.items():
        path = folder / f"{name.replace('__', '/')}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(each, path, row_group_size=7)
    return folder


def load(folder: Path, **keys):
    data = DataSpec(name="hugging_face", folder=str(folder), **keys)
    return load_dataset(data, near=folder, root=folder, quiet=True)


def write_arrow(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_stream(str(path), content.schema) as writer:
        writer.write_table(content, max_chunksize=7)


@pytest.fixture
def arrays(tmp_path):
    save(tmp_path, x_test=TEST)
    data = DataSpec(name="arrays", file="data.npz")
    return load_dataset(data, near=tmp_path, root=tmp_path, quiet=True)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    "files",
    [
        {"train": table(), "test": table(TESTS, Y[:30])},
        {"data__train-00000-of-00001": plain(), "data__test-00000-of-00001": plain(TESTS, Y[:30])},
        {"own__train__0000": table(), "own__test__0000": table(TESTS, Y[:30])},
        {
            "train-00000-of-00002": table(PNGS[:40], Y[:40], names=["0", "1", "2"]),
            "train-00001-of-00002": table(PNGS[40:], Y[40:], names=["0", "1", "2"]),
            "validation-00000-of-00001": table(TESTS, Y[:30], names=["0", "1", "2"]),
        },
        {"train": plain(labels=Y.astype(str)), "test": plain(TESTS, Y[:30].astype(str))},
        {
            "train": plain(labels=pa.array(Y.astype(str)).dictionary_encode()),
            "test": plain(TESTS, pa.array(Y[:30].astype(str)).dictionary_encode()),
        },
    ],
    ids=["files", "data", "folders", "shards", "texts", "dictionary"],
)
def test_parquet_in_any_form_holds_the_images_of_arrays(
    arrays, tmp_path, monkeypatch, files, in_memory
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = load(write(tmp_path / "set", **files), in_memory=in_memory)
    assert isinstance(found.train.images, torch.Tensor) == in_memory
    assert (found.label, found.class_names) == ("set", ("0", "1", "2"))
    assert (found.checksum, found.mean, found.std) == (arrays.checksum, arrays.mean, arrays.std)
    assert found.training_checksum == arrays.training_checksum
    for part in ("train", "validation", "test"):
        one, other = getattr(found, part), getattr(arrays, part)
        for selection in (slice(0, 9), torch.tensor([3, 0, 3]), slice(None)):
            assert torch.equal(one.batch(selection), other.batch(selection))
        assert torch.equal(one.labels, other.labels)


def test_what_save_to_disk_wrote_and_fractions_of_it(arrays, tmp_path):
    folder = tmp_path / "set"
    write_arrow(folder / "train/data-00000-of-00002.arrow", table(PNGS[:20], Y[:20]))
    write_arrow(folder / "train/data-00001-of-00002.arrow", table(PNGS[20:], Y[20:]))
    write_arrow(folder / "test/data-00000-of-00001.arrow", table(TESTS, Y[:30]))
    write_arrow(folder / "train/cache-1234.arrow", plain())  # of a map, which counts for nothing
    same(load(folder), arrays)
    keys = {"train_size": 12, "test_size": 6, "classes": [2, 0], "class_fractions": [0.5, 1.0]}
    data = DataSpec(name="arrays", file="data.npz", **keys)
    same(load(folder, **keys), load_dataset(data, near=tmp_path, root=tmp_path, quiet=True))


def test_images_that_no_set_asks_for_are_not_decoded(tmp_path):
    damaged = [*PNGS[:50], *[b"no image"] * 10]
    write(tmp_path, train=table(damaged), test=table(TESTS, Y[:30]))
    with pytest.raises(DataError, match=r"10 images cannot be decoded: row 50 of train\.parquet"):
        load(tmp_path)
    assert load(tmp_path, validation_size=3, train_size=6, classes=[0, 1]).train.n == 6


def test_columns_and_splits_are_named_where_there_are_several(tmp_path):
    write(
        tmp_path,
        train=table(image="img", label="coarse", fine=Y * 0 + np.arange(60) % 5),
        extra=table(image="img", label="coarse", fine=np.arange(60) % 5),
        test=table(TESTS, np.full(30, -1), image="img", label="coarse", fine=np.full(30, -1)),
    )
    (tmp_path / "extra.parquet").rename(tmp_path / "extra-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"2 columns that may be the label: coarse, fine\. Name on"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"column fine of test is -1 in all rows.* no label\. Name"):
        load(tmp_path, params={"label": "fine"})
    found = load(tmp_path, params={"label": "fine", "test": "extra"})
    assert (found.num_classes, found.test.n) == (5, 60)


def test_without_test_images_a_fifth_is_held_out_and_told(tmp_path):
    found = load(write(tmp_path, anything=table()))
    assert (found.train.n, found.validation.n, found.test.n) == (44, 4, 12)
    assert found.summary == "one image in 5 held out for testing: it has no test images"


def test_pictures_are_resized_and_converted_as_those_of_a_folder(tmp_path):
    grey = Image.new("L", (20, 16), 100)
    mixed = [
        encode(grey),
        encode(Image.new("RGB", (16, 30), (9, 9, 200)), "JPEG"),
        encode(Image.new("CMYK", (16, 16), (9, 9, 200, 0)), "JPEG"),
        encode(Image.new("RGB", (16, 16), (1, 2, 3)).quantize(), "PNG"),
        encode(Image.new("RGBA", (16, 16), (1, 2, 3, 0)), "WEBP"),
    ]
    write(tmp_path, train=table(mixed * 12), test=table(mixed * 6, Y[:30]))
    with pytest.raises(DataError, match=r"several|different sizes \(row \d+ of .* Give data.image"):
        load(tmp_path)
    found = load(tmp_path, image_size=8)
    assert found.image_shape == (3, 8, 8)
    assert (found.test.batch(torch.tensor([0])) == 100 / 255).all()
    assert found.summary == (
        "the center of pictures whose shorter side became 8; 18 images converted to 3 channels"
    )
    assert load(tmp_path, image_size=8, channels=1).image_shape == (1, 8, 8)


def run_by(table, out, **keys):
    """Train and attack a softmax on a data set."""
    spec = changed(seeds=[0], losses=[{"name": "softmax", "label": "S"}], data=table)
    assert runner.run(spec, out=out, **keys).failures == []
    return load_run(out)


def test_a_run_by_any_door_has_the_same_numbers(tmp_path, monkeypatch, no_report):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = str(write(tmp_path / "set", train=table(), test=table(TESTS, Y[:30])))
    save(tmp_path, x_test=TEST)
    last = {"x_train": X.transpose(0, 2, 3, 1) / 255, "x_test": TEST.transpose(0, 2, 3, 1) / 255}
    save(tmp_path, "last.npz", **last)
    doors = (
        {"name": "arrays", "file": str(tmp_path / "data.npz")},
        {"name": "arrays", "file": str(tmp_path / "last.npz")},
        {"name": "hugging_face", "folder": folder},
        {"name": "hugging_face", "folder": folder, "in_memory": False},
    )
    found = []
    for number, data in enumerate(doors):
        run = run_by(data, tmp_path / f"run-{number}")
        found.append((run.rows, files(run.path)))
    assert all(each == found[0] for each in found[1:])


@pytest.mark.mnist
def test_fashion_mnist_by_every_door_is_trained_attacked_and_reported(real_data, tmp_path):
    need_files_of("fashion_mnist")
    (tmp_path / "own.py").write_text(
        "from torch.utils.data import Subset\n"
        "from torchvision.datasets import FashionMNIST as F\n"
        "def own(root):\n"
        "    return {'train': Subset(F(root), range(600)),\n"
        "            'test': Subset(F(root, train=False), range(100))}\n"
    )
    train, test = (FashionMNIST(real_data, train=first) for first in (True, False))
    x, y = train.data[:600].numpy(), train.targets[:600].numpy()
    x_test, y_test = test.data[:100].numpy(), test.targets[:100].numpy()
    save(tmp_path, x_train=x[:, None], y_train=y, x_test=x_test[:, None], y_test=y_test)
    save(
        tmp_path,
        "last.npz",
        x_train=x[..., None],
        y_train=y,
        x_test=x_test[..., None],
        y_test=y_test,
    )
    pictures = [[encode(each[None]) for each in part] for part in (x, x_test)]
    folder = write(tmp_path / "set", train=table(pictures[0], y), test=table(pictures[1], y_test))
    doors = (
        {"name": f"{tmp_path}/own.py:own"},
        {"name": "arrays", "file": str(tmp_path / "data.npz"), "layout": "nchw"},
        {"name": "arrays", "file": str(tmp_path / "last.npz")},
        {"name": "hugging_face", "folder": str(folder)},
        {"name": "torchvision:FashionMNIST", "train_size": 100, "test_size": 50},
    )
    runs = []
    for number, data in enumerate(doors):
        out = tmp_path / f"run-{number}"
        runs.append(run_by(data | {"label": "Clothes"}, out, data=real_data))
        assert "Clothes" in (out / "report/index.html").read_text()
    assert len({run.provenance["data"]["checksum"] for run in runs[:4]}) == 1
    assert all(run.rows == runs[0].rows for run in runs[1:4])
    assert runs[4].rows[0]["n"] == 50


def test_check_data_takes_the_folder_as_it_is(tmp_path):
    write(tmp_path, train=table())
    data, _ = find_data(str(tmp_path))
    assert (data.name, data.folder) == ("hugging_face", str(tmp_path))


def test_what_does_not_fit_in_memory_is_read_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "set", train=table(), test=table(TESTS, Y[:30]))
    monkeypatch.setattr(hugging_face, "memory_size", lambda: 1000)
    assert isinstance(load(tmp_path / "set").train.images, StreamedImages)
    monkeypatch.setattr(streamed.tempfile, "TemporaryFile", raising(OSError(28, "No space left")))
    with pytest.raises(DataError, match=r"cannot be written to .*No space left.*XDG_CACHE_HOME"):
        load(tmp_path / "set")


def raising(error):
    def call(*args, **keys):
        raise error

    return call


def test_no_progress_is_written_where_nobody_watches(tmp_path, capsys):
    write(tmp_path, train=table(), test=table(TESTS, Y[:30]))
    load_dataset(DataSpec(name="hugging_face", folder=str(tmp_path)))
    assert capsys.readouterr().err == ""


def test_it_gives_outside_images_too(tmp_path):
    save(tmp_path, x_test=TEST)
    digits = load_dataset(DataSpec(), quiet=True)
    write(tmp_path / "set", train=table(image="img"), test=table(TESTS, Y[:30], image="img"))
    tables = [
        {"name": "hugging_face", "folder": str(tmp_path / "set"), "params": {"image": "img"}},
        {"name": "arrays", "file": str(tmp_path / "data.npz")},
    ]
    spec = load_spec(changed(outside=tables))
    one, other = outside.load_outside(spec, digits, None)
    assert one.checksum == other.checksum
    assert one.images.shape == (1, 8, 8)
    spec = load_spec(changed(outside=[tables[0] | {"params": {"image": "x"}}]))
    with pytest.raises(
        DataError, match=r"outside\[0\] \(.*\): params\.image \(='x'\) is no column"
    ):
        outside.load_outside(spec, digits, None)
