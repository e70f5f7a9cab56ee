"""CIFAR as published: layout, checksums, archive, download, and a pickle that must not run."""

import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torchvision import datasets

from robustloss.data import cifar
from robustloss.data import files as data_files
from robustloss.data.catalogue import DATASETS
from robustloss.data.cifar import restricted_loads
from robustloss.data.files import DataError
from robustloss.data.load import load_dataset
from robustloss.spec.data import DataSpec


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its str: the published files are of that kind."""

    def save_bytes(self, content):
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(content)

    dispatch = pickle._Pickler.dispatch | {bytes: save_bytes}


def python2_pickle(value):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    # numpy 2 moved the module that numpy 1 named
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def batch(rng, n, classes, first):
    """Like a published file: each image begins with its number."""
    images = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
    images[:, :3] = np.array([divmod(i, 256) for i in range(first, first + n)])[:, [0, 1, 1]]
    labels = [(first + i) % classes for i in range(n)]
    names = {10: b"labels", 100: b"fine_labels"}
    return {
        b"data": images,
        names[classes]: labels,
        b"coarse_labels": [0] * n,
        b"filenames": [b"x.png"] * n,
    }


@pytest.fixture(scope="module")
def contents():
    rng = np.random.default_rng(0)
    ten = {f"data_batch_{i}": batch(rng, 10_000, 10, 10_000 * (i - 1)) for i in range(1, 6)}
    ten["test_batch"] = batch(rng, 10_000, 10, 0)
    hundred = {"train": batch(rng, 50_000, 100, 0), "test": batch(rng, 10_000, 100, 0)}
    return {
        "cifar10": (datasets.CIFAR10, {n: python2_pickle(b) for n, b in ten.items()}),
        "cifar100": (datasets.CIFAR100, {n: python2_pickle(b) for n, b in hundred.items()}),
    }


@pytest.fixture(scope="module")
def sums(contents):
    return {
        (source, name): md5(content)
        for source, files in contents.values()
        for name, content in files.items()
    }


def md5(content):
    return hashlib.md5(content).hexdigest()


def archive_of(source, files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{source.base_folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def published(contents, sums, monkeypatch):
    """Makes torchvision's checksums those of the generated files."""
    for source, _ in contents.values():
        for key in ("train_list", "test_list"):
            names = [name for name, _ in getattr(source, key)]
            monkeypatch.setattr(source, key, [[name, sums[source, name]] for name in names])
    return contents


