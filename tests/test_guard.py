"""The guard itself: what it refuses, and that it lets the rest pass."""

import json
import os
import pickle
import sys
from pathlib import Path

from tests.guard import Guard, told_by, watched


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def deeds(inside, outside):
    """By name: what is done."""
    (outside / "foreign.py").write_text("x = 1")
    (outside / "old").write_text("old")
    (inside / "kept").write_text("old")
    evil = pickle.dumps(Evil())
    foreign = str(outside / "foreign.py")
    return {
        "good write": lambda: (inside / "new").write_text("new"),
        "good folder": lambda: (inside / "folder").mkdir(),
        "good rename": lambda: (inside / "new").rename(inside / "newer"),
        "good read": lambda: (outside / "old").read_text(),
        "good json": lambda: json.loads("[1]"),
        "write": lambda: (outside / "new").write_text("new"),
        "append": lambda: (outside / "old").open("a"),
        "os.open": lambda: os.open(outside / "new", os.O_CREAT | os.O_WRONLY),
        "way out": lambda: (inside / ".." / "out" / "new").write_text("new"),
        "folder": lambda: (outside / "folder").mkdir(),
        "rename": lambda: (inside / "kept").rename(outside / "kept"),
        "remove": lambda: (outside / "old").unlink(),
        "process": lambda: os.system("true"),
        "pickle": lambda: pickle.loads(evil),
        "import": lambda: __import__("no_such_module_of_anybody"),
        "foreign code": lambda: exec(compile("x = 1", foreign, "exec")),
        "socket": lambda: __import__("socket").socket(),
    }


def test_the_guard_refuses_what_it_should(tmp_path):
    told = told_by("tests.test_guard", folder=tmp_path)
    assert {name for name, found in told.items() if found} == {
        name for name in told if not name.startswith("good")
    }
    assert len(told) == 17
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["foreign.py", "old"]


if __name__ == "__main__":
    import socket  # noqa: F401  (loaded before the guard listens)

    places = [Path.cwd() / name for name in ("in", "out")]
    for place in places:
        place.mkdir()
    todo, guard = deeds(*places), Guard([places[0]])
    print(json.dumps({name: watched(guard, deed) for name, deed in todo.items()}))
    sys.exit(0)
