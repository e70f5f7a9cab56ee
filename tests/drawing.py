"""Reports with their pictures, for the tests that look at them.

Drawing is most of the time of a small run. The other tests read tables, numbers and the page, which
are made as ever: for them conftest.py leaves the pictures out.
"""

from pathlib import Path

import pytest

from robustloss import reports
from robustloss.reports.page import build, press

_DRAW = press.draw_all


def build_report(
    run_dir: str | Path, *, everything: bool = True, cores: int = 1, **keys: int
) -> Path:
    """reports.build_report as users have it, with every figure.

    Each further core is a process that loads matplotlib first, and other tests have these cores.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "draw_all", _DRAW)
        patch.setattr(press, "cores", lambda: cores)
        return reports.build_report(run_dir, everything=everything, **keys)