def write(root, source, files):
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_files_become_the_three_fixed_sets(tmp_path, published, name):
    source, files = published[name]
    write(tmp_path, source, files)
    data = load_dataset(DataSpec(name=name), root=tmp_path, download=False)
    sets = (data.train, data.validation, data.test)
    assert tuple(part.n for part in sets) == tuple(DATASETS[name].sizes.values())
    assert data.image_shape == (3, 32, 32)
    classes = 10 if name == "cifar10" else 100
    assert len(data.class_names) == data.num_classes == classes
    assert data.class_counts == [45_000 // classes] * classes
    for part in sets:
        number = part.images[:, 0, 0, 0].long() * 256 + part.images[:, 0, 0, 1].long()
        assert torch.equal(number, part.index)
        assert torch.equal(part.labels, part.index % classes)
    together = torch.cat([data.train.index, data.validation.index]).sort().values
    assert torch.equal(together, torch.arange(50_000))


def test_images_are_those_that_torchvision_reads(tmp_path, published, monkeypatch):
    source, files = published["cifar10"]
    write(tmp_path, source, files)
    monkeypatch.setattr(source, "_load_meta", lambda self: None)
    monkeypatch.setattr(source, "_check_integrity", lambda self: True)
    theirs = source(tmp_path, train=True)
    data = load_dataset(DataSpec(name="cifar10"), root=tmp_path, download=False)
    for part in (data.train, data.validation):
        expected = torch.from_numpy(theirs.data[part.index.numpy()]).permute(0, 3, 1, 2)
        assert torch.equal(part.images, expected)
        assert part.labels.tolist() == [theirs.targets[i] for i in part.index.tolist()]


def test_class_names_are_those_of_the_published_files():
    names = DATASETS["cifar10"].class_names
    assert names[0] == "airplane"
    assert names[9] == "truck"
    # The fine labels of CIFAR-100 are numbered by the alphabet.
    hundred = DATASETS["cifar100"].class_names
    assert list(hundred) == sorted(set(hundred))
    assert (hundred[0], hundred[99]) == ("apple", "worm")


def test_the_archive_is_read_where_there_is_no_folder(tmp_path, published):
    source, files = published["cifar100"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / source.filename).write_bytes(archive_of(source, files))
    write(tmp_path / "b", source, files)
    found = load_dataset(DataSpec(name="cifar100"), root=tmp_path / "a", download=False)
    assert found.checksum == load_dataset(DataSpec(name="cifar100"), root=tmp_path / "b").checksum
    assert not (tmp_path / "a" / source.base_folder).exists()


def test_a_flipped_byte_is_refused_before_anything_is_unpickled(tmp_path, published, monkeypatch):
    source, files = published["cifar10"]
    folder = write(tmp_path, source, files)
    content = bytearray(files["data_batch_3"])
    content[-5] ^= 1
    (folder / "data_batch_3").write_bytes(content)
    monkeypatch.setattr(cifar, "restricted_loads", lambda content: pytest.fail("was unpickled"))
    with pytest.raises(DataError, match=r"data_batch_3: MD5 is [0-9a-f]{32}, expected .* damaged"):
        load_dataset(DataSpec(name="cifar10"), root=tmp_path, download=False)


def test_a_damaged_archive_is_refused(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz: cannot be read .* Delete it and"):
        load_dataset(DataSpec(name="cifar10"), root=tmp_path, download=False)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path, published, monkeypatch):
    source, files = published["cifar10"]
    monkeypatch.setattr(cifar, "LARGEST", 4 * 10**7)
    big = {**files, "data_batch_2": bytes(5 * 10**7)}
    (tmp_path / source.filename).write_bytes(archive_of(source, big))
    with pytest.raises(DataError, match=r"cannot be read \(it has no data_batch_2\)\. Delete it"):
        load_dataset(DataSpec(name="cifar10"), root=tmp_path, download=False)


def test_absent_files_are_named_with_the_remedy(tmp_path):
    with pytest.raises(
        DataError,
        match=r"cifar-100-python lacks train, test, and .* has no cifar-100-python.tar.gz\. Put",
    ):
        load_dataset(DataSpec(name="cifar100"), root=tmp_path, download=False)


def test_the_archive_is_downloaded_checked_and_kept(tmp_path, published, monkeypatch):
    source, files = published["cifar100"]
    content = archive_of(source, files)
    monkeypatch.setattr(source, "tgz_md5", md5(content))
    asked = []
    monkeypatch.setattr(data_files, "_fetch", lambda url, *rest: asked.append(url) or content)
    data = load_dataset(DataSpec(name="cifar100"), root=tmp_path / "root", quiet=True)
    assert asked == [source.url]
    assert (tmp_path / "root" / source.filename).read_bytes() == content
    assert load_dataset(DataSpec(name="cifar100"), root=tmp_path / "root").checksum == data.checksum
    assert len(asked) == 1


def test_a_wrong_download_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "_fetch", lambda *words: b"something else")
    with pytest.raises(DataError, match=r"could not be downloaded \(www.cs.toronto.edu: wrong MD5"):
        load_dataset(DataSpec(name="cifar10"), root=tmp_path / "root", quiet=True)
    assert not (tmp_path / "root").exists()


class Command:
    def __init__(self, call, *words):
        self.call, self.words = call, words

    def __reduce__(self):
        return self.call, self.words


@pytest.mark.parametrize(
    "evil",
    [
        Command(os.system, "touch evil"),
        Command(eval, "open('evil', 'w')"),
        Command(np.load, "evil"),
        Command(__import__, "os"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_would_run_something_is_refused(tmp_path, monkeypatch, evil, protocol):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": [evil]}, protocol)
    with pytest.raises(pickle.UnpicklingError, match=r"which is no part of an array"):
        restricted_loads(content)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_text_and_numbers_are_read(protocol):
    value = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2], "name": b"x"}
    found = restricted_loads(pickle.dumps(value, protocol))
    assert np.array_equal(found["data"], value["data"])
    assert found["labels"] == [1, 2]


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2])[:-3]])
def test_a_damaged_pickle_is_an_unpickling_error(content):
    with pytest.raises(pickle.UnpicklingError):
        restricted_loads(content)


def test_a_file_of_another_shape_is_refused(tmp_path, published, monkeypatch):
    source, files = published["cifar100"]
    content = pickle.dumps({"data": np.zeros((5, 3), np.uint8), "fine_labels": [0] * 5})
    write(tmp_path, source, files | {"test": content})
    monkeypatch.setattr(source, "test_list", [["test", md5(content)]])
    with pytest.raises(
        DataError, match=r"test is no file of CIFAR100: its images are uint8 \(5, 3\)"
    ):
        load_dataset(DataSpec(name="cifar100"), root=tmp_path, download=False)
