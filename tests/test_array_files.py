"""Array files: bit for bit, byte for byte, and nothing altered or foreign gets in."""

import hashlib
import io
import random
import time
import zipfile

import numpy as np
import pytest

from robustloss import array_files
from robustloss.storage import CorruptFile

ARRAYS = {
    "logits": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "index": np.array([5, 1, 9]),
    "flag": np.array([True, False, True]),
}


def seal(body: bytes) -> bytes:
    """A file whose digest fits whatever it holds: what an attacker would write."""
    return body + hashlib.sha256(body).hexdigest().encode()


def sealed_zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = b"0" * 64
    return seal(buffer.getvalue()[:-64])


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.zeros((0, 4), np.float32),
        np.array([np.nan, -np.inf, -0.0, 5e-324]),
        np.arange(6, dtype=np.float16).reshape(2, 3).T,
        np.arange(20, dtype=np.uint8)[::3],
        np.arange(3, dtype=">i4"),
        np.array([[True], [False]]),
    ],
)
def test_arrays_come_back_bit_for_bit(tmp_path, array):
    array_files.write_arrays(tmp_path / "x.npz", {"a": array}, {"eps": 0.1, "norm": None})
    arrays, meta = array_files.read_arrays(tmp_path / "x.npz")
    assert meta == {"eps": 0.1, "norm": None}
    assert arrays["a"].dtype == array.dtype.newbyteorder("<")
    assert arrays["a"].shape == array.shape
    np.testing.assert_array_equal(arrays["a"].view(), array)
    if array.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(arrays["a"]), np.signbit(array))


def test_array_files_are_ordinary_npz(tmp_path):
    array_files.write_arrays(tmp_path / "x.npz", ARRAYS)
    with np.load(tmp_path / "x.npz") as archive:
        np.testing.assert_array_equal(archive["logits"], ARRAYS["logits"])
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.testzip() is None


def test_equal_content_gives_equal_bytes(tmp_path, monkeypatch):
    array_files.write_arrays(tmp_path / "x", ARRAYS, {"a": 1, "b": 2})
    monkeypatch.setattr(time, "time", lambda: 2e9)  # a later day
    same = {name: np.asfortranarray(ARRAYS[name]) for name in reversed(ARRAYS)}
    same["index"] = same["index"].astype(">i8")
    array_files.write_arrays(tmp_path / "y", same, {"b": 2, "a": 1})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_the_format_has_not_drifted(tmp_path):
    # a changed digest means that finished runs no longer resume to the same bytes
    array_files.write_arrays(tmp_path / "x", ARRAYS, {"a": 1})
    digest = hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    assert digest.startswith("3953a79db453808a")


def test_every_flipped_byte_of_an_array_file_is_noticed(tmp_path):
    path = tmp_path / "x.npz"
    array_files.write_arrays(path, ARRAYS, {"a": 1})
    whole = path.read_bytes()
    chance = random.Random(1)
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= chance.randrange(1, 256)
        path.write_bytes(altered)
        with pytest.raises(CorruptFile, match="truncated or altered"):
            array_files.read_arrays(path)


def test_every_truncation_and_any_addition_is_noticed(tmp_path):
    path = tmp_path / "x.npz"
    array_files.write_arrays(path, ARRAYS)
    whole = path.read_bytes()
    for altered in [*(whole[:cut] for cut in range(len(whole))), whole + b"\0", b"\0" + whole]:
        path.write_bytes(altered)
        with pytest.raises(CorruptFile, match=r"truncated or altered|is empty \(0 bytes\)"):
            array_files.read_arrays(path)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a stored object was unpickled",))


@pytest.mark.parametrize(
    "content",
    [
        sealed_zip({"meta.json": b"{}", "a.npy": npy(np.array([Bomb()], dtype=object))}),
        sealed_zip({"meta.json": b"{}", "a.npy": b"no array"}),
        sealed_zip({"a.npy": npy(np.zeros(2))}),
        sealed_zip({"meta.json": b"{"}),
        seal(npy(np.zeros(2))),
        seal(npy(np.array([Bomb()], dtype=object))),
        seal(b"plain text"),
        seal(b""),
    ],
)
def test_a_foreign_file_with_a_fitting_digest_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(CorruptFile, match="is no array file of robustloss"):
        array_files.read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "a b", "", ".."])
def test_array_names_cannot_leave_their_file(tmp_path, name):
    with pytest.raises(ValueError, match="must be an identifier"):
        array_files.write_arrays(tmp_path / "x.npz", {name: np.zeros(2)})
    member = sealed_zip({"meta.json": b"{}", f"{name}.npy": npy(np.zeros(2))})
    (tmp_path / "x.npz").write_bytes(member)
    with pytest.raises(CorruptFile, match="is no identifier"):
        array_files.read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "array",
    [np.array([None]), np.array(["text"]), np.zeros(2, complex), np.zeros(2, np.longdouble)],
)
def test_arrays_that_need_pickle_or_depend_on_the_machine_are_refused(tmp_path, array):
    with pytest.raises(ValueError, match="must be bool, integer or float of at most 64 bit"):
        array_files.write_arrays(tmp_path / "x.npz", {"a": array})


def test_a_packed_file_is_read_only_where_its_size_is_bounded(tmp_path):
    arrays = {"zeros": np.zeros(100_000), "index": np.arange(3)}
    array_files.write_arrays(tmp_path / "x.npz", arrays, {"a": 1}, packed=True)
    assert (tmp_path / "x.npz").stat().st_size < 5_000
    read, meta = array_files.read_arrays(tmp_path / "x.npz", unpacked=10**6)
    assert meta == {"a": 1}
    np.testing.assert_array_equal(read["zeros"], arrays["zeros"])
    with pytest.raises(CorruptFile, match="is packed"):
        array_files.read_arrays(tmp_path / "x.npz")
    with pytest.raises(CorruptFile, match="more than 800000 bytes"):
        array_files.read_arrays(tmp_path / "x.npz", unpacked=800_000)
