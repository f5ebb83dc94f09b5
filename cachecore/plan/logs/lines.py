"""Logs made of lines: their bytes, decompressed, as lines; and the plainest, a key a line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any

from cachecore.plan.logs.chunks import Chunk, LogError

BLOCK = 1 << 17  # bytes read at once
HEAD = 1 << 12  # bytes that tell the format
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Source:
    """The bytes of a log, gunzipped or decompressed by Zstandard; a LogError for what fails."""

    def __init__(self, name: str, file: IO[bytes], start: bytes) -> None:
        self.name, self._file, self._start = name, file, start
        self._bytes = 0
        if file.seekable():
            self._bytes = file.seek(0, io.SEEK_END)
        self.rewind()
        self.packed = start.startswith((GZIP, ZSTD))

    def rewind(self) -> None:
        """Go back to the first byte, which a pipe can do before the first only."""
        if self._file.seekable():
            self._file.seek(0)
        self._stream = self._unpacked()
        self._unread = b""
        self.head = self._unread = self.read(HEAD, 1)

    def read(self, count: int, line: int) -> bytes:
        """So many bytes or fewer, none at the end; `line` is where the error would be."""
        if self._unread:
            block, self._unread = self._unread, b""
            return block
        try:
            return self._stream.read(count)  # type: ignore[no-any-return]
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise LogError(f"{self.name}:{line}: {error}") from None

    def share(self) -> float | None:
        """The share of the bytes that was read; None for a pipe."""
        return self._file.tell() / self._bytes if self._bytes else None

    def _unpacked(self) -> Any:
        if self._start.startswith(GZIP):
            return gzip.GzipFile(fileobj=self._file)
        if self._start.startswith(ZSTD):
            try:
                import zstandard
            except ModuleNotFoundError:
                needs = 'Zstandard needs: pip install "cachecore-ml[plan]"'
                raise LogError(f"{self.name}: {needs}") from None
            return _ZstdReader(self._file, zstandard)
        return self._file


class _ZstdReader:
    """Frames of Zstandard one after the other; unlike the library's own, notices a missing end."""

    def __init__(self, file: IO[bytes], zstandard: Any) -> None:
        self._file, self._zstandard = file, zstandard
        self._frame: Any = None
        self._rest = b""

    def read(self, _count: int) -> bytes:
        while True:
            packed = self._rest or self._file.read(HEAD)  # little: it may hold a thousandfold
            self._rest = b""
            if not packed:
                if self._frame is not None:
                    raise EOFError("Compressed file ended before the end of its last frame")
                return b""
            if self._frame is None:
                self._frame = self._zstandard.ZstdDecompressor().decompressobj()
            try:
                block: bytes = self._frame.decompress(packed)
            except self._zstandard.ZstdError as error:
                raise ValueError(str(error)) from None
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
            if block:
                return block


class LineLog:
    """A log that is read line by line; its formats differ in `_parsed`."""

    format = "text"
    longest = BLOCK  # bytes of a line that is still taken for one

    def __init__(self, source: Source) -> None:
        self.name, self._source, self._begun = source.name, source, False

    def share(self) -> float | None:
        return self._source.share()

    def chunks(self) -> Iterator[Chunk]:
        if self._begun:
            self._source.rewind()
        self._begun = True
        return self._parsed()

    def _parsed(self) -> Iterator[Chunk]:
        for _, lines in self._blocks():
            if keys := [key for line in lines if (key := line.strip())]:
                yield Chunk(keys)

    def _blocks(self) -> Iterator[tuple[int, list[str]]]:
        """The lines, as many at a time as one block of the file holds; the first one's number."""
        rest, line = b"", 1
        while True:
            block = self._source.read(BLOCK, line)
            whole, newline, rest = (rest + block).rpartition(b"\n") if block else (rest, b"", b"")
            if len(rest) > self.longest:
                raise LogError(f"{self.name}:{line}: a line of more than {self.longest:,} bytes")
            if line == 1:
                whole = whole.removeprefix(b"\xef\xbb\xbf")
            yield line, self._decode(whole, line).split("\n")
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

    def _bad(self, line: int, what: str) -> LogError:
        return LogError(f"{self.name}:{line}: {what}")
