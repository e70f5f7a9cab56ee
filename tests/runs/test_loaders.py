"""Images of `evaluate` in loaders, arrays and data sets: they give what tensors give."""

import itertools

import PIL.Image
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import robustloss
from robustloss import progress
from robustloss.data import in_memory
from robustloss.data.in_memory import read_images
from robustloss.data.streamed import StreamedImages
from tests import given_models
from tests.runs.test_in_memory import evaluate, loader, rand


@pytest.mark.parametrize("levels", [True, False])
def test_a_loader_an_array_and_a_data_set_give_what_tensors_give(levels, tmp_path):
    images, labels = rand(30)
    images = (images * 255).round() / 255 if levels else images
    model = {"A": given_models.plain().eval()}
    expected = evaluate(model, images, labels, out=tmp_path, train=(images, labels))
    files = sorted(tmp_path.glob("cells/*/*/*-*"))
    pairs = TensorDataset(images, labels)
    doors = {
        "arrays": (images.double().numpy(), labels.numpy()),
        "loader": (loader(images, labels, batch_size=7),),
        "batches": ([(images[:9].numpy(), labels[:9].tolist()), (images[9:], labels[9:])],),
        "data set": (pairs,),
        "numbers": ([(images[i : i + 1], [int(labels[i])]) for i in range(30)],),
    }
    for name, (given, *rest) in doors.items():
        train = given if name == "loader" else (images, labels)
        model_run = evaluate(
            model, given, *(rest or [None]), out=tmp_path, train=train, validation=None
        )
        assert model_run.rows == expected.rows, name
    assert sorted(tmp_path.glob("cells/*/*/*-*")) == files


def test_one_batch_of_levels_and_one_of_other_pixels_keep_every_bit():
    images, labels = rand(20)
    images[:10] = (images[:10] * 255).round() / 255
    found = read_images("images", loader(images, labels, batch_size=10))
    assert torch.equal(found.batch(slice(None)), images)
    assert torch.equal(found.labels, labels)


class Pictures(torch.utils.data.Dataset):
    """A data set without a transform: its images are no tensors."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return PIL.Image.new("L", (8, 8)), index


X, Y = rand(6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (loader((X * 255).byte(), Y), r"batch 1 of images \(=torch.uint8\) .*\(\(images / 255, "),
        ([(X, Y), (X * 3 - 1, Y)], r"batch 2 of images \(from -.* look normalised.* normalize="),
        ([(X, Y), (X[:, :, :4], Y)], r"batch 2 of images \(=\(1, 4, 8\)\) must have the shape of"),
        ([(X, Y[:3])], r"labels of batch 1 of images .*must be int64 of shape \(6,\)"),
        ([(X[0], 3)], r"batch 1 of images \(=\(1, 8, 8\)\).*DataLoader\(pairs, batch_size=500\)"),
        (loader(X), r"batch 1 of images \(=list of 1\) must be a pair .* has no labels"),
        ([X], r"batch 1 of images \(=Tensor\) must be a pair .* but has no labels"),
        (loader(X, Y, Y), r"batch 1 of images \(=list of 3\) .*\(\(batch\[0\], batch\[1\]\) for"),
        ([(X, nn.functional.one_hot(Y, 10))], r"shape \(6, 10\)\) must be .*labels\.argmax\(1\)"),
        ([(X, Y), (X * torch.nan, Y)], r"batch 2 of images .*Some pixels are NaN"),
        ([((X * 255).long(), Y)], r"batch 1 of images \(=torch.int64\) must be floating"),
        ([{"image": X, "label": Y}], r"batch 1 of images \(=dict with image, label\) must be a"),
        ([], r"images must hold images, but gives no batch\. A generator gives its batches once"),
        (Pictures(), r"images: batch 1 cannot be read: TypeError.*ToTensor\(\)"),
        (7, r"images \(=int\) must be a tensor of shape .* or a torch Dataset"),
    ],
)  # fmt: skip
def test_what_a_loader_cannot_give_is_told(images, message):
    with pytest.raises(ValueError, match=message):
        robustloss.evaluate(nn.Flatten(), images, attacks=["fgsm"], progress=progress.Silent())


class Shuffled:
    """Batches whose order is another one each time; an image's pixels tell its label."""

    def __init__(self, n, length=None):
        self.n, self.length, self.begun = n, length, 0
        self.drawn = torch.Generator().manual_seed(0)

    def __iter__(self):
        self.begun += 1
        for labels in torch.randperm(self.n, generator=self.drawn).split(6):
            yield images_of(labels), labels % 10


