"""RedisTier in trouble: each fault has a stated result within the deadline, and then it is over.

Every test runs on the sync methods and on their asynchronous twins.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers import Item, RedisTier
from cachecore.tiers.testing import eventually
from servers import Server, redis_server
from tiers.proxy import Proxy

DEADLINE = 0.1
SLACK = 0.5  # for a machine that does other things as well
LARGE = b"v" * 300_000


class Calls:
    """A tier's methods, sync or async; an event loop of one's own keeps its connections."""

    def __init__(self, tier: RedisTier, runner: asyncio.Runner | None) -> None:
        self.tier, self._runner = tier, runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self._runner is None:
            return getattr(self.tier, name)  # type: ignore[no-any-return]
        runner, method = self._runner, getattr(self.tier, f"a{name}")
        return lambda *args: runner.run(method(*args))

    @contextmanager
    def fails(self, words: str | None = None, kind: type[TierError] = TierError) -> Iterator[None]:
        """The block raises exactly this kind of error, within the deadline."""
        begin = time.monotonic()
        with pytest.raises(kind, match=words) as caught:
            yield
        assert time.monotonic() - begin < DEADLINE + SLACK
        assert type(caught.value) is kind
        assert "secret" not in str(caught.value)

    def fails_each_way(self, words: str | None = None, kind: type[TierError] = TierError) -> None:
        """So does every method."""
        for call in (
            lambda: self.get_many([b"a"]),
            lambda: self.get_many([b"a", b"b"]),
            lambda: self.set_many([Item(b"a", b"2"), Item(b"b", b"2", 9000)]),
            lambda: self.delete_many([b"b"]),
            lambda: self.add(Item(b"c", b"1")),
            lambda: self.get_fields([b"h"], [b"f"]),
            lambda: self.set_fields({b"h": {b"f": b"1"}}),
        ):
            with self.fails(words, kind):
                call()

    def works(self) -> None:
        self.set_many([Item(b"works", b"1", 60_000), Item(b"large", LARGE)])
        assert self.get_many([b"works", b"none"]) == [b"1", None]
        assert self.get_many([b"large"]) == [LARGE]
        assert self.delete_many([b"works", b"large"]) == 2


@pytest.fixture
def calls(proxy: Proxy, runner: asyncio.Runner | None) -> Iterator[Calls]:
    """A tier that goes through the proxy, and has done so."""
    tier = RedisTier(f"redis://127.0.0.1:{proxy.port}", timeout=DEADLINE)
    calls = Calls(tier, runner)
    calls.works()
    yield calls
    proxy.pass_on()
    eventually(lambda: works_again(calls))
    tier.close()
    assert tier.stats()["open"] == 0


def works_again(calls: Calls) -> bool:
    try:
        calls.works()
    except TierError:
        return False
    return True


def direct(server: Server, runner: asyncio.Runner | None, user: str = "") -> Calls:
    return Calls(RedisTier(f"redis://{user}127.0.0.1:{server.port}", timeout=DEADLINE), runner)


# --- the connection


def test_refusing(calls: Calls, proxy: Proxy) -> None:
    proxy.refuse()
    calls.fails_each_way("Connection refused")
    assert calls.tier.stats()["errors"] == 7
    assert calls.tier.stats()["open"] == 0


def test_killed_and_restarted(server: Server, runner: asyncio.Runner | None) -> None:
    calls = direct(server, runner)
    calls.works()
    server.kill()
    calls.fails_each_way()
    server.start()
    calls.works()
    server.kill()
    server.start()
    calls.works()  # the idle connection is closed: that costs no call
    assert calls.tier.stats()["retries"] == 2
    server.kill()
    server.start()
    assert calls.add(Item(b"x", b"1")) is True  # it cannot be repeated, and need not be
    calls.tier.close()


def test_resetting(calls: Calls, proxy: Proxy) -> None:
    proxy.reset()
    calls.fails_each_way("reset|closed")


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_ended_in_mid_reply(calls: Calls, proxy: Proxy, how: str) -> None:
    calls.set_many([Item(b"a", LARGE)])
    end: Callable[[int], None] = getattr(proxy, how)
    for after in (1, 3, 100, 200_000):
        end(after)
        with calls.fails("reset|closed"):
            calls.get_many([b"a"])
    end(200_000)
    with calls.fails("reset|closed"):
        calls.get_many([b"a", b"a"])
    proxy.pass_on()
    assert calls.get_many([b"a", b"none"]) == [LARGE, None]
    # What was answered in part was not asked again.
    assert calls.tier.stats()["retries"] == 0


# --- time


def test_stalling(calls: Calls, proxy: Proxy) -> None:
    proxy.stall()
    calls.fails_each_way(kind=TierTimeoutError)
    assert calls.tier.stats()["timeouts"] == 7
    assert calls.tier.stats()["open"] == 0


def test_stopped(server: Server, runner: asyncio.Runner | None) -> None:
    calls = direct(server, runner)
    calls.works()
    calls.set_many([Item(b"a", b"a"), Item(b"b", b"b")])
    server.send(signal.SIGSTOP)
    with calls.fails(kind=TierTimeoutError):
        calls.get_many([b"a"])
    with calls.fails(kind=TierTimeoutError):
        calls.set_many([Item(b"c", LARGE * 30)])  # more than fits on the way
    server.send(signal.SIGCONT)
    eventually(lambda: works_again(calls))
    assert calls.get_many([b"b"]) == [b"b"]  # and not the late answer for "a"
    calls.tier.close()


def test_dribbling(calls: Calls, proxy: Proxy) -> None:
    calls.set_many([Item(b"a", b"1" * 100), Item(b"b", b"1" * 100)])
    proxy.dribble(0.02)
    for keys in ([b"a"], [b"a", b"b"]):
        with calls.fails(kind=TierTimeoutError):
            calls.get_many(keys)
    with calls.fails(kind=TierTimeoutError):
        calls.set_many([Item(b"a", b"2"), Item(b"b", b"2")])


def test_a_new_connection_dribbles(server: Server, runner: asyncio.Runner | None) -> None:
    with redis.Redis(port=server.port) as client:
        client.config_set("requirepass", "secret")
    with Proxy(server.port) as proxy:
        tier = RedisTier(f"redis://:secret@127.0.0.1:{proxy.port}/2", timeout=DEADLINE)
        calls = Calls(tier, runner)
        proxy.dribble(0.04)
        with calls.fails(kind=TierTimeoutError):
            calls.get_many([b"a"])  # the answers to AUTH and SELECT
        proxy.pass_on()
        calls.works()
        tier.close()


def test_a_late_answer_is_nobodys(calls: Calls, proxy: Proxy) -> None:
    calls.set_many([Item(b"%d" % at, b"%d" % at) for at in range(20)])
    for at in range(0, 20, 2):
        proxy.delay(DEADLINE * 1.5)
        with calls.fails(kind=TierTimeoutError):
            calls.get_many([b"%d" % at])
        proxy.pass_on()
        assert calls.get_many([b"%d" % (at + 1)]) == [b"%d" % (at + 1)]


# --- what the server refuses


def test_loading(tmp_path: Path, runner: asyncio.Runner | None) -> None:
    before = redis_server(tmp_path)
    with redis.Redis(port=before.port) as client:
        client.mset({f"key {at}": os.urandom(2000) for at in range(60)})
        kept = client.get("key 7")
        client.save()
    before.kill()
    slowly = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"]
    server = redis_server(tmp_path, *slowly, port=before.port)
    calls = direct(server, runner)
    calls.fails_each_way("LOADING")
    assert calls.tier.stats()["refusals"] == 7
    eventually(lambda: works_again(calls))
    assert calls.get_many([b"key 7"]) == [kept]
    calls.tier.close()
    server.kill()


def test_read_only_and_without_master(calls: Calls, server: Server) -> None:
    calls.set_many([Item(b"a", b"1")])
    with redis.Redis(port=server.port) as client:
        client.replicaof("127.0.0.1", 1)
        for call in (
            lambda: calls.set_many([Item(b"a", b"2")]),
            lambda: calls.add(Item(b"b", b"")),
        ):
            with calls.fails("READONLY"):
                call()
            assert calls.tier.stats()["open"] == 0
        assert calls.get_many([b"a"]) == [b"1"]
        client.config_set("replica-serve-stale-data", "no")
        with calls.fails("MASTERDOWN"):
            calls.get_many([b"a"])
        client.replicaof("NO", "ONE")


def test_out_of_memory(calls: Calls, server: Server) -> None:
    calls.set_many([Item(b"a", b"1")])
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", 1)
        with calls.fails("OOM"):
            calls.set_many([Item(b"a", b"2"), Item(b"b", b"2")])
        with calls.fails("OOM"):
            calls.add(Item(b"c", b"2"))
        assert calls.get_many([b"a", b"b"]) == [b"1", None]
        assert calls.tier.stats()["refusals"] == 2
        client.config_set("maxmemory", 0)


def test_not_let_in(server: Server, runner: asyncio.Runner | None) -> None:
    with redis.Redis(port=server.port) as client:
        client.config_set("requirepass", "secret")
        client.acl_setuser("reader", True, passwords=["+secret"], keys=["r:*"], commands=["+get"])
    for user, words in [
        ("", "NOAUTH"),
        (":secret-but-wrong@", "WRONGPASS"),
        ("reader:secreter@", "WRONGPASS"),
        ("reader:secret@", "NOPERM"),
    ]:
        calls = direct(server, runner, user)
        calls.fails_each_way(words)
        calls.tier.close()
    reader = direct(server, runner, "reader:secret@")
    assert reader.get_many([b"r:1"]) == [None]
    reader.tier.close()
    with redis.Redis(port=server.port, password="secret") as client:
        client.acl_setuser("guest", True, nopass=True, keys=["*"], commands=["+@all"])
    for user in (":secret@", "default:secret@", "guest@", "guest:anything@"):
        calls = direct(server, runner, user)
        calls.works()
        calls.tier.close()


def test_too_many_clients(server: Server, runner: asyncio.Runner | None) -> None:
    calls = direct(server, runner)
    with redis.Redis(port=server.port) as client:
        client.config_set("maxclients", 1)
        with calls.fails("max number of clients"):
            calls.get_many([b"a"])
        client.config_set("maxclients", 100)
    eventually(lambda: works_again(calls))
    calls.tier.close()


def test_what_is_no_redis_repeats_the_password(runner: asyncio.Runner | None) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"-ERR unknown command 'AUTH', beginning with 'me' 'secret'\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        url = f"redis://me:secret@127.0.0.1:{listener.getsockname()[1]}/1"
        calls = Calls(RedisTier(url, timeout=DEADLINE), runner)
        with calls.fails("unknown command"):
            calls.get_many([b"a"])
        calls.tier.close()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$999999999999\r\nx", b"*-7\r\n", b"+OK\r\n+OK\r\n",
     b"\0\0\0\0", b":1\r\n:"],
)  # fmt: skip
def test_not_a_redis(answer: bytes, runner: asyncio.Runner | None) -> None:
    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            connection.recv(100)
            connection.sendall(answer)

    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        calls = Calls(RedisTier(url, timeout=DEADLINE), runner)
        for _ in range(3):
            with pytest.raises(TierError):
                calls.get_many([b"a"])
            assert calls.tier.stats()["open"] == 0
        calls.tier.close()
        listener.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()
