r"""What Redis and Valkey print for MONITOR: a command a line.

    1339518083.107412 [0 127.0.0.1:60866] "get" "user:17"

Commands that return a key's value are requests. Those that set a whole string tell its size. All
others are left out. Arguments are quoted as Redis quotes them: \" \\ \n \r \t \a \b \xff.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cachecore.plan.logs.chunks import UNKNOWN, Chunk, Reads
from cachecore.plan.logs.lines import LineLog

QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
LINE = re.compile(rf'\+?(\d+\.\d+) \[(\d+) [^\]]*(?:\][^\]" ]*)*\] ((?:{QUOTED} ?)+)')
FIRST = re.compile(rb'(\+?OK\s+)?\+?\d+\.\d+ \[\d+ [^"]*\] "')
ARGUMENT = re.compile(QUOTED)
ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
OF_ONE_KEY = set(
    """get getex getdel getrange substr hget hmget hgetall hvals hkeys lrange lindex smembers
    zrange zrevrange zrangebyscore zrevrangebyscore zscore xrange dump json.get""".split()
)
# Where the value is; a key is at 1.
VALUE_AT = {"set": 2, "setnx": 2, "getset": 2, "setex": 3, "psetex": 3}


class MonitorLog(LineLog):
    """Keys are strings; those of a database other than 0 begin with its number and a slash."""

    format = "monitor"
    longest = 1 << 24  # values are written out, a byte as four characters

    def _parsed(self) -> Iterator[Chunk]:
        reads = Reads()
        for start, lines in self._blocks():
            keys: list[str] = []
            sizes: list[int] = []
            times: list[float] = []
            operations: list[str] = []
            for number, line in enumerate(lines, start):
                match = LINE.fullmatch(line.rstrip())
                if match is None:
                    if line.strip() in ("", "OK", "+OK"):
                        continue
                    raise self._bad(number, "not a line of MONITOR")
                before = "" if match[2] == "0" else f"{match[2]}/"
                for operation, key, size in _accesses(ARGUMENT.findall(match[3])):
                    keys.append(before + key)
                    sizes.append(size)
                    times.append(float(match[1]))
                    operations.append(operation)
            chunk = reads.of(Chunk(keys, sizes, times), operations)
            if chunk.keys:
                yield chunk


def _accesses(arguments: list[str]) -> Iterator[tuple[str, str, int]]:
    """Reads and writes of a command: "get" or "set", the key, and the size if told."""
    command = arguments[0].lower()
    if command in OF_ONE_KEY:
        named = arguments[1:2]
    elif command == "mget":
        named = arguments[1:]
    elif command == "json.mget":
        named = arguments[1:-1]
    else:
        pairs: list[list[str]] = []
        if command in VALUE_AT and len(arguments) > VALUE_AT[command]:
            pairs = [[arguments[1], arguments[VALUE_AT[command]]]]
        elif command in ("mset", "msetnx"):
            pairs = [arguments[at : at + 2] for at in range(1, len(arguments) - 1, 2)]
        yield from (("set", _text(key), _length(value)) for key, value in pairs)
        return
    yield from (("get", _text(key), UNKNOWN) for key in named)


def _length(quoted: str) -> int:
    """Of what is quoted, in bytes."""
    return len(ESCAPE.sub(b".", quoted.encode()))


def _text(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted
    return ESCAPE.sub(_character, quoted.encode()).decode(errors="backslashreplace")


def _character(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes.fromhex(match[1].decode())
    return PLAIN.get(match[2], match[2])
