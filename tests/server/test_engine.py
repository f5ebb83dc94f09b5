"""The engine over real sockets: replies in order, whole and bounded; who is too slow goes."""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any

import pytest

from cachecore import Cache
from cachecore._resp_client import MAY_CONNECT, MAY_READ, Client, Command, Pending
from cachecore._resp_values import NOTHING, NULL_ARRAY, Push, ReplyError
from server.engines import Recorder, Talk, array, talk

BIG = 100_000  # bytes of a value that is sent from where it lies


def with_command(each: Talk, handler: Any, name: bytes = b"test", **options: Any) -> None:
    each.engine.commands[name] = Command(name, -1, handler, **options)


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


def test_replies_that_come_later_keep_their_places() -> None:
    places: list[Pending] = []

    def handler(client: Client, args: list[bytes]) -> Pending:
        places.append(client.defer())
        return places[-1]

    with talk() as each:
        with_command(each, handler)
        sent = b"PING 1\r\ntest\r\nPING 2\r\ntest\r\nSET k v\r\ntest\r\nGET k\r\n"
        assert each.ask(sent) == b"$1\r\n1\r\n"
        assert each.engine.cache[b"\0k"] == b"v"
        places[1].resolve([b"second"])
        each.turn()
        assert each.receive() == b""
        places[0].resolve(None)
        places[0].resolve(b"twice")
        each.turn()
        assert each.receive() == b"$-1\r\n$1\r\n2\r\n*1\r\n$6\r\nsecond\r\n+OK\r\n"
        places[2].resolve_raw(b"+raw\r\n")
        each.turn()
        assert each.receive() == b"+raw\r\n$1\r\nv\r\n"
        assert each.ask(b"PING\r\n") == b"+PONG\r\n"
        assert each.client.unsent_bytes == 0


def test_a_place_may_be_filled_before_it_is_returned() -> None:
    places: list[Pending] = []

    def handler(client: Client, args: list[bytes]) -> Pending:
        places.append(client.defer())
        if args[1] == b"now":
            places[-1].resolve(args[1])
        return places[-1]

    with talk() as each:
        with_command(each, handler)
        assert each.ask(b"test now\r\nPING\r\n") == b"$3\r\nnow\r\n+PONG\r\n"
        assert each.ask(b"test later\r\ntest now\r\n") == b""
        places[1].resolve(1)
        each.turn()
        assert each.receive() == b":1\r\n$3\r\nnow\r\n"


def test_an_awaitable_reply_makes_its_client_wait_and_nobody_else() -> None:
    with talk() as each:
        gate: asyncio.Future[bytes] = each.loop.create_future()

        async def handler(client: Client, args: list[bytes]) -> bytes:
            return await gate

        with_command(each, handler)
        assert each.ask(b"SET k 1\r\ntest\r\nINCR k\r\n") == b"+OK\r\n"
        assert each.ask(b"INCR k\r\n") == b""
        assert each.engine.cache[b"\0k"] == b"1"
        ours, _ = each.connect()
        ours.send(b"PING\r\n")
        each.turn()
        assert ours.recv(100) == b"+PONG\r\n"
        gate.set_result(b"done")
        for _ in range(3):
            each.turn()
        assert each.receive() == b"$4\r\ndone\r\n:2\r\n:3\r\n"


@pytest.mark.parametrize("error", [ReplyError("ERR so"), KeyError("x"), None])
def test_an_awaitable_that_fails_is_an_error(error: Exception | None) -> None:
    async def handler(client: Client, args: list[bytes]) -> object:
        await asyncio.sleep(0)
        if error:
            raise error
        return object()

    with talk() as each:
        with_command(each, handler)
        each.ask(b"test\r\nPING\r\n")
        for _ in range(5):
            each.turn()
        said = b"-ERR so\r\n" if isinstance(error, ReplyError) else b"-ERR internal error\r\n"
        assert each.receive() == said + b"+PONG\r\n"


def test_what_is_awaited_ends_with_its_client() -> None:
    with talk() as each:
        gate: asyncio.Future[None] = each.loop.create_future()

        async def handler(client: Client, args: list[bytes]) -> None:
            await gate

        with_command(each, handler)
        each.ask(b"test\r\n")
        each.client.close("gone", now=True)
        each.turn()
        each.turn()
        assert gate.cancelled()
        assert each.engine.closes == {"gone": 1}


def test_pushes_come_between_replies() -> None:
    with talk() as each:
        each.client.protocol = 3
        each.client.push(Push([b"invalidate", [b"k"]]))
        each.turn()
        assert each.receive() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"


def transactions(each: Talk) -> None:
    """MULTI, EXEC and WATCH as the hooks of the engine make them."""

    def multi(client: Client, args: list[bytes]) -> str:
        client.queue, client.aborted = [], False
        return "OK"

    def execute(client: Client, args: list[bytes]) -> Any:
        queue, client.queue = client.queue or [], None
        touched = client.touched
        client.unwatch()
        if client.aborted:
            return ReplyError("EXECABORT Transaction discarded because of previous errors.")
        if touched:
            return NULL_ARRAY
        client.begin_array(len(queue))
        for raw in queue:
            client.execute(raw)
        return NOTHING

    def watch(client: Client, args: list[bytes]) -> str:
        client.watch([client.prefix + key for key in args[1:]])
        return "OK"

    with_command(each, multi, b"multi", immediate=True)
    with_command(each, execute, b"exec", immediate=True)
    with_command(each, watch, b"watch", immediate=True)


