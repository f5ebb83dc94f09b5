"""Commands in any order, with arguments good and bad: replies equal those of a real Redis.

Left out is what is random (which key RANDOMKEY names, in which order a large hash is told), and
times are compared to the second.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import LONG

from .wire import Error, Wire, same

LARGE = b"x" * 80  # a hash with such a field is no list in Redis, and its order is any
NAMES = [b"a", b"b", b"c", b"h", b"", b"\x00\xff\r\n k"]
NUMBERS = [b"0", b"1", b"-1", b"7", b"10", b"-10", b"9223372036854775807", b"-9223372036854775808"]
NO_NUMBERS = [
    b"",
    b" 1",
    b"1 ",
    b"+1",
    b"01",
    b"-0",
    b"1.0",
    b"x",
    b"9223372036854775808",
    b"1\x00",
]
FLOATS = [
    b"1.5",
    b"-0",
    b"3.0e3",
    b"1e-20",
    b"0x1p3",
    b"inf",
    b"-inf",
    b"nan",
    b" 1",
    b"1 ",
    b"0.1",
]
FLOATS += [b"1e4932", b"5e-324", b"123456789012345678901234567890.5", b"-1.0000000000000000001"]
# No time is so near that it could pass between two commands.
TIMES = [b"0", b"-1", b"1000", b"100000", b"9999999999", b"9999999999999", b"9223372036854775"]
TIMES += [b"9223372036854776", b"9223372036854775807", b"-9223372036854775807", b"x", b""]
WORDS = [b"EX", b"px", b"ExAt", b"PXAT", b"NX", b"xx", b"GET", b"KEEPTTL", b"PERSIST", b"GT", b"lt"]
WORDS += [b"DB", b"REPLACE", b"MATCH", b"COUNT", b"TYPE", b"*", b"string", b"hash", b"nothing"]

name = st.sampled_from(NAMES)
number = st.sampled_from(NUMBERS) | st.sampled_from(NUMBERS) | st.sampled_from(NO_NUMBERS)
small = st.integers(-12, 12).map(b"%d".__mod__) | number
real = st.sampled_from(FLOATS) | st.floats(width=64).map(lambda x: repr(x).encode()) | number
value = st.sampled_from([*NUMBERS, *NO_NUMBERS, *FLOATS, LARGE]) | st.binary(max_size=12)
time = st.sampled_from(TIMES)
database = st.sampled_from([b"0", b"1", b"1", b"15", b"16", b"-1", b"x"])
pattern = st.text("ab*?[]^-\\h", max_size=6).map(str.encode) | name
word = st.sampled_from(WORDS) | st.sampled_from(WORDS) | time


def call(verb: str, *args: Any, more: Any = None, most: int = 3) -> st.SearchStrategy[list[bytes]]:
    """A command with arguments, then `more` up to `most` times, or one too few or many."""
    tail = st.just([]) if more is None else st.lists(more, max_size=most)
    fixed = st.tuples(st.just(verb.encode()), *args).map(list)
    whole = st.tuples(fixed, tail).map(lambda parts: [*parts[0], *parts[1]])
    return whole.flatmap(
        lambda args: st.sampled_from([args] * 30 + [args[:-1] or args, [*args, b"x"]])
    )


def lifetime(verb: str) -> st.SearchStrategy[list[bytes]]:
    return st.tuples(name, value, st.sampled_from(WORDS[:4]), time).map(
        lambda args: [verb.encode(), *args]
    )


STRINGS = [
    call("SET", name, value, more=word),
    lifetime("SET"),
    call("SET", name, value),
    call("GET", name),
    call("MGET", name, more=name),
    call("MSET", name, value, name, value),
    call("MSETNX", name, value, name, value),
    call("SETNX", name, value),
    call("SETEX", name, time, value),
    call("PSETEX", name, time, value),
    call("GETEX", name, more=word, most=2),
    call("GETDEL", name),
    call("GETSET", name, value),
    call("APPEND", name, value),
    call("STRLEN", name),
    call("INCR", name),
    call("DECR", name),
    call("INCRBY", name, number),
    call("DECRBY", name, number),
    call("INCRBYFLOAT", name, real),
    call("GETRANGE", name, small, small),
    call("SUBSTR", name, small, small),
    call("SETRANGE", name, small, value),
]
KEYS = [
    call("DEL", name, more=name),
    call("UNLINK", name, more=name),
    call("EXISTS", name, more=name),
    call("EXPIRE", name, time, more=word, most=2),
    call("PEXPIRE", name, time, more=word, most=2),
    call("EXPIREAT", name, time, more=word, most=2),
    call("PEXPIREAT", name, time, more=word, most=2),
    call("TTL", name),
    call("PTTL", name),
    call("EXPIRETIME", name),
    call("PEXPIRETIME", name),
    call("PERSIST", name),
    call("TYPE", name),
    call("KEYS", pattern),
    call("SCAN", st.sampled_from([b"0", b"x", b"", b"-", b" 0"]), more=word, most=4),
    call("RENAME", name, name),
    call("RENAMENX", name, name),
    call("COPY", name, name, more=word | database),
    call("COPY", name, name, st.just(b"DB"), database),
    call("MOVE", name, database),
    call("TOUCH", name, more=name),
    call("SWAPDB", database, database),
    call("SELECT", st.sampled_from([b"0", b"1"])),
    call("FLUSHDB", more=st.sampled_from([b"async", b"SYNC", b"x"]), most=1),
]
HASHES = [
    call("HSET", name, name, value),
    call("HSET", name, name, value, name, value),
    call("HMSET", name, name, value),
    call("HSETNX", name, name, value),
    call("HGET", name, name),
    call("HMGET", name, name, more=name),
    call("HGETALL", name),
    call("HDEL", name, name, more=name),
    call("HEXISTS", name, name),
    call("HLEN", name),
    call("HKEYS", name),
    call("HVALS", name),
    call("HINCRBY", name, name, number),
    call("HINCRBYFLOAT", name, name, real),
    call("HSTRLEN", name, name),
    call("HSCAN", name, st.sampled_from([b"0", b"x", b"-1"]), more=word, most=4),
    call("HRANDFIELD", name, st.sampled_from([b"0", b"10", b"x", b"-9223372036854775808"])),
    call("HRANDFIELD", name, st.just(b"10"), st.sampled_from([b"withvalues", b"x"])),
]
TIMED = {b"TTL": 2, b"PTTL": 2000, b"EXPIRETIME": 2, b"PEXPIRETIME": 2000}  # what they may differ
UNORDERED = {b"KEYS", b"HKEYS", b"HVALS", b"HGETALL", b"HRANDFIELD", b"SCAN", b"HSCAN"}
# Redis keeps whatever is set for longer; here nothing lives longer than 285,000 years.
FOREVER = 9 * 10**15


def sorted_reply(reply: Any) -> Any:
    """A reply with its parts in an order of their own: those of a map or a scan too."""
    if not isinstance(reply, list):
        return reply
    return type(reply)(sorted(map(sorted_reply, reply), key=repr))


def agree(command: list[bytes], one: Any, other: Any) -> bool:
    """Whether both replies may be one server's."""
    if same(one, other):
        return True
    verb = command[0]
    if verb == b"HRANDFIELD" and len(command) == 2:
        return type(one) is type(other)
    if verb in TIMED and isinstance(one, int) and isinstance(other, int):
        far = FOREVER // (1 if verb.startswith(b"P") else 1000)
        return (one > 0) == (other > 0) and (abs(one - other) <= TIMED[verb] or other > far)
    return verb in UNORDERED and same(sorted_reply(one), sorted_reply(other))