def images_of(labels):
    """Return levels (N,1,8,8) that count: image i is the number i, bit by bit."""
    return ((labels[:, None] >> torch.arange(64) % 8) & 1).reshape(-1, 1, 8, 8).float()


class Sized(Shuffled):
    def __len__(self):
        return self.length


class Reader(nn.Module):
    """Reads the number in an image and answers its last digit."""

    def forward(self, images):
        number = (images.flatten(1)[:, :8].round().long() << torch.arange(8)).sum(1)
        return 20.0 * nn.functional.one_hot(number % 10, 10) + 0 * images.sum()


@pytest.mark.parametrize("fits", [True, False])
def test_a_loader_that_shuffles_is_read_once_and_keeps_its_labels(monkeypatch, tmp_path, fits):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if not fits:
        monkeypatch.setattr(in_memory, "memory_size", lambda: 4 * 1000)
    source = Sized(200, 34)
    run = evaluate(Reader(), source, None)
    assert source.begun == 1
    assert len(run.rows) == 3
    assert {row["error"] for row in run.rows} == {0.0}  # its gradient is 0, so no attack fools it


@pytest.mark.parametrize("levels", [True, False])
def test_what_does_not_fit_is_read_from_a_file_and_gives_the_same(monkeypatch, tmp_path, levels):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images, labels = rand(30)
    images[: 20 if not levels else 30] = (images[: 20 if not levels else 30] * 255).round() / 255
    model = {"A": given_models.plain().eval()}
    whole = evaluate(model, images, labels, out=tmp_path / "run", train=(images, labels))
    files = sorted((tmp_path / "run").glob("cells/*/*/*-*"))
    monkeypatch.setattr(in_memory, "memory_size", lambda: 4 * 1000)
    monkeypatch.setattr(in_memory, "AT_ONCE", 4)
    doors = ((images, labels), (images.double().numpy(), labels), (loader(images, labels), None))
    for given, own in doors:
        found = read_images("images", given, own)
        assert isinstance(found.images, StreamedImages)
        assert torch.equal(found.batch(slice(None)), images)
        run = evaluate(model, given, own, out=tmp_path / "run", train=(images, labels))
        assert run.rows == whole.rows
    assert sorted((tmp_path / "run").glob("cells/*/*/*-*")) == files  # the same checksum
    assert not list((tmp_path / "cache").rglob("*.*"))  # no file that anybody sees


def test_what_may_have_no_end_is_told_and_not_written_to_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    endless = itertools.repeat(((X * 255).round() / 255, Y))
    monkeypatch.setattr(in_memory, "memory_size", lambda: 4 * 10_000)
    with pytest.raises(ValueError, match=r"more than a quarter of the memory.* may have no end"):
        read_images("images", endless)
    assert not list(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"more batches than their length, 33: they may have no"):
        read_images("images", Sized(2000, 33))
    assert read_images("images", itertools.islice(endless, 5)).n == 30


def test_a_disk_without_room_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(in_memory, "memory_size", lambda: 4 * 1000)
    with pytest.raises(ValueError, match=r"cannot be written to .*Set XDG_CACHE_HOME to a folder"):
        read_images("images", rand(30)[0], rand(30)[1])
