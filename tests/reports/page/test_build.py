"""The whole report: what it needs, what it writes, what it leaves alone."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from robustloss import reports
from robustloss.reports.page import contents as page_contents
from robustloss.results.run import Run
from tests.drawing import build_report
from tests.reports.conftest import DPI
from tests.reports.markup import Page
from tests.reports.synthetic import write_run
from tests.reports.world import MOCKS, Layout, Mock, MockAttack

SMALL = Layout(mocks=MOCKS[2:], seeds=(0,), attacks=(MockAttack(eps=(0.1,)),), n=60, grid=12)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, not rendered."""
    return write_run(tmp_path_factory.mktemp("runs") / "small", SMALL)


@pytest.fixture(scope="module")
def here(small: Path) -> dict[str, bytes]:
    """Its report, rendered in this process beside a program that uses matplotlib itself."""
    for name in ("report/tables/error-old.csv", "report/figures/old.png", "report/notes.txt"):
        (small / name).parent.mkdir(parents=True, exist_ok=True)
        (small / name).write_text("mine")
    settings, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
    mine = pyplot.figure()
    try:
        build_report(small, dpi=DPI, figures="drawn")
        assert pyplot.get_fignums() == [mine.number]
        assert dict(matplotlib.rcParams) == settings
        assert matplotlib.get_backend() == backend
    finally:
        pyplot.close(mine)
    return contents(small / "report")


def test_old_report_goes_and_other_files_stay(here: dict[str, bytes], small: Path) -> None:
    assert here["notes.txt"] == b"mine"
    assert "tables/error-fgsm.csv" in here
    assert "tables/error-old.csv" not in here
    assert "figures/old.png" not in here
    assert [p.name for p in small.iterdir() if p.name.startswith(".report-")] == []


