"""Files that are whole or absent: atomic writes, canonical digests, checked JSON."""

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from robustloss import run_files

MOST_JSON = 512 * 2**20  # bytes; of 200 cells with many attacks results.json has some 100 MiB
_MOST_VALUES = 20_000_000  # in one JSON file, which takes 2 GiB of memory at most to hold them

_PLAIN = {str, int, float, bool, type(None)}  # JSON takes their values as they are, but for NaN
_TEMPORARY = re.compile(r"\..+\.tmp-\d+")  # as write_bytes names its file


class CorruptFile(ValueError):  # noqa: N818  (names the file, not the failure)
    """A stored file is missing, truncated or altered; nothing of it may be used."""


def digest(*parts: object) -> str:
    """Return the first 16 hexadecimal digits of sha256 over the canonical JSON of plain values.

    Args:
        parts: what decides a content: str, int, float, bool, None, and lists, tuples and
            dicts of these. 1 and 1.0 are different values.

    Raises:
        TypeError: a part is no plain value. ValueError: a number is not finite.
    """
    _check_plain(parts)
    return hashlib.sha256(canonical_json(list(parts))).hexdigest()[:16]


def write_bytes(path: str | Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Parent folders are made. A killed writer leaves at most a file named ``.NAME.tmp-PID``
    beside the target (see `remove_leftovers`).

    Args:
        path: the file.
        data: its content, or the pieces of it in order.

    Raises:
        OSError: it cannot be written, or a link stands between its run folder and it.
    """
    with replacing(path) as file:
        file.writelines([data] if isinstance(data, bytes) else data)


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a new file that stands in the place of a path once the block has ended well.

    Args:
        path: the file, as for `write_bytes`; if the block raises, it is as it was.

    Raises:
        OSError: as `write_bytes`.
    """
    path = Path(path)
    run_files.check_folders(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(
            errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename
        ) from error
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)  # of a killed process with the same number
        with temporary.open("xb") as file:  # "x": not through a link that lies there
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)  # os.replace: atomic within one folder
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.filename in (None, str(temporary)) and error.errno is not None:
            error.filename = str(path)  # what the user knows; of a full disk none is named
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def digest_file(path: str | Path, most: int = run_files.MOST) -> str:
    """Return sha256 over the whole content of a file, as the program sha256sum gives it.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        CorruptFile: it cannot be read, or is a link, no ordinary file or a larger one.
    """
    try:
        with run_files.opening(path, most) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read ({error.strerror}).") from error


def is_disk_full(error: BaseException) -> bool:
    """Return whether there is no room for a file: a full disk, a quota, a limit on file sizes."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


def explain_disk_full(error: BaseException) -> str:
    """Return in one line what a person can do about an error for which `is_disk_full` holds."""
    assert isinstance(error, OSError)
    place = f"{error.filename}: " if error.filename else ""
    return (
        f"{place}{error.strerror}. Make room, then run the command again: what is finished is kept."
    )


def write_text(path: str | Path, text: str) -> None:
    """Write text by `write_bytes`, as UTF-8 with the line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files that killed writers left anywhere below a folder.

    Only for the one who owns the folder: a live writer's file would go too.
    """
    waiting = [str(folder)]
    while waiting:  # not os.walk, whose recursion somebody's folders may exhaust
        with suppress(OSError), os.scandir(waiting.pop()) as entries:  # may vanish meanwhile
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif _TEMPORARY.fullmatch(entry.name):
                    Path(entry).unlink(missing_ok=True)


def write_json(
    path: str | Path, data: Mapping[str, Any], *, checked: bool = False, sort_keys: bool = True
) -> None:
    """Write plain values as indented JSON; NaN and infinities become null.

    Args:
        path: the file.
        data: str keys; NumPy scalars are allowed, arrays are not (`write_arrays`).
        checked: add "sha256", the digest of everything else, for `read_json(checked=True)`.
        sort_keys: False keeps the order of the keys, for files that a person reads.
    """
    if checked:
        if "sha256" in data:
            raise ValueError("data must not hold the key 'sha256': a checked file adds it.")
        data = as_plain(data)
        data = {**data, "sha256": hashlib.sha256(canonical_json(data)).hexdigest()}
    write_bytes(path, _json_pieces(data, sort_keys))


def _json_pieces(data: Mapping[str, Any], sort_keys: bool) -> Iterator[bytes]:
    """Yield the text of `json.dumps` with an indent of 1, row by row: a table may be large."""

    def inner(value: object, indent: str) -> str:
        # ASCII: a label or a path of any characters, lone surrogates too, comes back as it was
        if _is_flat(value):  # most rows are, and without an indent they are encoded in C
            comma = f",\n{indent} ", ": "
            with suppress(ValueError):  # NaN
                text = json.dumps(value, separators=comma, sort_keys=sort_keys, allow_nan=False)
                return f"{{\n{indent} {text[1:-1]}\n{indent}}}"
        text = json.dumps(as_plain(value), indent=1, sort_keys=sort_keys, allow_nan=False)
        return text.replace("\n", f"\n{indent}")  # a line end within a value is written as \\n

    keys = [_text_key(key) for key in data]
    before = "{"
    for key in sorted(keys) if sort_keys else keys:
        yield f"{before}\n {json.dumps(key)}: ".encode()
        before, value = ",", data[key]
        if isinstance(value, list | tuple) and value:
            for number, item in enumerate(value):
                yield f"{',' if number else '['}\n  {inner(item, '  ')}".encode()
            yield b"\n ]"
        else:
            yield inner(value, " ").encode()
    yield b"\n}\n" if keys else b"{}\n"


def json_line(data: Mapping[str, Any]) -> bytes:
    """Return plain values as one line of JSON in ASCII; NaN and infinities become null.

    Args:
        data: as `write_json` takes it; its order stays.
    """
    return json.dumps(as_plain(data), allow_nan=False).encode() + b"\n"


def digest_content(data: Mapping[str, Any]) -> str:
    """Return sha256 over the canonical JSON of plain values, row by row: a table may be large.

    It is the same before they are written with `write_json` and after they are read back.

    Args:
        data: as `write_json` takes it.
    """
    sha256 = hashlib.sha256()
    for key in sorted(data):
        value = data[key]
        rows = value if isinstance(value, list | tuple) else [value]
        sha256.update(canonical_json([key, type(rows) is type(value), len(rows)]))
        for row in rows:
            try:
                text = canonical_json(row)
            except (TypeError, ValueError):  # NumPy scalars, or NaN, as before they are written
                text = canonical_json(as_plain(row))
            sha256.update(text)
    return sha256.hexdigest()


def read_json(path: str | Path, checked: bool = False) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Args:
        path: the file.
        checked: whether it was written so; it comes back without its digest.

    Raises:
        CorruptFile: the file is missing, no JSON object, or its digest does not fit.
    """
    data = _read_object(path)
    if checked:
        _take_digest(path, data)
    return data


