"""Progress: what is shown where, and the estimate of the time left."""

import io
import re

import pytest
from rich.console import Console

from robustloss.progress import (
    Bars,
    Event,
    Lines,
    Pace,
    Silent,
    choose_progress,
    duration,
    show_note,
)


class FakeClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (12.4, "12 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_time_left_is_linear_in_the_cells_left(clock):
    pace = Pace(4, clock)
    assert pace.left() == ""
    pace.take(Event("a", "train", 0, 5))
    clock.now += 30
    pace.take(Event("a", "done"))
    assert pace.left() == "2 min left"  # 30 s a cell, three cells left
    assert pace.fraction == 0.25
    clock.now += 30
    pace.take(Event("b", "failed", text="NaN"))
    assert pace.left() == "60 s left"
    assert (pace.finished, pace.failed) == (2, 1)


def test_a_cell_under_way_counts_by_its_share(clock):
    pace = Pace(1, clock)
    pace.take(Event("a", "train", 0, 10))
    clock.now += 40
    pace.take(Event("a", "train", 5, 10))  # half of the training, which is most of a cell
    assert 0.3 < pace.fraction < 0.5
    assert re.fullmatch(r"\d+ s left", pace.left())
    before = pace.fraction
    pace.take(Event("a", "attack", 0, 3))
    assert pace.fraction > before


def test_the_fraction_never_falls_within_a_cell(clock):
    pace = Pace(2, clock)
    seen = [0.0]
    for stage in ("train", "attack", "score"):
        for done in range(6):
            pace.take(Event("a", stage, done, 5))
            seen.append(pace.fraction)
    pace.take(Event("a", "done"))
    seen.append(pace.fraction)
    assert seen == sorted(seen)
    assert seen[-1] == 0.5


def test_cells_found_complete_say_nothing_about_the_pace(clock):
    pace = Pace(10, clock)
    for i in range(8):
        pace.take(Event(f"c{i}", "cached"))
    assert pace.left() == ""
    pace.take(Event("x", "train", 0, 1))
    clock.now += 60
    pace.take(Event("x", "done"))
    assert pace.left() == "60 s left"


def test_what_was_there_when_a_cell_began_says_nothing_about_the_pace(clock):
    pace = Pace(1, clock)
    pace.take(Event("a", "attack", 0, 10, fraction=0.8))
    assert pace.left() == ""
    clock.now += 30
    pace.take(Event("a", "attack", 5, 10, fraction=0.9))
    assert pace.fraction == 0.9
    assert pace.left() == "30 s left"  # a tenth took 30 s, and a tenth is left


def test_trials_are_a_lower_bound_and_cells_begin_a_pace_of_their_own(clock):
    pace, trial = Pace(6, clock), {"trial": 1}
    pace.take(Event("a trial 1", "train", 0, 1))
    for number in range(3):
        clock.now += 10
        pace.take(Event(f"a trial {number}", "done", name="cell_finished", values=trial))
    assert pace.left() == "at least 30 s left"
    pace.take(Event("a seed 0", "train", 0, 5))
    clock.now += 40
    pace.take(Event("a seed 0", "train", 1, 5, name="epoch", values={"epoch": 1}))
    assert pace.left() == ""
    clock.now += 160
    pace.take(Event("a seed 0", "train", 5, 5, name="epoch", values={"epoch": 5}))
    assert pace.left() == "9 min left"  # .64 of a cell in 160 s, and 2.2 are left
    pace.take(Event("a seed 0", "done", name="cell_finished"))
    assert pace.fraction == 4 / 6
    assert pace.left() == "6 min left"


def test_a_cell_found_complete_at_the_end_of_the_trials_leaves_the_pace_alone(clock):
    pace, trial = Pace(6, clock), {"trial": 1}
    pace.take(Event("a trial 1", "train", 0, 1))
    pace.take(Event("a trial 1", "done", name="cell_finished", values=trial))
    pace.take(Event("a seed 0", "train", 4, 5))  # reads what was there
    pace.take(Event("b seed 0", "cached", name="cell_finished"))
    clock.now += 50
    pace.take(Event("a seed 0", "cached", name="cell_finished"))
    pace.take(Event("c seed 0", "train", 0, 5))
    clock.now += 80
    pace.take(Event("c seed 0", "done", name="cell_finished"))
    assert pace.left() == "3 min left"  # 80 s for each of the two that are left


def lines_of(events, clock, step=1.0, cells=2):
    stream = io.StringIO()
    progress = Lines(stream, clock)
    progress.start(cells)
    for event in events:
        clock.now += step
        progress(event)
    progress.stop()
    return stream.getvalue().splitlines()


def test_one_line_per_finished_step(clock):
    training = [Event("A seed 0", "train", i, 40, f"epoch {i}") for i in range(41)]
    rest = [
        Event("A seed 0", "attack", 5, 10, "FGSM"),
        Event("A seed 0", "attack", 10, 10, "FGSM eps 0.3 error 40.0 %"),
        Event("A seed 0", "score", 1, 1),
        Event("A seed 0", "done"),
        Event("B seed 0", "failed", 0, 1, "the loss became NaN"),
    ]
    lines = lines_of(training + rest, clock, step=0.1)
    assert lines[0] == "2 cells"
    shown = [re.sub(r"  \(.*left\)", "", line) for line in lines[1:]]
    assert shown == [
        "[0/2] A seed 0: train  epoch 40",
        "[0/2] A seed 0: attack  FGSM eps 0.3 error 40.0 %",
        "[1/2] A seed 0: done",
        "[2/2] B seed 0: failed  the loss became NaN",
    ]
    assert "left" in lines[3]
    assert "left" not in lines[4]


def test_a_long_step_gives_a_line_now_and_then(clock):
    training = [Event("A", "train", i, 1000, f"epoch {i}") for i in range(100)]
    lines = lines_of(training, clock, step=1.0)
    assert 3 <= len(lines) <= 5


def test_cached_cells_have_a_line(clock):
    assert lines_of([Event("A seed 1", "cached")], clock)[1:] == ["[1/2] A seed 1: cached"]


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def shown(screen):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())


