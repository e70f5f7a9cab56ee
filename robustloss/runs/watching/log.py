"""The log of a run: every event as a line of JSON, whole lines only."""

import errno
import json
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from robustloss.progress import Event
from robustloss.run_files import NO_DETOUR
from robustloss.runs.errors import RunError
from robustloss.storage import json_line

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

VERSION = 1  # raise when an event changes its name or meaning
ENDING = ".jsonl"
_FIRST = "run_started"  # with it every log begins
_LONGEST = 2**20  # bytes of a line that are looked at
_BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


class LogError(RunError):
    """The log cannot be used for this run."""


class RunLog:
    """A file that takes the named events of a run, each as it comes.

    A line is written by one call of the operating system, so a killed run leaves whole lines. Runs
    of one spec follow one another in a file, and each begins with `run_started`.

    Args:
        path: The file; it is made if need be, with its folders.
        name: Of the spec.

    Raises:
        LogError: It cannot be written, holds something else, or another run writes to it.
    """

    def __init__(self, path: str | Path, name: str) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            inside = self.path / f"log{ENDING}"
            raise LogError(f"log (={path}) is a folder. Name a file in it, as {inside}.")
        if self.path.suffix != ENDING:
            raise LogError(
                f"log (={path}) must end in {ENDING}: it takes a line of JSON for each event. "
                f"Write --log {self.path.with_suffix(ENDING)}."
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_DETOUR
            self._file = os.open(self.path, flags, 0o666)
        except OSError as error:
            why = "it is a link" if error.errno == errno.ELOOP else error.strerror
            raise LogError(
                f"log (={path}) cannot be written: {why}. Name another file with --log."
            ) from error
        try:
            self._take_over(name)
        except BaseException:
            os.close(self._file)
            raise

    def _take_over(self, name: str) -> None:
        """Lock the file, refuse one that is no log of this spec, and cut off half a line."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise LogError(f"log (={self.path}) is no ordinary file. Name another with --log.")
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _BUSY:
                    raise LogError(
                        f"log (={self.path}) is being written by another run. Wait for it, or name "
                        "another file with --log."
                    ) from None
                # else this file system knows no locks
        size = os.fstat(self._file).st_size
        if not size:
            return
        first, end, _ = os.pread(self._file, _LONGEST, 0).partition(b"\n")
        begun = json_line({"event": _FIRST})[:-2]
        if not end and (first.startswith(begun) or begun.startswith(first)):
            os.ftruncate(self._file, 0)  # its first run was killed while it wrote the first line
            return
        known = None
        with suppress(ValueError, RecursionError):
            known = json.loads(first)
        if not isinstance(known, dict) or known.get("event") != _FIRST:
            raise LogError(
                f"log (={self.path}) holds something other than the log of a run, and is left "
                "as it is. Name another file with --log."
            )
        if known.get("name") != name:
            raise LogError(
                f"log (={self.path}) is that of spec {known.get('name')!r}, this is spec {name!r}. "
                "Name another file with --log."
            )
        start = max(0, size - _LONGEST)
        tail = os.pread(self._file, _LONGEST, start)
        os.ftruncate(self._file, start + tail.rfind(b"\n") + 1)

    def __call__(self, event: Event) -> None:
        """Write a line if the event has a name.

        Raises:
            OSError: There is no room for it, or the file is gone.
        """
        if not event.name:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json_line({"event": event.name, "time": now, **event.values})
        state = os.fstat(self._file)
        if not state.st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if os.write(self._file, line) < len(line):
            os.ftruncate(self._file, state.st_size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file, so that another run may write to it."""
        os.close(self._file)
