"""Tar archives of anybody's, read from front to end: in full, in little memory, without links.

tarfile itself is not used but for its header of 512 bytes. It ends at a damaged header as if the
archive ended there, so that images are missing without a word; it leaves the checksum behind the
last member unread; it believes any size; and its filter for hostile archives has been got round by
chains of links.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from robustloss.data.files import is_lfs_pointer

# An archive may hold so many bytes for each of its own, or LEAST_LIMIT: images hardly shrink when
# they are packed, and more is a bomb. The same for members.
EXPANSION = 100
LEAST_LIMIT = 10**9
BYTES_A_MEMBER = 50
LEAST_MEMBERS = 100_000

_PIECE = 2**20  # bytes that are read at once
_MOST_EXTRA = 2**20  # bytes of a header with a long name or other records
_MOST_DEPTH = 50  # folders around a member
_BLOCK = tarfile.BLOCKSIZE

_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EXTRA = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE,
          tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)  # fmt: skip
_REFUSED = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.GNUTYPE_SPARSE: "a file with holes",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
_VOLUME_LABEL = b"V"


class ArchiveError(ValueError):
    """An archive that is damaged, or holds what is not unpacked; the text says why."""


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive.

    Attributes:
        parts: its name, checked: every part names something inside the one before.
        is_folder: it has no content.
        size: bytes of its content.
        pieces: the content, to be read before the next member is asked for.
    """

    parts: tuple[str, ...]
    is_folder: bool
    size: int
    pieces: Iterator[bytes]

    @property
    def name(self) -> str:
        """The name as messages call it."""
        return "/".join(self.parts)