def test_bars_show_cells_steps_numbers_and_time_left(screen, clock):
    bars = Bars(screen, clock)
    bars.start(3)
    bars(Event("L-GM [x] seed 0", "train", 0, 5, "epoch 0/5"))
    clock.now += 20
    bars(Event("L-GM [x] seed 0", "train", 2, 5, "epoch 2/5 loss 0.12 validation error 0.90 %"))
    bars._bars.refresh()
    text = shown(screen)
    assert "L-GM [x] seed 0 train" in text  # the square brackets are no markup
    assert "epoch 2/5 loss 0.12 validation error 0.90 %" in text
    assert "30 s left" in text  # 20 s for two of five epochs
    assert "0/3" in text
    bars(Event("L-GM [x] seed 0", "failed", 0, 1, "the loss became NaN"))
    bars._bars.refresh()
    bars.stop()
    text = shown(screen)
    assert "L-GM [x] seed 0 failed: the loss became NaN" in text
    assert "1/3, 1 failed" in text


def test_bars_follow_several_cells_at_once(screen, clock):
    bars = Bars(screen, clock)
    bars.start(2)
    for cell in ("A", "B"):
        bars(Event(cell, "train", 1, 2, f"from {cell}"))
    assert len(bars._bars.tasks) == 3
    bars(Event("A", "attack", 0, 4))
    bars(Event("A", "done"))
    assert len(bars._bars.tasks) == 2
    bars(Event("C", "cached"))
    assert len(bars._bars.tasks) == 2
    bars.stop()


def test_the_choice(monkeypatch, capsys):
    assert isinstance(choose_progress(quiet=True), Silent)
    assert isinstance(choose_progress(quiet=False), Lines)  # under pytest stderr is no terminal
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(choose_progress(quiet=False), Bars)
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert isinstance(choose_progress(quiet=False), Lines)
    monkeypatch.delenv("JPY_PARENT_PID")
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(choose_progress(quiet=False), Lines)


def test_silent_is_silent(capsys):
    progress = Silent()
    progress.start(1)
    progress(Event("A", "done"))
    progress.stop()
    assert capsys.readouterr() == ("", "")


def test_a_note_is_a_line_of_lines_and_of_bars_and_nothing_to_others(screen, clock):
    stream = io.StringIO()
    bars = Bars(screen, clock)
    for each in (Lines(stream, clock), bars, Silent()):
        show_note(each, "Cost: [about] 3 min")
    bars.start(1)
    show_note(bars, "later")
    bars.stop()
    assert stream.getvalue() == "Cost: [about] 3 min\n"
    assert [line.strip() for line in shown(screen).splitlines()][:1] == ["Cost: [about] 3 min"]
    assert "later" in shown(screen)
