"""What reading somebody else's files must never do, watched by a hook that cannot be taken off.

The hook stays for the life of a process, so that what is watched runs in a child: `told_by`.
"""

import contextlib
import importlib.metadata
import json
import os
import pickle  # noqa: F401  (it looks for modules that nobody has, when it is loaded)
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_PATHS = {  # event: which of its arguments are paths, and which the folder's descriptor
    "os.mkdir": ((0,), 2), "os.remove": ((0,), 1), "os.rmdir": ((0,), 1), "os.rename": ((0, 1), 2),
    "os.link": ((1,), 3), "os.symlink": ((1,), 2), "os.truncate": ((0,), None),
    "os.chmod": ((0,), 2), "os.chown": ((0,), 3), "os.utime": ((0,), 3),
}  # fmt: skip
_NEVER = (
    *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"),
    *("os.spawn", "os.startfile", "pickle.find_class", "ctypes.dlopen", "os.kill", "socket.bind"),
    *("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class BrokenOut(BaseException):
    """Something that must never happen was about to; no `except Exception` hides it."""


class Guard:
    """Refuses and notes writes outside some folders, processes, sockets, pickles, foreign code.

    Attributes:
        inside: folders in which files may be written.
        found: what was refused.
        armed: whether the hook does anything.
    """

    def __init__(self, inside: Sequence[Path] = ()) -> None:
        self.inside = [Path(os.path.realpath(folder)) for folder in inside]
        self.found: list[str] = []
        self.armed = False
        sys.dont_write_bytecode = True
        trusted = (sys.prefix, sys.base_prefix, *(str(ROOT / p) for p in ("robustloss", "attacks",
                   "reports", "tests")))  # fmt: skip
        self._trusted = tuple(dict.fromkeys((*trusted, *map(os.path.realpath, trusted))))
        self._modules = {
            *sys.stdlib_module_names,
            *importlib.metadata.packages_distributions(),
            *("robustloss", "attacks", "reports", "tests"),
            *(name.partition(".")[0] for name in sys.modules),
        }
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple) -> None:
        if not self.armed:
            return
        told = ""
        if event == "open":
            path, mode, flags = args
            writes = set(mode or "") & set("wax+") or (flags or 0) & _WRITING
            told = self._outside(path, None) if writes else ""
        elif event in _PATHS:
            places, descriptor = _PATHS[event]
            folder = None if descriptor is None else args[descriptor]
            told = "; ".join(filter(None, (self._outside(args[i], folder) for i in places)))
        elif event in _NEVER:
            told = repr(args)[:200]
        elif event == "import":
            told = "" if args[0].partition(".")[0] in self._modules else args[0]
        elif event == "exec":
            told = self._foreign(args[0].co_filename)
        elif event == "compile" and args[1] is not None:
            told = self._foreign(os.fsdecode(args[1]))
        if told:
            self.found.append(f"{event}: {told}")
            raise BrokenOut(f"{event}: {told}")

    def _outside(self, path: Any, folder: int | None) -> str:
        """The path, if it leads out of the folders."""
        if isinstance(path, int):
            return ""  # a file that is open already
        place = os.fsdecode(path)
        if folder is not None and folder >= 0:
            place = str(Path(f"/proc/self/fd/{folder}").readlink() / place)
        if "\0" in place or place == os.devnull:
            return ""  # refused by the system, or no file
        real = Path(os.path.realpath(place))
        return "" if any(real.is_relative_to(inside) for inside in self.inside) else place

    def _foreign(self, name: str) -> str:
        """The name of a file of code that belongs to nobody here."""
        return "" if name.startswith("<") or name.startswith(self._trusted) else name


def watched(guard: Guard, work: Callable[[], object]) -> str:
    """Does the work under the guard; what it was refused, or nothing."""
    before = len(guard.found)
    guard.armed = True
    try:
        with contextlib.suppress(BrokenOut):
            work()
    finally:
        guard.armed = False
    return "; ".join(guard.found[before:])


def told_by(module: str, *words: object, folder: Path) -> dict[str, Any]:
    """Runs a module in a child and returns the JSON that it prints last.

    Args:
        module: such as "tests.fuzz_spec".
        words: its arguments.
        folder: becomes its working folder, its home and the place of its temporary files.
    """
    home = {name: str(folder) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=folder,
        env={**os.environ, **home, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])
