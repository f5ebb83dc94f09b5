"""Access logs: .npz, CSV and one-key-per-line text, all read as chunks of requests.

Text and CSV are read as a stream, gzipped or not, in memory that does not grow with the log. A pipe
that must be read twice is first copied to a temporary file.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from typing import IO, Any, NamedTuple

import numpy as np

CHUNK = 1 << 14  # requests: milliseconds of look-ups, beside which a clock reading is nothing
BLOCK = 1 << 17  # bytes read at once, and the longest line
MAX_DIGITS = 15  # of a size: a petabyte


class LogError(ValueError):
    """The log cannot be read; the message names the file and, where there is one, the line."""


class Chunk(NamedTuple):
    """Some requests in order: their keys and, when the log has them, their sizes in bytes."""

    keys: list[Any]
    sizes: list[int] | None


class ArrayLog:
    """An .npz file: an integer array `key`, perhaps an integer array `size`; held in memory."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name, self._done = name, 0
        try:
            with np.load(file, allow_pickle=False) as arrays:
                if "key" not in arrays:
                    raise LogError(f"{name}: no array named 'key'")
                self._keys = np.asarray(arrays["key"])
                self._sizes = np.asarray(arrays["size"]) if "size" in arrays else None
        except LogError:
            raise
        except Exception as error:  # on damaged bytes NumPy and zipfile raise nearly anything
            why = str(error).partition("\n")[0]
            raise LogError(f"{name}: not a readable .npz file ({why})") from None
        for label, array in (("key", self._keys), ("size", self._sizes)):
            if array is not None and (array.ndim != 1 or array.dtype.kind not in "iu"):
                raise LogError(f"{name}: '{label}' must be a flat array of integers")
        if self._sizes is not None:
            if len(self._sizes) != len(self._keys):
                raise LogError(f"{name}: {len(self._sizes)} sizes for {len(self._keys)} keys")
            if (self._sizes < 0).any():
                at = int(np.argmax(self._sizes < 0))
                raise LogError(f"{name}: request {at + 1}: size {self._sizes[at]} is negative")

    def distinct(self) -> tuple[int, bool]:
        """The number of distinct keys, and that it is exact."""
        return len(np.unique(self._keys)), True

    def share(self) -> float:
        """The share of the log that was read so far."""
        return self._done / len(self._keys)

    def chunks(self) -> Iterator[Chunk]:
        """The requests from the first on."""
        for start in range(0, len(self._keys), CHUNK):
            part = slice(start, start + CHUNK)
            self._done = min(part.stop, len(self._keys))
            sizes = None if self._sizes is None else self._sizes[part].tolist()
            yield Chunk(self._keys[part].tolist(), sizes)


