"""The files of the MNIST family: damaged ones are refused, absent ones fetched or named."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
import tracemalloc
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from robustloss.data import files as data_files
from robustloss.data import mnist
from robustloss.data.files import DataError, data_root
from robustloss.data.load import load_dataset
from robustloss.spec.data import DataSpec

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES = list(mnist.FILES)


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def numbered_images(n: int) -> np.ndarray:
    pixels = np.zeros((n, 28, 28), np.uint8)
    pixels[:, 0, 0], pixels[:, 27, 27] = np.arange(n) // 256, np.arange(n) % 256
    return pixels


@pytest.fixture(scope="session")
def contents() -> dict[str, bytes]:
    """Well-formed files of ten equal classes, whose first and last pixel spell the position."""
    made = {}
    for part, n in (("train", 60_000), ("t10k", 10_000)):
        made[f"{part}-images-idx3-ubyte"] = idx_bytes(numbered_images(n))
        made[f"{part}-labels-idx1-ubyte"] = idx_bytes((np.arange(n) % 10).astype(np.uint8))
    return made


@pytest.fixture(scope="session")
def compressed(contents) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content, 1) for name, content in contents.items()}


@pytest.fixture
def known(monkeypatch, compressed) -> None:
    """torchvision's list of checksums fits the made-up files."""
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in compressed.items()]
    monkeypatch.setattr(datasets.KMNIST, "resources", sums)


def place(root: Path, files: dict[str, bytes], folder: str = "KMNIST") -> Path:
    raw = root / folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return raw


