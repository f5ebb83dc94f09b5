"""The engine over real sockets: replies whole and bounded, counts; who is too slow goes."""

from __future__ import annotations

import math
import os
import select
import socket
import sys
from typing import Any

import pytest

from cachecore import Cache
from cachecore._resp_client import MAY_CONNECT, MAY_READ, Client, Command, Pending
from cachecore._resp_values import NOTHING, NULL_ARRAY, Push, ReplyError
from server.engines import BIG, array, talk, with_command


@pytest.mark.parametrize(
    ("reply", "two", "three"),
    [
        (None, b"$-1\r\n", b"_\r\n"),
        (NULL_ARRAY, b"*-1\r\n", b"_\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (-(2**63), b":-9223372036854775808\r\n", b":-9223372036854775808\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        (-math.inf, b"$4\r\n-inf\r\n", b",-inf\r\n"),
        (b"a\r\nb", b"$4\r\na\r\nb\r\n", b"$4\r\na\r\nb\r\n"),
        ("OK", b"+OK\r\n", b"+OK\r\n"),
        ("two\r\nlines", b"+two  lines\r\n", b"+two  lines\r\n"),
        ([b"a", [1, None]], b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n", None),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        ({1}, b"*1\r\n:1\r\n", b"~1\r\n:1\r\n"),
        (Push([b"k"]), b"*1\r\n$1\r\nk\r\n", b">1\r\n$1\r\nk\r\n"),
        (ReplyError("ERR no\r\n+OK"), b"-ERR no  +OK\r\n", b"-ERR no  +OK\r\n"),
        (NOTHING, b"", b""),
        (object(), b"-ERR internal error\r\n", b"-ERR internal error\r\n"),
        ([b"x" * BIG, object()], b"-ERR internal error\r\n", b"-ERR internal error\r\n"),
        (2**63, b"-ERR internal error\r\n", b"-ERR internal error\r\n"),
    ],
    ids=repr,
)
def test_what_a_handler_returns_is_written(reply: Any, two: bytes, three: bytes | None) -> None:
    with talk() as each:
        with_command(each, lambda client, args: reply)
        assert each.ask(b"test\r\nPING\r\n") == two + b"+PONG\r\n"
        each.client.protocol = 3
        if three is not None:
            assert each.ask(b"TEST\r\nPING\r\n") == three + b"+PONG\r\n"


def test_what_a_handler_raises_is_an_error_and_no_more() -> None:
    def handler(client: Client, args: list[bytes]) -> None:
        client.begin_array(2)
        client.put(b"half")
        raise {b"reply": ReplyError("WRONG it is"), b"memory": MemoryError()}.get(
            args[1], ZeroDivisionError()
        )

    with talk() as each:
        with_command(each, handler)
        assert each.ask(b"test reply\r\ntest memory\r\ntest other\r\nPING\r\n") == (
            b"-WRONG it is\r\n-OOM out of memory\r\n-ERR internal error\r\n+PONG\r\n"
        )
        assert each.engine.commands[b"test"].failed == 3
        assert each.client.closed is None
        with pytest.raises(RuntimeError, match="handler"):
            each.client.put(1)


def test_commands_are_refused_in_the_words_of_redis() -> None:
    with talk() as each:
        with_command(each, lambda client, args: "OK", flags=["admin"])
        assert each.ask(array(b"nope", b"a\r", b"b")) == (
            b"-ERR unknown command 'nope', with args beginning with: 'a ' 'b' \r\n"
        )
        assert each.ask(b"GET\r\n") == b"-ERR wrong number of arguments for 'get' command\r\n"
        each.client.may = MAY_CONNECT | MAY_READ
        refusal = b"-NOPERM this user has no permissions to run the '%b' command\r\n"
        assert each.ask(b"SET k v\r\n") == refusal % b"set"
        assert each.ask(b"test\r\n") == refusal % b"test"
        assert each.ask(b"GET k\r\nPING\r\n") == b"$-1\r\n+PONG\r\n"


def test_names_that_only_look_like_known_ones_are_unknown() -> None:
    with talk() as each:
        for name in (b"get ", b"get\0", b"ge", b"getx", b"\0", b"", b"ping    ", b"p" * 300):
            assert each.ask(array(name, b"k")).startswith(b"-ERR unknown command"), name


def test_replies_that_nobody_reads_stop_the_commands() -> None:
    with talk(max_output=1 << 20) as each:
        value = b"x" * 10_000
        each.engine.cache[b"\0k"] = value
        each.socket.setblocking(True)
        command, sent = array(b"GET", b"k"), 4000
        each.socket.send(command * sent)
        each.socket.setblocking(False)
        for _ in range(20):
            each.turn()
            assert each.engine.buffered_bytes < 4 << 20
        assert 0 < each.client.unread_bytes < len(command) * sent
        assert each.client.unsent_bytes < (1 << 20) + 20_000
        assert each.receive() == (b"$10000\r\n" + value + b"\r\n") * sent
        assert each.engine.buffered_bytes == 0


def test_large_values_are_sent_from_where_they_lie() -> None:
    with talk() as each:
        value = bytes(range(256)) * 8_000
        each.engine.cache[b"\0k"] = value
        each.socket.send(array(b"MGET", *[b"k"] * 20))
        each.turn()
        assert each.client.unsent_bytes > 30_000_000
        each.engine.cache[b"\0k"] = b"other"
        whole = b"*20\r\n" + (b"$%d\r\n" % len(value) + value + b"\r\n") * 20
        assert each.receive() == whole


def test_who_needs_more_than_there_is_for_all_is_closed() -> None:
    with talk(max_buffered=1 << 20) as each:
        others = [each.connect() for _ in range(8)]
        for ours, _ in others:
            ours.send(b"*2\r\n$3\r\nGET\r\n$200000\r\n" + b"x" * 150_000)
            each.turn()
        assert each.engine.buffered_bytes <= 1 << 20
        assert each.ask(b"*2\r\n$3\r\nGET\r\n$9000000\r\n" + b"x" * 2_000_000) == b""
        assert each.client.closed == "memory"
        assert set(each.engine.closes) == {"memory"}
        assert each.engine.buffered_bytes <= 1 << 20


def test_commands_after_the_last_byte_are_still_answered() -> None:
    with talk() as each:
        each.socket.send(b"SET k v\r\nGET k\r\nGET")
        each.socket.shutdown(socket.SHUT_WR)
        each.turn()
        assert each.socket.recv(100) == b"+OK\r\n$1\r\nv\r\n"
        assert each.socket.recv(100) == b""
        assert each.client.closed == "ended"


def test_commands_that_wait_outlive_the_last_byte() -> None:
    """Who asks for much, says that this was all, and reads then gets all of it."""
    with talk(max_output=100_000) as each:
        each.engine.cache[b"\0k"] = b"x" * BIG
        each.socket.send(array(b"GET", b"k") * 500)
        each.turn()
        assert each.client.unread_bytes > 0
        each.socket.shutdown(socket.SHUT_WR)
        for _ in range(3):
            each.turn()
        assert each.receive() == (b"$%d\r\n%b\r\n" % (BIG, b"x" * BIG)) * 500
        assert each.client.closed == "ended"


def test_a_late_reply_reaches_who_has_stopped_sending() -> None:
    places: list[Pending] = []

    def handler(client: Client, args: list[bytes]) -> Pending:
        places.append(client.defer())
        return places[-1]

    with talk() as each:
        with_command(each, handler)
        each.socket.send(b"test\r\nPING\r\n")
        each.turn()
        each.socket.shutdown(socket.SHUT_WR)
        each.turn()
        places[0].resolve(b"late")
        each.turn()
        assert each.receive() == b"$4\r\nlate\r\n+PONG\r\n"
        assert each.client.closed == "ended"


def test_who_has_left_is_not_waited_for() -> None:
    """Its last command may never be answered; a proxy's would be, and what it takes lost."""
    with talk(output_timeout=1e-9) as each:
        with_command(each, lambda client, args: client.defer())
        each.socket.send(b"test\r\n")
        each.turn()
        started = each.engine.now
        while each.engine.now - started < 30:
            each.engine.sweep()
        assert each.client.closed is None
        each.socket.shutdown(socket.SHUT_WR)
        each.turn()
        while each.client.closed is None and each.engine.now - started < 5000:
            each.engine.sweep()
        assert each.client.closed == "output"


def test_who_does_not_say_who_it_is_goes() -> None:
    """Strangers would take all places there are, and never send a thing."""
    with talk(command_timeout=1e-9) as each:
        stranger = each.connect()[1]
        stranger.may = 0
        started = each.engine.now
        while stranger.closed is None and each.engine.now - started < 5000:
            each.engine.sweep()
        assert stranger.closed == "slow"
        assert each.client.closed is None


def test_a_closed_client_is_forgotten_though_a_child_has_its_socket() -> None:
    """The system would go on telling of it, by an address at which nothing is any more."""
    with talk() as each:
        ours, client = each.connect()
        copy = os.dup(client.fileno)
        client.close(now=True)
        ours.send(b"PING\r\n")
        with select.epoll.fromfd(os.dup(each.engine.fileno())) as watched:
            assert watched.poll(0) == []
        os.close(copy)


def test_quit_is_answered_and_what_follows_is_not() -> None:
    with talk() as each:
        assert each.ask(b"QUIT\r\nSET k v\r\n") == b"+OK\r\n"
        assert each.client.closed == "quit"
        assert len(each.engine.cache) == 0


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (b"PING\r\n", {"idle_timeout": 1e-9}, "idle"),
        (b"*2\r\n$3\r\nGE", {"command_timeout": 1e-9}, "slow"),
        (array(b"MGET", *[b"k"] * 100), {"output_timeout": 1e-9}, "output"),
    ],
)
def test_who_is_silent_or_slow_goes(data: bytes, options: dict[str, Any], reason: str) -> None:
    with talk(**options) as each:
        each.engine.cache[b"\0k"] = b"x" * BIG
        each.socket.send(data)
        each.turn()
        started = each.engine.now
        while each.client.closed is None and each.engine.now - started < 5000:
            each.engine.sweep()
        assert each.client.closed == reason
        assert each.engine.buffered_bytes == 0