class TextLog:
    """One key per line, or CSV; plain or gzipped. Keys are strings."""

    def __init__(self, name: str, file: IO[bytes], *, zipped: bool, as_csv: bool) -> None:
        self.name, self._file, self._zipped, self._as_csv = name, file, zipped, as_csv
        self._counter, self._counted = DistinctCounter(), False
        self._bytes = 0
        if file.seekable():
            self._bytes = file.seek(0, io.SEEK_END)
            file.seek(0)

    def distinct(self) -> tuple[int, bool]:
        """The number of distinct keys read so far, and whether it is exact."""
        return self._counter.count()

    def share(self) -> float | None:
        """The share of the log that was read so far; None if its length is not known (a pipe)."""
        return self._file.tell() / self._bytes if self._bytes else None

    def chunks(self) -> Iterator[Chunk]:
        """The requests from the first on."""
        if self._file.seekable():
            self._file.seek(0)
        for chunk in self._csv_chunks() if self._as_csv else self._text_chunks():
            if not self._counted:
                self._counter.add(chunk.keys)
            yield chunk
        self._counted = True

    def _blocks(self) -> Iterator[list[str]]:
        """The lines, as many at a time as one block of the file holds."""
        stream = gzip.GzipFile(fileobj=self._file) if self._zipped else self._file
        rest, line = b"", 1
        while True:
            try:
                block = stream.read(BLOCK)
            except (OSError, EOFError, zlib.error) as error:
                raise LogError(f"{self.name}:{line}: {error}") from None
            whole, newline, rest = (rest + block).rpartition(b"\n") if block else (rest, b"", b"")
            if len(rest) > BLOCK:
                raise LogError(f"{self.name}:{line}: a line of more than {BLOCK:,} bytes")
            if line == 1:
                whole = whole.removeprefix(b"\xef\xbb\xbf")
            yield self._decode(whole, line).split("\n")
            line += whole.count(b"\n") + len(newline)
            if not block:
                return

    def _decode(self, block: bytes, line: int) -> str:
        junk = block.find(b"\0")
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            junk = error.start
        if junk >= 0:
            line += block.count(b"\n", 0, junk)
            raise LogError(f"{self.name}:{line}: not UTF-8 text")
        return text

    def _text_chunks(self) -> Iterator[Chunk]:
        for lines in self._blocks():
            if keys := [key for line in lines if (key := line.strip())]:
                yield Chunk(keys, None)

    def _csv_chunks(self) -> Iterator[Chunk]:
        rows = self._csv_rows()
        number, first = next(rows, (1, []))
        key_at, size_at, is_header = _columns(first)
        if key_at == size_at:
            raise self._bad(number, "no column of keys")
        if not is_header:
            rows = chain([(number, first)], rows)
        while part := list(islice(rows, CHUNK)):
            keys = [self._key(number, row[key_at]) for number, row in part]
            if size_at is None:
                yield Chunk(keys, None)
            else:
                yield Chunk(keys, [self._size(number, row[size_at]) for number, row in part])

    def _csv_rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows that are not blank, each with the number of its line."""
        rows = csv.reader(chain.from_iterable(self._blocks()), strict=True)
        width = 0
        try:
            for row in rows:
                width = width or len(row)
                if row and len(row) != width:
                    raise self._bad(rows.line_num, f"{len(row)} columns, not {width}")
                if row:
                    yield rows.line_num, row
        except csv.Error as error:
            raise self._bad(rows.line_num, str(error)) from None

    def _key(self, line: int, cell: str) -> str:
        if key := cell.strip():
            return key
        raise self._bad(line, "no key")

    def _size(self, line: int, cell: str) -> int:
        digits = cell.strip()
        if digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS:
            return int(digits)
        hint = "; a header must name 'key' or 'size'" if line == 1 else ""
        raise self._bad(line, f"size {digits[:40]!r} is not a number of bytes{hint}")

    def _bad(self, line: int, what: str) -> LogError:
        return LogError(f"{self.name}:{line}: {what}")


@contextmanager
def open_log(
    path: str, *, as_csv: bool = False, twice: bool = False
) -> Iterator[ArrayLog | TextLog]:
    """Open a log by path, `-` for standard input; `twice`: its chunks will be asked for two times.

    .npz and gzip are known by their first bytes, CSV by its name or by `as_csv`.
    """
    name = "standard input" if path == "-" else path
    with ExitStack() as opened:
        try:
            source = 0 if path == "-" else path
            file = opened.enter_context(open(source, "rb", closefd=path != "-"))
            start = file.peek(4)
            if not start:
                raise LogError(f"{name}: empty")
            is_npz = start.startswith(b"PK\x03\x04")
            if path.endswith(".npz") and not is_npz:
                raise LogError(f"{name}: not an .npz file")
            stream: IO[bytes] = file
            if (is_npz or twice) and not file.seekable():
                stream = opened.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, stream)
                stream.seek(0)
        except OSError as error:
            raise LogError(f"{name}: {error.strerror or error}") from None
        if is_npz:
            yield ArrayLog(name, stream)
        else:
            as_csv = as_csv or re.search(r"\.csv(\.gz)?$", path) is not None
            zipped = start.startswith(b"\x1f\x8b")
            yield TextLog(name, stream, zipped=zipped, as_csv=as_csv)


class DistinctCounter:
    """Counts distinct strings in constant memory: the k-minimum-values sketch over their hashes.

    Exact up to `kept` strings; above, an estimate with a standard error of 1/sqrt(kept), 0.2 %.
    Bar-Yossef et al., "Counting distinct elements in a data stream", RANDOM 2002.
    """

    def __init__(self, kept: int = 1 << 18) -> None:
        self._kept = kept
        self._buffer = np.arange(2 * kept, dtype=np.uint64)
        self._used = 2 * kept
        self._merge()  # in vain: so that no later measurement finds this memory growing
        self._used, self._cut = 0, np.uint64(2**64 - 1)

    def add(self, keys: list[str]) -> None:
        hashes = np.fromiter(map(hash, keys), np.int64, len(keys)).view(np.uint64)
        hashes = hashes[hashes < self._cut]
        for part in np.array_split(hashes, 1 + len(hashes) // self._kept):
            if self._used + len(part) > len(self._buffer):
                self._merge()
            self._buffer[self._used : self._used + len(part)] = part
            self._used += len(part)

    def count(self) -> tuple[int, bool]:
        """The number of distinct strings, and whether it is exact."""
        self._merge()
        if self._used < self._kept:
            return self._used, True
        return round((self._kept - 1) * 2.0**64 / float(self._cut)), False

    def _merge(self) -> None:
        lowest = np.unique(self._buffer[: self._used])[: self._kept]
        self._used = len(lowest)
        self._buffer[: self._used] = lowest
        if self._used == self._kept:
            self._cut = lowest[-1]


def _columns(first: list[str]) -> tuple[int, int | None, bool]:
    """Where a CSV's first row puts key and size, and whether it is a header."""
    names = [cell.strip().lower() for cell in first]
    size_at = names.index("size") if "size" in names else None
    if "key" in names:
        return names.index("key"), size_at, True
    if size_at is not None:
        return 1 if size_at == 0 < len(names) - 1 else 0, size_at, True
    return 0, 1 if len(names) > 1 else None, False