def link(root: Path, source: Path, folder: str = "MNIST") -> Path:
    """A root of links to the real files, each of which a test may replace."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name in NAMES:
        (raw / name).symlink_to(source / folder / "raw" / name)
    return raw


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch) -> None:
    urlopen = urllib.request.urlopen

    def local_only(request, **kwargs):
        if request.host.startswith("127.0.0.1:"):
            return urlopen(request, **kwargs)
        raise urllib.error.URLError(OSError(-2, "no network in tests"))

    monkeypatch.setattr(urllib.request, "urlopen", local_only)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# Reading


@pytest.mark.parametrize("form", ["raw", "gz"])
def test_files_are_read_raw_or_compressed(tmp_path, contents, compressed, known, form):
    place(tmp_path, contents if form == "raw" else compressed)
    data = load_dataset(DataSpec(name="kmnist"), root=tmp_path)
    for part in (data.train, data.validation, data.test):
        assert torch.equal(part.labels, part.index % 10)
        assert torch.equal(
            part.images[:, 0, 0, 0].long() * 256 + part.images[:, 0, 27, 27], part.index
        )
    assert torch.bincount(data.validation.labels).tolist() == [500] * 10


def test_raw_and_compressed_files_may_stand_together(tmp_path, contents, compressed, known):
    place(tmp_path, {TRAIN_IMAGES: contents[TRAIN_IMAGES], TEST_LABELS: contents[TEST_LABELS]})
    place(
        tmp_path, {f"{name}.gz": compressed[f"{name}.gz"] for name in (TRAIN_LABELS, TEST_IMAGES)}
    )
    assert len(load_dataset(DataSpec(name="kmnist"), root=tmp_path).test) == 10_000


def test_of_two_forms_the_one_that_can_be_checked_is_read(tmp_path, contents, compressed, known):
    place(tmp_path, compressed)
    unnumbered = {TEST_IMAGES: idx_bytes(np.zeros((10_000, 28, 28), np.uint8))}
    place(tmp_path, unnumbered)
    assert load_dataset(DataSpec(name="kmnist"), root=tmp_path).test.images.any()


@pytest.mark.parametrize("name", [TEST_IMAGES, TEST_LABELS])
def test_well_formed_changes_change_the_checksum_of_the_data(tmp_path, contents, name):
    # No checksum of the raw KMNIST files is published, so this is what keeps results apart.
    raw = place(tmp_path, contents)
    before = load_dataset(DataSpec(name="kmnist"), root=tmp_path).checksum
    changed = bytearray(contents[name])
    changed[-1], changed[-2] = changed[-2], changed[-1]
    replace(raw / name, bytes(changed))
    assert load_dataset(DataSpec(name="kmnist"), root=tmp_path).checksum != before


# Refusing


def damaged(contents: dict[str, bytes], how: str) -> dict[str, bytes]:
    """The files that a test writes over the good ones."""
    labels = bytearray(contents[TRAIN_LABELS])
    match how:
        case "cut":
            return {TRAIN_IMAGES: contents[TRAIN_IMAGES][:-1]}
        case "longer":
            return {TEST_LABELS: contents[TEST_LABELS] + b"\0"}
        case "empty":
            return {TEST_IMAGES: b""}
        case "train and test swapped":
            return {TRAIN_LABELS: contents[TEST_LABELS], TEST_LABELS: contents[TRAIN_LABELS]}
        case "labels for images":
            return {TRAIN_IMAGES: contents[TRAIN_LABELS]}
        case "one label more of a class":
            labels[8] = 5
            return {TRAIN_LABELS: bytes(labels)}
        case "label 10":
            labels[8] = 10
            return {TRAIN_LABELS: bytes(labels)}
    raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", f"{TRAIN_IMAGES}: is not an idx file of 60000 x 28 x 28 bytes. Delete it to"),
        ("longer", f"{TEST_LABELS}: is not an idx file of 10000 bytes"),
        ("empty", f"{TEST_IMAGES}: is not an idx file of 10000 x 28 x 28 bytes"),
        ("train and test swapped", f"{TRAIN_LABELS}: is not an idx file of 60000 bytes"),
        ("labels for images", f"{TRAIN_IMAGES}: is not an idx file"),
        ("one label more of a class", "images per class, expected 6000 of each of 10: not KMNIST"),
        ("label 10", "images per class, expected 6000 of each of 10: not KMNIST"),
    ],
)
def test_malformed_files_are_refused(tmp_path, contents, how, message):
    place(tmp_path, contents)
    place(tmp_path, damaged(contents, how))
    with pytest.raises(DataError, match=message):
        load_dataset(DataSpec(name="kmnist"), root=tmp_path)


def test_compressed_file_with_another_checksum_is_refused(tmp_path, contents, compressed, known):
    place(tmp_path, compressed)
    name = f"{TRAIN_LABELS}.gz"
    other = gzip.compress(contents[TRAIN_LABELS], 9)
    place(tmp_path, {name: other})
    expected, found = (hashlib.md5(content).hexdigest() for content in (compressed[name], other))
    with pytest.raises(DataError, match=f"{name}: MD5 is {found}, expected {expected}: the file"):
        load_dataset(DataSpec(name="kmnist"), root=tmp_path)


@pytest.mark.parametrize("content", [b"not gzip at all", b""])
def test_compressed_file_that_cannot_be_unpacked_is_refused(tmp_path, compressed, content):
    place(tmp_path, compressed)
    place(tmp_path, {f"{TRAIN_IMAGES}.gz": content})
    with pytest.raises(DataError, match=rf"{TRAIN_IMAGES}\.gz: "):
        load_dataset(DataSpec(name="kmnist"), root=tmp_path)


def test_compressed_file_that_is_cut_is_refused(tmp_path, compressed):
    place(tmp_path, compressed)
    place(tmp_path, {f"{TRAIN_IMAGES}.gz": compressed[f"{TRAIN_IMAGES}.gz"][:-20]})
    with pytest.raises(DataError, match=rf"{TRAIN_IMAGES}\.gz: cannot be read \(.*\)\. Delete it"):
        load_dataset(DataSpec(name="kmnist"), root=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
@pytest.mark.parametrize("form", ["raw", "gz"])
def test_a_file_without_end_takes_no_memory(tmp_path, contents, monkeypatch, name, form):
    monkeypatch.setattr(mnist, "_LARGEST", 10**6)
    folder = place(tmp_path, contents, "KMNIST" if name == "kmnist" else "MNIST")
    end = bytes(50 * 10**6)
    if form == "raw":
        replace(folder / TRAIN_IMAGES, end)
    else:
        (folder / TRAIN_IMAGES).unlink()
        (folder / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(end, 1))
    del end
    tracemalloc.start()
    with pytest.raises(DataError, match=TRAIN_IMAGES):
        load_dataset(DataSpec(name=name), root=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**7


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_well_formed_files_of_another_data_set_are_refused(tmp_path, contents, name):
    folder = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    raw = place(tmp_path, contents, folder)
    found = hashlib.md5(contents[TRAIN_IMAGES]).hexdigest()
    with pytest.raises(DataError) as refusal:
        load_dataset(DataSpec(name=name), root=tmp_path)
    message = str(refusal.value)
    assert message.startswith(f"{raw / TRAIN_IMAGES}: MD5 is {found}, expected ")
    assert message.endswith(f"or put the original {folder} file there.")
    assert "\n" not in message


@pytest.mark.mnist
@pytest.mark.parametrize(
    ("name", "place_of_byte"), [*zip(NAMES, [-1, 0, 5_000_000, 20], strict=True)]
)
def test_one_flipped_bit_of_the_real_files_is_noticed_on_every_load(
    tmp_path, real_data, name, place_of_byte
):
    raw = link(tmp_path, real_data)
    content = bytearray((raw / name).read_bytes())
    content[place_of_byte] ^= 1
    replace(raw / name, bytes(content))
    for _ in range(2):
        with pytest.raises(DataError, match=f"{name}: MD5 is [0-9a-f]{{32}}, expected"):
            load_dataset(DataSpec(name="mnist"), root=tmp_path)


@pytest.mark.mnist
def test_real_files_cut_swapped_or_of_a_sibling_are_refused(tmp_path, real_data):
    raw = link(tmp_path, real_data)
    good = {name: (raw / name).read_bytes() for name in NAMES}
    sibling = idx_bytes((np.arange(60_000) % 10).astype(np.uint8))
    for wrong in (
        {TRAIN_LABELS: good[TRAIN_LABELS][:-100]},
        {TRAIN_LABELS: good[TEST_LABELS], TEST_LABELS: good[TRAIN_LABELS]},
        {TRAIN_LABELS: sibling},
    ):
        for name in NAMES:
            replace(raw / name, wrong.get(name, good[name]))
        with pytest.raises(DataError, match=f"{TRAIN_LABELS}: MD5 is"):
            load_dataset(DataSpec(name="mnist"), root=tmp_path)


@pytest.mark.mnist
def test_real_files_may_be_compressed_by_anyone(tmp_path, real_data):
    raw = link(tmp_path, real_data)
    for name in (TRAIN_LABELS, TEST_IMAGES):
        content = (raw / name).read_bytes()
        (raw / name).unlink()
        (raw / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    assert (
        load_dataset(DataSpec(name="mnist"), root=tmp_path).checksum
        == load_dataset(DataSpec(name="mnist")).checksum
    )


# Finding


def test_root_is_the_argument_then_the_environment_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ROBUSTLOSS_DATA", raising=False)
    assert data_root(None) == tmp_path / "home" / ".cache" / "robustloss"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_root(None) == tmp_path / "cache" / "robustloss"
    monkeypatch.setenv("ROBUSTLOSS_DATA", "~/mine")
    assert data_root(None) == tmp_path / "home" / "mine"
    assert data_root(tmp_path) == tmp_path


def test_environment_variable_is_where_files_are_read(tmp_path, monkeypatch, contents):
    place(tmp_path, contents)
    monkeypatch.setenv("ROBUSTLOSS_DATA", str(tmp_path))
    assert len(load_dataset(DataSpec(name="kmnist")).test) == 10_000


@pytest.mark.parametrize("download", [True, False])
def test_absent_files_without_network_are_one_clear_line(tmp_path, download):
    with pytest.raises(DataError) as refusal:
        load_dataset(DataSpec(name="mnist"), root=tmp_path, download=download, quiet=True)
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path / 'MNIST' / 'raw'} lacks 4 of the 4 files of MNIST")
    assert all(name in message for name in NAMES)
    assert "\n" not in message
    assert message.endswith("--data or ROBUSTLOSS_DATA.")
    assert ("could not be downloaded" in message) == download
    assert ("no network in tests" in message) == download
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_mirror_that_never_answers_is_given_up_in_time(tmp_path, monkeypatch):
    asked = threading.Event()
    monkeypatch.setattr(data_files, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: asked.wait(30))
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no answer within 0.2 s"):
        load_dataset(DataSpec(name="mnist"), root=tmp_path, quiet=True)
    asked.set()
    assert time.monotonic() - start < 10


# Downloading


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch, compressed, known) -> Iterator[Path]:
    """A mirror on this machine that serves the folder given back, after one that has nothing."""
    folder = tmp_path / "mirror"
    (folder / "empty").mkdir(parents=True)
    for name, content in compressed.items():
        (folder / name).write_bytes(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [f"{url}empty/", url])
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_absent_files_are_fetched_once_from_the_first_mirror_that_has_them(
    tmp_path, mirror, contents, compressed
):
    root = tmp_path / "root"
    raw = place(root, {TEST_LABELS: contents[TEST_LABELS]})
    data = load_dataset(DataSpec(name="kmnist"), root=root, quiet=True)
    assert torch.equal(data.test.labels, data.test.index % 10)
    fetched = {f"{name}.gz": compressed[f"{name}.gz"] for name in NAMES if name != TEST_LABELS}
    stored = {path.name: path.read_bytes() for path in raw.iterdir() if path.name != TEST_LABELS}
    assert stored == fetched
    for path in mirror.iterdir():
        if path.is_file():
            path.unlink()
    assert load_dataset(DataSpec(name="kmnist"), root=root).checksum == data.checksum


def test_download_with_a_wrong_checksum_is_not_kept(tmp_path, mirror):
    (mirror / f"{TRAIN_IMAGES}.gz").write_bytes(b"a page that asks to log in")
    root = tmp_path / "root"
    with pytest.raises(
        DataError, match=rf": File not found; .*: wrong MD5 of {TRAIN_IMAGES}\.gz\)"
    ):
        load_dataset(DataSpec(name="kmnist"), root=root, quiet=True)
    assert not list(root.rglob("*.*"))


def test_folder_that_cannot_be_written_is_one_clear_line(tmp_path, mirror):
    root = tmp_path / "root"
    root.write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"lacks 4 of the 4 .*raw cannot be written: Not a dir"):
        load_dataset(DataSpec(name="kmnist"), root=root, quiet=True)


def test_progress_goes_to_standard_error_and_quiet_says_nothing(tmp_path, mirror, capsys):
    load_dataset(DataSpec(name="kmnist"), root=tmp_path / "root", quiet=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""
