"""Single commands over a socket: what the random sequences do not show."""

from __future__ import annotations

import time
from importlib import import_module
from sys import getsizeof
from typing import Any

import pytest

from cachecore.server import commands
from support import check

from .wire import Error, Map, Ours, Status, Wire, same

OOM = Error("OOM command not allowed when used memory > 'maxmemory'.")
TOO_LONG = Error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
DATA = ("expiry", "hashes", "keys", "scan", "strings")  # files of the commands on what is kept


def test_commands_are_described_as_redis_does(redis_port: int) -> None:
    with Wire(redis_port) as wire:
        tables = [import_module(f"{commands.__name__}.{name}").TABLE for name in DATA]
        for name, command in [pair for table in tables for pair in table.commands().items()]:
            (told,) = wire.call("COMMAND", "INFO", name)
            assert told[:2] == [name, command.arity]
            assert {str(flag) for flag in told[2]} - {"movablekeys"} == command.flags, name
            assert tuple(told[3:6]) == command.keys, name


def both(pair: list[Wire], *args: Any) -> Any:
    """The reply that both give."""
    ours, theirs = [wire.call(*args) for wire in pair]
    assert same(ours, theirs), (args, ours, theirs)
    return ours


# --- memory ---


def test_what_cannot_fit_is_refused_and_changes_nothing() -> None:
    with Ours("20KB") as server, Wire(server.port) as wire:
        large = "x" * 30_000
        wire.pipeline([("SET", "k", "v"), ("HSET", "h", "f", "v")])
        commands: list[tuple[str | int, ...]] = [
            ("SET", "k", large, "KEEPTTL"),
            ("SETEX", "k", 10, large),
            ("SETNX", "new", large),
            ("GETSET", "k", large),
            ("APPEND", "k", large),
            ("SETRANGE", "k", 30_000, "x"),
            ("SETRANGE", "k", 400_000_000, "x"),
            ("MSETNX", "new", "v", "other", large),
            ("HSET", "h", "f", "w", "g", large),
            ("HSET", "new", "g", large),
            ("RENAME", "k", large),
            ("COPY", "k", large),
        ]
        for command in commands:
            assert wire.call(*command) == OOM, command[0]
        assert wire.call("KEYS", "*") in ([b"k", b"h"], [b"h", b"k"])
        assert wire.call("GET", "k") == b"v"
        assert wire.call("HGETALL", "h") == [b"f", b"v"]
        check(server.cache)


def test_a_hash_that_grows_pushes_others_out() -> None:
    with Ours("40KB") as server, Wire(server.port) as wire:
        for i in range(100):
            wire.call("SET", i, "x" * 100)
        for i in range(60):
            assert wire.call("HSET", "h", i, "x" * 300) == 1
            assert server.cache.stats().bytes <= 40 * 1024
        assert wire.call("HLEN", "h") == 60
        assert int(wire.call("DBSIZE")) < 90
        for i in range(60, 1000):  # until it is as large as the cache
            reply = wire.call("HSET", "h", i, "x" * 300)
            if reply == OOM:
                break
        assert wire.call("HLEN", "h") == i
        assert wire.call("HEXISTS", "h", i) == 0
        check(server.cache)


def test_sizes_follow_changes(ours: Wire, server: Ours) -> None:
    def counted() -> int:
        return server.cache.stats().bytes

    def real() -> int:
        return sum(getsizeof(key) + getsizeof(server.cache.peek(key)) + 64 for key in server.cache)

    for command in [
        ("HSET", "h", "a", "1", "b", "x" * 1000),
        ("HSET", "h", "b", "short"),
        ("HINCRBY", "h", "a", 10**9),
        ("HINCRBYFLOAT", "h", "c", "0.5"),
        ("HDEL", "h", "b", "absent"),
        ("COPY", "h", "copied"),
        ("HSET", "copied", "more", "fields"),
        ("RENAME", "copied", "renamed"),
        ("APPEND", "s", "text"),
        ("SETRANGE", "s", 100, "text"),
        ("HDEL", "h", "a", "c"),
    ]:
        ours.call(*command)
        assert counted() == real(), command
    assert ours.call("HGETALL", "renamed") == [
        b"a",
        b"1000000001",
        b"c",
        b"0.5",
        b"more",
        b"fields",
    ]
    usage = ours.call("MEMORY", "USAGE", "renamed", "SAMPLES", "0")
    assert usage + ours.call("MEMORY", "USAGE", "s") == counted()


