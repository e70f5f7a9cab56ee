"""Figures drawn by several processes: those of one process, whatever happens to the others."""

from pathlib import Path

import pytest

from robustloss.reports.page import press
from robustloss.reports.page.press import Shares
from tests.drawing import build_report
from tests.reports.synthetic import write_run
from tests.reports.world import MOCKS, Layout, MockAttack

SMALL = Layout(mocks=MOCKS[2:], seeds=(0,), attacks=(MockAttack(eps=(0.1,)),), n=60, grid=12)
DAMAGED = b"no record"
# Another process that is ready, hears what to draw, and then is no more, or has something to say.
DIES = "import pickle, sys; print(pickle.load(sys.stdin.buffer)); sys.exit(1)"
LEAVES = """
import pickle, sys
given, answers = sys.stdin.buffer, sys.stdout.buffer
pickle.load(given)
pickle.dump(b"ready", answers)
answers.flush()
pickle.load(given)
"""
TELLS = f"""{LEAVES}
while True:
    pickle.dump(([], [UserWarning("of the other process")], ["a gap"]), answers)
    answers.flush()
    pickle.load(given)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "report").rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which one record cannot be read, so that its report has a gap."""
    path = write_run(tmp_path_factory.mktemp("runs") / "damaged", SMALL)
    next(path.glob("cells/*/seed-0/fgsm-*.npz")).write_bytes(DAMAGED)
    return path


@pytest.fixture(scope="module")
def one(damaged: Path) -> dict[str, bytes]:
    """The report that one process makes of it, with blank figures."""
    return drawn(damaged, 1)


def drawn(path: Path, cores: int) -> dict[str, bytes]:
    build_report(path, cores=cores)
    return contents(path)


def test_three_processes_draw_what_one_draws(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_report(damaged, dpi=40, figures="drawn")
    one = contents(damaged)
    started = []
    original = press._Worker._talk

    def talk(worker, task):  # type: ignore[no-untyped-def]
        original(worker, task)
        started.append(sorted(worker.made))

    monkeypatch.setattr(press._Worker, "_talk", talk)
    build_report(damaged, dpi=40, figures="drawn", cores=3)
    three = contents(damaged)
    assert len(started) == 2
    assert any(started), "no other process drew anything"
    assert b"cannot be read" in one["index.html"]
    assert one.keys() == three.keys()
    assert [name for name, content in one.items() if three[name] != content] == []


@pytest.mark.parametrize("code", [DIES, LEAVES], ids=["before it is ready", "at its first figure"])
def test_a_process_that_ends_costs_no_figure(
    damaged: Path, one: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(press, "_START", code.replace("{", "{{").replace("}", "}}"))
    assert drawn(damaged, 2) == one


def test_warnings_and_gaps_of_the_other_process_are_told(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(press, "_START", TELLS)
    # Its figures come first: this process has to wait for one of them.
    monkeypatch.setattr(press, "_pictures", waiting(press._pictures))
    with pytest.warns(UserWarning, match="of the other process"):
        found = drawn(damaged, 2)
    assert b"a gap" in found["index.html"]


def waiting(draw):  # type: ignore[no-untyped-def]
    import time

    def later(task, item, gaps):  # type: ignore[no-untyped-def]
        time.sleep(0.2)
        return draw(task, item, gaps)

    return later


def test_what_cannot_be_drawn_is_told_as_by_one_process(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object, **keys: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(press, "_START", "raise OSError")
    monkeypatch.setattr("robustloss.reports.drawing.album.save", fail)
    with pytest.raises(OSError, match="no space left"):
        build_report(damaged, figures="drawn", cores=2)


def test_where_no_process_can_be_started_this_one_draws_all(
    damaged: Path, one: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: object, **keys: object) -> None:
        raise BlockingIOError("too many processes")

    monkeypatch.setattr(press.subprocess, "Popen", refuse)
    assert drawn(damaged, 2) == one


def test_each_figure_is_drawn_once_and_neighbours_by_one() -> None:
    shares = Shares(7, 2)
    assert [shares.take(0) for _ in range(3)] == [0, 1, 2]
    assert [shares.take(0) for _ in range(2)] == [6, 5]  # what the other would come to last
    assert [shares.take(1) for _ in range(2)] == [3, 4]
    assert shares.take(0) is None
    assert shares.take(1) is None
    assert Shares(0, 1).take(0) is None
