"""Ten crops: those of torchvision, their mean, the ranks, and the rows of a run."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import transforms

from robustloss.analysis.tables.classes import crop_rows
from robustloss.data.images import ImageSet
from robustloss.evaluation.ten_crop import ten_crop_ranks, ten_crops
from robustloss.metrics.intervals import wilson
from robustloss.metrics.rates import ranks
from robustloss.results.records import Record
from robustloss.results.run import load_run
from robustloss.runs.runner import run
from tests.folders import write_folder


@pytest.mark.parametrize(
    ("shape", "size"), [((9, 9), (8, 8)), ((11, 14), (6, 7)), ((8, 8), (8, 8)), ((10, 9), (4, 6))]
)
def test_crops_are_those_of_torchvision(shape, size):
    images = torch.arange(2 * 3 * shape[0] * shape[1]).reshape(2, 3, *shape)
    for mine, theirs in zip(ten_crops(images, size), transforms.TenCrop(size)(images), strict=True):
        assert torch.equal(mine, theirs)


def test_rank_counts_the_classes_before_the_true_one():
    rng = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (200, 7), generator=rng).numpy()  # many ties
    labels = torch.randint(0, 7, (200,), generator=rng).numpy()
    order = [sorted(range(7), key=lambda k, row=row: (-row[k], k)) for row in scores.tolist()]
    expected = [row.index(label) for row, label in zip(order, labels.tolist(), strict=True)]
    assert ranks(scores, labels).tolist() == expected
    assert np.array_equal(ranks(scores, labels) == 0, scores.argmax(1) == labels)


class Linear(nn.Module):
    def __init__(self, values, classes):
        super().__init__()
        self.layer = nn.Linear(values, classes)

    def forward(self, images):
        return self.layer(images.flatten(1) * 5)


def test_ranks_come_from_the_mean_of_the_ten_softmax_outputs():
    torch.manual_seed(0)
    model = Linear(3 * 6 * 6, 12).eval()
    images = torch.randint(0, 256, (130, 3, 9, 9), dtype=torch.uint8)
    labels = torch.randint(0, 12, (130,))
    held = ImageSet(images, labels, torch.arange(130), 255.0, (6, 6))
    found = ten_crop_ranks(model, held)
    center_ranks = []
    for number in range(130):
        crops = transforms.TenCrop(6)(images[number].float() / 255)
        with torch.no_grad():
            each = [model(crop[None]).double().softmax(1)[0] for crop in crops]
        mean = sum(each) / 10
        assert found[number] == (mean > mean[labels[number]]).sum()
        center_ranks.append(int((each[4] > each[4][labels[number]]).sum()))
    assert found.tolist() != center_ranks


_NO_IMAGES = np.zeros((0, 1, 1, 1), np.float32)


def with_ranks(wanted, classes):
    """A clean pass whose true classes have the wanted ranks."""
    logits = np.zeros((len(wanted), classes), np.float32)
    labels = np.full(len(wanted), classes - 1)
    for row, rank in enumerate(wanted):
        logits[row, :rank] = 1
        logits[row, -1] = 0.5
    empty = np.zeros(len(wanted), np.float32)
    index = np.arange(len(wanted))
    return Record(index, labels, logits, logits, None, empty, empty, None, None, _NO_IMAGES)


def test_rows_carry_intervals_and_no_top5_of_few_classes():
    clean, rank_10 = with_ranks([0, 0, 3, 5, 9], 20), np.array([0, 0, 0, 4, 5])
    cell = {"loss": "softmax", "label": "S", "seed": 1, "num_classes": 20}
    one, ten = crop_rows(cell, clean, rank_10)
    assert (one["crops"], one["n"], one["top1_error"], one["top5_error"]) == (1, 5, 0.6, 0.4)
    assert (ten["crops"], ten["n"], ten["top1_error"], ten["top5_error"]) == (10, 5, 0.4, 0.2)
    assert (ten["top1_low"], ten["top1_high"]) == wilson(2, 5)
    assert (ten["top5_low"], ten["top5_high"]) == wilson(1, 5)
    few = crop_rows(cell | {"num_classes": 10}, clean, rank_10)
    assert [row["top5_error"] for row in few] == [None, None]


def spec(folder, **data):
    return {
        "name": "pictures",
        "data": {"name": "image_folder", "folder": str(folder), "image_size": 8} | data,
        "model": {"backbone": "digits_cnn", "feature_dim": 4},
        "train": {"epochs": 1, "batch_size": 20, "precision": "float32", "lr": 0.02},
        "checks": {"images": 8},
        "losses": [{"name": "softmax"}],
        "attacks": [{"name": "fgsm", "eps": [0.1]}],
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    classes = tuple(f"class {letter}" for letter in "abcdefghijkl")
    grey = ("train/class b/03.jpg",)
    folder = tmp_path_factory.mktemp("pictures")
    return write_folder(folder, classes=classes, suffix="jpg", grey=grey)


@pytest.mark.parametrize("augment", ["none", "shift", "crop", "crop_flip"])
def test_a_run_on_a_folder_gives_the_same_streamed_and_in_memory(pictures, tmp_path, augment):
    numbers = []
    for kept in (True, False):
        words = spec(pictures, resize=11, ten_crop=True, in_memory=kept, label="Pictures")
        words["train"]["augment"] = augment
        outcome = run(words, out=tmp_path / str(kept), device="cpu")
        assert not outcome.failures
        results = load_run(outcome.path)
        files = {p.name: p.read_bytes() for p in outcome.path.glob("cells/*/*/*.npz")}
        numbers.append((results.rows, results.crops, sorted(files.items())))
    assert numbers[0] == numbers[1]
    data = results.provenance["data"]
    assert data["label"] == "Pictures"
    assert data["class_names"][1] == "class b"
    assert data["class_counts"] == [9] * 12
    assert data["converted"] == {"count": 1, "files": ["train/class b/03.jpg"]}
    assert data["summary"].startswith("read from JPEG files, the center 8x8 pixels after the")
    one, ten = results.crops
    assert [one["crops"], ten["crops"]] == [1, 10]
    assert one["n"] == 48
    assert [row["error"] for row in results.rows if row["attack"] == "none"] == [one["top1_error"]]
    assert 0 < ten["top5_error"] <= ten["top1_error"]


def test_a_resumed_run_does_not_crop_again(pictures, tmp_path, monkeypatch):
    from robustloss.evaluation import ten_crop

    words = spec(pictures, resize=11, ten_crop=True)
    first = load_run(run(words, out=tmp_path, device="cpu").path).crops
    monkeypatch.setattr(ten_crop, "ten_crop_ranks", None)
    next(tmp_path.glob("cells/*/*/cell.json")).unlink()
    assert load_run(run(words, out=tmp_path, device="cpu").path).crops == first


def test_without_ten_crop_there_is_no_such_table(pictures, tmp_path):
    outcome = run(spec(pictures), out=tmp_path, device="cpu")
    assert load_run(outcome.path).crops == []
    assert not list(tmp_path.glob("cells/*/*/crops-*"))


def test_another_folder_is_another_run(pictures, tmp_path):
    from robustloss.runs.folder import RunFolderError

    run(spec(pictures), out=tmp_path / "run", device="cpu")
    other = write_folder(tmp_path / "other")
    with pytest.raises(RunFolderError, match=r"belongs to data folder '.*pictures"):
        run(spec(other), out=tmp_path / "run", device="cpu")
