"""SVG as matplotlib writes it, made small: the same picture in a fraction of the bytes.

Only what draws is written again: no metadata, no style sheet, no script, and no address but of
parts of the same file. So a figure is safe inside a page, whatever the names in it are.
"""

import io
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache
from html import escape
from itertools import groupby
from xml.etree import ElementTree

import numpy as np
from PIL import Image

# Every machine draws text with a font of its own: letters of the first two have the same width.
FONTS = "DejaVu Sans,Verdana,sans-serif"
LONG = 30  # vertices from which on a line is thinned, and has one decimal instead of two
NEAR = 0.1  # points that a vertex may lie beside the line that goes on without it
LARGE = 4000  # bytes from which on pixels are looked at
SHADES = 96  # of a cloud of points
ROUNDS = 6  # of thinning, each of which may leave out every second vertex

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_PLACES = ("x", "y", "width", "height", "patternUnits", "transform")
_START = "data:image/png;base64,"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_STEP = re.compile(r"([MLCQz])([^MLCQz]*)")
_OURS = re.compile(r"url\(#([^)]+)\)")
# what holds anyway, or what the root says for all; matplotlib leaves out other defaults itself
_IDLE = {("stroke-linejoin", "round"), ("stroke-linecap", "butt"), ("text-anchor", "start"),
         ("font-style", "normal"), ("font-weight", "400")}  # fmt: skip

Style = tuple[str, ...]  # attributes as they are written
Part = tuple[str, Style, str]  # an element: before its style, the style, behind it


def shrink(text: str) -> str:
    """Return an SVG file of matplotlib's as a smaller one that looks the same."""
    root = ElementTree.fromstring(text)
    known = dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]+)', text))
    drawing = _Drawing({name: _letters(place) for place, name in enumerate(known)})
    body = _join(drawing.parts(root))
    size = " ".join(f'{key}="{escape(root.attrib[key])}"' for key in ("width", "height", "viewBox"))
    defined = f"<defs>{''.join(drawing.defined)}</defs>" if drawing.defined else ""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{size} font-family="{FONTS}" stroke-linejoin="round">{defined}{body}</svg>\n'
    )


