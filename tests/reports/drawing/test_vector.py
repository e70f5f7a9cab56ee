"""Figures as files: small, the same twice, and safe inside a page."""

import itertools
import re
import statistics
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from robustloss.reports.drawing.squares import ink_on
from robustloss.reports.drawing.style import BLUE, contrast, legible, report_style, save
from robustloss.reports.drawing.vector import NEAR, shrink, thin

EVIL = "<script>alert('1')</script> & \"b\" </text> _x"
SVG = "{http://www.w3.org/2000/svg}"


def draw() -> Figure:
    with report_style():
        figure = Figure((3, 2))
        ax = figure.add_subplot()
        x = np.linspace(0, 9, 400)
        ax.plot(x, np.sin(x), marker="o", markevery=40, label=EVIL)
        ax.fill_between(x, np.sin(x), 2, alpha=0.2, hatch="//")
        ax.imshow(np.eye(3), extent=(0, 2, -1, 1), aspect="auto")
        ax.scatter(x[::9], np.cos(x[::9]), alpha=0.5, linewidths=0, rasterized=True)
        ax.set_title(EVIL)
        ax.legend()
    return figure


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figure")
    with report_style():
        for name in ("a", "b"):
            save(draw(), folder, name, dpi=80, formats=("png", "svg", "pdf"))
    return folder


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_figure_has_the_same_bytes_twice(files: Path, ending: str) -> None:
    first, second = (files / f"{name}.{ending}" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size > 1000


def test_text_is_text_in_fonts_that_every_machine_has_and_runs_nothing(files: Path) -> None:
    root = ElementTree.parse(files / "a.svg").getroot()
    assert root.get("font-family") == "DejaVu Sans,Verdana,sans-serif"
    texts = [node.text for node in root.iter(f"{SVG}text")]
    assert texts.count(EVIL) == 2
    allowed = {"svg", "g", "defs", "path", "use", "text", "image", "rect", "clipPath", "pattern"}
    for node in root.iter():
        assert node.tag.removeprefix(SVG) in allowed
        for key, value in node.attrib.items():
            assert not key.startswith("on")
            assert not key.endswith("href") or value.startswith(("#", "data:image/png;base64,"))
            assert "url(" not in value or re.fullmatch(r"url\(#[a-z]+\)", value)


def test_every_part_that_is_referred_to_is_there(files: Path) -> None:
    text = (files / "a.svg").read_text(encoding="utf-8")
    wanted = set(re.findall(r'(?:href="|url\()#([a-z]+)', text))
    assert wanted
    assert wanted == set(re.findall(r' id="([a-z]+)"', text))


def test_what_is_moved_is_clipped_before(files: Path) -> None:
    """A clip path on an element that has a transform, or an x, would move along with it."""
    root = ElementTree.parse(files / "a.svg").getroot()
    clipped = [node for node in root.iter() if "clip-path" in node.attrib]
    assert {node.tag for node in clipped} >= {f"{SVG}path", f"{SVG}g"}
    for node in clipped:
        assert node.tag != f"{SVG}use"
        assert "transform" not in node.attrib


def test_a_page_can_embed_it_for_little(files: Path) -> None:
    figure = draw()
    with report_style():
        figure.savefig(files / "raw.svg", dpi=80)
    raw = (files / "raw.svg").stat().st_size
    assert (files / "a.svg").stat().st_size < 0.5 * raw


def points(path: str) -> np.ndarray:
    """Read M, l, h, v and z: what a line is written with."""
    at, found = np.zeros(2), []
    for step, numbers in re.findall(r"([Mlhvz])([^Mlhvz]*)", path):
        values = [float(n) for n in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", numbers)]
        if step in "Ml":
            moves = np.reshape(values, (-1, 2))
        else:
            moves = np.array([(v, 0) if step == "h" else (0, v) for v in values]).reshape(-1, 2)
        for move in moves:
            at = move if step == "M" else at + move
            found.append(at)
    return np.array(found)


def distance(places: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Return how far each place lies from a line, by every one of its segments."""
    start, step = line[:-1], np.diff(line, axis=0)
    aside = places[:, None] - start
    along = np.clip((aside * step).sum(2) / np.maximum((step**2).sum(1), 1e-12), 0, 1)
    return np.linalg.norm(aside - along[..., None] * step, axis=2).min(1)


@pytest.mark.parametrize(("count", "error"), [(5, 0.0072), (29, 0.0072), (200, 0.2)])
def test_a_line_stays_where_it_was(count: int, error: float) -> None:
    places = np.cumsum(np.random.default_rng(count).normal(0, 5, (count, 2)), 0)
    places[2] = places[1] + (3, 0)
    words = "\n".join(f"{'L' if i else 'M'} {x:.6f} {y:.6f}" for i, (x, y) in enumerate(places))
    text = shrink(f'<svg xmlns="{SVG[1:-1]}" width="1pt" height="1pt" viewBox="0 0 1 1">'
                  f'<path d="{words}"/></svg>')  # fmt: skip
    (path,) = re.findall(r' d="([^"]+)"', text)
    read = points(path)
    assert distance(places, read).max() < error
    assert distance(read, places).max() < error


def test_thinning_keeps_the_ends_and_every_corner() -> None:
    x = np.linspace(0, 300, 2000)
    curve = np.stack([x, 60 * np.sin(x / 20)], 1)
    kept = thin(curve)
    assert (kept[[0, -1]] == curve[[0, -1]]).all()
    assert len(kept) < len(curve) / 10
    assert distance(curve, kept).max() < 2 * NEAR
    stairs = np.array([(i // 2, (i + 1) // 2) for i in range(400)], float)
    assert (thin(stairs) == stairs).all()


def test_a_format_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'bmp'\. Use one of png, svg and pdf"):
        save(Figure(), tmp_path, "a", formats=("bmp",))


def test_the_figures_of_a_run_are_light(rendered: Path) -> None:
    sizes = {p.name: p.stat().st_size for p in (rendered / "report/figures").glob("*.svg")}
    assert len(sizes) > 15
    assert statistics.median(sizes.values()) < 40_000
    assert max(sizes.values()) < 150_000, sizes


@pytest.mark.parametrize("report", ["rendered", "strong_report"])
def test_every_text_of_a_figure_has_contrast(report: str, request: pytest.FixtureRequest) -> None:
    found: dict[str, set[str]] = {}

    def look(node: ElementTree.Element, colour: str, name: str) -> None:
        colour = node.get("fill", colour)
        if node.tag == f"{SVG}text":
            found.setdefault(colour, set()).add(name)
        for child in node:
            look(child, colour, name)

    folder = request.getfixturevalue(report)
    for path in folder.rglob("*.svg"):
        look(ElementTree.parse(path).getroot(), "#000", path.stem)
    assert len(found) > 2
    on_squares = found.pop("#fff", set())  # of a colour each: see ink_on
    assert all(re.match("confusion|scores-heat|transfer", name) for name in on_squares)
    faint = {colour: names for colour, names in found.items() if contrast(colour) < 4.5}
    assert not faint


def test_contrast_is_that_of_the_standard_and_can_be_had_on_any_colour() -> None:
    assert contrast("black") == pytest.approx(21)
    assert contrast("#777777") == pytest.approx(4.48, abs=0.01)  # WebAIM's example
    shades = np.linspace(0, 1, 12)
    for colour in itertools.product(shades, shades, shades):
        assert contrast(ink_on(colour), colour) >= 4.5
        assert contrast(legible(colour)) >= 4.5
    assert legible(BLUE) == BLUE.lower()
