"""Logs made of columns: .npz and Parquet, read piece by piece."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np

from cachecore.plan.logs.chunks import CHUNK, UNKNOWN, Chunk, LogError, Reads, fields_of, in_seconds

KINDS = {"key": "iu", "size": "iu", "time": "iuf", "cost": "iuf"}


class ColumnLog:
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

    def _pieces(self) -> Iterator[dict[str, Any]]:
        """Arrays or lists of the next requests, by field."""
        raise NotImplementedError

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
            raise LogError(f"{self.name}: request {self._done + at + 1}: {field} {values[at]} {what}")


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
            import pyarrow
            from pyarrow import parquet, types
        except ModuleNotFoundError:
            needs = 'Parquet needs: pip install "cachecore-ml[plan]"'
            raise LogError(f"{self.name}: {needs}") from None
        file = parquet.ParquetFile(self._file)
        self._count = max(file.metadata.num_rows, 1)
        names = file.schema_arrow.names
        places = fields_of(names)
        if "key" not in places:
            raise LogError(f"{self.name}: no column named 'key'")
        columns = {field: names[at] for field, at in places.items()}
        for batch in file.iter_batches(CHUNK, columns=list(columns.values())):
            piece: dict[str, Any] = {}
            for field, name in columns.items():
                column = batch.column(name)
                if column.null_count and field == "size" and "op" in columns:
                    column = column.fill_null(UNKNOWN)
                if column.null_count:
                    at = self._done + column.is_null().index(True).as_py() + 1
                    raise LogError(f"{self.name}: request {at}: no {field}")
                if types.is_dictionary(column.type):
                    column = column.dictionary_decode()
                if types.is_timestamp(column.type):
                    unit = pyarrow.timestamp("us", column.type.tz)
                    column = column.cast(unit, safe=False).cast("int64").cast("float64")
                    piece[field] = column.to_numpy() / 1e6
                elif field == "op" or (field == "key" and not types.is_integer(column.type)):
                    piece[field] = self._texts(field, column)
                else:
                    piece[field] = column.to_numpy(zero_copy_only=False)
                    if piece[field].dtype.kind not in KINDS[field]:
                        what = f"column '{name}' is of type {column.type}"
                        raise LogError(f"{self.name}: {what}, not numbers")
            yield piece

    def _texts(self, field: str, column: Any) -> list[str]:
        texts = column.to_pylist()
        if texts and isinstance(texts[0], bytes):
            return [text.decode(errors="backslashreplace") for text in texts]
        if texts and not isinstance(texts[0], str):
            raise LogError(f"{self.name}: column '{field}' is of type {column.type}, not text")
        return texts  # type: ignore[no-any-return]
