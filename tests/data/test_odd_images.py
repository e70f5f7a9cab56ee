"""Image folders as they come from anywhere: nothing vanishes, and nothing odd goes unsaid."""

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from robustloss.data import decode
from robustloss.data.decode import Recipe, UnreadableImage
from robustloss.data.files import DataError
from robustloss.data.folders import load as image_folder
from robustloss.data.folders.listing import list_files
from robustloss.data.images import mean_and_std, value_counts
from robustloss.data.load import load_dataset
from robustloss.data.outside import load_outside
from robustloss.spec.data import DataSpec
from robustloss.spec.load import load_spec
from tests.folders import CLASSES, pixels, write_folder
from tests.small_run import changed


def load(folder, quiet=True, **options):
    return load_dataset(DataSpec(name="image_folder", folder=str(folder), **options), quiet=quiet)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data", size=(9, 9))


# Formats


def saved(kind, image=None, **options):
    file = io.BytesIO()
    (image or pixels(np.random.default_rng(0), 9, 9)).save(file, kind, **options)
    return file.getvalue()


EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    b"(%pipe%touch executed) (w) file\nshowpage\n%%EOF\n"
)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_no_image_starts_another_program(folder, monkeypatch, suffix):
    def started(*given, **more):
        pytest.fail("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    path = folder / f"train/ant/x.{suffix}"
    path.write_bytes(EPS)
    with pytest.raises(UnreadableImage):
        decode.read_header(path)
    with pytest.raises(DataError, match=rf"1 file cannot be decoded: train/ant/x.{suffix} \(no im"):
        load(folder)


@pytest.mark.parametrize("kind", ["GIF", "TGA", "PCX", "ICO", "ICNS", "SGI", "JPEG2000", "DDS"])
def test_other_formats_under_a_name_of_ours_are_refused(folder, kind):
    path = folder / "test/bee/x.png"
    path.write_bytes(saved(kind, Image.new("RGB", (16, 16))))
    with pytest.raises(DataError, match=r"test/bee/x.png \(no image\)"):
        load(folder, image_size=9)
    (folder / "train/ant/y.png").write_bytes(path.read_bytes())
    with pytest.raises(UnreadableImage):
        decode.read_header(path)


@pytest.mark.parametrize("kind", decode.FORMATS)
def test_formats_of_the_readme_are_read_whatever_their_name(tmp_path, kind):
    path = tmp_path / "x.png"
    path.write_bytes(saved(kind))
    assert decode.read_header(path)[:3] == (9, 9, 3)
    assert decode.decode(path.read_bytes(), Recipe(3, (9, 9), None))[0].shape == (3, 9, 9)


# Depth, turning, palettes


def png(color, values):
    """A PNG with 16 bits a channel."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def tiff(values):
    """A TIFF with 16 bits of each colour."""
    height, width, _ = values.shape
    data = values.astype("<u2").tobytes()
    tags = [(256, width), (257, height), (258, None), (259, 1), (262, 2), (273, None), (277, 3),
            (278, height), (279, len(data))]  # fmt: skip
    end = 8 + 2 + 12 * len(tags) + 4
    out = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, value in tags:
        count, value = (3, end) if tag == 258 else (1, end + 6 if tag == 273 else value)
        out += struct.pack("<HHII", tag, 3 if tag == 258 else 4, count, value)
    return out + struct.pack("<IHHH", 0, 16, 16, 16) + data


COLOURS = np.arange(9 * 9 * 4).reshape(9, 9, 4) * 199
DEEP = {
    "grey.png": png(0, COLOURS[:, :, :1]),
    "colour.png": png(2, COLOURS[:, :, :3]),
    "grey and alpha.png": png(4, COLOURS[:, :, :2]),
    "colour and alpha.png": png(6, COLOURS),
    "colour.tif": tiff(COLOURS[:, :, :3]),
    "colour.ppm": b"P6 9 9 65535\n" + COLOURS[:, :, :3].astype(">u2").tobytes(),
    "twelve bits.ppm": b"P6 9 9 4095\n" + (COLOURS[:, :, :3] % 4096).astype(">u2").tobytes(),
    "as text.ppm": b"P3 9 9 65535\n" + " ".join(map(str, COLOURS[:, :, :3].ravel())).encode(),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("full", [True, False])
def test_more_than_8_bits_are_refused_and_never_halved(folder, monkeypatch, name, full):
    if not full:
        monkeypatch.setattr(image_folder, "FULL_BYTES", 1)
        monkeypatch.setattr(image_folder, "SAMPLE", 1)
    (folder / f"test/ant/{name}").write_bytes(DEEP[name])
    with pytest.raises(DataError, match=rf"test/ant/{name} \(has more than 8 bits a channel \("):
        load(folder, in_memory=full)


def test_few_bits_are_read(folder):
    (folder / "test/ant/few.ppm").write_bytes(b"P6 9 9 100\n" + bytes([100] * 243))
    data = load(folder)
    assert data.test.images.flatten(1).min(1).values.max() == 255


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("full", [True, False])
def test_turned_images_are_said_and_used_as_stored(folder, monkeypatch, capsys, kind, full):
    if not full:
        monkeypatch.setattr(image_folder, "FULL_BYTES", 1)
    plain = load(folder)
    assert "EXIF" not in plain.summary
    path = folder / f"test/cat/00.{kind.lower()}"
    for turn in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = turn
        path.write_bytes(saved(kind, exif=exif))
        data = load(folder, quiet=False)
        said = "1 file turned by their EXIF, and used as they are stored"
        assert (said in data.summary) == (turn == 6)
        assert (f"{said}: test/cat/{path.name}." in capsys.readouterr().err) == (turn == 6)


def test_damaged_exif_costs_nothing(folder):
    (folder / "test/cat/00.png").write_bytes(saved("PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    assert load(folder).test.n == 12


def grey(n):
    return Image.fromarray(np.full((9, 9), n * 20 % 256, np.uint8))


@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_a_palette_of_greys_does_not_colour_a_grey_folder(tmp_path, kind):
    for part in ("train", "test"):
        for label, name in enumerate(CLASSES):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                grey(number * 3 + label).save(tmp_path / part / name / f"{number}.png")
    before = load(tmp_path)
    (tmp_path / "train/ant/0.png").unlink()
    grey(0).convert("P").save(tmp_path / f"train/ant/0.{kind}")
    data = load(tmp_path)
    assert (data.image_shape, data.converted) == ((1, 9, 9), ())
    assert data.mean == before.mean
    coloured = Image.new("P", (9, 9))
    coloured.putpalette([1, 2, 3] * 256)
    coloured.save(tmp_path / "train/ant/1.png")
    assert load(tmp_path).image_shape == (3, 9, 9)


def test_a_folder_of_grey_palettes_is_what_it_was(tmp_path):
    write_folder(tmp_path, size=(9, 9))
    for path in tmp_path.rglob("*.png"):
        Image.open(path).convert("L").convert("P").save(path)
    data = load(tmp_path)
    assert (data.image_shape, data.converted) == ((3, 9, 9), ())


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000)])
def test_an_image_of_one_line_takes_no_gigabytes(monkeypatch, size):
    content = saved("PNG", Image.linear_gradient("L").resize(size))
    resize, resized = Image.Image.resize, []

    def counted(self, size, *given):
        resized.append(size[0] * size[1])
        return resize(self, size, *given)

    monkeypatch.setattr(Image.Image, "resize", counted)
    assert decode.decode(content, Recipe(3, (224, 224), 224))[0].shape == (3, 224, 224)
    assert resized == [224 * 224]


def test_only_an_image_of_extremes_is_cut_first(monkeypatch):
    content = saved("PNG", Image.linear_gradient("L").resize((300, 100)))
    recipe = Recipe(1, (20, 20), 20)
    whole = decode.decode(content, recipe)[0]
    monkeypatch.setattr(decode, "MOST_PIXELS", 1)
    cut = decode.decode(content, recipe)[0]
    assert np.abs(whole.astype(int) - cut).max() <= 4


# What is listed


def test_links_are_followed_once_and_without_turning_in_circles(folder):
    expected = load(folder)
    away = folder.parent / "away"
    (folder / "train/ant/deep").mkdir()
    for number in range(4, 10):
        (folder / f"train/ant/0{number}.png").rename(folder / f"train/ant/deep/0{number}.png")
    (folder / "train/ant/deep").rename(away)
    (folder / "train/ant/link").symlink_to(away)
    (folder / "train/ant/again").symlink_to(away)
    (folder / "train/ant/circle").symlink_to(folder / "train/ant")
    shutil.move(folder / "train/bee", folder.parent / "bees")
    (folder / "train/bee").symlink_to(folder.parent / "bees")
    (away / "round").symlink_to(away)
    data = load(folder)
    assert data.class_counts == expected.class_counts == [9, 9, 9]
    assert data.class_names == CLASSES


def test_many_links_to_one_another_take_no_time(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}").mkdir()
        for other in "ab":
            (tmp_path / f"{number}" / other).symlink_to(tmp_path / f"{(number + 1) % 30}")
    (tmp_path / "29/x.png").write_bytes(b"")
    assert list_files(tmp_path).images == ["29/x.png"]
    assert len(list_files(tmp_path / "0").images) == 1


AMISS = [
    (lambda f: (f / "train/dog").symlink_to("nowhere"), "train/dog is a link that leads nowhere"),
    (lambda f: (f / "test/dog").symlink_to("nowhere"), "test/dog is a link that leads nowhere"),
    (lambda f: (f / "validation").symlink_to("nowhere"), "validation is a link that leads nowhere"),
    (lambda f: (f / "train/ant/x").symlink_to("nowhere"), "ant/x is a link that leads nowhere"),
    (lambda f: (f / "train/ant/x.png").symlink_to("nowhere"), "ant/x.png is a link that leads now"),
    (lambda f: (f / "train/ant/x.png").symlink_to("x.png"), r"x.png: cannot be read|leads nowhere"),
    (lambda f: os.mkfifo(f / "train/ant/x.png"), "ant/x.png is a pipe or device and no file"),
    (lambda f: (f / "test/bee/x.png").symlink_to("/dev/zero"), "x.png is a pipe or device"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), AMISS)
def test_nothing_that_cannot_be_read_is_passed_over(folder, spoil, message):
    spoil(folder)
    with pytest.raises(DataError, match=message):
        load(folder)


@pytest.mark.parametrize("place", ["train", "train/ant", "train/ant/deep"])
def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch, place):
    (folder / "train/ant/deep").mkdir()
    scandir, iterdir = os.scandir, Path.iterdir  # root may read everything

    def refuse(path):
        if Path(path) == folder / place:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", lambda path: refuse(path) or scandir(path))
    monkeypatch.setattr(Path, "iterdir", lambda path: refuse(path) or iterdir(path))
    with pytest.raises(DataError, match=rf"{place}: cannot be read \(Permission denied\)"):
        load(folder)


def test_files_that_are_left_out_are_counted_and_named(folder, capsys):
    assert "left out" not in load(folder).summary
    names = ("train/ant/a.gif", "train/ant/b.jfif", "test/bee/c.jpe", "test/bee/d.tga")
    for name in names:
        shutil.copy(folder / "test/bee/00.png", folder / name)
    shutil.copy(folder / "test/bee/00.png", folder / "train/lost.png")
    data = load(folder, quiet=False)
    assert "5 files left out: no image by the suffix, or in no class folder" in data.summary
    err = " ".join(capsys.readouterr().err.split())
    assert all(name in err for name in (*names, "train/lost.png"))
    (folder / "test/README").write_text("")  # beside the class folders, where notes lie
    (folder / "test/bee/.hidden.gif").write_text("")
    assert load(folder).summary == data.summary


def test_a_set_without_a_class_is_told(folder, capsys):
    shutil.rmtree(folder / "test/bee")
    shutil.copytree(folder / "test", folder / "validation")
    data = load(folder, quiet=False)
    assert "test images of 2 of 3 classes" in data.summary
    err = " ".join(capsys.readouterr().err.split())
    assert "validation images of 2 of 3 classes: none of bee." in err


def test_names_of_no_encoding_and_pointers(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "FULL_BYTES", 1)
    (folder / "train/\udcff").mkdir()
    for number in range(2):
        shutil.copy(folder / "train/ant/00.png", folder / f"train/\udcff/{number}\udcfe.png")
    data = load(folder)
    assert data.class_names == (*CLASSES, "\udcff")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
    (folder / "train/ant/00.png").write_bytes(pointer)
    with pytest.raises(DataError, match=r"ant/00.png \(a pointer of Git LFS: fetch it by git lfs"):
        load(folder)
    (folder / "x.tar.xz").write_bytes(pointer)
    with pytest.raises(DataError, match="it is a pointer of Git LFS; fetch the file itself"):
        load(folder / "x.tar.xz")


# Copies


def test_copies_between_sets_and_classes_are_counted(folder, capsys):
    assert "same bytes" not in load(folder).summary
    data = load(folder)
    trained = sorted((folder / "train/ant").iterdir())[int(data.train.index[0])]
    held = sorted((folder / "train/ant").iterdir())[int(data.validation.index[0])]
    shutil.copy(trained, folder / "test/ant/copy.png")
    shutil.copy(trained, folder / "test/cat/copy.png")
    shutil.copy(held, folder / "test/ant/held.png")
    data = load(folder, quiet=False)
    assert "2 files of the test set with the same bytes in the train set" in data.summary
    assert "1 file of the test set with the same bytes in the validation set" in data.summary
    assert "1 file with the same bytes under another class" in data.summary
    assert "test/cat/copy.png" in capsys.readouterr().err


def test_outside_images_that_are_copies_are_refused(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for number in range(3):
        pixels(np.random.default_rng(50 + number), 9, 9).save(other / f"{number}.png")
    table = {"name": "image_folder", "folder": str(other)}
    keys = {"name": "image_folder", "folder": str(folder)}
    data = load(folder)

    def outside():
        return load_outside(load_spec(changed(data=keys, outside=[table])), data, None)

    assert outside()[0].images.n == 3
    for place in ("train", "validation", "test"):
        part = getattr(data, place)
        source = "train" if place == "validation" else place
        files = sorted((folder / source).rglob("*.png"))
        table["folder"] = str(tmp_path / place)
        shutil.copytree(other, table["folder"])
        shutil.copy(files[int(part.index[-1])], tmp_path / place / "holiday.png")
        with pytest.raises(DataError, match=r"holds 1 images of the data: .*holiday.png"):
            outside()


# Channels without spread, and machines that say nothing of themselves


def test_a_channel_without_spread_is_centred_and_said(tmp_path):
    write_folder(tmp_path, size=(9, 9))
    for path in tmp_path.rglob("*.png"):
        values = np.asarray(Image.open(path)).copy()
        values[:, :, 2] = 7
        Image.fromarray(values).save(path)
    data = load(tmp_path)
    assert "channel 3 has one value in all training images" in data.summary
    assert data.std[2] == 1.0
    assert data.mean[2] == pytest.approx(7 / 255)
    normalised = (data.train.batch(slice(None)) - torch.tensor(data.mean)[:, None, None]) / (
        torch.tensor(data.std)[:, None, None]
    )
    assert bool(normalised.isfinite().all())


@pytest.mark.parametrize("value", [0, 3, 255])
def test_deviation_of_one_value_is_one(value):
    counts = value_counts(np.full((5, 2, 3, 3), value, np.uint8))
    assert mean_and_std(counts, 255.0)[1] == (1.0, 1.0)


@pytest.mark.parametrize("lack", [AttributeError, ValueError, OSError])
def test_a_machine_that_does_not_say_its_memory(folder, monkeypatch, lack):
    def sysconf(name):
        raise lack(name)

    monkeypatch.setattr(os, "sysconf", sysconf)
    assert isinstance(load(folder).train.images, torch.Tensor)
    monkeypatch.delattr(os, "sysconf")
    assert isinstance(load(folder).train.images, torch.Tensor)


def test_a_folder_around_the_data_is_told(folder):
    message = r"no folder train\. Expected .* it holds data\. Did you mean .*data"
    with pytest.raises(DataError, match=message):
        load(folder.parent)
