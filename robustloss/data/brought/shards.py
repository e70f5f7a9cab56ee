"""Parquet and Arrow files: pyarrow reads them, a piece at a time.

A parquet file is unpacked by its row groups. An Arrow file, as `datasets` writes it by
`save_to_disk`, lies in memory as it lies on disk, so nothing of it is read that is not asked for.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustloss.data.files import DataError, is_lfs_pointer

SUFFIXES = (".parquet", ".arrow")
ROWS = 256  # that are unpacked together
_BOMB = 10**9, 100  # a file that unpacks to more bytes, and to so many times its own, is refused


@dataclass(frozen=True)
class Column:
    """One column of a file.

    Attributes:
        name: of the column.
        kind: "image" (encoded files), "nested" (lists), "integer", "text" or "other".
        type: as pyarrow calls it.
        feature: what `datasets` says of it, such as {"_type": "ClassLabel", "names": [...]}.
    """

    name: str
    kind: str
    type: str
    feature: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Shard:
    """One file of a split.

    Attributes:
        path: of the file.
    """

    path: Path

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns by name, in their order."""
        with self._reading():
            schema = self._open().schema_arrow if self._is_parquet else self._open().schema
            features = _features_of(schema.metadata or {})
            return {
                field.name: Column(
                    field.name,
                    _kind_of(field.type),
                    str(field.type),
                    feature if isinstance(feature := features.get(field.name), dict) else {},
                )
                for field in schema
            }

    def read_column(self, name: str) -> tuple[list[Any] | NDArray[Any], int]:
        """Return the values of a column of numbers or text, and how many are missing."""
        import pyarrow as pa

        with self._reading():
            pieces = [batch.column(name) for _, batch in self._batches(name, None)]
            if not pieces:
                return [], 0
            values = pa.chunked_array(pieces)
            if values.null_count:
                return [], values.null_count
            if pa.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
            return (values.to_numpy() if is_number else values.to_pylist()), 0

    def count_rows(self, name: str) -> int:
        """Return how many rows there are."""
        with self._reading():
            if self._is_parquet:
                return self._open().metadata.num_rows
            return sum(batch.num_rows for _, batch in self._batches(name, None))

    def iter_images(
        self, name: str, rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], list[bytes | None]]]:
        """Yield the bytes of the image files in some rows, piece by piece.

        Args:
            name: of the column, of kind "image".
            rows: ascending.

        Yields:
            The rows, and the bytes of each; None where a row has none.
        """
        import pyarrow as pa

        with self._reading():
            for start, batch in self._batches(name, rows):
                stop = start + batch.num_rows
                chosen = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
                if not len(chosen):
                    continue
                some = batch.column(name).take(pa.array(chosen - start))
                if pa.types.is_struct(some.type):
                    some = some.flatten()[some.type.get_field_index("bytes")]
                yield chosen, some.to_pylist()

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not stat.S_ISREG(self.path.stat().st_mode):
            raise ValueError("no ordinary file")
        if self._is_parquet:
            return pq.ParquetFile(self.path)
        content = pa.memory_map(str(self.path))
        try:
            return pa.ipc.open_stream(content)
        except pa.ArrowInvalid:
            return _Batches(pa.ipc.open_file(content))

    def _batches(self, name: str, rows: NDArray[np.int64] | None) -> Iterator[tuple[int, Any]]:
        """Yield pieces of a column, each with its first row; of parquet those with some rows."""
        opened, start = self._open(), 0
        if not self._is_parquet:
            for batch in opened:
                # it lies in memory as on disk: the offsets of a damaged file point anywhere
                batch.column(name).validate(full=True)
                yield start, batch
                start += batch.num_rows
            return
        self._check_size(opened.metadata)
        for group in range(opened.num_row_groups):
            stop = start + opened.metadata.row_group(group).num_rows
            if rows is None or np.searchsorted(rows, start) < np.searchsorted(rows, stop):
                first = start
                for batch in opened.iter_batches(ROWS, [group], [name]):
                    yield first, batch
                    first += batch.num_rows
            start = stop

    def _check_size(self, metadata: Any) -> None:
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        unpacked = sum(group.total_byte_size for group in groups)
        if unpacked > max(_BOMB[0], _BOMB[1] * self.path.stat().st_size):
            raise ValueError(f"it unpacks to {unpacked:,} bytes, over {_BOMB[1]} times its own")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raise a DataError that names the file for whatever a damaged one makes pyarrow do."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            remedy = "Write it anew, or leave it out."
            if self.path.is_file():  # a pipe would be waited for
                with suppress(OSError), self.path.open("rb") as file:
                    if is_lfs_pointer(file.read(64)):
                        reason, remedy = "a pointer of Git LFS", "Fetch it by git lfs pull."
            raise DataError(f"{self.path}: cannot be read ({reason[:200]}). {remedy}") from None


class _Batches:
    """The batches of an Arrow file that can be read in any order, one after the other."""

    def __init__(self, file: Any) -> None:
        self.file, self.schema = file, file.schema

    def __iter__(self) -> Iterator[Any]:
        return (self.file.get_batch(i) for i in range(self.file.num_record_batches))


def check_pyarrow(where: str) -> None:
    """Refuse to go on where pyarrow is missing.

    Raises:
        DataError: it is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"{where} needs pyarrow, which cannot be imported ({error}). Install it: pip install "
            "pyarrow, or 'robustloss[hf]' for networks too."
        ) from None


def _features_of(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """Return what `datasets` wrote of the columns; nothing where somebody else wrote the file."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind_of(kind: Any) -> str:
    import pyarrow as pa

    is_type = pa.types
    if is_type.is_struct(kind):
        at = kind.get_field_index("bytes")
        return "image" if at >= 0 and _kind_of(kind.field(at).type) == "image" else "other"
    if is_type.is_binary(kind) or is_type.is_large_binary(kind) or is_type.is_binary_view(kind):
        return "image"
    if is_type.is_dictionary(kind):
        return _kind_of(kind.value_type)
    if is_type.is_string(kind) or is_type.is_large_string(kind) or is_type.is_string_view(kind):
        return "text"
    if is_type.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
        return "nested"
    return "integer" if is_type.is_integer(kind) else "other"
