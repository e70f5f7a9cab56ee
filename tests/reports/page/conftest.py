"""A run whose every text would be markup, for the tests of Markdown that is written."""

import json
import shutil
from pathlib import Path

import pytest

from tests.reports.conftest import MakeOnce
from tests.reports.synthetic import write_run
from tests.reports.world import Layout, Mock, MockAttack

EVIL = (
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![i](https://example.org/a.png) | `b` **c**",
    "<!-- x --> &lt; $y$ ~~z~~ {{ 7 }}",
    "=HYPERLINK(1) \u05d0\u05d1 " + "w" * 60,
)


@pytest.fixture(scope="session")
def _hostile(make_once: MakeOnce) -> Path:
    mocks = [Mock("lgm", label, 0.1, 0.2, 0.3, stuck=0.2) for label in EVIL]
    attacks = [
        MockAttack("fgsm", f"{EVIL[0]} *F*", eps=(0.1, 0.3)),
        MockAttack("pgd", EVIL[3], eps=(0.3,)),
        MockAttack("adaptive_joint", f"{EVIL[1]} _A_", eps=(0.3,)),
    ]
    layout = Layout(mocks=mocks, attacks=attacks, seeds=(0,), n=60, dim=8, strong=True)
    return make_once("hostile-markdown", lambda path: write_run(path, layout))


@pytest.fixture
def hostile_copy(_hostile: Path, tmp_path: Path) -> Path:
    """A copy of it, to write into."""
    path = shutil.copytree(_hostile, tmp_path / "run")
    results = json.loads((path / "results.json").read_text())
    results["name"] = "run\n# <b>x</b>"
    results["provenance"]["data"] |= {"label": "d\n- [l](u)\x1b[31m\u202e", "checksum": "<i>"}
    results["provenance"]["command"] = ["robustloss\n\n# h", "<u>", "`x`"]
    results["failures"] = [
        {"loss": "x", "label": "X | y", "seed": 0, "stage": "train", "reason": "a\n\n<hr>"}
    ]
    (path / "results.json").write_text(json.dumps(results))
    return path
