"""What is no Hugging Face dataset: tables and files that are refused, with the reason."""

from __future__ import annotations

import os
import random
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from robustloss.data.files import AbsentError, DataError
from robustloss.spec.data import DataSpec
from tests.data.test_hugging_face import (
    PNGS,
    TESTS,
    X,
    Y,
    encode,
    load,
    plain,
    table,
    write,
    write_arrow,
)

WIDE = encode(Image.new("RGB", (9, 8)))
DEEP = encode(Image.fromarray(np.zeros((8, 8), np.uint16)))
LISTS = pa.array(X.reshape(60, -1).tolist(), pa.list_(pa.uint8()))
TWO = table(mask=pa.array(PNGS, pa.binary())).replace_schema_metadata(None)
WRONG = {
    "no files": ({}, {}, r"holds no parquet or Arrow file\. Name the folder that has train and te"),
    "two sets": (
        {"a__train": table(), "b__train": table()},
        {},
        r"holds 2 data sets: a, b\. Name the folder of one",
    ),
    "a shard gone": (
        {"train-00000-of-00002": table()},
        {},
        r"lacks train-00001-of-00002\.parquet, of 2 files of train",
    ),
    "no images": ({"train": table().drop_columns("image")}, {}, r"no column of images: it has lab"),
    "no labels": ({"train": table(labels=None)}, {}, r"has no column of labels: it has image \("),
    "two images": ({"train": TWO}, {}, r"2 columns that may be the image: image, mask\. Name o"),
    "lists": (
        {"train": pa.table({"pixels": LISTS, "label": Y})},
        {},
        r"no column of images: it has pixels \(list.*label \(int64\).*cast_column",
    ),
    "captions": (
        {"train": plain(labels=[f"a cat, number {i}" for i in range(60)])},
        {},
        r"column label has 60 different texts for 60 training images, which are no classes",
    ),
    "unlabelled": (
        {"train": table(), "test": table(TESTS, np.full(30, -1))},
        {},
        r'label of test is -1 in all rows.* params = { test = "validation" }',
    ),
    "negative": ({"train": table(labels=Y - 1)}, {}, r"label of train lie in \[-1, 1\], but must"),
    "from one": ({"train": table(labels=Y + 1)}, {}, r"no image of class 0.*begin at 1: take 1"),
    "names": (
        {"train": table(names=["a", "b"])},
        {},
        r"label of train lie in \[0, 2\], but must lie in 0 to 1",
    ),
    "one class": ({"train": table(labels=Y * 0)}, {}, r"label of train has one class, but network"),
    "new in test": (
        {"train": plain(labels=Y.astype(str)), "test": plain(TESTS[:3], ["0", "1", "z"])},
        {},
        r"label of train has no image of class z",
    ),
    "missing labels": (
        {"train": table(labels=pa.array([None, *Y[1:].tolist()]))},
        {},
        r"column label is empty in 1 rows of train\.parquet\. Leave these rows out",
    ),
    "fractions": ({"train": table(labels=Y / 2)}, {}, r"column label is double, but labels are"),
    "one-hot": (
        {"train": table(labels=pa.array(np.eye(3)[Y].tolist()))},
        {},
        r"column label is list<.*>, but labels are integers 0 to K - 1 or names",
    ),
    "empty test": (
        {"train": table(), "test": table([], np.zeros(0, np.int64))},
        {},
        r"split test holds no images",
    ),
    "other columns": (
        {"train": table(), "test": table(TESTS, Y[:30]).rename_columns(["picture", "label"])},
        {},
        r"column image is missing in test\.parquet, and is struct.* in train\.parquet\. Write all",
    ),
    "other types": (
        {"train": table(), "test": table(TESTS, Y[:30].astype(str))},
        {},
        r"column label is string in test\.parquet, and is int64 in train\.parquet",
    ),
    "no picture": (
        {"train": table([*PNGS[:-1], b"GIF89a"])},
        {},
        r"1 image cannot be decoded: row 59 of train\.parquet \(no image\)",
    ),
    "no bytes": ({"train": table([None, *PNGS[1:]])}, {}, r"row 0 of train.parquet \(no bytes: a "),
    "16 bits": ({"train": table([*PNGS[:-1], DEEP])}, {}, r"row 59 .*more than 8 bits a channel"),
    "sizes": ({"train": table([*PNGS[:-1], WIDE])}, {}, r"different sizes \(row 59 .* is 9x8\)\. "),
    "a column": ({"train": table()}, {"image": "img"}, r"data\.params\.image \(='img'\) is no col"),
    "a label": ({"train": table()}, {"label": "l"}, r"is no column of .*, which has image \(struc"),
    "labels as images": ({"train": table()}, {"image": "label"}, r"no column of images of that na"),
    "a split": ({"train": table()}, {"test": "tset"}, r"params\.test \(='tset'\) is no split of ."),
    "a split twice": ({"train": table()}, {"test": "train"}, r"params\.test is the training split"),
    "a key": ({"train": table()}, {"lable": "x"}, r"lable.*one of image, label.*did you mean 'lab"),
    "a value": ({"train": table()}, {"label": 3}, r"data\.params\.label \(=3\) must be a name, un"),
    "no train": (
        {"test": table(), "validation": table()},
        {},
        r'has no training split; it has test, validation\. Say which .*train = "test"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_tables_that_are_no_data_set_are_refused_with_the_reason(tmp_path, kind):
    files, params, message = WRONG[kind]
    with pytest.raises(DataError, match=message) as caught:
        load(write(tmp_path, **files), params=params)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("text", r"train\.parquet: cannot be read \(.*\)\. Write it anew, or leave it out"),
        ("cut", r"train\.parquet: cannot be read \(.*\)\. Write it anew"),
        ("flipped", r"train\.parquet: cannot be read|cannot be decoded|row \d+ of train.parquet"),
        ("empty", r"train\.parquet: cannot be read"),
        ("pipe", r"train\.parquet: cannot be read \(no ordinary file\)"),
        ("folder", r"train\.parquet: cannot be read \(no ordinary file\)"),
        ("pointer", r"a pointer of Git LFS\)\. Fetch it by git lfs pull"),
        ("arrow", r"train\.arrow: cannot be read"),
        ("gone", r"is not there; looked for .*Name a folder with parquet files in it"),
    ],
)
def test_files_that_are_no_tables_are_refused_and_waited_for_by_nobody(tmp_path, how, message):
    write(folder := tmp_path / "set", train=table())
    path = folder / "train.parquet"
    content = path.read_bytes()
    path.unlink()
    if how == "text":
        path.write_text("image,label\n")
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        path.write_bytes(
            content[:2000] + bytes(255 - b for b in content[2000:2600]) + content[2600:]
        )
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    elif how == "arrow":
        path.with_suffix(".arrow").write_bytes(content)
    elif how == "gone":
        folder.rename(tmp_path / "other")
    with pytest.raises(DataError, match=message) as caught:
        load(folder)
    assert isinstance(caught.value, AbsentError) == (how == "gone")


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    from robustloss.data.brought import shards

    monkeypatch.setattr(shards, "_BOMB", (1000, 2))
    bomb = plain([b"\0" * 100_000] * 60)
    with pytest.raises(DataError, match=r"unpacks to .* bytes, over 2 times its own"):
        load(write(tmp_path, train=bomb))


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path, train=table())
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        DataError, match=r"hugging_face.* needs pyarrow.*pip install pyarrow, or 'rob"
    ):
        load(tmp_path)