class _Drawing:
    """One file on its way: short names of its parts, and what it defines for use elsewhere."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.defined: list[str] = []

    def parts(self, parent: ElementTree.Element) -> Iterator[Part]:
        """Yield what is drawn inside an element; groups are taken apart."""
        for element in parent:
            tag = element.tag.removeprefix(_SVG)
            if tag == "g":
                inside: Iterable[Part] = self.parts(element)
                if element.get("id", "").startswith("matplotlib.axis"):
                    # lines, ticks, labels: likes stand together and share their style
                    inside = sorted(inside, key=lambda part: part[0])
                clip = self._style("", element)
                for head, style, tail in inside:
                    if clip and " transform=" in tail:  # it would move the clip path as well
                        yield "<g", clip, f">{head}{_spaced(style)}{tail}</g>"
                    else:
                        yield head, (*clip, *style), tail
            elif tag == "defs":
                self.defined += [head + _spaced(style) + tail
                                 for head, style, tail in self.parts(element)]  # fmt: skip
            elif tag in ("path", "use", "text", "image", "rect", "clipPath", "pattern"):
                style = self._style(element.get("style", ""), element)
                if (said := self._tail(tag, element)) is not None:
                    yield f"<{tag}", style, said

    def _tail(self, tag: str, element: ElementTree.Element) -> str | None:
        """Return an element behind its name and style; None for what draws nothing."""
        said = ""
        if name := self.names.get(element.get("id", "")):
            said += f' id="{name}"'
        link = element.get(_LINK, "").replace("\n", "").replace(" ", "")
        if tag == "use":
            if link.removeprefix("#") not in self.names:
                return None
            said += f' xlink:href="#{self.names[link[1:]]}"'
        elif tag == "image":
            if not link.startswith(_START):
                return None
            said += f' xlink:href="{_START}{_lighten(link[len(_START) :])}"'
        elif tag == "path":
            if not (line := _path(element.get("d", ""))):
                return None
            said += f' d="{line}"'
        for key in _PLACES:
            value = _NUMBER.sub(lambda found: _text(float(found[0])), element.get(key, ""))
            if value and not value.startswith("rotate(0 "):
                said += f' {key}="{escape(value)}"'
        if tag == "text":
            return f"{said}>{escape(element.text or '', quote=False)}</text>"
        inside = _join(self.parts(element))
        return f"{said}>{inside}</{tag}>" if inside else said + "/>"

    def _style(self, words: str, element: ElementTree.Element) -> Style:
        """Return a style as attributes; names in it are those of this file."""
        said = [f'{key}="{_colour(escape(value))}"' for key in ("clip-path", "fill")
                if (value := element.get(key))] + [*_attributes(words)]  # fmt: skip
        short = (_OURS.sub(lambda found: f"url(#{self.names[found[1]]})", each) for each in said)
        return tuple(short)


def _join(parts: Iterable[Part]) -> str:
    """Return elements as text; neighbours of one style share it, and lines of one style a path."""
    text = []
    for style, run in groupby(parts, key=lambda part: part[1]):
        some = [*run]
        if 'fill="none"' in style and not any("opacity" in each for each in style):
            some = [*_chain(some)]
        # what clips a <use> must stand outside it, whose x and y would move the clip path too
        alone = len(some) == 1 and some[0][0] != "<use"
        if alone or not style or any(each.startswith("opacity") for each in style):
            text += [head + _spaced(style) + tail for head, _, tail in some]
        else:
            text += [f"<g{_spaced(style)}>", *(head + tail for head, _, tail in some), "</g>"]
    return "".join(text)


def _chain(run: Iterable[Part]) -> Iterator[Part]:
    """Yield the elements of a run, lines that nobody refers to as one."""
    for head, some in groupby(run, key=lambda part: part[0] if part[2][:4] == ' d="' else None):
        if head == "<path":
            found = [*some]
            lines = "".join(tail[4:-3] for _, _, tail in found)
            yield head, found[0][1], f' d="{lines}"/>'
        else:
            yield from some


def _spaced(style: Style) -> str:
    return "".join(f" {each}" for each in style)


@lru_cache(1000)
def _attributes(words: str) -> Style:
    """Return what a style says as attributes, but for what holds anyway."""
    found = dict(re.findall(r"([a-z-]+):\s*([^;]+)", words))
    found.pop("font-family", None)
    return tuple(
        f'{key}="{escape(_colour(value.removesuffix("px")))}"'
        for key, value in found.items()
        if (key, value) not in _IDLE
    )


def _colour(value: str) -> str:
    return re.sub(r"^#(.)\1(.)\2(.)\3$", r"#\1\2\3", value)


def _letters(number: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(97 + last)


def _lighten(pixels: str) -> str:
    """Return a picture of points on nothing in fewer colours, any other as it is."""
    data = b64decode(pixels)
    if len(data) < LARGE:
        return b64encode(data).decode()
    image = Image.open(io.BytesIO(data))
    if image.mode == "RGBA" and image.getchannel("A").histogram()[0] > 0.3 * math.prod(image.size):
        out = io.BytesIO()
        image.quantize(SHADES, Image.Quantize.FASTOCTREE).save(out, "png", optimize=True)
        data = min(data, out.getvalue(), key=len)
    return b64encode(data).decode()


def _path(line: str) -> str:
    """Return a path in steps from vertex to vertex; lines of many vertices are thinned."""
    words = []
    for piece in line.split("M")[1:]:
        steps = _STEP.findall(piece)
        if any(step in "CQ" for step, _ in steps):
            words += [_curve(piece, steps)]
            continue
        vertices = np.array(_NUMBER.findall(piece), float).reshape(-1, 2)
        decimals = 1 if len(vertices) >= LONG else 2
        if len(vertices) >= LONG:
            vertices = thin(vertices)
        at, *others = np.rint(vertices * 10**decimals).astype(int).tolist()
        words.append("M" + _pair(at[0], at[1], decimals))
        last = ""
        for x, y in others or [at]:
            across, down = x - at[0], y - at[1]
            if not (across or down) and len(others) > 1:
                continue
            step = "l" if across and down else "v" if down else "h"
            said = _pair(across, down, decimals) if step == "l" else _say(across or down, decimals)
            words.append(said if step == last and said[0] == "-" else
                         f" {said}" if step == last else step + said)  # fmt: skip
            at, last = [x, y], step
        if steps and steps[-1][0] == "z":
            words.append("z")
    return "".join(words)


def _curve(piece: str, steps: list[tuple[str, str]]) -> str:
    """Return one run of curves and lines, each with its places as they are."""
    start = _NUMBER.findall(piece)[:2]
    said = [("M", " ".join(start)), *steps]
    return "".join(
        step + " ".join(_text(float(number)) for number in _NUMBER.findall(numbers))
        for step, numbers in said
    )


def thin(vertices: np.ndarray) -> np.ndarray:
    """Leave out vertices of a line that lie where it goes without them, within ``NEAR``.

    Args:
        vertices: (N, 2) in points.
    """
    for number in range(ROUNDS):
        first = 1 + number % 2
        before, own, after = (
            vertices[first - 1 : -2 : 2],
            vertices[first:-1:2],
            vertices[first + 1 :: 2],
        )
        chord, aside = after - before, own - before
        length = np.maximum((chord**2).sum(1), 1e-12)
        along = np.clip((chord * aside).sum(1) / length, 0, 1)
        near = np.hypot(*(aside - along[:, None] * chord).T) < NEAR
        keep = np.ones(len(vertices), bool)
        keep[first:-1:2] = ~near
        vertices = vertices[keep]
    return vertices


def _pair(x: int, y: int, decimals: int) -> str:
    second = _say(y, decimals)
    return _say(x, decimals) + ("" if second[0] == "-" else " ") + second


@lru_cache(20_000)
def _say(whole: int, decimals: int) -> str:
    """Return a number of tenths or hundredths as short as it can be written."""
    text = f"{whole / 10**decimals:.{decimals}f}".rstrip("0").rstrip(".")
    return re.sub(r"^(-?)0\.", r"\1.", text) or "0"


def _text(value: float) -> str:
    return _say(round(100 * value), 2)
