"""MemcachedTier when servers stop, die, come back or lie, and callers are interrupted or fork."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import eventually
from servers import Server, memcached_server
from tiers.children import exit_code, fork

DEADLINE = 0.1
SLACK = 0.9  # of a machine that does other things


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    started = [memcached_server(tmp_path / str(at)) for at in range(3)]
    yield started
    for server in started:
        if server.process is not None:
            server.send(signal.SIGCONT)
        server.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = memcached_server(tmp_path)
    yield server
    if server.process is not None:
        server.send(signal.SIGCONT)
    server.kill()


@pytest.fixture
def tier(server: Server) -> Iterator[MemcachedTier]:
    tier = MemcachedTier(f"127.0.0.1:{server.port}", timeout=DEADLINE)
    yield tier
    tier.close()


CALLS: list[Callable[[Tier], object]] = [
    lambda tier: tier.get_many([b"a"]),
    lambda tier: tier.set_many([Item(b"a", b"1")]),
    lambda tier: tier.set_many([Item(b"%d" % at, b"x" * 900_000) for at in range(20)]),
    lambda tier: tier.delete_many([b"a"]),
    lambda tier: tier.add(Item(b"a", b"1")),
    lambda tier: asyncio.run(tier.aget_many([b"a"])),
]


def fails_in_time(call: Callable[[], object], kind: type[TierError]) -> TierError:
    begin = time.monotonic()
    with pytest.raises(kind) as caught:
        call()
    assert time.monotonic() - begin < DEADLINE + SLACK
    return caught.value


@pytest.mark.parametrize("call", CALLS)
def test_a_stopped_server(server: Server, call: Callable[[Tier], object]) -> None:
    with closing(MemcachedTier(f"127.0.0.1:{server.port}", timeout=DEADLINE)) as tier:
        tier.set_many([Item(b"a", b"1")])  # one connection is there, others are to be made
        server.send(signal.SIGSTOP)
        for _ in range(2):
            fails_in_time(lambda: call(tier), TierTimeoutError)
        error = fails_in_time(lambda: call(tier), TierError)
        assert not isinstance(error, TierTimeoutError)
        assert "is not asked" in str(error)
        assert tier.stats()["timeouts"] == 2


def test_no_late_answer_is_read_by_another(server: Server, tier: MemcachedTier) -> None:
    tier.set_many([Item(b"a", b"of a"), Item(b"b", b"of b")])
    server.send(signal.SIGSTOP)
    fails_in_time(lambda: tier.get_many([b"a"]), TierTimeoutError)
    server.send(signal.SIGCONT)
    for _ in range(20):
        assert tier.get_many([b"b"]) == [b"of b"]


def test_a_server_that_dies_and_comes_back(server: Server, tier: MemcachedTier) -> None:
    tier.set_many([Item(b"a", b"1")])
    server.kill()
    fails_in_time(lambda: tier.get_many([b"a"]), TierError)
    server.start()
    assert tier.get_many([b"a"]) == [None]
    tier.set_many([Item(b"a", b"2")])
    server.kill()
    server.start()
    assert tier.get_many([b"a"]) == [None]  # the dead connection is not used


def test_one_of_three_servers(servers: list[Server]) -> None:
    places = [f"127.0.0.1:{server.port}" for server in servers]
    with closing(MemcachedTier(places, timeout=DEADLINE)) as tier:
        items = [Item(b"%d" % at, b"%d" % at) for at in range(300)]
        keys = [item.key for item in items]
        tier.set_many(items)
        on_second = [tier._server_of(key).name.endswith(places[1]) for key in keys]
        others = [
            None if there else item.data for there, item in zip(on_second, items, strict=True)
        ]
        servers[1].send(signal.SIGSTOP)
        for kind in (TierTimeoutError, TierTimeoutError, TierError, TierError):
            error = fails_in_time(lambda: tier.get_many(keys), kind)
            assert error.values == others
        assert not isinstance(error, TierTimeoutError)
        fails_in_time(lambda: tier.set_many(items), TierError)
        fails_in_time(lambda: tier.delete_many(keys), TierError)
        assert fails_in_time(lambda: tier.get_many(keys), TierError).values == [None] * 300
        servers[1].send(signal.SIGCONT)
        eventually(lambda: reads(tier, keys))
        found = tier.get_many(keys)  # what it was to delete is there: the error said so
        assert [value is not None for value in found] == on_second


def reads(tier: Tier, keys: list[bytes]) -> bool:
    try:
        tier.get_many(keys)
    except TierError:
        return False
    return True


def liar(answer: bytes, pause: float = 0) -> tuple[int, Callable[[], None]]:
    """A server that sends `answer` to whatever it is asked, byte by byte if there is a pause."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection = listener.accept()[0]
                with connection:
                    connection.recv(1000)
                    for piece in (
                        [answer[at : at + 1] for at in range(len(answer))] if pause else [answer]
                    ):
                        connection.sendall(piece)
                        time.sleep(pause)
                    connection.recv(1000)
            except OSError:
                if listener.fileno() < 0:
                    return

    thread = threading.Thread(target=serve)
    thread.start()

    def stop() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()

    return listener.getsockname()[1], stop


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n",
        b"VALUE\r\n",
        b"VALUE other 0 1\r\nx\r\nEND\r\n",
        b"VALUE a 0 many\r\n",
        b"VALUE a x 1\r\nx\r\nEND\r\n",
        b"VALUE a 0 -5\r\nx\r\nEND\r\n",
        b"VALUE a 0 99999999999999999999\r\nx",
        b"VALUE a 0 5\r\nx",
        b"SERVER_ERROR busy\r\n",
        b"ERROR\r\n",
        b"\0" * 100_000,
        b"",
    ],
)
def test_nonsense(answer: bytes) -> None:
    port, stop = liar(answer)
    with closing(MemcachedTier(f"127.0.0.1:{port}", timeout=DEADLINE)) as tier:
        fails_in_time(lambda: tier.get_many([b"a"]), TierError)
        fails_in_time(lambda: tier.delete_many([b"a"]), TierError)
    stop()