def test_its_folder_is_asked_for_and_keys_of_others_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)folder.*hugging_face reads the folder it names"):
        DataSpec(name="hugging_face")
    with pytest.raises(ValueError, match=r"(?s)layout.*is for name = \"arrays\""):
        DataSpec(name="hugging_face", folder="x", layout="nchw")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_spoiled_tables_are_refused_or_harmless(tmp_path, kind):
    if kind == "parquet":
        path = write(tmp_path, train=table()) / "train.parquet"
    else:
        path = tmp_path / "train/data-00000-of-00001.arrow"
        write_arrow(path, table(labels=pa.array(Y.astype(str))))
    content, drawn = path.read_bytes(), random.Random(0)
    told = []
    for _ in range(80):
        spoiled, at = bytearray(content), drawn.randrange(len(content))
        how = drawn.choice(("bit", "zeros", "cut", "twice", "end"))
        if how == "bit":
            spoiled[at] ^= 1 << drawn.randrange(8)
        elif how == "zeros":
            spoiled[at : at + 40] = bytes(len(spoiled[at : at + 40]))
        elif how == "cut":
            del spoiled[at:]
        elif how == "twice":
            spoiled[at:at] = spoiled[at : at + 9]
        else:
            spoiled[-drawn.randint(1, 900)] = drawn.randrange(256)
        path.write_bytes(spoiled)
        try:
            load(tmp_path)
        except DataError as error:
            told.append(str(error))
    assert len(told) > 20
    assert all(path.name in text or "data.folder" in text for text in told)