def read_checked_json(path: str | Path) -> tuple[dict[str, Any], str]:
    """Read what `write_json` wrote with `checked`, errors as `read_json`.

    Returns:
        The values without their digest, and the digest.
    """
    data = _read_object(path)
    return data, _take_digest(path, data)


def _take_digest(path: str | Path, data: dict[str, Any]) -> str:
    """Take the digest out of the values and return it; refuse one that does not fit them."""
    stated = data.pop("sha256", None)
    if stated != hashlib.sha256(canonical_json(data)).hexdigest():
        raise CorruptFile(f"{path} was altered: its sha256 does not fit its content.")
    return stated


def _read_object(path: str | Path) -> dict[str, Any]:
    try:
        content = read_bytes(path, MOST_JSON)
        if (values := sum(map(content.count, (b",", b"[", b"{")))) > _MOST_VALUES:
            raise ValueError(f"{values} values, more than the {_MOST_VALUES} that are read")
        data = json.loads(
            content.decode("utf-8"),
            parse_constant=_refuse_number,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
    except CorruptFile:
        raise
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(data, dict):
        raise CorruptFile(f"{path} holds a JSON {type(data).__name__}, not an object.")
    return data


def _parse_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_number(text)


def _parse_int(text: str) -> int:
    number = int(text)
    return number if len(text) < 300 else _refuse_number(f"{text[:9]}...")  # beyond every float


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def read_bytes(path: str | Path, most: int) -> bytes:
    """Return the content of a file.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        CorruptFile: it is missing, has more, or cannot be read.
    """
    try:
        return run_files.read_file(path, most)
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read ({error.strerror}).") from error


def canonical_json(plain: object) -> bytes:
    """Return the one text that equal plain values have, whatever the order of their keys."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def as_plain(value: Any) -> Any:
    """Return a value as JSON takes it: NumPy scalars as Python's, NaN and infinities as None."""
    kind = type(value)
    if kind in _PLAIN and kind is not float:
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if kind is dict or isinstance(value, Mapping):
        return {_text_key(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} is no plain value for JSON; arrays: write_arrays.")


def _is_flat(value: object) -> bool:
    """Return whether a value is a dict of at least one plain value by text, and of nothing else."""
    return (
        isinstance(value, dict)
        and set(map(type, value)) == {str}
        and set(map(type, value.values())) <= _PLAIN
    )


def _check_plain(value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _text_key(key)
            _check_plain(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_plain(item)
    elif value is not None and not isinstance(value, str | int | float):
        raise TypeError(f"digest takes plain values, not {type(value).__name__} (={value!r}).")


def _text_key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"key (={key!r}) must be text: JSON has no other keys.")
    return key
