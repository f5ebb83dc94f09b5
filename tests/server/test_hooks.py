"""What handlers build upon: transactions, watched keys, and a proxy's view of the commands."""

from __future__ import annotations

from typing import Any

import pytest

from cachecore._resp_client import Client, Pending
from cachecore._resp_values import NOTHING, NULL_ARRAY, ReplyError
from server.engines import BIG, Recorder, Talk, array, talk, with_command


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


def test_the_replies_of_a_transaction_are_bounded() -> None:
    with talk(max_buffered=1 << 20) as each:
        transactions(each)
        each.engine.cache[b"\0k"] = b"x" * 1000
        queued = array(b"MGET", *[b"k"] * 500) + array(b"INCR", b"n")
        each.ask(b"MULTI\r\n" + queued * 50)
        assert each.ask(b"EXEC\r\n") == b""
        assert each.client.closed == "memory"
        assert each.engine.cache[b"\0n"] == b"2"


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


def test_what_changes_nothing_aborts_nothing() -> None:
    with talk() as each:
        transactions(each)
        other, _ = each.connect()
        with_command(each, lambda client, args: "OK", flags=["write"])
        for line in (b"DEL k", b"EXPIRE k 9", b"SET x 1", b"test"):
            each.ask(b"WATCH k\r\n")
            other.send(line + b"\r\n")
            each.turn()
            assert each.ask(b"MULTI\r\nPING\r\nEXEC\r\n").endswith(b"*1\r\n+PONG\r\n"), line


def test_a_command_that_fails_in_a_transaction_fails_alone() -> None:
    def fail(client: Client, args: list[bytes]) -> None:
        raise {b"own": ReplyError("OWN words")}.get(args[1], ZeroDivisionError())

    with talk() as each:
        transactions(each)
        with_command(each, fail)
        each.ask(b"MULTI\r\nSET k 1\r\ntest other\r\ntest own\r\nINCR k\r\n")
        assert each.ask(b"EXEC\r\n") == b"*4\r\n+OK\r\n-ERR internal error\r\n-OWN words\r\n:2\r\n"
        assert each.engine.errors == {"ERR": 1, "OWN": 1}


def test_a_handler_may_refuse_to_be_queued() -> None:
    class Checked:
        def __call__(self, client: Client, args: list[bytes]) -> str:
            return "OK"

        def check(self, client: Client, args: list[bytes]) -> None:
            if len(args) > 1:
                raise ReplyError("ERR too many")

    with talk() as each:
        transactions(each)
        with_command(each, Checked())
        assert each.ask(b"test x\r\nMULTI\r\ntest\r\ntest x\r\n") == (
            b"+OK\r\n+OK\r\n+QUEUED\r\n-ERR too many\r\n"
        )
        assert each.ask(b"EXEC\r\n").startswith(b"-EXECABORT")
        assert each.engine.commands[b"test"].rejected == 1


def test_a_private_client_and_guarded_reads_are_asked_about() -> None:
    each = Recorder()
    try:
        each.engine.cache[b"\0k"] = b"v"
        hit = b"$1\r\nv\r\n"
        assert each.ask(b"GET k\r\n") == hit
        each.client.private = True
        assert each.ask(b"GET k\r\n") == b""
        each.client.queue = []
        each.client.queue = None
        assert each.ask(b"GET k\r\n") == b""
        each.client.private = False
        assert each.ask(b"GET k\r\n") == hit
        each.engine.guarded = True
        assert each.ask(b"GET k\r\n") == b""
        each.engine.guarded = False
        assert each.ask(b"GET k\r\n") == hit
        assert each.commands == [[b"GET", b"k"]] * 3
    finally:
        each.close()


def test_a_client_can_be_held() -> None:
    with talk() as each:
        each.client.hold()
        assert each.ask(b"PING\r\nPING\r\n") == b""
        assert each.client.unread_bytes == 12
        each.client.release()
        each.turn()
        assert each.receive() == b"+PONG\r\n" * 2


def test_room_is_told_of_once_replies_were_read() -> None:
    told: list[Client] = []
    with talk() as each:
        each.engine.on_room = told.append
        each.engine.cache[b"\0k"] = b"x" * BIG
        each.client.starved = True
        each.socket.send(array(b"MGET", *[b"k"] * 100))
        each.turn()
        assert told == []
        assert len(each.receive()) > 100 * BIG
        each.turn()
        assert told == [each.client]
        assert not each.client.starved


def test_who_is_closed_when_there_is_room_is_no_longer_counted() -> None:
    with talk() as each:
        each.engine.on_room = lambda client: client.close("enough", now=True)
        each.socket.send(b"*2\r\n$3\r\nGET\r\n$100000\r\n" + b"x" * 50_000)
        each.turn()
        assert each.engine.buffered_bytes > 0
        each.client.starved = True
        each.client.write(bytes(400_000))  # more than the socket takes at once
        each.turn()
        assert each.client.closed == "enough"
        assert each.engine.buffered_bytes == 0


def test_a_proxy_does_not_answer_for_lifetimes() -> None:
    each = Recorder()
    try:
        each.engine.cache[b"\0k"] = b"v"
        assert each.ask(b"TTL k\r\nPTTL k\r\n") == b""
    finally:
        each.close()