def test_half_a_character_in_the_results_costs_no_report(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "small"
    shutil.copytree(small, copy)
    results = json.loads((copy / "results.json").read_text())
    lost = {"loss": "gm", "label": "GM", "seed": 7, "stage": "train", "reason": "half \ud800 one"}
    results["failures"].append(lost)
    results["flags"].append({"kind": "half \ud800 one"})
    (copy / "results.json").write_text(json.dumps(results))
    assert "half ? one" in reports.build_report(copy, dpi=DPI).read_text(encoding="utf-8")


def test_another_process_without_torch_gives_the_same_bytes(
    here: dict[str, bytes], small: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "small"
    shutil.copytree(small, copy, ignore=shutil.ignore_patterns("report"))
    code = f"""
    import sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {{"torch", "torchvision", "torchattacks", "sklearn"}}:
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Refuse())
    import matplotlib
    matplotlib.rcParams.update({{"font.size": 30, "svg.hashsalt": "other", "savefig.dpi": 300}})
    from robustloss.reports import build_report
    build_report({str(copy)!r}, dpi={DPI}, everything=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    there = contents(copy / "report")
    assert there.keys() == here.keys() - {"notes.txt"}
    assert [name for name in there if there[name] != here[name]] == []


def test_failure_while_drawing_keeps_the_old_report(
    here: dict[str, bytes], small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: object, **settings: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space left"):
        build_report(small, dpi=DPI, figures="drawn")
    assert contents(small / "report") == here
    assert [p.name for p in small.iterdir() if p.name.startswith(".report-")] == []


def test_what_cannot_be_made_is_a_gap_and_costs_nothing_else(
    here: dict[str, bytes], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object) -> None:
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(page_contents.training, "training_table", fail)
    monkeypatch.setattr(page_contents.curves, "plot_error_curves", fail)
    copy = Path(shutil.copytree(small, tmp_path / "small"))
    html = build_report(copy, dpi=DPI).read_text(encoding="utf-8")
    page = Page(html)
    assert "a table could not be made: ZeroDivisionError: no such thing" in page.text
    assert "a figure could not be made: ZeroDivisionError: no such thing" in page.text
    names = {name for name in contents(copy / "report") if not name.startswith("notes")}
    gone = {f"figures/error-vs-eps.{suffix}" for suffix in ("csv", "png", "svg")}
    gone |= {f"tables/training.{suffix}" for suffix in ("csv", "md", "tex")}
    assert names == here.keys() - gone - {"notes.txt"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "must be a folder"),
        (lambda path: path.mkdir(), "has no results.json"),
    ],
)
def test_refuses_what_is_no_run(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        build_report(tmp_path / "run")


def test_files_that_cannot_be_read_are_gaps_with_a_reason(small: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small, run, ignore=shutil.ignore_patterns("report"))
    record = next((run / "cells/gm/seed-0").glob("fgsm-0.1-*.npz"))
    data = bytearray(record.read_bytes())
    data[len(data) // 2] ^= 1
    record.write_bytes(data)
    next((run / "cells/gm/seed-0").glob("scores-*.npz")).unlink()
    (run / "cells/l-gm-alpha-1/seed-0/cell.json").write_text("{")
    page = Page(build_report(run, dpi=DPI).read_text(encoding="utf-8"))
    assert "3 stored files could not be read" in page.text
    assert "GM, seed 0: record of FGSM at eps 0.1 cannot be read" in page.text
    assert "GM, seed 0: clean validation scores cannot be read" in page.text
    assert "cells/l-gm-alpha-1/seed-0: " in page.text
    # results.json still has every number
    assert (run / "report/tables/error-fgsm.csv").read_text().count("L-GM (alpha 1)") == 2
    # and what needs only the clean record is drawn
    assert (run / "report/figures/embedding.png").is_file()
    assert not (run / "report/figures/likelihood-fgsm.png").exists()


EVIL = "<script>alert(1)</script> \"'& $x_1$ \\input{a} %#{}~^|`b`"
LONG = [Mock("softmax", f"{'long ' * 12}{i}", 0.1, 0.3, 0.1) for i in range(7)]
CASES = {
    "one seed": Layout(mocks=MOCKS[:2], seeds=(3,), n=60, attacks=(MockAttack(eps=(0.1,)),)),
    "eight losses": Layout(
        mocks=(*LONG, Mock("lgm", EVIL, 0.1, 0.2, 0.3)), seeds=(0,), n=60, dim=20,
        attacks=(MockAttack("fgsm", "F$GSM$ <b>&_^{}\\", eps=(0.1,)),),
    ),
    "one loss, three classes": Layout(mocks=MOCKS[2:3], classes=3, seeds=(0,), n=60,
                            attacks=(MockAttack(eps=(0.1,)),)),
    "hundred classes, RGB": Layout(mocks=MOCKS[2:3], classes=100, dim=20, seeds=(0,), n=300,
                                   shape=(3, 8, 8), attacks=(MockAttack(eps=(0.1,)),)),
    "one feature": Layout(mocks=MOCKS[2:3], classes=4, dim=1, seeds=(0,), n=60,
                          attacks=(MockAttack(eps=(0.1,)),)),
    "eps 0 only": Layout(mocks=MOCKS[:2], attacks=(MockAttack(eps=(0.0,)),), seeds=(0,), n=60),
    "no attack": Layout(mocks=MOCKS[:2], attacks=(), seeds=(0,), n=60),
    "L2, many eps": Layout(
        mocks=MOCKS[2:3], seeds=(0,), n=60, dim=20,
        attacks=(MockAttack("cw", "CW", "l2", tuple(0.25 * i for i in range(9)), 0.1),),
    ),
    "all failed": Layout(mocks=MOCKS[:2], seeds=(0,), n=60,
                         failed=(("softmax", 0), ("center", 0))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_shape_of_run_renders(tmp_path: Path, name: str) -> None:
    layout = CASES[name]
    run = write_run(tmp_path / "run", layout)
    page = Page(build_report(run, dpi=30, figures="laid out").read_text(encoding="utf-8"))
    for mock in layout.mocks:
        assert " ".join(mock.label.split()) in page.text
    if len(layout.mocks) == 1:  # a chapter without anything to show is left out
        assert "differences" not in page.ids
    figures = sorted(p.name for p in (run / "report/figures").glob("*.png"))
    attacked = any(e > 0 for a in layout.attacks for e in a.eps) and name != "all failed"
    assert any(f.startswith("likelihood-") for f in figures) == attacked
    assert any(f.startswith("likelihood-map-") for f in figures) == (attacked and layout.dim == 2)
    assert ("embedding.png" in figures) == (name != "all failed")
    if not attacked:
        assert "says nothing about" in page.text
    names = "".join(p.name for p in (run / "report").rglob("*"))
    assert set(names) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def test_every_figure_has_its_three_files(rendered: Path) -> None:
    folder = rendered / "report" / "figures"
    names = {p.stem for p in folder.iterdir()}
    assert {
        "error-vs-eps", "embedding", "learning-curves", "detection-vs-eps-fgsm", "posterior-fgsm",
        "posterior-logit-fgsm", "likelihood-fgsm", "roc-fgsm", "likelihood-map-fgsm", "images-fgsm",
        "roc-nothing",
    } <= names  # fmt: skip
    for name in names:
        picture = pyplot.imread(folder / f"{name}.png")
        assert min(picture.shape[:2]) > 80
        assert np.ptp(picture[..., :3]) > 0.5, f"{name}.png is blank"
        drawing = ElementTree.parse(folder / f"{name}.svg")
        drawn = [node for node in drawing.iter() if node.tag.endswith(("}path", "}use", "}text"))]
        assert len(drawn) > 20
        for node in drawing.iter():  # nothing in it is fetched from elsewhere, or runs
            assert not node.tag.endswith(("}script", "}date"))
            for key, value in node.attrib.items():
                assert not key.endswith("href") or value.startswith(("#", "data:image/png"))
        numbers = [p for p in folder.glob(f"{name}.*") if p.suffix in (".csv", ".npz")]
        assert len(numbers) == 1
        assert numbers[0].stat().st_size > 200


def test_numbers_of_the_images_say_whose_they_are(rendered: Path) -> None:
    with np.load(rendered / "report/figures/images-fgsm.npz") as numbers:
        named = [numbers[axis].tolist() for axis in ("losses", "examples", "columns")]
        assert numbers["right"].shape == tuple(map(len, named))
    assert {"softmax", "GM"} <= set(named[0])
    assert named[2][0] == "clean"


def test_picture_seed_is_the_first_that_finished(run: Run, rendered: Path) -> None:
    # GM seed 1 failed; all pictures show seed 0, and its numbers are those of its rows
    row = next(
        r for r in run.rows
        if (r["label"], r["seed"], r["attack_label"], r["eps"]) == ("GM", 0, "FGSM", 0.1)
    )  # fmt: skip
    lines = (rendered / "report/figures/roc-fgsm.csv").read_text().splitlines()
    at = {
        float(x): float(y)
        for panel, label, x, y, _, _ in (line.split(",") for line in lines[1:])
        if (panel, label) == ("eps 0.1", "GM")
    }
    assert at[0.01] == pytest.approx(row["tpr_at_1fpr"])
    assert at[0.05] == pytest.approx(row["tpr_at_5fpr"])
