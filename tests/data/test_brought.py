"""Data sets by a function of one's own or from torchvision, and the same images by three doors."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustloss.data.brought import pixels
from robustloss.data.brought.torchvision import TorchvisionReader
from robustloss.data.catalogue import find_source
from robustloss.data.files import DataError
from robustloss.data.load import load_dataset
from robustloss.data.mnist import IdxReader
from robustloss.data.streamed import PixelFile
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.spec.data import DataSpec
from tests.data.test_arrays import load, same, save, streams
from tests.small_run import changed, files

# --- a function -----------------------------------------------------------------------------

FACTORIES = """
import dataclasses, os, random
import numpy as np, torch
from PIL import Image
from torch.utils.data import TensorDataset

def arrays():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 3, 8, 8), np.uint8), np.arange(60) % 3
    return x, y, x[:30] ^ 1, y[:30]

def pairs():
    x, y, x_test, y_test = arrays()
    return {"train": (x, list(y)), "test": (x_test.transpose(0, 1, 2, 3), y_test)}

def tensors(root):
    assert os.path.isdir(root)
    x, y, x_test, y_test = (torch.from_numpy(each) for each in arrays())
    return {"train": TensorDataset(x / 255, y), "test": (x_test / 255, y_test)}

@dataclasses.dataclass
class Mine:
    train: object
    test: object
    validation: object = None
    class_names: object = None

class Pictures:
    def __init__(self, x, y, change=lambda image: image):
        self.x, self.y, self.change = x, y, change
        self.classes = ["a", "b", "c"]
    def __len__(self):
        return len(self.y)
    def __getitem__(self, i):
        return self.change(Image.fromarray(self.x[i].transpose(1, 2, 0))), self.y[i]

def pictures(change=lambda image: image):
    x, y, x_test, y_test = arrays()
    return Mine(Pictures(x, y, change), Pictures(x_test, y_test))

class Rows(Pictures):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return {"image": image, "label": int(label)}

def rows():
    x, y, x_test, y_test = arrays()
    return {"train": Rows(x, y), "test": Rows(x_test, y_test)}

def wide(image):
    return image.resize((8, 12)) if image.getpixel((0, 0))[0] > 99 else image
def other_sizes():
    return pictures(wide)
def random_changes():
    return pictures(lambda image: image.rotate(90 * random.randrange(1, 4)))
def deep():
    return pictures(lambda image: Image.new("I;16", (8, 8)))
def raises():
    return 1 / 0
def leaves():
    raise SystemExit(0)
def nothing():
    return None
def tuples():
    return arrays()
def no_test():
    return {"train": arrays()[:2]}
def misspelt():
    return pairs() | {"valid": arrays()[:2]}
def lists():
    return {"train": ([1], [2]), "test": 3}
def iterable():
    return {"train": iter([1]), "test": 3}
def boxes():
    boxes = TensorDataset(torch.zeros(4, 1, 8, 8), torch.zeros(4, 4))
    return {"train": boxes, "test": rows()["test"]}
def triples():
    return {"train": TensorDataset(*[torch.zeros(4, 1, 8, 8)] * 3), "test": rows()["test"]}
def empty():
    x, y, *_ = arrays()
    return {"train": (x, y), "test": Pictures(x[:0], y[:0])}
def replaces():
    torch.nn.functional.relu = lambda x: x
    return pairs()
def settles():
    torch.set_default_dtype(torch.float64); os.chdir("/"); torch.manual_seed(1)
    random.random(); np.random.rand()
    return pairs()
value = 3
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(FACTORIES)
    return tmp_path


@pytest.mark.parametrize("factory", ["pairs", "tensors", "pictures", "rows"])
def test_a_function_gives_the_images_that_arrays_give(own, factory):
    save(own)
    found = load(own, f"own.py:{factory}")
    same(load(own), found)
    named = factory in ("pictures", "rows")
    assert found.class_names == (("a", "b", "c") if named else ("0", "1", "2"))