def test_strings_end_at_512_mb(pair: list[Wire]) -> None:
    assert both(pair, "SETRANGE", "k", 536870912, "x") == TOO_LONG
    assert both(pair, "SETRANGE", "k", 2**63 - 1, "x") == TOO_LONG
    assert both(pair, "SETRANGE", "k", 536870912, "") == 0
    assert both(pair, "EXISTS", "k") == 0


# --- lifetimes ---


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (("SET", "k", "1"), False),
        (("SET", "k", "1", "KEEPTTL"), True),
        (("MSET", "k", "1"), False),
        (("GETSET", "k", "1"), False),
        (("GETEX", "k"), True),
        (("GETEX", "k", "PERSIST"), False),
        (("APPEND", "k", "1"), True),
        (("INCR", "k"), True),
        (("DECRBY", "k", "7"), True),
        (("INCRBYFLOAT", "k", "0.5"), True),
        (("SETRANGE", "k", "1", "1"), True),
        (("PERSIST", "k"), False),
    ],
)
def test_who_keeps_a_lifetime(pair: list[Wire], command: tuple[str, ...], kept: bool) -> None:
    both(pair, "SET", "k", "5", "PXAT", 9_999_999_999_999)
    both(pair, *command)
    assert both(pair, "PEXPIRETIME", "k") == (9_999_999_999_999 if kept else -1)


def test_a_deadline_is_never_farther_than_it_was_set(ours: Wire) -> None:
    ours.call("SET", "k", "v")
    for at in range(300):
        now = int(time.time() * 1000)
        command = ("GETEX", "k", "PXAT") if at % 2 else ("PEXPIREAT", "k")
        replies = ours.pipeline([(*command, now + 10_000), ("PTTL", "k"), ("PEXPIRETIME", "k")])
        assert 9000 < replies[1] <= 10_000
        assert replies[2] == now + 10_000
        time.sleep(0.0005)


def test_hashes_keep_their_lifetimes(pair: list[Wire]) -> None:
    both(pair, "HSET", "h", "a", "1")
    both(pair, "PEXPIREAT", "h", 9_999_999_999_999)
    for command in [
        "HSET h b 2",
        "HINCRBY h a 1",
        "HDEL h b",
        "HINCRBYFLOAT h c 1",
        "HSETNX h d 1",
    ]:
        both(pair, *command.split())
        assert both(pair, "PEXPIRETIME", "h") == 9_999_999_999_999
    for command in ["RENAME h g", "COPY g h", "MOVE h 1", "SELECT 1", "SWAPDB 0 1", "EXISTS g"]:
        both(pair, *command.split())
    assert both(pair, "PEXPIRETIME", "g") == 9_999_999_999_999
    both(pair, "HDEL", "g", "a", "c", "d")
    both(pair, "HSET", "g", "a", "1")
    assert both(pair, "TTL", "g") == -1


@pytest.mark.parametrize("command", [f"PEXPIREAT k {2**63 - 1}", f"SET k v PXAT {2**63 - 1}"])
def test_the_last_moment_is_one(ours: Wire, command: str) -> None:
    ours.call("SET", "k", "v")
    ours.call(*command.split())
    assert ours.call("TTL", "k") > 10**12
    assert ours.call("EXPIRE", "k", 100, "NX") == 0


def test_a_millisecond_ends(ours: Wire) -> None:
    assert ours.call("SET", "k", "v", "PX", 1) == Status("OK")
    while ours.call("EXISTS", "k"):
        assert ours.call("PTTL", "k") in (1, 0, -2)
    assert ours.call("TTL", "k") == -2
    assert ours.call("SET", "k", "v", "NX") == Status("OK")


