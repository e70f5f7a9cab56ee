"""What check-data shows of a data set, and what it calls odd."""

import re

import numpy as np
import pytest
from PIL import Image

from robustloss.data.examine import find_text_order
from robustloss.data.load import load_dataset
from robustloss.spec.data import DataSpec
from tests.folders import write_folder


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def lines_of(out: str, name: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in out.splitlines() if line.split()[0] == name]


def test_a_clean_set_is_described_and_drawn(command, tmp_path):
    status, out, err = command("check-data", "Digits")
    assert (status, err) == (0, "")
    assert lines_of(out, "train") == ["997 images to learn from"]
    (mean,), (std,) = lines_of(out, "mean"), lines_of(out, "std")
    pixels = load_dataset(DataSpec(name="digits")).train.images.numpy() / 16
    assert (mean.split()[0], std) == (f"{pixels.mean():.4f}", f"{pixels.std():.4f}")
    assert lines_of(out, "odd") == [
        "nothing: no equal images in two sets or classes, no empty image"
    ]
    with Image.open(tmp_path / "digits-data.png") as sheet:
        # 110 pixels for names; 8 pixels six times as large, and two between.
        assert sheet.size == (110 + 10 * 50, 10 * 50)
        assert np.asarray(sheet)[:48, 110:158].std() > 20


def test_what_is_odd_in_arrays_is_told(command, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (240, 6, 6), np.uint8), np.arange(240) // 20  # 12 classes
    y[y == 11] = 0
    x[0], x[1] = 9, 9
    x[30] = x[50]  # two classes
    x_test, y_test = x[100:112].copy(), np.arange(12) % 11  # all of them are in training
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    status, out, _ = command("check-data", "d.npz", "--sheet", "there/sheet.png")
    assert status == 0
    odd = "\n".join(lines_of(out, "odd"))
    found = re.findall(r"(\d+) images? in test equal to an image of (?:train|validation)", odd)
    assert sum(map(int, found)) == 12
    assert "equal to an image of another class" in odd
    assert "with one value in all pixels" in odd
    assert (tmp_path / "there" / "sheet.png").is_file()


def test_a_folder_whose_classes_are_sorted_as_text_is_told(command, tmp_path):
    names = tuple(str(number) for number in range(1, 12))
    write_folder(tmp_path / "pictures", train=2, test=1, size=(9, 9), classes=names)
    status, out, _ = command("check-data", "pictures")
    assert status == 0
    (odd,) = [text for text in lines_of(out, "odd") if "order" in text]
    assert "11 comes before 2, so label 2 is 11" in odd
    assert "Fill up the numbers with zeros" in odd


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("1", "10", "2"), True),
        (("class1", "class10", "class2"), True),
        (("0", "1", "2"), False),
        (("01", "02", "10"), False),
        (("cat", "dog"), False),
        (("a2", "b1"), False),
    ],
)
def test_names_that_count(names, told):
    assert (find_text_order(names) is not None) == told


def test_the_data_of_a_spec_and_a_function_are_checked(command, tmp_path):
    command("new", "data", "my_data")
    (tmp_path / "spec.toml").write_text(
        'name = "x"\n[data]\nname = "my_data.py:my_data"\ntrain_size = 100\n'
        '[[losses]]\nname = "softmax"\n[[attacks]]\nname = "fgsm"\neps = [0.1]\n'
    )
    for word, n in (("my_data.py:my_data", "1,168"), ("spec.toml", "100")):
        status, out, err = command("check-data", word)
        assert (status, err) == (0, "")
        assert lines_of(out, "train") == [f"{n} images to learn from"]
        assert lines_of(out, "files") == ["my_data.py:my_data"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("digts", r"NAME \(=digts\) must be one of digits, mnist.*did you mean 'digits'"),
        ("own.py", r"own\.py is code: name its function too, as own\.py:own"),
        ("a/train.parquet", r"is one file of a data set: name its folder, as a\."),
        ("absent.npz", r"data\.file \(='absent\.npz'\) is not there"),
        ("absent.toml", r"absent\.toml: no such file"),
        ("absent.py:f", r"there is no file absent\.py"),
        ("image_folder", r"data\.folder .*must be given"),
        ("torchvision:Digits", r"is no data set of torchvision"),
        (".", r"has no folder train"),
    ],
)
def test_what_is_no_data_set_is_refused(command, tmp_path, word, message):
    status, out, err = command("check-data", word)
    assert (status, out) == (2, "")
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*.png"))