def test_who_is_neither_stays() -> None:
    with talk(idle_timeout=3600, command_timeout=3600, output_timeout=3600) as each:
        each.socket.send(b"PING\r\n*1\r\n")
        each.turn()
        each.engine.sweep()
        assert each.client.closed is None
        each.engine.idle_timeout = each.engine.command_timeout = each.engine.output_timeout = 0
        each.engine.sweep()
        assert each.client.closed is None


def test_a_client_that_waits_or_listens_is_not_idle() -> None:
    with talk(idle_timeout=1e-9) as each:
        each.client.patient = True
        started = each.engine.now
        while each.engine.now - started < 30:
            each.engine.sweep()
        assert each.client.closed is None


def test_an_error_of_a_hook_closes_its_client_only() -> None:
    with talk() as each:

        def greet(client: Client) -> None:
            raise ZeroDivisionError

        each.engine.greet = greet
        ours, client = each.connect()
        assert client.closed == "failed"
        assert ours.recv(10) == b""
        assert each.ask(b"PING\r\n") == b"+PONG\r\n"


def test_a_cache_that_is_full_says_so() -> None:
    with talk(Cache(max_bytes=10_000, getsizeof=len)) as each:
        said = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
        for name in (b"SET", b"MSET"):
            assert each.ask(array(name, b"k", b"x" * 20_000)) == said
        assert each.ask(b"SET k v\r\nGET k\r\n") == b"+OK\r\n$1\r\nv\r\n"


