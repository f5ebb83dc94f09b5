"""Replies that come later than others: each in its place, nobody else waits."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from cachecore._resp_client import Client, Pending
from cachecore._resp_values import Push, ReplyError
from server.engines import talk, with_command


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


def test_a_handler_may_give_the_replies_before_its_own() -> None:
    places: list[Pending] = []

    def later(client: Client, args: list[bytes]) -> Pending:
        places.append(client.defer())
        return places[-1]

    def now(client: Client, args: list[bytes]) -> bytes:
        for place in places:
            place.resolve(b"before")
        return b"own"

    with talk() as each:
        with_command(each, later, b"later")
        with_command(each, now, b"now")
        assert each.ask(b"later\r\nnow\r\nPING\r\n") == (b"$6\r\nbefore\r\n$3\r\nown\r\n+PONG\r\n")
        assert each.client.closed is None


def test_a_reply_for_which_there_is_no_memory_closes_its_client_alone() -> None:
    """One that has to wait for others, too: nothing is sent of which a part is missing."""
    with talk(max_output=1 << 40, max_buffered=1 << 40, point=1 << 40) as each:
        with_command(each, lambda client, args: client.defer())
        each.engine.cache[b"\0k"] = b"x" * 50_000_000
        large = b"MGET" + b" k" * 60 + b"\r\n"
        before = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(
            resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 30), before[1])
        )
        try:
            each.ask(b"test\r\n" + large)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        assert each.client.closed == "memory"
        ours, _ = each.connect()
        ours.send(b"test\r\nPING\r\n")
        each.turn()
        assert each.engine.closes == {"memory": 1}


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
