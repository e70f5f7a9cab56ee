"""Files are whole or absent, equal content gives equal bytes, an altered byte is noticed."""

import hashlib
import json
import math
import pickle
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from robustloss import array_files, storage
from robustloss.storage import CorruptFile

# ---- digest


def test_digest_is_sha256_of_the_canonical_text():
    text = b'[{"a":[2,3.5,null,true],"b":"x"},"y"]'
    expected = hashlib.sha256(text).hexdigest()[:16]
    assert storage.digest({"b": "x", "a": (2, 3.5, None, True)}, "y") == expected


def test_digest_tells_apart_what_differs():
    contents = [(1,), (1.0,), ("1",), (True,), (None,), ([1],), (1, 1), ([1, 1],), ({"1": 1},)]
    assert len({storage.digest(*content) for content in contents}) == len(contents)


@pytest.mark.parametrize("part", [np.float32(1), {1, 2}, b"x", {"a": [object()]}])
def test_digest_refuses_what_is_no_plain_value(part):
    with pytest.raises(TypeError, match="digest takes plain values, not"):
        storage.digest("x", part)


def test_digest_refuses_keys_that_json_would_change():
    with pytest.raises(TypeError, match=r"key \(=1\) must be text"):
        storage.digest({1: "a"})


def test_digest_refuses_nan():
    with pytest.raises(ValueError, match="Out of range float"):
        storage.digest({"lr": float("nan")})


# ---- atomic writes


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, failure):
    path = tmp_path / "cell.json"
    storage.write_text(path, "old")

    def fail(_):
        raise failure

    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(type(failure)):
        storage.write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["cell.json"]


def test_a_failed_write_names_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "x"):
        with pytest.raises(OSError, match="directory") as told:
            storage.write_text(path, "new")
        assert ".tmp-" not in str(told.value)


def test_written_files_have_ordinary_permissions(tmp_path):
    storage.write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


WRITER = """
import sys
from robustloss.storage import write_bytes
while True:
    for byte in (b"a", b"b"):
        write_bytes(sys.argv[1], byte * 300_000)
"""


