"""Image folders: content against torchvision, streamed against memory, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets, transforms

from robustloss.data.files import DataError
from robustloss.data.folders import load as image_folder
from robustloss.data.images import center
from robustloss.data.load import load_dataset
from robustloss.data.streamed import StreamedImages, iter_positions
from robustloss.spec.data import DataSpec
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.folders import CLASSES, pixels, write_folder
from tests.small_run import changed


def load(folder, *, sizes=None, class_fractions=None, near=None, **options):
    keys = {"class_fractions": class_fractions, **(sizes or {}), **options}
    data = DataSpec(name="image_folder", folder=str(folder), **keys)
    return load_dataset(data, near=near, quiet=True)


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    grey = ("train/bee/03.png", "test/ant/01.png")
    return write_folder(tmp_path_factory.mktemp("varied"), grey=grey)


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("uniform"), size=(8, 12), suffix="jpg")


def file_of(part, place):
    """The image of the file with this place in the sorted listing of its folder."""
    return part.images[part.index.tolist().index(place)]


def sets(data):
    return [data.train, data.validation, data.test]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("resize", "image_size"), [(8, 8), (11, 8), (25, 21)])
def test_images_are_those_of_torchvision(varied, in_memory, resize, image_size):
    data = load(varied, resize=resize, image_size=image_size, in_memory=in_memory)
    steps = [transforms.Resize(resize), transforms.CenterCrop(resize)]
    chain = transforms.Compose([*steps, transforms.CenterCrop(image_size), transforms.ToTensor()])
    for part, folder in zip(sets(data), ("train", "train", "test"), strict=True):
        source = datasets.ImageFolder(varied / folder, chain)
        expected = [source[position] for position in part.index.tolist()]
        assert torch.equal(part.batch(slice(None)), torch.stack([image for image, _ in expected]))
        assert part.labels.tolist() == [label for _, label in expected]
        assert part.shape == (3, image_size, image_size)
    assert data.class_names == CLASSES == tuple(source.classes)
    assert data.image_shape == (3, image_size, image_size)


def test_images_of_one_size_are_taken_as_they_are(uniform):
    data = load(uniform)
    assert data.image_shape == (3, 8, 12)
    path = sorted((uniform / "test").rglob("*.jpg"))[data.test.index[5]]
    assert np.array_equal(
        data.test.images[5].permute(1, 2, 0).numpy(), np.asarray(Image.open(path))
    )
    assert data.summary == "read from JPEG files, 8x12 pixels"


def test_a_fixed_share_of_each_class_is_kept_for_validation(uniform):
    data = load(uniform)
    assert [part.n for part in sets(data)] == [27, 3, 12]
    assert data.validation.labels.tolist() == [0, 1, 2]
    assert data.class_counts == [9, 9, 9]
    together = torch.cat([data.train.index, data.validation.index]).sort().values
    assert torch.equal(together, torch.arange(30))


def test_a_folder_validation_is_used_and_val_stands_for_the_missing_one(uniform, tmp_path):
    shutil.copytree(uniform, tmp_path / "data")
    (tmp_path / "data/test").rename(tmp_path / "data/val")
    as_test = load(tmp_path / "data")
    assert torch.equal(as_test.test.images, load(uniform).test.images)
    shutil.copytree(tmp_path / "data/val", tmp_path / "data/test")
    both = load(tmp_path / "data")
    assert [part.n for part in sets(both)] == [30, 12, 12]
    (tmp_path / "data/val").rename(tmp_path / "data/validation")
    assert load(tmp_path / "data").checksum == both.checksum


@pytest.mark.parametrize("options", [{"image_size": 8}, {"image_size": 8, "resize": 11}])
def test_streamed_images_are_those_in_memory(varied, options):
    memory = load(varied, in_memory=True, **options)
    streamed = load(varied, in_memory=False, **options)
    assert (streamed.checksum, streamed.mean, streamed.std) == (
        memory.checksum,
        memory.mean,
        memory.std,
    )
    assert streamed.training_checksum == memory.training_checksum
    for one, other in zip(sets(streamed), sets(memory), strict=True):
        assert isinstance(one.images, StreamedImages)
        assert isinstance(other.images, torch.Tensor)
        assert one.images.shape == other.images.shape
        for selection in (slice(0, 2), slice(2, 4), torch.tensor([2, 0, 2]), slice(None)):
            assert torch.equal(one.images[selection], other.images[selection])
            assert torch.equal(one.batch(selection), other.batch(selection))
        some = torch.tensor([2, 1])
        assert torch.equal(one.take(some).batch(slice(0, 2)), other.take(some).batch(slice(0, 2)))


def test_batches_in_order_are_decoded_once_each_and_ahead(varied, monkeypatch):
    data = load(varied, image_size=8, in_memory=False)
    images = data.train.images
    begun = []
    start = StreamedImages._start

    def counted(self, positions):
        begun.append(positions.tolist())
        return start(self, positions)

    monkeypatch.setattr(StreamedImages, "_start", counted)
    batches = [torch.tensor([4, 1]), torch.tensor([0, 9]), torch.tensor([7, 7]), torch.tensor([3])]
    for number, positions in enumerate(iter_positions(iter(batches), images)):
        assert len(begun) == min(number + 2, 4)
        images[positions]
    assert begun == [batch.tolist() for batch in batches]


def test_decoding_ahead_that_nobody_wants_does_not_pile_up(varied):
    images = load(varied, image_size=8, in_memory=False).train.images
    for start in range(20):
        images.prefetch(slice(start, start + 2))
    assert len(images._pending) <= 2


def test_mean_and_deviation_are_those_of_the_training_pixels(varied):
    data = load(varied, image_size=8)
    kept = data.train.images.double() / 255
    assert data.mean == pytest.approx(kept.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert data.std == pytest.approx(kept.std((0, 2, 3), correction=0).tolist(), rel=1e-12)


def test_a_large_folder_is_not_read_whole(varied, monkeypatch):
    monkeypatch.setattr(image_folder, "FULL_BYTES", 1)
    monkeypatch.setattr(image_folder, "SAMPLE", 9)
    memory, streamed = (load(varied, image_size=8, in_memory=kept) for kept in (True, False))
    assert memory.checksum == streamed.checksum
    assert memory.mean == streamed.mean
    assert torch.equal(memory.train.images, streamed.train.images[slice(None)])
    (path := varied / "train/cat/09.png").rename(varied / "train/cat/99.png")
    try:
        assert load(varied, image_size=8).checksum != memory.checksum
    finally:
        (varied / "train/cat/99.png").rename(path)


def test_a_file_damaged_after_the_start_is_named(varied, tmp_path, monkeypatch):
    shutil.copytree(varied, tmp_path / "data")
    data = load(tmp_path / "data", image_size=8, in_memory=False)
    (tmp_path / "data/test/ant/00.png").write_bytes(b"gone")
    with pytest.raises(ValueError, match=r"test/ant/00.png: cannot be decoded \(no image\)"):
        data.test.batch(slice(0, 3))


def test_memory_decides_where_it_is_automatic(varied, monkeypatch):
    assert isinstance(load(varied, image_size=8).train.images, torch.Tensor)
    monkeypatch.setattr(image_folder, "SHARE_OF_MEMORY", 1e12)
    assert isinstance(load(varied, image_size=8).train.images, StreamedImages)


def test_checksum_is_decided_by_bytes_classes_and_what_is_done_to_them(varied, tmp_path):
    first = load(varied, image_size=8)
    assert load(varied, image_size=8).checksum == first.checksum
    for options in (
        {"image_size": 7},
        {"image_size": 8, "resize": 9},
        {"image_size": 8, "channels": 1},
    ):
        other = load(varied, **options)
        assert other.checksum != first.checksum
        assert other.training_checksum != first.training_checksum
    shutil.copytree(varied, tmp_path / "data")
    assert load(tmp_path / "data", image_size=8).checksum == first.checksum
    pixels(np.random.default_rng(5), 9, 9).save(tmp_path / "data/test/cat/00.png")
    changed = load(tmp_path / "data", image_size=8)
    assert changed.checksum != first.checksum
    assert changed.training_checksum == first.training_checksum


def test_a_grey_file_among_colour_ones_is_converted_and_told(varied, capsys):
    data = load_dataset(DataSpec(name="image_folder", folder=str(varied), image_size=8))
    assert data.image_shape == (3, 8, 8)
    assert data.converted == ("train/bee/03.png", "test/ant/01.png")
    assert "2 images converted to 3 channels" in data.summary
    assert (
        "2 images were converted to 3 channels, grey ones among colour ones: train/bee/03.png, "
        "test/ant/01.png." in capsys.readouterr().err
    )
    image = file_of(data.test, 1)
    assert torch.equal(image[0], image[1])


def test_channels_may_be_chosen(varied):
    data = load(varied, image_size=8, channels=1)
    assert data.image_shape == (1, 8, 8)
    path = varied / "test/bee/00.png"
    expected = transforms.CenterCrop(8)(transforms.Resize(8)(Image.open(path).convert("L")))
    assert np.array_equal(file_of(data.test, 4)[0].numpy(), np.asarray(expected))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_of_8_bits_is_read(tmp_path, mode):
    write_folder(tmp_path, size=(9, 9))
    suffix = "tif" if mode == "CMYK" else "png"
    image = Image.open(tmp_path / "test/ant/00.png").convert(mode)
    if mode == "P":
        image.info["transparency"] = bytes([0, 255])
    (tmp_path / "test/ant/00.png").unlink()
    image.save(tmp_path / f"test/ant/00.{suffix}")
    data = load(tmp_path)
    assert data.test.images.shape == (12, 3, 9, 9)


def test_grey_folder_has_one_channel(tmp_path):
    names = [
        f"{part}/{c}/{n:02}.png" for part in ("train", "test") for c in CLASSES for n in range(10)
    ]
    data = load(write_folder(tmp_path, size=(8, 8), grey=tuple(names)))
    assert data.image_shape == (1, 8, 8)
    assert data.converted == ()


@pytest.mark.parametrize("in_memory", [True, False])
def test_damaged_files_are_all_named_in_both_sets(tmp_path, in_memory):
    write_folder(tmp_path, size=(9, 9))
    whole = (tmp_path / "train/ant/00.png").read_bytes()
    (tmp_path / "train/ant/00.png").write_bytes(whole[:-30])
    (tmp_path / "train/cat/02.png").write_bytes(b"")
    Image.new("I;16", (9, 9)).save(tmp_path / "test/bee/01.png")
    with pytest.raises(DataError) as refusal:
        load(tmp_path, in_memory=in_memory)
    text = str(refusal.value)
    assert "3 files cannot be decoded: " in text
    assert "train/cat/02.png (no image)" in text
    assert "test/bee/01.png (has more than 8 bits a channel (mode I;16))" in text
    assert "train/ant/00.png (" in text
    assert text.endswith("Replace or remove them.")


def test_of_many_damaged_files_ten_are_named(tmp_path):
    write_folder(tmp_path, size=(9, 9))
    for path in (tmp_path / "train").rglob("0[0-4].png"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"15 files cannot be decoded: .* and 5 more\. Replace"):
        load(tmp_path)


@pytest.mark.parametrize("late", [True, False])
def test_other_sizes_ask_for_image_size(tmp_path, late):
    write_folder(tmp_path, size=(9, 9))
    part = "test" if late else "train"
    pixels(np.random.default_rng(0), 9, 10).save(tmp_path / f"{part}/bee/01.png")
    with pytest.raises(
        DataError, match=rf"different sizes \(.*{part}/bee/01.png is 10x9.*\)\. Set data.image_size"
    ):
        load(tmp_path)


REFUSED = [
    (lambda f: shutil.rmtree(f / "train"), r"has no folder train. Expected train/CLASS/IMAGE"),
    (lambda f: shutil.rmtree(f / "test"), r"has no folder test \(nor val\)"),
    (
        lambda f: [shutil.rmtree(f / "train" / c) for c in CLASSES],
        r"train holds no class folders: a classifier needs at least two",
    ),
    (
        lambda f: [shutil.rmtree(f / "train" / c) for c in CLASSES[1:]],
        r"train holds only one class folder \(ant\)",
    ),
    (lambda f: [shutil.rmtree(f / "test" / c) for c in CLASSES], r"test holds no class folders"),
    (
        lambda f: (f / "test/cat").rename(f / "test/dog"),
        r"test has 1 class folders that train does not have: dog\. Remove or rename",
    ),
    (
        lambda f: [p.rename(p.with_suffix(".txt")) for p in (f / "train/bee").iterdir()],
        r"train has 1 class folders without an image: bee\. Put images there \(\.bmp",
    ),
    (lambda f: (f / "test/extra").mkdir(), r"test has 1 class folders that train"),
    (
        lambda f: [p.unlink() for p in (f / "train/ant").glob("0[1-9].png")],
        None,
    ),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSED)
def test_what_is_amiss_in_a_folder_is_said(tmp_path, spoil, message):
    write_folder(tmp_path, size=(9, 9))
    spoil(tmp_path)
    if message is None:  # a class of one image keeps it for training
        assert load(tmp_path).class_counts[0] == 1
        return
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_class_left_without_training_images_is_refused(tmp_path):
    write_folder(tmp_path, size=(9, 9), train=1)
    with pytest.raises(DataError, match=r"nothing is left to train ant, bee, cat on when 3 of 3"):
        load(tmp_path)


def test_a_missing_folder_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTLOSS_DATA", str(tmp_path / "root"))
    with pytest.raises(
        DataError,
        match=r"data.folder \(='pics'\) is not there; looked for .*near/pics, .*root/pics",
    ):
        load("pics", near=tmp_path / "near")
    write_folder(tmp_path / "root/pics", size=(9, 9))
    assert load("pics", near=tmp_path / "near").train.n == 27


def test_a_folder_is_found_where_one_stands_after_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTLOSS_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pics", size=(8, 8))
    # As for a finished run, whose folder does not hold its data.
    assert load("pics", near=tmp_path / "runs/mine").image_shape == (3, 8, 8)
    write_folder(tmp_path / "root/pics", size=(9, 9))
    assert load("pics", near=tmp_path / "runs/mine").image_shape == (3, 9, 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 9}, r"data.resize \(=9\) needs image_size"),
        ({"resize": 7, "image_size": 8}, r"data.resize \(=7\) must be at least image_size \(=8\)"),
        ({"image_size": 8, "ten_crop": True}, r"data.ten_crop \(=true\) needs resize larger than"),
        ({"channels": 2}, r"data.channels \(=2\) must be 1 or 3"),
    ],
)
def test_options_that_do_not_go_together_are_refused(varied, options, message):
    data = {"name": "image_folder", "folder": str(varied), **options}
    with pytest.raises(SpecError, match=message):
        load_spec(changed(data=data))


def test_test_images_take_turns_by_class(uniform):
    data = load(uniform)
    assert data.test.labels.tolist() == [0, 1, 2] * 4
    assert sorted(data.test.index.tolist()) == list(range(12))
    of_each = [data.test.index[data.test.labels == label] for label in range(3)]
    assert all((each.diff() > 0).all() for each in of_each)


def test_sizes_ask_for_nested_subsets(uniform):
    small = load(uniform, sizes={"train_size": 6, "test_size": 3})
    large = load(uniform, sizes={"train_size": 15, "validation_size": 3})
    whole = load(uniform)
    assert set(small.train.index.tolist()) < set(large.train.index.tolist())
    assert set(large.train.index.tolist()) < set(whole.train.index.tolist())
    assert large.class_counts == [5, 5, 5]
    assert large.validation.index.tolist() == whole.validation.index.tolist()
    assert small.test.labels.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"data.train_size \(=28\) must be .* in \[3, 27\]"):
        load(uniform, sizes={"train_size": 28})


def test_names_not_the_order_on_disk_decide_the_order(tmp_path):
    (tmp_path / "train/b/deep").mkdir(parents=True)
    (tmp_path / "train/a").mkdir()
    rng = np.random.default_rng(0)
    for name in ("b/z", "b/deep/y", "a/2", "a/10", "a/.hidden", "b/x"):
        pixels(rng, 9, 9).save(tmp_path / f"train/{name}.png")
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    from robustloss.data.folders.listing import read_layout

    names, parts, others = read_layout(tmp_path)
    assert others == ()
    assert names == ("a", "b")
    found = [path.removeprefix("train/") for path in parts["train"].images]
    assert found == ["a/10.png", "a/2.png", "b/deep/y.png", "b/x.png", "b/z.png"]
    assert parts["train"].labels.tolist() == [0, 0, 1, 1, 1]


def test_fractions_thin_out_the_training_classes_only(uniform):
    whole = load(uniform)
    thin = load(uniform, class_fractions=[1.0, 0.5, 0.01])
    assert thin.class_counts == [9, 4, 1]
    assert thin.checksum != whole.checksum
    assert thin.training_checksum != whole.training_checksum
    assert torch.equal(thin.test.images, whole.test.images)
    assert "training images kept of the classes: 1, 0.5, 0.01" in thin.summary
    with pytest.raises(DataError, match=r"class_fractions has 2 numbers, but must have 3"):
        load(uniform, class_fractions=[1, 1])


def test_center_is_that_of_torchvision():
    images = torch.arange(2 * 3 * 13 * 16, dtype=torch.float32).reshape(2, 3, 13, 16)
    for size in ((13, 16), (8, 8), (7, 7), (8, 13), (13, 1)):
        assert torch.equal(center(images, size), transforms.CenterCrop(size)(images))