@pytest.mark.parametrize("value", [b"", b"+1", b"1.0", b"01", b" 1", b"9" * 30, b"-", b"-0"])
def test_what_is_no_number_is_not_counted_up(value: bytes) -> None:
    with talk() as each:
        each.ask(array(b"SET", b"k", value))
        assert each.ask(b"INCR k\r\n") == b"-ERR value is not an integer or out of range\r\n"


def test_counting_keeps_to_64_bits_and_to_the_lifetime() -> None:
    with talk() as each:
        each.ask(b"SET k 9223372036854775806 EX 100\r\n")
        assert each.ask(b"INCR k\r\n") == b":9223372036854775807\r\n"
        overflow = b"-ERR increment or decrement would overflow\r\n"
        assert each.ask(b"INCR k\r\nINCRBY k 1\r\n") == overflow * 2
        assert each.ask(b"DECRBY k 9223372036854775807\r\n") == b":0\r\n"
        assert (
            each.ask(b"DECRBY k -9223372036854775808\r\n") == b"-ERR decrement would overflow\r\n"
        )
        assert each.ask(b"TTL k\r\n") == b":100\r\n"


def test_counting_does_not_move_the_deadline() -> None:
    """The clock goes on between two readings of it, and a key may be counted up very often."""
    clock = [1000.0, 0.0]

    def timer() -> float:
        clock[0] += clock[1]
        return clock[0]

    with talk(Cache(max_bytes="1MB", getsizeof=sys.getsizeof, timer=timer)) as each:
        each.ask(b"SET k 0 EX 100\r\n")
        clock[1] = 0.001
        each.ask(b"INCR k\r\n" * 1000)
        clock[1] = 0.0
        assert clock[0] > 1001
        assert each.ask(b"PTTL k\r\n") == b":%d\r\n" % round((1100 - clock[0]) * 1000)