def test_a_killed_writer_leaves_one_whole_content(tmp_path):
    path = tmp_path / "record.npz"
    chance = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        while not path.exists():
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.read_bytes() in (b"a" * 300_000, b"b" * 300_000)
        path.unlink()


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    keep = [tmp_path / ".gitignore", tmp_path / "a.tmp-12", tmp_path / "x" / ".a.tmp-b"]
    for path in [*keep, tmp_path / ".a.tmp-12", tmp_path / "x" / ".model-1.npz.tmp-9"]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    storage.remove_leftovers(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(keep)


# ---- JSON


def test_json_holds_plain_values_and_no_nan(tmp_path):
    data = {"b": [float("nan"), np.float64("inf"), -0.5], "a": (np.int64(3), np.bool_(True), "µ")}
    storage.write_json(tmp_path / "x.json", data)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": [3, True, "µ"], "b": [None, None, -0.5]}
    assert text.endswith("}\n")
    assert text.index('"a"') < text.index('"b"')


def test_the_digest_of_a_content_is_the_same_before_writing_and_after_reading(tmp_path):
    data = {
        "rows": [{"x": 0.1, "n": np.int64(3), "b": np.bool_(True), "t": (1, 2.0)}, {"x": -0.0}],
        "nan": [float("nan"), np.float32("inf")],
        "text": "a\ud800",
        "empty": [],
        "none": None,
    }
    storage.write_json(tmp_path / "x.json", data, sort_keys=False)
    read = storage.read_json(tmp_path / "x.json")
    assert storage.digest_content(read) == storage.digest_content(data)
    others = [{**read, "empty": None}, {**read, "rows": read["rows"][0]}, {**read, "none": []},
              {**read, "rows": read["rows"][::-1]}, {**read, "text": "a"}, {"rows": read["rows"]},
              {**read, "nan": [[None, None]]}, {**read, "more": None}]  # fmt: skip
    digests = {storage.digest_content(each) for each in [read, *others]}
    assert len(digests) == 1 + len(others)


def test_json_can_keep_the_order_of_its_keys(tmp_path):
    storage.write_json(tmp_path / "x.json", {"b": {"d": 1, "c": 2}, "a": 3}, sort_keys=False)
    assert list(storage.read_json(tmp_path / "x.json")["b"]) == ["d", "c"]


@pytest.mark.parametrize("sort_keys", [False, True])
def test_the_text_is_that_of_json_with_an_indent_of_one(tmp_path, sort_keys):
    """To the byte, though rows of plain values are encoded another way."""
    row = {"b": 0.1, "a": "one\n\ud800, {2}: 3", "c": None, "d": True, "e": -3, "f": 1e300}
    data = {"rows": [row, {**row, "b": math.nan}, {}, [], [1, row], {"in": row}, 5, "x"],
            "one": row, "none": [], "empty": {}, "deep": {"a": {"b": [row]}}}  # fmt: skip
    storage.write_json(tmp_path / "a.json", data, sort_keys=sort_keys)
    expected = json.dumps(storage.as_plain(data), indent=1, sort_keys=sort_keys) + "\n"
    assert (tmp_path / "a.json").read_bytes() == expected.encode()


@pytest.mark.parametrize("checked", [False, True])
def test_json_round_trip_is_exact(tmp_path, checked):
    data = {"x": 0.1 + 0.2, "tiny": 5e-324, "big": 2**70, "text": "a\udc80/\n", "none": None}
    storage.write_json(tmp_path / "x.json", data, checked=checked)
    assert storage.read_json(tmp_path / "x.json", checked=checked) == data


@pytest.mark.parametrize("value", [np.zeros(2), {1, 2}, object()])
def test_json_refuses_what_is_no_plain_value(tmp_path, value):
    with pytest.raises(TypeError, match="is no plain value for JSON; arrays: write_arrays"):
        storage.write_json(tmp_path / "x.json", {"x": value})
    assert not list(tmp_path.iterdir())


def test_json_refuses_keys_that_are_no_text(tmp_path):
    with pytest.raises(TypeError, match=r"key \(=0\.1\) must be text"):
        storage.write_json(tmp_path / "x.json", {"eps": {0.1: "a"}})


def test_checked_json_keeps_its_digest_to_itself(tmp_path):
    with pytest.raises(ValueError, match="must not hold the key 'sha256'"):
        storage.write_json(tmp_path / "x.json", {"sha256": "0"}, checked=True)


def test_every_flipped_byte_and_cut_of_checked_json_is_noticed_or_harmless(tmp_path):
    data = {"key": "ab12", "curve": [{"epoch": 1, "loss": 0.25}], "done": True, "none": None}
    path = tmp_path / "x.json"
    storage.write_json(path, data, checked=True)
    whole = path.read_bytes()
    flipped = [
        whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :]
        for i in range(len(whole))
        for flip in (0x01, 0x10, 0x20)  # a neighbouring letter or digit, another row, other case
    ]
    noticed = 0
    for altered in [*flipped, *(whole[:cut] for cut in range(len(whole)))]:
        path.write_bytes(altered)
        try:
            assert storage.read_json(path, checked=True) == data  # white space only
        except CorruptFile:
            noticed += 1
    assert noticed > 0.9 * (len(flipped) + len(whole))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": NaN}', "not valid JSON .NaN is no JSON number"),
        (b'{"a": 1', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "holds a JSON list, not an object"),
    ],
)
def test_unreadable_json_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CorruptFile, match=message):
        storage.read_json(tmp_path / "x.json")


def test_json_without_its_digest_is_refused_when_it_should_have_one(tmp_path):
    storage.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(CorruptFile, match="altered: its sha256 does not fit"):
        storage.read_json(tmp_path / "x.json", checked=True)


@pytest.mark.parametrize("read", [storage.read_json, array_files.read_arrays])
def test_a_missing_file_and_a_folder_cannot_be_read(tmp_path, read):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(CorruptFile, match="cannot be read"):
            read(path)


def test_corrupt_file_crosses_process_borders():
    assert pickle.loads(pickle.dumps(CorruptFile("a.npz is bad"))).args == ("a.npz is bad",)