def test_dribble() -> None:
    port, stop = liar(b"VALUE a 0 5\r\n12345\r\nEND\r\n", pause=0.02)
    with closing(MemcachedTier(f"127.0.0.1:{port}", timeout=DEADLINE)) as tier:
        fails_in_time(lambda: tier.get_many([b"a"]), TierTimeoutError)
    stop()


def test_an_interrupted_call(server: Server, tier: MemcachedTier) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    tier.set_many([Item(b"a", b"of a"), Item(b"b", b"of b")])
    server.send(signal.SIGSTOP)
    before = signal.signal(signal.SIGALRM, interrupt)
    with closing(MemcachedTier(f"127.0.0.1:{server.port}", timeout=5)) as patient:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            patient.get_many([b"a"])
        signal.signal(signal.SIGALRM, before)
        server.send(signal.SIGCONT)
        assert patient.get_many([b"b"]) == [b"of b"]
        assert patient.stats()["connections"] == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_its_own_connections(servers: list[Server]) -> None:
    places = [f"127.0.0.1:{server.port}" for server in servers]
    with closing(MemcachedTier(places, timeout=5)) as tier:
        keys = [b"%d" % at for at in range(100)]
        tier.set_many([Item(key, key) for key in keys])
        before = tier.stats()["connections"]
        pid = fork(
            lambda: tier.get_many(keys) == keys and tier.stats()["connections"] == before + 3
        )
        for _ in range(50):
            assert tier.get_many(keys) == keys
        assert exit_code(pid) == 0
        assert tier.stats()["connections"] == before


def test_closing_while_calls_are_under_way(server: Server) -> None:
    tier = MemcachedTier(f"127.0.0.1:{server.port}", timeout=5)
    ended: list[str] = []

    def use() -> None:
        try:
            while True:
                tier.set_many([Item(b"a", b"1")])
        except TierError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    tier.close()
    for thread in threads:
        thread.join(5)
    assert ended == ["memcached is closed"] * 4
    assert tier._servers[0].idle == []