@pytest.mark.parametrize("factory", ["pairs", "tensors", "pictures", "rows"])
def test_what_a_function_gives_may_be_larger_than_the_memory(own, monkeypatch, factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(own / "cache"))
    whole = load(own, f"own.py:{factory}")
    monkeypatch.setattr(pixels, "memory_size", lambda: 1000)
    streams(load(own, f"own.py:{factory}"), whole)


def test_pictures_of_other_sizes_are_resized_where_that_is_asked_for(own):
    with pytest.raises(DataError, match=r"is 8x12 pixels and the first 8x8.* Give data\.image_siz"):
        load(own, "own.py:other_sizes")
    found = load(own, "own.py:other_sizes", image_size=6, resize=7, channels=1)
    assert (found.train.images.shape[1:], found.image_shape) == ((1, 7, 7), (1, 6, 6))
    assert found.summary == (
        "the center of pictures whose shorter side became 7; 90 images converted to 1 channels"
    )
    with pytest.raises(DataError, match=r"image_size \(=6\) is for pictures of Pillow, and train"):
        load(own, "own.py:pairs", image_size=6)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("random_changes", r"train\[0\] gives other pixels when asked again\. Take random changes"),
        ("deep", r"train\[0\] has more than 8 bits a channel \(mode I;16\)"),
        ("raises", r"failed: ZeroDivisionError: division by zero \(.*own\.py, line \d+\)"),
        ("leaves", r"failed: SystemExit"),
        ("nothing", r"returned NoneType, but must return a dict or a dataclass"),
        ("tuples", r"returned tuple, but must return a dict"),
        ("no_test", r"returned no test set\. Return \{\"train\": \(images, labels\)"),
        ("misspelt", r"returned 'valid', which is none of train, test, validation, class_names"),
        ("lists", r"train is a pair of list and list, but must be \(images, labels\), arrays"),
        ("iterable", r"train is list_iterator, but must be a pair"),
        ("boxes", r"label of train\[0\] is ndarray \(4,\), but must be one integer, the class"),
        ("triples", r"train\[0\] is tuple of 3 .* but must be a pair \(image, label\)"),
        ("empty", r"test holds no images"),
        ("replaces", r"replaces torch\.nn\.functional\.relu"),
        ("value", r"is int, but must be a function"),
        ("nope", r"own\.py has no 'nope'"),
    ],
)
def test_a_function_that_gives_no_data_set_is_refused_with_the_reason(own, factory, message):
    with pytest.raises(DataError, match=rf"(?s)data\.name \(='own\.py:{factory}'\).*{message}"):
        load(own, f"own.py:{factory}")


def drawn() -> list[int]:
    """What NumPy's and Python's own generators stand at."""
    return [hash(random.getstate()), *np.random.get_state()[1].tolist()]  # noqa: NPY002


def test_what_a_function_sets_for_the_process_is_put_back(own):
    before = Path.cwd(), torch.get_default_dtype(), torch.get_rng_state(), drawn()
    load(own, "own.py:settles")
    after = Path.cwd(), torch.get_default_dtype(), torch.get_rng_state(), drawn()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert before[3] == after[3]


def test_showing_a_spec_runs_no_function_and_no_plugins_refuses_it(own, command, no_report):
    trap = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
    (own / "own.py").write_text(trap + FACTORIES)
    (own / "spec.toml").write_text(
        'name = "x"\n[data]\nname = "own.py:pairs"\n[[outside]]\nname = "own.py:rows"\n'
        '[[losses]]\nname = "softmax"\n[[attacks]]\nname = "fgsm"\neps = [0.1]\n'
    )
    path = str(own / "spec.toml")
    status, out, _ = command("show", path)
    assert (status, 'data.name = "own.py:pairs"' in out) == (0, True)
    status, _, err = command("show", path, "--data")
    assert (status, "show --data --plugins" in err) == (2, True)
    status, _, err = command("run", path, "--no-plugins", "--out", str(own / "run"))
    assert (status, 'outside[0].name = "own.py:rows"' in err) == (2, True)
    assert not (own / "ran").exists()
    status, out, _ = command("show", path, "--data", "--plugins")
    assert (status, "3 x" in out, "8 x 8 pixels, colour" in out) == (0, False, True)