def test_a_transaction_is_queued_and_executed() -> None:
    with talk() as each:
        transactions(each)
        with_command(each, lambda client, args: client.defer())
        sent = array(b"SET", b"k", b"1" * 3) + b"INCR k\r\nGET k x\r\nSET k v EX 100 NX\r\n"
        assert each.ask(b"MULTI\r\n" + sent.replace(b"GET k x\r\n", b"")) == (
            b"+OK\r\n" + b"+QUEUED\r\n" * 3
        )
        assert len(each.engine.cache) == 0
        assert each.ask(b"GET k\r\ntest\r\nEXEC\r\nPING\r\n") == (
            b"+QUEUED\r\n+QUEUED\r\n*5\r\n+OK\r\n:112\r\n$-1\r\n$3\r\n112\r\n"
            b"-ERR this command is not allowed inside a transaction\r\n+PONG\r\n"
        )
        assert b"-ERR wrong number" in each.ask(b"MULTI\r\nGET k x\r\nSET k 5\r\n")
        assert each.ask(b"EXEC\r\n").startswith(b"-EXECABORT")
        assert each.ask(b"GET k\r\n") == b"$3\r\n112\r\n"


@pytest.mark.parametrize(
    "line", [b"SET k 2", b"INCR k", b"DEL k x", b"MSET x 1 k 2", b"EXPIRE k 9"]
)
def test_a_watched_key_that_is_written_aborts(line: bytes) -> None:
    with talk() as each:
        transactions(each)
        each.ask(b"SET k 1\r\n")
        other, client = each.connect()
        for written, reply in ((b"GET k", b"*1\r\n+PONG\r\n"), (line, b"*-1\r\n")):
            assert each.ask(b"WATCH k\r\n") == b"+OK\r\n"
            other.send(written + b"\r\n")
            each.turn()
            assert each.ask(b"MULTI\r\nPING\r\nEXEC\r\n").endswith(b"+QUEUED\r\n" + reply)
        client.database = 1
        each.ask(b"WATCH k\r\n")
        other.send(line + b"\r\n")
        each.turn()
        assert each.ask(b"MULTI\r\nEXEC\r\n") == b"+OK\r\n*0\r\n"


def test_a_queue_is_bounded() -> None:
    with talk(max_command=1000) as each:
        transactions(each)
        each.ask(b"MULTI\r\n")
        said = each.ask(array(b"SET", b"k", b"x" * 200) * 10)
        assert said == b"+QUEUED\r\n" * 3 + b"-ERR the transaction is too large\r\n" * 7
        assert each.ask(b"EXEC\r\n").startswith(b"-EXECABORT")


def test_a_proxy_is_asked_for_all_but_hits() -> None:
    each = Recorder()
    try:
        each.engine.cache[b"\0k"] = b"v"
        sent = [b"GET k", b"MGET k k", b"EXISTS k", b"STRLEN k"]
        assert each.ask(b"\r\n".join(sent) + b"\r\n") == (
            b"$1\r\nv\r\n*2\r\n$1\r\nv\r\n$1\r\nv\r\n:1\r\n:1\r\n"
        )
        assert each.commands == []
        lines = [b"GET x", b"MGET k x", b"EXISTS k x", b"STRLEN x", b"SET k v", b"PING", b"EVAL x"]
        assert each.ask(b"\r\n".join(lines) + b"\r\n") == b""
        assert each.commands == [line.split() for line in lines]
    finally:
        each.close()


def test_raw_is_the_command_as_it_was_sent() -> None:
    raws: list[bytes] = []
    with talk(proxy=True) as each:

        def intercept(client: Client, args: list[bytes]) -> Any:
            raws.append(client.raw())
            return NOTHING

        each.engine.intercept = intercept
        sent = [array(b"MGET", b"a", b"b" * 300), array(b"gEt", b""), array(b"SET", b"k", b"\r\n")]
        each.ask(b"".join(sent) + b"get 'x y'\r\n")
        assert raws == [*sent, array(b"get", b"x y")]


def test_hits_do_not_overtake_what_is_under_way() -> None:
    places: list[Pending] = []
    with talk(proxy=True) as each:
        each.engine.cache[b"\0k"] = b"old"

        def intercept(client: Client, args: list[bytes]) -> Pending:
            places.append(client.defer())
            return places[-1]

        each.engine.intercept = intercept
        assert each.ask(b"SET k new\r\nGET k\r\n") == b""
        assert len(places) == 2
        places[1].resolve(b"new")
        places[0].resolve("OK")
        each.turn()
        assert each.receive() == b"+OK\r\n$3\r\nnew\r\n"


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
