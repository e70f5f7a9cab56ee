"""One synthetic run, rendered once for all tests that read the result."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run, load_run
from tests.drawing import build_report
from tests.reports.synthetic import write_run
from tests.reports.world import ALL_KINDS, MOCKS, Layout, MockAttack

MakeOnce = Callable[[str, Callable[[Path], object]], Path]
DPI = 40  # the tests read numbers and structure; a person judges figures at full size


@pytest.fixture(scope="session")
def rendered(make_once: MakeOnce) -> Path:
    """A run and its report: 2-D features, a failed cell, marks, an attack without success."""
    layout = Layout(
        mocks=(MOCKS[0], MOCKS[2], MOCKS[3]),
        seeds=(0, 1),
        failed=(("GM", 1),),
        attacks=(
            MockAttack(eps=(0.0, 0.1, 0.3)),
            MockAttack("pgd", "Nothing", eps=(0.2,), strength=0.0),
        ),
        n=200,
        grid=30,
    )
    return make_once(
        "mixed", lambda path: build_report(write_run(path, layout), dpi=DPI, figures="drawn")
    )


@pytest.fixture(scope="session")
def run(rendered: Path) -> Run:
    return load_run(rendered)


@pytest.fixture(scope="session")
def html(rendered: Path) -> str:
    return (rendered / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def strong(make_once: MakeOnce) -> Path:
    """A run with an attack of every kind, not rendered: ten attacks, two norms, two seeds."""
    layout = Layout(
        mocks=MOCKS[:3],
        seeds=(0, 1),
        failed=(("GM", 1),),
        attacks=ALL_KINDS,
        n=100,
        dim=20,
        strong=True,
    )
    return make_once("strong", lambda path: write_run(path, layout))


@pytest.fixture(scope="session")
def strong_run(strong: Path) -> Run:
    return load_run(strong)


@pytest.fixture(scope="session")
def strong_numbers(strong_run: Run) -> Numbers:
    return Numbers(strong_run, 10)


@pytest.fixture(scope="session")
def strong_report(strong: Path, make_once: MakeOnce) -> Path:
    """The report of that run, which is copied: some tests read it as it is without."""

    def write(path: Path) -> None:
        build_report(shutil.copytree(strong, path), dpi=DPI, figures="lines")

    return make_once("strong-rendered", write) / "report"
