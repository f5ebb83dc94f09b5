"""What `cachecore warm` reads beside access logs: files of values, and of commands."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from cachecore.cli.client import encode
from cachecore.plan.logs import LogError, Other
from cachecore.plan.logs.lines import BLOCK, LineLog, Source
from cachecore.server.values import duration

MOST_ARGUMENTS, MOST_BYTES = 1 << 20, 512 << 20  # of a command, and of one of them
_VALUE = re.compile(rb'"value(_base64)?"\s*:')
_COUNT = re.compile(rb"\*([1-9]\d{0,9})\r\n")
_LENGTH = re.compile(rb"\$(\d{1,10})\r\n")
_LONGEST = 16  # bytes that either of these may take


class ValueLog(LineLog):
    """JSON Lines: `key`, `value` or `value_base64`, and perhaps `ttl`, in seconds.

    A value that is no text is kept as its JSON.
    """

    longest = MOST_BYTES

    def commands(self, ttl: float | None) -> Iterator[bytes]:
        """A SET for each; `ttl` is the lifetime of those that tell none."""
        for start, lines in self._blocks():
            for number, line in enumerate(lines, start):
                if line and not line.isspace():
                    try:
                        yield _set(json.loads(line), ttl)
                    except (ValueError, TypeError, RecursionError) as error:
                        raise self._bad(number, str(error)) from None


def _set(record: Any, ttl: float | None) -> bytes:
    """The command for a record; ValueError or TypeError say what is wrong with it."""
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    key = record.get("key")
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise ValueError("no 'key' that is text or a whole number")
    if "value_base64" in record:
        value = base64.b64decode(record["value_base64"], validate=True)
    elif "value" in record:
        said = record["value"]
        value = (said if isinstance(said, str) else json.dumps(said)).encode()
    else:
        raise ValueError("no 'value' or 'value_base64'")
    if record.get("ttl") is not None:
        ttl = duration(record["ttl"], "ttl")
    lifetime = [] if ttl is None else [b"PX", b"%d" % max(1, round(ttl * 1000))]
    return encode(b"SET", str(key).encode(), value, *lifetime)


class CommandLog:
    """Commands in Redis' protocol, as `redis-cli --pipe` takes them."""

    def __init__(self, source: Source) -> None:
        self.name, self._source = source.name, source
        self._data = bytearray()
        self._passed = 0  # bytes that were taken out of the data

    def share(self) -> float | None:
        """The share of the file that was read."""
        return self._source.share()

    def commands(self, _ttl: float | None) -> Iterator[bytes]:
        """Each as it is."""
        while self._have(1):
            size = self._size()
            yield bytes(self._data[:size])
            del self._data[:size]
            self._passed += size

    def _size(self) -> int:
        """Bytes of the command that the data begin with."""
        match = self._match(_COUNT, 0)
        end = match.end()
        if int(match[1]) > MOST_ARGUMENTS:
            raise self._bad(0)
        for _ in range(int(match[1])):
            length = self._match(_LENGTH, end)
            at = length.end() + int(length[1])
            if int(length[1]) > MOST_BYTES or not self._have(at + 2):
                raise self._bad(end)
            if self._data[at : at + 2] != b"\r\n":
                raise self._bad(at)
            end = at + 2
        return end

    def _match(self, pattern: re.Pattern[bytes], at: int) -> re.Match[bytes]:
        self._have(at + _LONGEST)
        match = pattern.match(self._data, at)
        if match is None:
            raise self._bad(at)
        return match

    def _have(self, count: int) -> bool:
        """Whether there are so many bytes; reads them."""
        while len(self._data) < count:
            block = self._source.read(BLOCK, 1)
            if not block:
                return False
            self._data += block
        return True

    def _bad(self, at: int) -> LogError:
        what = "not a command in Redis' protocol, or its end is missing"
        return LogError(f"{self.name}: byte {self._passed + at:,}: {what}")


FORMATS = {
    "commands": Other(lambda head: head.startswith(b"*"), CommandLog),
    "values": Other(
        lambda head: (
            head.lstrip().startswith(b"{") and _VALUE.search(head.partition(b"\n")[0]) is not None
        ),
        ValueLog,
    ),
}
