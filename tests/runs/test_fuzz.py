"""Damaged and forged files in a run folder, in short and in full; tests/fuzz_run.py does it."""

import pytest

from tests.guard import told_by


def check(told, count):
    assert told["faults"] == []
    done = sum(told.get(f"{deed} {status}", 0) for deed in ("report", "draw", "run", "compare")
               for status in (0, 1, 2))  # fmt: skip
    assert done > count
    for outcome in ("report 0", "report 2", "run 0", "compare 0", "compare 2", "loaded", "refused"):
        assert told[outcome] > count / 100, outcome


def test_spoiled_files_are_refused_or_harmless(tmp_path):
    check(told_by("tests.fuzz_run", 20, "--seed", 1, folder=tmp_path), 20)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_thousand_spoiled_files(tmp_path):
    check(told_by("tests.fuzz_run", 2000, folder=tmp_path), 2000)