# --- databases ---


def test_databases_are_counted_apart(pair: list[Wire]) -> None:
    for command in ["SET a 1", "SET b 1", "SELECT 3", "SET a 3", "DBSIZE", "MOVE a 0", "MOVE a 2"]:
        both(pair, *command.split())
    assert both(pair, "DBSIZE") == 0
    both(pair, "SELECT", 2)
    assert both(pair, "DBSIZE") == 1
    both(pair, "SWAPDB", 0, 2)
    assert both(pair, "DBSIZE") == 2
    assert both(pair, "FLUSHDB", "ASYNC") == Status("OK")
    both(pair, "SELECT", 0)
    assert both(pair, "GET", "a") == b"3"
    assert both(pair, "RANDOMKEY") == b"a"
    both(pair, "FLUSHALL")
    assert both(pair, "DBSIZE") == 0
    both(pair, "RANDOMKEY")


# --- transactions ---


@pytest.mark.parametrize(
    "command",
    [
        "SET s v", "SET s v NX", "SET s v XX", "SET s v GET", "SET s v XX GET", "SETNX s v",
        "MSETNX s v x y", "SETEX s 100 v", "GETSET s v", "GETDEL s", "GETEX s", "GETEX s PERSIST",
        "GETEX s EX 100", "APPEND s v", "SETRANGE s 0 v", "INCR s", "INCR n", "INCRBYFLOAT n 0",
        "DEL s", "UNLINK s", "DEL x", "EXPIRE s 100", "EXPIRE s 100 NX", "EXPIRE s 100 XX",
        "PEXPIREAT s 1", "PERSIST s", "PERSIST t", "RENAME s x", "RENAME x s", "RENAMENX s t",
        "RENAMENX t s", "COPY s t", "COPY t s", "COPY t s REPLACE", "MOVE s 3", "MOVE x 3",
        "HSET h f v", "HSET h f w", "HSETNX h f w", "HSETNX h g w", "HDEL h f", "HDEL h g",
        "HINCRBY h n 0", "HINCRBY h f 1", "HSET s f v", "FLUSHDB", "FLUSHALL", "SWAPDB 0 3",
        "TOUCH s", "GET s", "HGETALL h", "EXPIRE x 100", "SETRANGE s 5 x", "MSET s v",
    ],
)  # fmt: skip
@pytest.mark.parametrize("watched", ["s", "t", "h", "n", "x"])
def test_what_aborts_a_transaction(pair: list[Wire], watched: str, command: str) -> None:
    """Whatever wrote a watched key, for Redis; what wrote nothing does not."""
    for line in ("SET s v", "SET t v EX 1000", "SET n 5", "HSET h f v", "WATCH " + watched):
        both(pair, *line.split())
    ours, theirs = [wire.call(*command.split()) for wire in pair]
    assert type(ours) is type(theirs)
    both(pair, "MULTI")
    both(pair, "PING")
    both(pair, "EXEC")


# --- looking ---


@pytest.mark.parametrize("value", ["12", "-5", "012", "x" * 44, "x" * 45, "", "9" * 19])
def test_encodings_of_strings(pair: list[Wire], value: str) -> None:
    both(pair, "SET", "k", value)
    both(pair, "OBJECT", "ENCODING", "k")


@pytest.mark.parametrize(("fields", "size"), [(1, 64), (1, 65), (512, 1), (513, 1)])
def test_encodings_of_hashes(pair: list[Wire], fields: int, size: int) -> None:
    for i in range(fields):
        both(pair, "HSET", "h", i, "x" * size)
    both(pair, "OBJECT", "ENCODING", "h")


def test_errors_of_numbers_of_databases(pair: list[Wire]) -> None:
    for words in ("16 x", "x 16", "16 0", "0 16", "x x", "-1 0", "0 0"):
        both(pair, "SWAPDB", *words.split())


