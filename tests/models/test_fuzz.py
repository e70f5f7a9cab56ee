"""Files of weights by somebody else, in short and in full; tests/fuzz_weights.py reads them."""

import pytest

from tests.guard import told_by


def check(told, count):
    assert told["faults"] == []
    assert min(told["loaded"], told["refused"]) > count / 10
    assert told["MB"] < 4096
    assert told["seconds"] < 30


def test_spoiled_weights_are_refused_or_harmless(tmp_path):
    check(told_by("tests.fuzz_weights", 500, "--seed", 1, folder=tmp_path), 500)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_spoiled_weights(tmp_path):
    check(told_by("tests.fuzz_weights", 10_000, folder=tmp_path), 10_000)
