"""CSV and TSV: a request a row, its fields by the header's names or the first two columns."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import chain, islice

from cachecore.plan.logs.chunks import (
    CHUNK,
    UNKNOWN,
    Chunk,
    LogError,
    Reads,
    cost_of,
    fields_of,
    seconds_of,
    size_of,
)
from cachecore.plan.logs.lines import LineLog, Source


class TableLog(LineLog):
    """Rows of cells; keys are strings.

    A header names `key`, `size`, `time` (or `timestamp`), `cost` and `op`; the key is otherwise the
    first column without such a name. Without a header: a key and perhaps a size.
    """

    def __init__(self, source: Source, *, tabs: bool = False) -> None:
        super().__init__(source)
        self.format, self._delimiter = ("tsv", "\t") if tabs else ("csv", ",")

    def _parsed(self) -> Iterator[Chunk]:
        rows = self._rows()
        number, first = next(rows, (1, []))
        places = fields_of(first)
        if not places:
            places = {"key": 0, "size": 1} if len(first) > 1 else {"key": 0}
            rows = chain([(number, first)], rows)
        elif "key" not in places:
            free = set(range(len(first))) - set(places.values())
            if not free:
                raise self._bad(number, "no column of keys")
            places["key"] = min(free)
        reads = Reads() if "op" in places else None
        while part := list(islice(rows, CHUNK)):
            keys = [self._key(number, row[places["key"]]) for number, row in part]
            sizes, times, costs = (
                None if name not in places else self._numbers(part, places[name], read)
                for name, read in (
                    ("size", size_of if reads is None else _size_or_none),
                    ("time", seconds_of),
                    ("cost", cost_of),
                )
            )
            chunk = Chunk(keys, sizes, times, costs)  # type: ignore[arg-type]
            if reads is not None:
                chunk = reads.of(chunk, [row[places["op"]].strip().lower() for _, row in part])
            if chunk.keys:
                yield chunk

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows that are not blank, each with the number of its line."""
        lines = chain.from_iterable(lines for _, lines in self._blocks())
        rows = csv.reader(lines, delimiter=self._delimiter, strict=True)
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

    def _numbers(
        self, rows: list[tuple[int, list[str]]], at: int, read: Callable[[str], float]
    ) -> list[float]:
        try:
            return [read(row[at]) for _, row in rows]
        except ValueError as error:
            line = next(line for line, row in rows if _fails(read, row[at]))
            hint = "; a header must name 'key' or 'size'" if line == 1 else ""
            raise LogError(f"{self.name}:{line}: {error}{hint}") from None


def _size_or_none(text: str) -> int:
    return size_of(text) if text.strip() else UNKNOWN


def _fails(read: Callable[[str], float], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return True
    return False
