"""Reports with their figures, for the tests that look at them.

Drawing is most of the time of a small run. The other tests read tables, numbers and the page, which
are made as ever: for them conftest.py leaves the figures out.
"""

from base64 import b64decode
from pathlib import Path
from typing import Literal

import pytest
from matplotlib.figure import Figure

from robustloss import reports
from robustloss.reports.drawing import album, style
from robustloss.reports.page import build, press

_DRAW = press.draw_all
_START = press._START
_BLANK = _START.replace(
    "from robustloss.reports.page.press import serve; serve()",
    "from tests import drawing; drawing.album.save = drawing.save_blank; drawing.press.serve()",
)
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" viewBox="0 0 9 9"></svg>'
_PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
)


def build_report(
    run_dir: str | Path,
    *,
    everything: bool = True,
    figures: Literal["blank", "laid out", "lines", "drawn"] = "blank",
    cores: int = 1,
    **keys: int,
) -> Path:
    """reports.build_report with every figure.

    Args:
        run_dir: A run folder.
        everything: Also the figures under Details.
        figures: "drawn" as users have them. Drawing is most of the time, so otherwise each is
            composed, with its words and numbers, and its files are blank; "laid out" also finds
            the place of everything in it, which warns where a figure cannot be drawn, and "lines"
            draws the SVG files alone.
        cores: Each further one is a process that loads matplotlib first.
        keys: For reports.build_report.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "draw_all", _DRAW)
        patch.setattr(press, "cores", lambda: cores)
        if figures == "laid out":
            patch.setattr(album, "save", lay_out)
        elif figures == "lines":
            patch.setattr(album, "save", save_lines)
        elif figures == "blank":
            patch.setattr(album, "save", save_blank)
            if press._START == _START:
                patch.setattr(press, "_START", _BLANK)
        return reports.build_report(run_dir, everything=everything, **keys)


def save_blank(figure: Figure, folder: Path, name: str, **how: object) -> None:
    (folder / f"{name}.svg").write_bytes(_SVG)
    (folder / f"{name}.png").write_bytes(_PNG)


def save_lines(figure: Figure, folder: Path, name: str, *, dpi: int, **how: object) -> None:
    save_blank(figure, folder, name)
    style.save(figure, folder, name, dpi=dpi, formats=("svg",))


def lay_out(figure: Figure, folder: Path, name: str, **how: object) -> None:
    figure.draw_without_rendering()
    save_blank(figure, folder, name)
