"""Where data lie, downloads, DataError."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import urllib.request
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

# To a mirror's first answer, then from byte to byte: no network must not look like a hang.
TIMEOUT_S = 5.0


class DataError(ValueError):
    """The data asked for is absent, damaged or impossible; the text is meant for the user."""


class AbsentError(DataError):
    """The data asked for is not on this machine."""


def data_root(root: Path | None) -> Path:
    """The folder that data is looked for in: the argument, ROBUSTLOSS_DATA, a cache folder."""
    if root is not None:
        return Path(root).expanduser()
    if named := os.environ.get("ROBUSTLOSS_DATA"):
        return Path(named).expanduser()
    return cache_folder()


def cache_folder() -> Path:
    """The folder for what can be fetched or made again."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "robustloss"


def md5_of(content: bytes) -> str:
    """MD5 as the publishers of data sets give it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def download_progress(quiet: bool) -> Progress:
    """A progress bar for downloads, on stderr."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    )


def fetch_first(
    urls: list[str], md5: str, progress: Progress, task: TaskID
) -> tuple[bytes | None, str]:
    """The content from the first mirror that delivers it, or None and what each one answered."""
    reasons = []
    for url in urls:
        host, _, name = url.partition("//")[2].partition("/")
        try:
            content = _fetch(url, progress, task)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            reasons.append(f"{host}: {getattr(reason, 'strerror', None) or reason}")
            continue
        if md5_of(content) == md5:
            return content, ""
        reasons.append(f"{host}: wrong MD5 of {name.rpartition('/')[2]}")
    return None, "; ".join(reasons)


def _fetch(url: str, progress: Progress, task: TaskID) -> bytes:
    chunks = []
    with _open(url) as response:
        progress.update(task, total=response.length, completed=0)
        while chunk := response.read(1 << 16):
            chunks.append(chunk)
            progress.advance(task, len(chunk))
    return b"".join(chunks)


def _open(url: str) -> http.client.HTTPResponse:
    """Open within TIMEOUT_S in all.

    urlopen's own timeout leaves out the name server and begins anew for each address of a host.
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
    return answer
