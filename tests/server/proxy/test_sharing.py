"""Short writes of many clients on one connection: nobody can tell, not even by WAIT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from cachecore.tiers.testing import eventually
from server.proxy.proxies import ProxyProcess, Wire, client
from servers import Server, redis_server


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = redis_server(tmp_path_factory.mktemp("upstream"))
    yield server
    server.kill()


@pytest.fixture
def proxy(upstream: Server) -> Iterator[ProxyProcess]:
    with client(upstream.port) as behind:
        behind.flushall()
    one = ProxyProcess(f"redis://127.0.0.1:{upstream.port}")
    yield one
    one.close()


def test_one_connection_is_enough_for_short_writes(proxy: ProxyProcess) -> None:
    """One for each protocol and database, that is."""
    with ExitStack() as stack:
        some = [stack.enter_context(proxy.client(client_name=None)) for _ in range(20)]
        for one in some:
            assert one.set("k", 1)
            assert one.incr("n") > 0
            assert one.zadd("z", {"m": 1}) in (0, 1)
        plain = proxy.info()["upstream_connections"]
        with proxy.client(protocol=3) as other:
            assert other.hset("h", "f", 1) == 1
            assert other.zadd("z", {"m": 2.5}, incr=True) == 3.5
        assert proxy.info()["upstream_connections"] > plain
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            some[0].incr("h")
        assert [one.get("n") for one in some] == [b"20"] * 20


def test_each_clients_order_is_kept(proxy: ProxyProcess, upstream: Server) -> None:
    """What needs a connection of the client's own comes between what does not."""
    faults = []

    def talk(who: int) -> None:
        key = f"k{who}"
        with proxy.client() as some:
            for turn in range(30):
                pipe = some.pipeline(transaction=False)
                pipe.set(key, turn).getset(key, "x" * who).append(key, "y").lrange("none", 0, 1)
                pipe.set(key, "old").set(key, "new", get=True).strlen(key).incr(key + "n")
                pipe.execute_command("MULTI")
                pipe.append(key, "z").execute_command("EXEC")
                pipe.append(key, "!").get(key).delete(key).get(key)
                expected = [True, str(turn).encode(), who + 1, [], True, b"old", 3, turn + 1,
                            b"OK", b"QUEUED", [4], 5, b"newz!", 1, None]  # fmt: skip
                if (got := pipe.execute()) != expected:
                    faults.append((got, expected))

    threads = [threading.Thread(target=talk, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_databases_are_kept_apart(proxy: ProxyProcess, upstream: Server) -> None:
    wire = Wire(proxy.port)
    wire.send(b"SET k 0\r\nSELECT 3\r\nSET k 3\r\nSELECT 0\r\nAPPEND k 0\r\nSELECT 3\r\n")
    assert [wire.line() for _ in range(6)] == [b"+OK\r\n"] * 4 + [b":2\r\n", b"+OK\r\n"]
    wire.send(b"APPEND k 3\r\n")
    assert wire.line() == b":2\r\n"
    wire.close()
    with client(upstream.port) as zero, client(upstream.port, db=3) as third:
        assert [zero.get("k"), third.get("k")] == [b"00", b"33"]


def test_when_it_is_killed_the_next_one_serves(proxy: ProxyProcess, upstream: Server) -> None:
    with client(upstream.port) as behind, proxy.client() as some, proxy.client() as other:
        assert some.set("k", 1)
        mine = behind.client_id()
        for one in behind.client_list():
            if int(one["id"]) != mine and one["name"] != "cachecore-proxy":
                behind.client_kill_filter(_id=one["id"])
        eventually(lambda: proxy.info()["upstream_connections"] <= 1)
        assert [one.set("k", 2) for one in (some, other)] == [True, True]
        assert some.get("k") == b"2"


def test_a_stopped_upstream_does_not_fill_memory(proxy: ProxyProcess, upstream: Server) -> None:
    wire = Wire(proxy.port)
    wire.send(b"SET k 0\r\n")
    assert wire.line() == b"+OK\r\n"
    value = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10000\r\n" + b"x" * 10_000 + b"\r\n"
    upstream.send(signal.SIGSTOP)
    wire.sock.settimeout(1)
    sent = 0
    try:
        for _ in range(10_000):
            wire.send(value)
            sent += 1
    except TimeoutError:
        pass
    upstream.send(signal.SIGCONT)
    assert sent < 5000
    wire.sock.settimeout(10)
    assert [wire.line() for _ in range(sent)] == [b"+OK\r\n"] * sent
    wire.close()


def test_wait_waits_for_what_was_written_there(
    proxy: ProxyProcess, upstream: Server, tmp_path: Path
) -> None:
    place = ("--replicaof", f"127.0.0.1 {upstream.port}")
    replica = redis_server(tmp_path / "replica", *place)
    try:
        with proxy.client() as some:
            some.set("k", 1)
            eventually(lambda: some.wait(1, 100) == 1)
            replica.send(signal.SIGSTOP)
            some.set("k", 2)
            assert some.wait(1, 200) == 0
            pipe = some.pipeline(transaction=False)
            pipe.set("k", 3).wait(1, 200)
            assert pipe.execute() == [True, 0]
            assert some.pipeline().wait(1, 200).get("k").execute() == [0, b"3"]
            replica.send(signal.SIGCONT)
            assert some.wait(1, 5000) == 1
        with client(upstream.port) as behind, proxy.client() as late:
            late.set("k", 4)
            behind.acl_setuser("default", commands=["-publish"])
            with pytest.raises(
                redis.exceptions.NoPermissionError
            ):  # nobody knows, so nothing is claimed
                late.wait(1, 5000)
            behind.acl_setuser("default", enabled=True, nopass=True, keys=["*"], channels=["*"],
                               categories=["+@all"])  # fmt: skip
    finally:
        replica.kill()