def test_errors_of_families(pair: list[Wire]) -> None:
    for command in [
        "OBJECT",
        "OBJECT ENCODING",
        "OBJECT encoding absent",
        "OBJECT FREQ absent more",
        "OBJECT idletime absent",
        "OBJECT REFCOUNT absent",
        "OBJECT what k",
        "OBJECT HELP me",
        "MEMORY USAGE",
        "MEMORY USAGE absent",
        "MEMORY USAGE absent SAMPLES",
        "MEMORY USAGE absent SAMPLES -1",
        "MEMORY USAGE absent SAMPLES x",
        "MEMORY USAGE absent OF 1",
        "MEMORY what",
    ]:
        both(pair, *command.split())


def test_frequencies_and_idle_times(ours: Wire) -> None:
    ours.call("SET", "k", "v")
    before = ours.call("OBJECT", "FREQ", "k")
    ours.pipeline([("GET", "k")] * 50)
    assert ours.call("OBJECT", "FREQ", "k") >= before + 50
    assert ours.call("OBJECT", "IDLETIME", "k") >= 0
    assert ours.call("OBJECT", "HELP")[0].startswith("OBJECT <subcommand>")
    assert ours.call("MEMORY", "HELP")[0].startswith("MEMORY <subcommand>")


# --- hashes ---


def test_replies_of_hashes_in_resp3(pair: list[Wire]) -> None:
    both(pair, "HSET", "h", "a", "1", "b", "2")
    assert isinstance(both(pair, "HGETALL", "h"), Map) == isinstance(
        both(pair, "HGETALL", "x"), Map
    )
    both(pair, "HRANDFIELD", "h", "5", "WITHVALUES")
    both(pair, "HRANDFIELD", "absent", "5", "WITHVALUES")
    both(pair, "HRANDFIELD", "absent")


def test_random_fields(ours: Wire) -> None:
    ours.call("HSET", "h", *range(100))
    fields = {b"%d" % i for i in range(0, 100, 2)}
    assert ours.call("HRANDFIELD", "h") in fields
    some = ours.call("HRANDFIELD", "h", 30)
    assert len(some) == len(set(some)) == 30
    assert set(some) <= fields
    assert sorted(ours.call("HRANDFIELD", "h", 1000)) == sorted(fields)
    many = ours.call("HRANDFIELD", "h", -300, "WITHVALUES")
    assert len(many) == 600
    assert all(
        int(value) == int(field) + 1 for field, value in zip(many[::2], many[1::2], strict=True)
    )
    assert isinstance(ours.call("HRANDFIELD", "h", -(2**40)), Error)


@pytest.mark.parametrize("count", [1, 600, 100_000])
def test_a_large_hash_is_scanned_in_parts(ours: Wire, count: int) -> None:
    staying = {b"%d" % i for i in range(5000)}
    for i in range(0, 5000, 100):
        ours.call("HSET", "h", *[each for j in range(i, i + 100) for each in (j, "v")])
    cursor, seen, calls = b"0", [], 0
    while cursor != b"0" or not calls:
        cursor, part = ours.call("HSCAN", "h", cursor, "COUNT", count)
        seen += part[::2]
        calls += 1
        ours.call("HSET", "h", f"new{calls}", "v")
        ours.call("HDEL", "h", f"new{calls - 1}")
    assert len(seen) == len(set(seen))
    assert staying <= set(seen)
    assert calls == 1 if count > 5000 else 5 <= calls <= 17
    cursor, part = ours.call("HSCAN", "h", 0, "MATCH", "77*", "COUNT", 10**6)
    assert set(part[::2]) == {field for field in staying if field.startswith(b"77")}


def test_scan_of_types(ours: Wire) -> None:
    ours.pipeline([("SET", "s", ""), ("HSET", "h", "f", "v")])
    assert ours.call("SCAN", 0, "TYPE", "Hash") == [b"0", [b"h"]]
    assert ours.call("SCAN", 0, "TYPE", "string", "MATCH", "[^x]") == [b"0", [b"s"]]
    assert ours.call("SCAN", 0, "TYPE", "zset") == [b"0", []]
    assert ours.call("SCAN", 2**64 - 1)[0] == b"0"
