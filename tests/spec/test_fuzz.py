"""Any specification at all, as a table or as text: read or refused, and nothing of it runs."""

from tests.guard import told_by


def test_changed_tables(tmp_path):
    told = told_by("tests.fuzz_spec", "tables", 1500, folder=tmp_path)
    assert told["faults"] == []
    assert told["files"] == ["evil.py"]
    assert told["refused"] > 500
    assert told["accepted"] > 50


def test_changed_text(tmp_path):
    told = told_by("tests.fuzz_spec", "text", 500, folder=tmp_path)
    assert told["faults"] == []
    assert told["files"] == ["evil.py", "spec.toml"]
    assert told["refused"] > 100