# --- torchvision ----------------------------------------------------------------------------


def write_usps(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write files in the layout of USPS, which torchvision reads without a checksum."""
    import bz2

    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (200, 256)), np.arange(200) % 10
    lines = [
        f"{label + 1} " + " ".join(f"{i}:{v / 127.5 - 1:.9f}" for i, v in enumerate(row, 1))
        for row, label in zip(pixels, labels, strict=True)
    ]
    (root / "usps.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    (root / "usps.t.bz2").write_bytes(bz2.compress("\n".join(lines[:50]).encode()))
    return pixels.reshape(200, 1, 16, 16), labels


def test_a_set_of_torchvision_is_read_by_its_train_argument(tmp_path):
    pixels, labels = write_usps(tmp_path)
    found = load(tmp_path, "torchvision:USPS")
    assert (found.train.n + found.validation.n, found.test.n, found.num_classes) == (200, 50, 10)
    assert found.label == "USPS"
    assert torch.equal(found.train.labels, torch.from_numpy(labels)[found.train.index])
    near = found.train.images.long() - torch.from_numpy(pixels)[found.train.index]
    assert near.abs().max() <= 1  # torchvision cuts where it should round


def test_usps_is_trained_attacked_and_reported(tmp_path):
    write_usps(tmp_path)
    spec = changed(
        seeds=[0], losses=[{"name": "softmax"}], data={"name": "torchvision:USPS", "test_size": 20}
    )
    assert runner.run(spec, out=tmp_path / "run", data=tmp_path).failures == []
    assert {row["n"] for row in load_run(tmp_path / "run").rows} == {20}
    assert "USPS" in (tmp_path / "run/report/index.html").read_text()


def test_splits_are_looked_up_and_pictures_resized(tmp_path):
    from torchvision.datasets import Imagenette

    root = tmp_path / "imagenette2"
    for split, n in (("train", 4), ("val", 2)):
        for wnid in Imagenette._WNID_TO_CLASS:
            (root / split / wnid).mkdir(parents=True)
            for i in range(n):
                image = Image.new("L" if i else "RGB", (20 + i, 16), 50 * i + 20)
                image.save(root / split / wnid / f"{i}.JPEG")
    with pytest.raises(DataError, match=r"Give data\.image_size"):
        load(tmp_path, "torchvision:Imagenette")
    found = load(tmp_path, "torchvision:Imagenette", image_size=8)
    assert (found.train.n, found.validation.n, found.test.n) == (30, 10, 20)
    assert found.image_shape == (3, 8, 8)
    assert found.class_names[:3] == ("tench", "English springer", "cassette player")
    assert found.summary == "the center of pictures whose shorter side became 8"
    assert load(tmp_path, "torchvision:Imagenette", image_size=8, params={"size": "full"}).train.n


def test_files_of_the_mnist_family_are_checked_here_whatever_door_they_come_by():
    assert isinstance(find_source(DataSpec(name="torchvision:KMNIST")).reader, IdxReader)
    assert isinstance(find_source(DataSpec(name="torchvision:SVHN")).reader, TorchvisionReader)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("SVHN", {}, r"lacks its files\. Put them there as torchvision lays them out"),
        ("SVNH", {}, r"is no data set of torchvision; did you mean 'SVHN'\?"),
        ("ImageFolder", {}, r'is read by name = "image_folder"'),
        ("FakeData", {}, r"is noise without files\. Write a function"),
        ("EMNIST", {}, r"data\.params: EMNIST\.split: missing"),
        ("SVHN", {"root": "x"}, r"data\.params\.root: robustloss decides it"),
        ("SVHN", {"sort": 1}, r"data\.params: SVHN\.sort: unknown parameter"),
    ],
)
def test_what_torchvision_cannot_give_is_refused(tmp_path, name, params, message):
    data = DataSpec(name=f"torchvision:{name}", params=params)
    with pytest.raises(DataError, match=message):
        load_dataset(data, root=tmp_path, download=False, quiet=True)


def test_a_picture_that_is_postscript_starts_no_other_program(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    def started(*arguments, **keys):
        raise AssertionError("Ghostscript")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    from torchvision.datasets import Imagenette

    for split in ("train", "val"):
        for wnid in Imagenette._WNID_TO_CLASS:
            (folder := tmp_path / "imagenette2" / split / wnid).mkdir(parents=True)
            (folder / "0.JPEG").write_bytes(
                b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
            )
    with pytest.raises(DataError, match=r"cannot identify image file"):
        load(tmp_path, "torchvision:Imagenette")


# --- the same images by three doors ---------------------------------------------------------


@pytest.mark.mnist
def test_fashion_mnist_by_three_doors_has_one_checksum(real_data, tmp_path):
    from tests.data.test_load import need_files_of

    need_files_of("fashion_mnist")
    (tmp_path / "own.py").write_text(
        "from torchvision.datasets import FashionMNIST as F\n"
        "def own(root):\n    return {'train': F(root), 'test': F(root, train=False)}\n"
    )
    sizes = {"train_size": 500, "validation_size": 200, "test_size": 100}
    names = ("fashion_mnist", "torchvision:FashionMNIST", "own.py:own")
    first, *others = (
        load_dataset(DataSpec(name=name, **sizes), near=tmp_path, root=real_data, quiet=True)
        for name in names
    )
    reader = TorchvisionReader("FashionMNIST")  # which the catalogue passes over
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustloss.data.catalogue._CHECKED", {})
        assert isinstance(find_source(DataSpec(name=names[1])).reader, type(reader))
        others.append(load_dataset(DataSpec(name=names[1], **sizes), root=real_data, quiet=True))
    for other in others:
        same(first, other)
        assert other.training_checksum == first.training_checksum


def test_the_same_images_by_three_doors_give_the_same_numbers(own, no_report):
    save(own)
    found = []
    for data in (
        {"name": "arrays", "file": str(own / "data.npz")},
        {"name": str(own / "own.py") + ":pairs"},
        {"name": str(own / "own.py") + ":pictures"},
    ):
        spec = changed(seeds=[0], losses=[{"name": "softmax"}], data=data)
        spec["outside"] = [{"name": "arrays", "file": str(own / "data.npz"), "label": "o"}]
        if not found:
            spec["outside"] = [{"name": str(own / "own.py") + ":rows", "label": "o"}]
        with pytest.raises(DataError, match="are test images themselves"):
            runner.run(spec, out=own / "x")
        del spec["outside"]
        outcome = runner.run(spec, out=own / str(len(found)))
        assert outcome.failures == []
        found.append(load_run(own / str(len(found))))
    assert found[0].rows == found[1].rows == found[2].rows
    assert files(own / "0") == files(own / "1") == files(own / "2")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_processes_read_a_file_of_pixels_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = PixelFile((1, 2, 2))
    file.append(np.arange(250, dtype=np.uint8).repeat(4).reshape(-1, 1, 2, 2))
    positions = np.arange(250)[::-1]

    def read_often():
        into = np.empty((250, 1, 2, 2), np.uint8)
        for _ in range(300):
            file.read(positions, into)
            if not np.array_equal(into[:, 0, 0, 0], positions):
                return False
        return True

    child = os.fork()
    if child == 0:
        os._exit(0 if read_often() else 1)
    here = read_often()
    assert (os.waitpid(child, 0)[1], here) == (0, True)