def test_hashes_are_read() -> None:
    with talk() as each:
        for name, arity in ((b"hget", 3), (b"hmget", -3), (b"hgetall", 2)):
            each.engine.commands[name] = Command(name, arity, flags=["readonly"])
        each.engine.cache[b"\0h"] = {b"f": b"1", b"g": b"x" * BIG}
        large = b"$%d\r\n%b\r\n" % (BIG, b"x" * BIG)
        assert each.ask(b"HGET h f\r\nHGET h none\r\nHGET none f\r\n") == (
            b"$1\r\n1\r\n$-1\r\n$-1\r\n"
        )
        assert each.ask(b"HMGET h g none f\r\n") == b"*3\r\n" + large + b"$-1\r\n$1\r\n1\r\n"
        pairs = b"$1\r\nf\r\n$1\r\n1\r\n$1\r\ng\r\n" + large
        assert each.ask(b"HGETALL h\r\nHGETALL none\r\n") == b"*4\r\n" + pairs + b"*0\r\n"
        each.client.protocol = 3
        assert each.ask(b"HGETALL h\r\nHGETALL none\r\n") == b"%2\r\n" + pairs + b"%0\r\n"
        wrong = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
        each.ask(b"SET s 1\r\n")
        asked = b"HGET s f\r\nHMGET s f\r\nHGETALL s\r\nGET h\r\nINCR h\r\nSTRLEN h\r\n"
        assert each.ask(asked) == wrong * 6
        assert each.ask(b"MGET h s\r\n") == b"*2\r\n_\r\n$1\r\n1\r\n"


def test_what_was_done_is_counted() -> None:
    with talk() as each:
        each.ask(b"SET k v\r\nGET k\r\nGET x\r\nECHO x\r\nNOPE\r\n")
        calls = {name: count for name, count in each.engine.calls().items() if count}
        assert calls == {b"set": 1, b"get": 2, b"echo": 1}
        counts, seconds = each.engine.latencies()
        assert each.engine.executed == sum(counts) == 4
        assert 0 < seconds < 4 * 2 ** len(counts) / 1e6
        assert (each.engine.accepted, each.engine.refused) == (1, 0)
        assert (each.engine.bytes_in, each.client.bytes_in) == (37, 37)
        assert each.engine.bytes_out == each.client.bytes_out > 0
        stats = each.engine.cache.stats()
        assert (stats.hits, stats.misses) == (1, 1)
