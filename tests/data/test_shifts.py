"""Images that are changed and keep their label: by hand, by scipy, and in their published form."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from robustloss.data import shifts
from robustloss.data.files import DataError
from robustloss.data.images import Dataset, ImageSet
from robustloss.seeding import new_generator
from robustloss.spec.data import GENERATED
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import SPEC


def make_set(n=24, shape=(3, 16, 16), seed=0):
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, 256, (n, *shape), np.uint8))
    return ImageSet(pixels, torch.arange(n) % 4, torch.arange(n), 255.0)


def make_dataset(**keys):
    sets = {name: make_set() for name in ("train", "validation", "test")}
    facts = {"name": "made", "num_classes": 4, "class_names": tuple("abcd"), "mean": (0.5,) * 3,
             "std": (0.3,) * 3, "checksum": "", "training_checksum": ""}  # fmt: skip
    return Dataset(**{**facts, **sets, **keys})


def load(*tables, dataset=None):
    spec = load_spec({**SPEC, "shifts": [*tables]})
    return list(shifts.load_shifts(spec, dataset or make_dataset(), None))


@pytest.mark.parametrize("name", GENERATED)
def test_every_generated_shift_is_the_same_each_time_and_grows(name):
    found, again = (load({"name": name}) for _ in range(2))
    assert [each.severity for each in found] == [1, 2, 3, 4, 5]
    assert [each.checksum for each in found] == [each.checksum for each in again]
    assert len({each.checksum for each in found}) == 5
    clean = make_set()
    distances = []
    for each in found:
        assert each.images.images.dtype == torch.uint8  # in the box, 8 bits a channel
        assert torch.equal(each.images.labels, clean.labels)
        assert torch.equal(each.images.index, clean.index)
        distances.append(float((each.images.batch(slice(None)) - clean.batch(slice(None))).norm()))
    if name != "translation":  # of random pixels any two moves differ alike
        assert distances == sorted(distances)
    assert min(distances) > 0


def test_images_are_thinned_out_and_labels_kept():
    (found,) = load({"name": "contrast", "severities": [5], "images": 6})
    assert found.images.index.tolist() == [0, 4, 8, 12, 16, 20]
    assert found.images.labels.tolist() == [0] * 6


def test_each_shift_is_what_its_name_says():
    stream = new_generator("test")
    images = torch.rand(200, 1, 20, 30, generator=stream)
    noisy = shifts._add_noise(images, 0.2, stream) - images
    assert float(noisy.std()) == pytest.approx(0.2, rel=0.02)
    blurred = shifts._blur(images[:1], 1.0, stream)[0, 0]
    wanted = ndimage.gaussian_filter(images[0, 0].numpy(), 1.0, mode="mirror", radius=4)
    assert np.allclose(blurred, wanted, atol=1e-5)
    flat = shifts._lower_contrast(images, 0.3, stream)
    assert torch.allclose(flat.mean((2, 3)), images.mean((2, 3)))
    assert torch.allclose(flat.std((2, 3)), 0.3 * images.std((2, 3)))
    moved = shifts._translate(images, 0.1, stream)
    cases = [torch.roll(images, (down, right), (2, 3)) for down in (-2, 2) for right in (-3, 3)]
    inside = (slice(None), slice(None), slice(2, -2), slice(3, -3))
    nearest = torch.stack([(moved - each)[inside].abs().amax((1, 2, 3)) for each in cases])
    assert float(nearest.amin(0).max()) < 1e-4
    assert len(set(nearest.argmin(0).tolist())) == 4  # to each of the corners
    hidden = (shifts._occlude(images, 0.25, stream) != images).sum((1, 2, 3))
    assert hidden.tolist() == [25] * 200


def test_a_rotation_turns_by_its_angle_to_both_sides():
    # A point to the right of the center of an image that is no square.
    images = torch.zeros(40, 1, 41, 61)
    images[:, 0, 20, 45] = 1.0  # 15 pixels to the right
    turned = shifts._rotate(images, 30.0, new_generator("test"))[:, 0]
    rows, columns = torch.meshgrid(torch.arange(41.0), torch.arange(61.0), indexing="ij")
    total = turned.sum((1, 2))
    down = (turned * (rows - 20)).sum((1, 2)) / total
    right = (turned * (columns - 30)).sum((1, 2)) / total
    assert torch.allclose(torch.atan2(down.abs(), right).rad2deg(), torch.tensor(30.0), atol=2.0)
    assert torch.allclose(torch.hypot(down, right), torch.tensor(15.0), atol=0.6)
    assert {bool(each > 0) for each in down} == {True, False}


def write_cifar_c(folder, n=24):
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in ("fog", "snow"):
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (5 * n, 16, 16, 3), np.uint8))
    np.save(folder / "labels.npy", np.tile(np.arange(n) % 4, 5))


def test_the_published_form_of_cifar_10_c(tmp_path):
    write_cifar_c(folder := tmp_path / "c")
    table = {"name": "corruptions", "label": "C", "folder": str(folder), "severities": [2, 5]}
    found = load({**table, "images": 12})
    assert [(each.shift, each.severity) for each in found] == [
        ("C, fog", 2), ("C, fog", 5), ("C, snow", 2), ("C, snow", 5)
    ]  # fmt: skip
    raw = np.load(folder / "fog.npy")[24:48:2].transpose(0, 3, 1, 2)
    assert torch.equal(found[0].images.images, torch.from_numpy(raw))
    # The labels are those of the test images in this order, so each has its clean one.
    assert found[0].images.index.tolist() == list(range(0, 24, 2))
    other = make_set()
    other.labels[3] = 1
    (first, *_) = load(table, dataset=make_dataset(test=other))
    assert (first.images.index < 0).all()


def test_the_published_form_of_mnist_c_has_one_severity(tmp_path):
    place = tmp_path / "c" / "zigzag"
    place.mkdir(parents=True)
    np.save(place / "test_images.npy", np.zeros((8, 16, 16, 1), np.uint8))
    np.save(place / "test_labels.npy", np.arange(8) % 4)
    grey = make_dataset(
        **{name: make_set(8, (1, 16, 16)) for name in ("train", "validation", "test")}
    )
    (found,) = load({"name": "corruptions", "folder": str(tmp_path / "c")}, dataset=grey)
    assert (found.shift, found.severity, found.images.n) == ("Corruptions, zigzag", 1, 8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: [each.unlink() for each in f.glob("*.npy")], "holds no corruptions"),
        (lambda f: np.save(f / "fog.npy", np.zeros((120, 8, 8, 3), np.uint8)), "must be uint8"),
        (lambda f: np.save(f / "labels.npy", np.zeros(7, int)), "one for each of 120 images"),
        (lambda f: np.save(f / "labels.npy", np.full(120, 9)), "a label is outside"),
        (lambda f: (f / "fog.npy").write_bytes(b"no array"), "cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told(tmp_path, spoil, message):
    write_cifar_c(folder := tmp_path / "c")
    spoil(folder)
    with pytest.raises(DataError, match=rf"shifts\[0\] .*{message}"):
        load({"name": "corruptions", "folder": str(folder)})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "fog"}, "must be one of noise, blur"),
        ({"name": "corruptions"}, "must be given: corruptions reads the folder"),
        ({"name": "noise", "folder": "x"}, "is not for noise"),
        ({"name": "noise", "severities": [0]}, r"severities"),
        ({"name": "noise", "severities": [2, 2]}, "must not name a severity twice"),
    ],
)
def test_a_wrong_table_is_refused(table, message):
    with pytest.raises(SpecError, match=message):
        load_spec({**SPEC, "shifts": [table]})
