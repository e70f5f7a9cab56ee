"""Named arrays in one file, an .npz without pickle: equal content gives equal bytes."""

import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robustloss.storage import CorruptFile, as_plain, canonical_json, read_bytes, write_bytes

MOST_ARRAYS = 4 * 2**30  # bytes; a record of 100,000 images of 1,000 classes has 1 GiB
_DIGEST_LENGTH = 64  # hexadecimal digits of sha256
_ARRAY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_META_MEMBER = "meta.json"


def write_arrays(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any] | None = None,
    *,
    packed: bool = False,
) -> None:
    """Write named arrays as .npz without pickle; equal content gives equal bytes.

    The sha256 of every byte before it stands at the end of the file as the archive's comment,
    so `numpy.load` reads the file too.

    Args:
        path: the file.
        arrays: bool, integer or float (at most 64 bit) arrays by identifier-like names.
        meta: plain values kept beside the arrays.
        packed: deflate the content, for small files that travel; the bytes are then those of this
            machine's zlib.

    Raises:
        ValueError: a name that is no identifier, or another dtype.
    """
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(_member(_META_MEMBER), canonical_json(as_plain(meta or {})), kind, 9)
        for name in sorted(arrays):
            if not _ARRAY_NAME.fullmatch(name):
                raise ValueError(
                    f"array name (={name!r}) must be an identifier: letters, digits, '_'."
                )
            array = np.asarray(arrays[name])
            if not _is_portable(array):
                raise ValueError(
                    f"array {name!r} (dtype {array.dtype}) must be bool, integer or float of at "
                    "most 64 bit: anything else would need pickle or differ between machines."
                )
            # C order, little endian: equal values must give equal bytes
            array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            archive.writestr(_member(f"{name}.npy"), content.getbuffer(), kind, 9)
            del content  # views, not copies: a record may be a part of the memory
        archive.comment = b"0" * _DIGEST_LENGTH
    body = buffer.getbuffer()[:-_DIGEST_LENGTH]
    write_bytes(path, [body, hashlib.sha256(body).hexdigest().encode()])


def read_arrays(
    path: str | Path, *, most: int = MOST_ARRAYS, unpacked: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_arrays` wrote.

    Args:
        path: the file.
        most: bytes that the file may have.
        unpacked: bytes that its content may have where it is packed; 0 refuses a packed file.

    Returns:
        The arrays by name, and the meta values.

    Raises:
        CorruptFile: missing, truncated, one byte altered, or not written by `write_arrays`.
    """
    data = read_bytes(path, most)
    if not data:
        raise CorruptFile(f"{path} is empty (0 bytes).")
    stated, body = data[-_DIGEST_LENGTH:], memoryview(data)[:-_DIGEST_LENGTH]
    if hashlib.sha256(body).hexdigest().encode() != stated:
        raise CorruptFile(f"{path} is truncated or altered: its sha256 does not fit.")
    try:
        members: dict[str, bytes] = {}
        arrays = {}
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                stored = member.compress_type == zipfile.ZIP_STORED
                if not unpacked and not (stored and member.file_size == member.compress_size):
                    raise ValueError(f"{member.filename!r} is packed")
                # a small file may unpack to any size: no more is unpacked than may be there
                left = (unpacked or len(data)) - sum(len(content) for content in members.values())
                with archive.open(member) as file:
                    members[name] = file.read(left + 1)
                if len(members[name]) > left:
                    raise ValueError(f"its content has more than {unpacked or len(data)} bytes")
        del data, body  # each array is in memory once more until it is parsed
        meta = json.loads(members.pop(_META_MEMBER))
        if not isinstance(meta, dict):
            raise ValueError("its meta values are no JSON object")
        for name in list(members):
            content = members.pop(name)
            if not _ARRAY_NAME.fullmatch(name):
                raise ValueError(f"the array name {name!r} is no identifier")
            array = _parse_array(content)
            if not _is_portable(array):
                raise ValueError(f"{name!r} is of dtype {array.dtype}")
            arrays[name] = array
    except Exception as error:  # whatever a file that is made to do harm makes the readers do
        text = " ".join(str(error).split()) or type(error).__name__
        raise CorruptFile(f"{path} is no array file of robustloss ({text}).") from error
    return arrays, meta


def _parse_array(content: bytes) -> np.ndarray:
    """Return the array of a .npy file; memory is taken only for what the file really holds."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or fortran:
        raise ValueError("an array of objects, or in Fortran order")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"an array of shape {shape} in {len(content)} bytes")
    return np.ndarray(shape, dtype, buffer=content, offset=file.tell()).copy()


def _is_portable(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuf" and array.dtype.itemsize <= 8


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system = 3  # the platform must not show in the bytes
    member.external_attr = 0o644 << 16
    return member
