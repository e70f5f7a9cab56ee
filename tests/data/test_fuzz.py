"""Spoiled image folders and archives, in short and in full; tests/fuzz_data.py does it."""

import pytest

from tests.guard import told_by


def check(told, count):
    assert told["faults"] == []
    for kind in ("image", "listing", "archive", "members"):
        assert told[f"{kind} refused"] > count / 20
    assert told["image read"] > count / 50


def test_spoiled_images_and_archives_are_refused_or_harmless(tmp_path):
    check(told_by("tests.fuzz_data", 100, "--seed", 1, folder=tmp_path), 100)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_thousand_spoiled_images_and_archives(tmp_path):
    check(told_by("tests.fuzz_data", 2000, folder=tmp_path), 2000)
