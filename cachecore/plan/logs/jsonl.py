"""JSON Lines: an object a line, with `key` and perhaps `size`, `time`, `cost` and `op`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cachecore.plan.logs.chunks import (
    UNKNOWN,
    Chunk,
    Reads,
    cost_of,
    fields_of,
    seconds_of,
    size_of,
)
from cachecore.plan.logs.lines import LineLog


class JsonLog(LineLog):
    """Keys are strings; integers are taken as their digits.

    The first object tells whether there are times, costs and operations: all have them or none.
    """

    format = "jsonl"

    def _parsed(self) -> Iterator[Chunk]:
        told: set[str] | None = None
        reads = Reads()
        for start, lines in self._blocks():
            columns: dict[str, list[Any]] = {}
            for number, line in enumerate(lines, start):
                if not line or line.isspace():
                    continue
                record = self._record(number, line)
                told = told or record.keys() - {"size"}
                if differing := told ^ (record.keys() - {"size"}):
                    what = f"{min(differing)!r} is told of some requests only"
                    raise self._bad(number, what)
                for name, value in {"size": UNKNOWN, **record}.items():
                    columns.setdefault(name, []).append(value)
            if columns:
                sizes = columns["size"] if max(columns["size"]) > UNKNOWN else None
                chunk = Chunk(columns["key"], sizes, columns.get("time"), columns.get("cost"))
                if "op" in columns:
                    chunk = reads.of(chunk, columns["op"])
                if chunk.keys:
                    yield chunk

    def _record(self, number: int, line: str) -> dict[str, Any]:
        try:
            return _fields(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise self._bad(number, str(error)) from None


def _fields(parsed: Any) -> dict[str, Any]:
    """The fields of a request, checked; ValueError says what is wrong."""
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")
    names = list(parsed)
    record: dict[str, Any] = {}
    for field, at in fields_of(names).items():
        value = parsed[names[at]]
        if value is None and field == "size":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{field} is {type(value).__name__}, not text or a number")
        record[field] = _READ[field](str(value))
    if "key" not in record:
        raise ValueError("no 'key'")
    return record


def _key(text: str) -> str:
    if not text:
        raise ValueError("no key")
    return text


_READ = {"key": _key, "size": size_of, "time": seconds_of, "cost": cost_of, "op": str.lower}
