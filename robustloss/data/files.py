"""Where data files lie, how absent ones are downloaded, and what is said of wrong ones."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from rich import progress
from rich.console import Console

from robustloss.notation import printable
from robustloss.storage import write_bytes

# To a mirror's first answer, then from byte to byte: no network must not look like a hang.
TIMEOUT_S = 5.0
MOST_NAMES = 10  # that a message lists


class DataError(ValueError):
    """The data asked for is absent, damaged or impossible; the text is meant for the user."""


class AbsentError(DataError):
    """The data asked for is not on this machine."""


def data_root(root: Path | None) -> Path:
    """Return the data folder: the argument, else ROBUSTLOSS_DATA, else a cache folder."""
    if root is not None:
        return Path(os.path.expanduser(root))
    if named := os.environ.get("ROBUSTLOSS_DATA"):
        return Path(os.path.expanduser(named))
    return cache_folder()


def cache_folder() -> Path:
    """Return the folder for what can be fetched or made again."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):
        raise DataError(
            "the cache has no place: this user has no home folder. Set XDG_CACHE_HOME to a folder."
        )
    return Path(cache) / "robustloss"


def is_lfs_pointer(start: bytes) -> bool:
    """Tell whether a file that begins so is what Git LFS puts in the place of a large one."""
    return start.startswith(b"version https://git-lfs")


def join_names(names: Sequence[object]) -> str:
    """Return up to ten of the names in one line, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(str, names[:MOST_NAMES])) + more


def showing_progress(quiet: bool, *columns: progress.ProgressColumn) -> progress.Progress:
    """Show a progress bar on a terminal, on stderr, until the block ends.

    Args:
        quiet: show nothing.
        columns: what stands behind the bar.
    """
    console = Console(stderr=True)
    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        *columns,
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,  # elsewhere rich writes an empty line
    )


def show_remark(text: str, *, quiet: bool) -> None:
    """Write a line on stderr, unless quiet."""
    if not quiet:
        Console(stderr=True).print(printable(text), markup=False, soft_wrap=True)


def md5_of(content: bytes) -> str:
    """Return the MD5 as the publishers of data sets give it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def check_md5(path: Path, content: bytes, expected: str, *, what: str, remedy: str) -> None:
    """Refuse a file that is not the published one.

    Args:
        path: of the file, for the message.
        content: of the file.
        expected: the published MD5.
        what: the data set, for the message: "the file is damaged or not WHAT".
        remedy: a sentence for the message.

    Raises:
        DataError: the MD5 is another one.
    """
    if (md5 := md5_of(content)) != expected:
        raise DataError(
            f"{path}: MD5 is {md5}, expected {expected}: the file is damaged or not {what}. "
            f"{remedy}"
        )


def download(
    folder: Path, files: Mapping[str, tuple[Sequence[str], str]], *, title: str, quiet: bool
) -> str:
    """Fetch files into a folder, each from the first mirror that delivers what was published.

    Args:
        folder: it is made where it is absent.
        files: name -> addresses to try in order, and the published MD5.
        title: what the progress bar calls them.
        quiet: no progress bar.

    Returns:
        "" when all came, else the reason in a few words.
    """
    columns = (
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with showing_progress(quiet, *columns) as bar:
        for name, (urls, md5) in files.items():
            task = bar.add_task(f"{title} {name}", total=None)
            reasons = []
            for url in urls:
                host = url.partition("//")[2].partition("/")[0]
                try:
                    content = _fetch(url, bar, task)
                except (OSError, http.client.HTTPException) as error:
                    reason = getattr(error, "reason", error)
                    reasons.append(f"{host}: {getattr(reason, 'strerror', None) or reason}")
                    continue
                if md5_of(content) == md5:
                    break
                reasons.append(f"{host}: wrong MD5 of {url.rpartition('/')[2]}")
            else:
                return "; ".join(reasons)
            try:
                write_bytes(folder / name, content)
            except OSError as error:
                return f"{folder} cannot be written: {error.strerror}"
    return ""


def _fetch(url: str, bar: progress.Progress, task: progress.TaskID) -> bytes:
    """Return what stands at an address.

    It is opened in a thread, because urlopen's own timeout leaves out the name server and begins
    anew for each address of a host.

    Raises:
        OSError or HTTPException: no answer within TIMEOUT_S in all, or none that is whole.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "robustloss"})
    answers: SimpleQueue[Any] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=TIMEOUT_S))
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT_S)
    except Empty:
        raise TimeoutError(f"no answer within {TIMEOUT_S:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    chunks = []
    with answer as response:
        bar.update(task, total=response.length, completed=0)
        while chunk := response.read(1 << 16):
            chunks.append(chunk)
            bar.advance(task, len(chunk))
    return b"".join(chunks)