def check(pair: list[Wire], commands: list[list[bytes]]) -> None:
    for wire in pair:
        wire.pipeline([[b"SELECT", b"0"], [b"FLUSHALL"]])
    replies = [wire.pipeline(commands) for wire in pair]
    for at, (command, ours, theirs) in enumerate(zip(commands, *replies, strict=True)):
        assert agree(command, ours, theirs), (commands[: at + 1], ours, theirs)


sequences = settings(
    max_examples=5000 if LONG else 150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@sequences
@given(commands=st.lists(st.one_of(STRINGS + KEYS), min_size=5, max_size=40))
def test_strings(pair: list[Wire], commands: list[list[bytes]]) -> None:
    check(pair, commands)


@sequences
@given(commands=st.lists(st.one_of(HASHES * 2 + KEYS), min_size=5, max_size=40))
def test_hashes(pair: list[Wire], commands: list[list[bytes]]) -> None:
    check(pair, commands)


@sequences
@given(commands=st.lists(st.one_of(STRINGS + KEYS + HASHES), min_size=5, max_size=60))
def test_all(pair: list[Wire], commands: list[list[bytes]]) -> None:
    check(pair, commands)


@sequences
@given(
    names=st.lists(st.text("ab-]^[\\*\x7f\xff", max_size=6), min_size=1, max_size=12, unique=True),
    patterns=st.lists(st.text("ab-]^[[[\\**?\x7f\xff", max_size=8), min_size=1, max_size=12),
)
def test_patterns(pair: list[Wire], names: list[str], patterns: list[str]) -> None:
    setting = [[b"SET", name.encode("latin-1"), b""] for name in names]
    check(pair, setting + [[b"KEYS", pattern.encode("latin-1")] for pattern in patterns])


def test_what_differs_is_seen(pair: list[Wire]) -> None:
    ours, theirs = pair
    assert not agree([b"GET"], Error("ERR"), b"ERR")
    assert not agree([b"GET"], ours.call("GET", "k"), b"")
    assert same(ours.call("GET", "k"), theirs.call("GET", "k"))
    assert not agree([b"PTTL"], 5000, 8000)
    assert not agree([b"HKEYS"], [b"a"], [b"b"])
    assert agree([b"HKEYS"], [b"a", b"b"], [b"b", b"a"])
