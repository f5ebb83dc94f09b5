"""Logs made of columns: .npz and Parquet, read piece by piece."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np

from cachecore.plan.logs.chunks import CHUNK, UNKNOWN, Chunk, LogError, Reads, fields_of, in_seconds

KINDS = {"key": "iu", "size": "iu", "time": "iuf", "cost": "iuf"}


class ColumnLog(ABC):
    """A log of columns; its formats differ in how `_pieces` come."""

    format = ""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name, self._file = name, file
        self._done, self._count = 0, 1

    def share(self) -> float:
        return self._done / self._count

    def chunks(self) -> Iterator[Chunk]:
        self._done = 0
        reads = Reads()
        with self._readable():
            for piece in self._pieces():
                chunk = self._chunk(piece)
                self._done += len(chunk.keys)
                if "op" in piece:
                    chunk = reads.of(chunk, [str(name).lower() for name in piece["op"]])
                if chunk.keys:
                    yield chunk

    @abstractmethod
    def _pieces(self) -> Iterator[dict[str, Any]]:
        """Arrays or lists of the next requests, by field."""

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except LogError:
            raise
        except Exception as error:  # on damaged bytes zipfile, NumPy and Arrow raise nearly all
            why = str(error).partition("\n")[0]
            raise LogError(f"{self.name}: not a readable {self.format} file ({why})") from None

    def _chunk(self, piece: dict[str, Any]) -> Chunk:
        keys = piece["key"]
        if isinstance(keys, np.ndarray):
            keys = keys.astype(np.int64).tolist()  # unsigned ones above 2^63 wrap: as distinct
        sizes, times, costs = (piece.get(field) for field in ("size", "time", "cost"))
        if sizes is not None:
            self._check(sizes, sizes >= (UNKNOWN if "op" in piece else 0), "size", "is negative")
            sizes = sizes.tolist()
        if costs is not None:
            good = np.isfinite(costs) & (costs > 0)
            self._check(costs, good, "cost", "is not a number above 0")
            costs = costs.astype(float).tolist()
        if times is not None:
            self._check(times, np.isfinite(times), "time", "is no time")
            times = [in_seconds(time) for time in times.tolist()]
        return Chunk(keys, sizes, times, costs)

    def _check(self, values: Any, good: Any, field: str, what: str) -> None:
        if not good.all():
            at = int(np.argmin(good))
            raise LogError(
                f"{self.name}: request {self._done + at + 1}: {field} {values[at]} {what}"
            )


class NpzLog(ColumnLog):
    """An .npz file: an integer array `key`, perhaps `size` (integers), `time` and `cost`."""

    format = "npz"

    def _pieces(self) -> Iterator[dict[str, Any]]:
        with ExitStack() as opened:
            archive = opened.enter_context(zipfile.ZipFile(self._file))
            streams = {}
            for field in KINDS:
                if f"{field}.npy" in archive.namelist():
                    stream = opened.enter_context(archive.open(f"{field}.npy"))
                    streams[field] = (stream, *self._header(field, stream))
            if "key" not in streams:
                raise LogError(f"{self.name}: no array named 'key'")
            count = self._count = streams["key"][2]
            for field, (_, _, length) in streams.items():
                if length != count:
                    raise LogError(f"{self.name}: {length} {field}s for {count} keys")
            for start in range(0, count, CHUNK):
                length = min(CHUNK, count - start)
                piece = {}
                for field, (stream, dtype, _) in streams.items():
                    data = stream.read(length * dtype.itemsize)
                    if len(data) < length * dtype.itemsize:
                        raise LogError(f"{self.name}: array '{field}' ends early")
                    piece[field] = np.frombuffer(data, dtype)
                yield piece

    def _header(self, field: str, stream: IO[bytes]) -> tuple[np.dtype[Any], int]:
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, _, dtype = read[np.lib.format.read_magic(stream)](stream)
        if len(shape) != 1 or dtype.kind not in KINDS[field]:
            what = "integers" if KINDS[field] == "iu" else "numbers"
            raise LogError(f"{self.name}: '{field}' must be a flat array of {what}")
        return dtype, int(shape[0])


class ParquetLog(ColumnLog):
    """A Parquet file: columns as in CSV; keys are integers or text."""

    format = "parquet"

    def _pieces(self) -> Iterator[dict[str, Any]]:
        try:
            from pyarrow import parquet
        except ModuleNotFoundError:
            needs = 'Parquet needs: pip install "cachecore-ml[plan]"'
            raise LogError(f"{self.name}: {needs}") from None
        file = parquet.ParquetFile(self._file)
        self._count = max(file.metadata.num_rows, 1)
        names = file.schema_arrow.names
        columns = {field: names[at] for field, at in fields_of(names).items()}
        if "key" not in columns:
            raise LogError(f"{self.name}: no column named 'key'")
        for batch in file.iter_batches(CHUNK, columns=list(columns.values())):
            piece = {field: batch.column(name) for field, name in columns.items()}
            if "op" in piece and "size" in piece:
                piece["size"] = piece["size"].fill_null(UNKNOWN)
            yield {field: self._values(field, column) for field, column in piece.items()}

    def _values(self, field: str, column: Any) -> Any:
        """A column of Arrow as an array of numbers or a list of texts."""
        from pyarrow import timestamp, types

        if column.null_count:
            at = self._done + column.is_null().index(True).as_py() + 1
            raise LogError(f"{self.name}: request {at}: no {field}")
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if types.is_timestamp(column.type) and field == "time":
            microseconds = timestamp("us", column.type.tz)
            return column.cast(microseconds, safe=False).cast("int64").to_numpy() / 1e6
        values = column.to_numpy(zero_copy_only=False)
        if field in KINDS and values.dtype.kind in KINDS[field]:
            return values
        texts = column.to_pylist()
        if field in ("key", "op") and texts and isinstance(texts[0], str):
            return texts
        if field == "key" and texts and isinstance(texts[0], bytes):
            return [text.decode(errors="backslashreplace") for text in texts]
        raise LogError(f"{self.name}: a {field} of type {column.type}")
