"""`open_log`: which format a log has, by its first bytes and its name."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from cachecore.plan.logs.chunks import Log, LogError
from cachecore.plan.logs.columns import ColumnLog, NpzLog, ParquetLog
from cachecore.plan.logs.jsonl import JsonLog
from cachecore.plan.logs.lines import BLOCK, LineLog, Source
from cachecore.plan.logs.monitor import FIRST, MonitorLog
from cachecore.plan.logs.table import TableLog

LINES: dict[str, Callable[[Source], LineLog]] = {
    "text": LineLog,
    "csv": TableLog,
    "tsv": partial(TableLog, tabs=True),
    "jsonl": JsonLog,
    "monitor": MonitorLog,
}
COLUMNS: dict[str, type[ColumnLog]] = {"npz": NpzLog, "parquet": ParquetLog}
FORMATS = (*LINES, *COLUMNS)
NAMED = re.compile(r"\.(csv|tsv|jsonl|ndjson|npz|parquet)(\.gz|\.zst)?$")


class Other(NamedTuple):
    """A format that a caller adds."""

    knows: Callable[[bytes], bool]
    reader: Callable[[Source], Any]


NO_OTHERS: Mapping[str, Other] = MappingProxyType({})
MAGIC = {"npz": b"PK\x03\x04", "parquet": b"PAR1"}


@contextmanager
def open_log(
    path: str,
    *,
    format: str | None = None,
    twice: bool = False,
    others: Mapping[str, Other] = NO_OTHERS,
) -> Iterator[Log]:
    """Open a log by path, `-` for standard input; `twice`: its chunks will be asked for two times.

    gzip, Zstandard, .npz, Parquet, MONITOR and JSON Lines are known by their first bytes, CSV and
    TSV by their name, or each by `format`, one of FORMATS; all else is a key a line. Lines are read
    as a stream, columns piece by piece: memory does not grow with the log. What has to be read
    twice, or not in order, and is a pipe or packed, is first copied to a temporary file. `others`
    are formats besides: by name, what knows one by its first bytes, and what reads it.

    Raises:
        LogError: there is no such log, it cannot be read, or is not of that format; also later.
    """
    name = "standard input" if path == "-" else path
    with ExitStack() as opened:
        try:
            raw = 0 if path == "-" else path
            file: IO[bytes] = opened.enter_context(open(raw, "rb", closefd=path != "-"))
            start = file.peek(4)  # type: ignore[attr-defined]
            if not start:
                raise LogError(f"{name}: empty")
            if twice and not file.seekable():
                copy = opened.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, copy)
                file = copy
            source = Source(name, file, start)
        except OSError as error:
            raise LogError(f"{name}: {error.strerror or error}") from None
        known = (name for name, other in others.items() if other.knows(source.head))
        kind = format or next(known, None) or _format(source.head, path)
        if kind in others:
            yield others[kind].reader(source)
        elif kind in LINES:
            yield LINES[kind](source)
        elif not source.head.startswith(MAGIC[kind]):
            article = "an" if kind == "npz" else "a"
            raise LogError(f"{name}: not {article} .{kind} file")
        else:
            if source.packed or not file.seekable():
                file = opened.enter_context(tempfile.TemporaryFile())
                while block := source.read(BLOCK, 1):
                    file.write(block)
            yield COLUMNS[kind](name, file)


def _format(head: bytes, path: str) -> str:
    for kind, magic in MAGIC.items():
        if head.startswith(magic):
            return kind
    if FIRST.match(head):
        return "monitor"
    if named := NAMED.search(path):
        return named[1].replace("ndjson", "jsonl")
    return "jsonl" if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "text"
