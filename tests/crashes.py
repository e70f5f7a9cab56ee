"""A process that is killed before its n-th change of a file, tried for every n, without a process.

From that change on every further one fails as well, those of clean-up code too: what is left in the
folder is what a kill at that place leaves.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Killed(BaseException):
    """The process is no more."""


class Changes:
    """Counts the changes of files below a folder, and stops before one of them."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.last = sys.maxsize  # number of the change that does not come about
        self.made: list[str] = []
        self.dead = False
        sys.addaudithook(self._hear)  # for good: no hook can be taken away

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        writes = event == "open" and isinstance(args[2], int) and args[2] & _WRITING
        if not writes and event not in _CHANGES:
            return
        paths = [os.fsdecode(each) for each in args[:2] if isinstance(each, str | bytes)]
        # shutil.rmtree names what it removes within an open folder
        relative = event in ("os.remove", "os.rmdir") and not Path(paths[0]).is_absolute()
        if not relative and not any(each.startswith(self.folder) for each in paths):
            return
        if self.dead or len(self.made) >= self.last:
            self.dead = True
            raise Killed
        self.made.append(f"{event} {paths[0]}")


_CHANGES_OF_ALL_TESTS: list[Changes] = []


@contextmanager
def killed_before(number: int, folder: Path) -> Iterator[Changes]:
    """Stops the block before its n-th change below a folder; the block's changes are counted.

    Args:
        number: from 0; sys.maxsize only counts.
        folder: changes elsewhere do not count.
    """
    if not _CHANGES_OF_ALL_TESTS:
        _CHANGES_OF_ALL_TESTS.append(Changes())
    changes = _CHANGES_OF_ALL_TESTS[0]
    changes.last, changes.made, changes.dead = number, [], False
    changes.folder = str(folder)
    try:
        yield changes
    except Killed:
        pass
    finally:
        changes.folder = None


def count_changes(work: Callable[[], object], folder: Path) -> list[str]:
    """The changes of files below a folder that a piece of work makes, in order."""
    with killed_before(sys.maxsize, folder) as changes:
        work()
    return list(changes.made)