class _Stream:
    """The unpacked bytes of an archive, counted."""

    def __init__(self, source: IO[bytes], limit: int) -> None:
        self._source = source
        self._limit = self._left = limit

    def read(self, count: int) -> bytes:
        """Return exactly so many bytes.

        Raises:
            ArchiveError: there are not as many, or more were read than the archive may hold.
        """
        if len(data := self.read_at_most(count)) < count:
            raise ArchiveError("it was cut off: it ends within a member, or without its end mark")
        return data

    def read_at_most(self, count: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        pieces: list[bytes] = []
        while count and (piece := self._unpack(count)):
            pieces.append(piece)
            count -= len(piece)
            self._left -= len(piece)
            if self._left < 0:
                most = f"{self._limit / 1e9:.3g} GB"
                raise ArchiveError(
                    f"it holds more than {most}, and more than {EXPANSION} times its own size"
                )
        return b"".join(pieces)

    def _unpack(self, count: int) -> bytes:
        try:
            return self._source.read(count)
        except OSError as error:
            if error.errno is not None:
                raise
            reason = str(error)  # what gzip and bz2 raise for damage has no number
        except (EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            reason = str(error)
        raise ArchiveError(" ".join(reason.split()) or "it is damaged")


def iter_members(path: Path) -> Iterator[Member]:
    """Yield the members of a tar archive, packed by gzip, bzip2, xz or not at all.

    Whoever reads to the end has read every byte, with all checksums.

    Raises:
        ArchiveError: damaged, cut off, too large, or with a member that is a link, no file, or
            named outside the archive. OSError: the archive cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        source = _decompress(file)
        stream = _Stream(source, max(LEAST_LIMIT, EXPANSION * size))
        yield from _iter_stream(stream, max(LEAST_MEMBERS, size // BYTES_A_MEMBER))


def _decompress(file: IO[bytes]) -> IO[bytes]:
    start = file.read(30)
    file.seek(0)
    if is_lfs_pointer(start):
        raise ArchiveError("it is a pointer of Git LFS; fetch the file itself: git lfs pull")
    opened: Any = file
    if start.startswith(b"\x1f\x8b"):
        opened = gzip.GzipFile(fileobj=file)
    elif start.startswith(b"BZh"):
        opened = bz2.BZ2File(file)
    elif start.startswith((b"\xfd7zXZ\0", b"]\0\0")):
        opened = lzma.LZMAFile(file)  # noqa: SIM115  (closing it would close nothing)
    return opened


def _iter_stream(stream: _Stream, most_members: int) -> Iterator[Member]:
    count, before = 0, "its beginning"
    common: dict[str, str] = {}  # records for all members that follow
    extra: dict[str, str] = {}  # for the next one
    while (block := stream.read(_BLOCK)).strip(b"\0"):
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            what = "it is no tar archive" if not count else f"it is damaged after {before}"
            raise ArchiveError(what) from None
        count += 1
        if count > most_members:
            raise ArchiveError(f"it has more than {most_members:,} members")
        if header.type in _EXTRA:
            if not 0 <= header.size <= _MOST_EXTRA:
                raise ArchiveError(f"a header after {before} has {header.size:,} bytes")
            content = stream.read(header.size + -header.size % _BLOCK)[: header.size]
            if header.type == tarfile.XGLTYPE:
                common |= _parse_records(content, before)
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                extra["path"] = _decode(content.partition(b"\0")[0])
            elif header.type != tarfile.GNUTYPE_LONGLINK:
                extra |= _parse_records(content, before)
            continue
        if header.type != _VOLUME_LABEL:
            member = _read_member(header, common | extra, stream)
            if member.parts:  # not the folder that was packed
                yield member
                before = member.name
            for _ in member.pieces:  # what nobody asked for
                pass
        extra = {}
    while rest := stream.read_at_most(_PIECE):  # to the end, where the checksum is
        if rest.strip(b"\0"):
            raise ArchiveError("more follows after its end mark: are these two archives in one?")


def _parse_records(content: bytes, before: str) -> dict[str, str]:
    """Read the records "LENGTH KEY=VALUE" of a pax header."""
    records, place = {}, 0
    try:
        while content[place : place + 1].strip(b"\0"):
            gap = content.index(b" ", place, place + 10)
            end = place + int(content[place:gap])
            if not gap < end <= len(content):
                raise ValueError(f"a record of {end - place} bytes")
            key, _, value = content[gap + 1 : end - 1].partition(b"=")
            records[_decode(key)] = _decode(value)
            place = end
    except ValueError:
        raise ArchiveError(f"it is damaged after {before}") from None
    return records


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _read_member(header: tarfile.TarInfo, extra: dict[str, str], stream: _Stream) -> Member:
    """Check what a header says, and what the headers before it add."""
    name = extra.get("path", header.name)
    if any(key.startswith("GNU.sparse") for key in extra):
        header.type = tarfile.GNUTYPE_SPARSE
    # Old archives know no folders: there a name that ends with "/" is one.
    is_folder = header.type == tarfile.DIRTYPE or (
        header.type == tarfile.AREGTYPE and name.endswith("/")
    )
    if not is_folder and header.type not in _FILES:
        kind = _REFUSED.get(header.type, f"of an unknown kind ({header.type!r})")
        raise ArchiveError(
            f"{name} is {kind}, and only files and folders are unpacked. Pack what it stands for: "
            "tar --dereference --hard-dereference -cf ..."
        )
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    odd = any(os.path.split(part)[0] or os.path.splitdrive(part)[0] for part in parts)
    if ".." in parts or "\0" in name or odd:
        raise ArchiveError(f"{name!r} would lie outside the folder that it is unpacked to")
    if len(parts) > _MOST_DEPTH:
        raise ArchiveError(f"{name[:60]}... lies in more than {_MOST_DEPTH} folders")
    digits = extra.get("size", "")
    size = int(digits) if digits.isdecimal() and len(digits) < 20 else header.size
    size = 0 if is_folder else size
    if size < 0 or not (parts or is_folder):
        raise ArchiveError(f"the member {name!r} has no size or no name")
    return Member(parts, is_folder, size, _iter_pieces(stream, size))


def _iter_pieces(stream: _Stream, size: int) -> Iterator[bytes]:
    left = size
    while left:
        yield (piece := stream.read(min(left, _PIECE)))
        left -= len(piece)
    stream.read(-size % _BLOCK)
