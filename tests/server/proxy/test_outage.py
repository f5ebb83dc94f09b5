"""The upstream stops, dies, lies or changes: what is served, what is refused, what is dropped."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from cachecore.tiers.testing import eventually
from server.proxy.conftest import Start
from server.proxy.proxies import ProxyProcess, client, trackers
from servers import Cluster, Sentinels, Server, redis_server


def is_up(proxy: ProxyProcess) -> bool:
    return bool(proxy.info()["upstream_status"] == "up")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_cached_keys_are_served_and_writes_refused(
    how: str, start: Start, upstream: Server
) -> None:
    proxy = start(upstream_timeout=0.3, max_stale=60, reply_timeout=0.6)
    with proxy.client() as some, proxy.client(protocol=3) as other:
        some.set("k", 1)
        some.hset("h", "f", 2)
        assert [some.get("k"), other.get("k")] == [b"1", b"1"]
        assert some.hgetall("h") == {b"f": b"2"}
        if how == "killed":
            upstream.kill()
        else:
            upstream.send(signal.SIGSTOP)
        eventually(lambda: proxy.info()["upstream_status"] == "down")
        served = proxy.info()["stale_served"]
        with proxy.client(protocol=3, client_name="late") as late:
            for one in (some, other, late):
                assert one.get("k") == b"1"
                assert one.hget("h", "f") == b"2"
                assert one.mget("k", "k") == [b"1", b"1"]
        if how == "killed":
            assert some.ping()
            assert late.ping()
        assert proxy.info()["stale_served"] >= served + 9
        eventually(lambda: proxy.info()["upstream_silent_seconds"] > 0)
        with proxy.client() as late:
            with pytest.raises(redis.ResponseError, match=r"unavailable: .*nothing was done"):
                late.set("k", 2)
            with pytest.raises(redis.ResponseError, match=r"upstream .* unavailable"):
                late.get("absent")
        with suppress(redis.RedisError):  # a line that was there waits for as long as it may
            some.set("k", 2)
        if how == "killed":
            upstream.start()
        else:
            upstream.send(signal.SIGCONT)
        eventually(lambda: is_up(proxy))
        with proxy.client() as late, client(upstream.port) as behind:
            assert late.get("k") == behind.get("k")
            assert late.set("k", 3)
            assert late.get("k") == b"3"


def test_not_for_longer_than_max_stale(start: Start, upstream: Server) -> None:
    proxy = start(upstream_timeout=0.2, max_stale=1)
    with proxy.client() as some:
        some.set("k", 1)
        assert some.get("k") == b"1"
        upstream.kill()
        eventually(lambda: proxy.info()["upstream_silent_seconds"] > 1)
        with pytest.raises(redis.ResponseError, match="unavailable"):
            some.get("k")


def test_killing_the_tracking_connection_drops_what_it_covered(
    start: Start, upstream: Server
) -> None:
    proxy = start()
    with client(upstream.port) as behind, proxy.client() as some, proxy.client(db=3) as third:
        behind.set("k", 1)
        assert [some.get("k"), third.get("k")] == [b"1", None]
        third.set("k", 3)
        assert third.get("k") == b"3"
        fills = proxy.info()["fills"]
        for number in trackers(behind):
            behind.client_kill_filter(_id=number)
        eventually(lambda: proxy.info()["drops"] == 2)
        eventually(lambda: is_up(proxy))
        assert [some.get("k"), third.get("k")] == [b"1", b"3"]
        assert proxy.info()["fills"] == fills + 2


def test_flushed_upstream(start: Start, upstream: Server) -> None:
    proxy = start()
    with client(upstream.port) as behind, proxy.client() as some:
        behind.mset({"a": 1, "b": 2})
        assert some.mget("a", "b") == [b"1", b"2"]
        behind.flushall()
        eventually(lambda: some.mget("a", "b") == [None, None])


def test_a_write_whose_reply_was_lost_is_an_error(start: Start, upstream: Server) -> None:
    proxy = start(upstream_timeout=0.3, reply_timeout=0.6)
    with proxy.client() as some:
        some.set("n", 0)
        upstream.send(signal.SIGSTOP)
        killer = threading.Timer(0.2, upstream.kill)
        killer.start()
        with pytest.raises(redis.ResponseError, match=r"lost.*may have been executed"):
            some.incr("n")
        killer.join()
        upstream.start()
        eventually(lambda: is_up(proxy))
        assert some.get("n") in (b"0", b"1")  # AOF: it may have been done; not twice


def test_a_stopped_upstream_does_not_hold_a_command_for_ever(
    start: Start, upstream: Server
) -> None:
    proxy = start(upstream_timeout=0.2, reply_timeout=0.5)
    with proxy.client() as some:
        some.set("n", 0)
        upstream.send(signal.SIGSTOP)
        with pytest.raises(redis.ResponseError, match=r"does not answer.*may have been executed"):
            some.incr("n")
        upstream.send(signal.SIGCONT)


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of its own kind: `answer` is called with each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,)).start()

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(5)
            answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def garbage(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" * 100)
    connection.recv(1)


def endless(connection: socket.socket) -> None:
    connection.recv(100)
    for _ in range(2000):
        connection.sendall(b"-" + b"x" * 100_000)


def huge(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"$999999999999\r\nx")
    connection.recv(1)


def dribble(connection: socket.socket) -> None:
    connection.recv(100)
    for byte in b"+PONG\r\n" * 100:
        connection.sendall(bytes((byte,)))
        time.sleep(0.05)


def hang(connection: socket.socket) -> None:
    while connection.recv(100):
        pass


def drop(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.parametrize("answer", [garbage, endless, huge, dribble, hang, drop])
def test_what_is_no_redis_costs_no_more_than_time(
    answer: Callable[[socket.socket], None], start: Start
) -> None:
    with listening(answer) as port:
        proxy = start(f"redis://127.0.0.1:{port}", upstream_timeout=0.3, reply_timeout=0.5)
        began = time.monotonic()
        with proxy.client() as some, pytest.raises(redis.ResponseError, match="upstream"):
            some.set("k", 1)
        assert time.monotonic() - began < 10
        assert proxy.info()["upstream_status"] in {"down", "doubtful"}
        proxy.close()


def test_a_server_that_cannot_track_is_only_forwarded_to(start: Start, tmp_path: Path) -> None:
    server = redis_server(tmp_path / "old", "--rename-command", "HELLO", "")
    try:
        proxy = start(f"redis://127.0.0.1:{server.port}")
        with proxy.client() as some:
            some.set("k", 1)
            assert [some.get("k") for _ in range(3)] == [b"1"] * 3
        facts = proxy.info()
        assert [facts["fills"], facts["upstream_tracking"]] == [0, "off"]
        proxy.process.terminate()
        proxy.process.wait(20)
        assert "cannot track" in proxy.errors()
    finally:
        server.kill()


def test_sigterm_loses_no_acknowledged_write(start: Start, upstream: Server) -> None:
    proxy = start()
    acked = [0] * 4

    def write(who: int) -> None:
        with suppress(redis.RedisError, OSError), proxy.client() as some:
            for number in range(1, 1_000_000):
                some.set(f"k{who}", number)
                acked[who] = number

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: all(number > 50 for number in acked))
    with proxy.client() as waiter:
        late: list[object] = []
        blocked = threading.Thread(target=lambda: late.append(waiter.blpop("list", timeout=1)))
        blocked.start()
        with client(upstream.port) as behind:
            eventually(lambda: behind.info("clients")["blocked_clients"] == 1)
        assert proxy.stop() == 0
        blocked.join()
    for thread in threads:
        thread.join()
    assert late == [None]  # what was under way got its reply
    with client(upstream.port) as behind:
        stored = [int(value or 0) for value in behind.mget([f"k{who}" for who in range(4)])]
    assert all(kept - got in (0, 1) for kept, got in zip(stored, acked, strict=True)), (
        stored,
        acked,
    )


def test_sentinels_replace_the_master(start: Start, tmp_path: Path) -> None:
    sentinels = Sentinels(tmp_path)
    try:
        places = ",".join(f"127.0.0.1:{one.port}" for one in sentinels.sentinels)
        proxy = start(f"redis+sentinel://{places}/{sentinels.service}", upstream_timeout=0.5)
        with proxy.client() as some:
            assert some.set("k", 1)
            assert [some.get("k"), some.get("k")] == [b"1", b"1"]
            some.wait(1, 1000)
        sentinels.master.kill()

        def written() -> bool:
            with proxy.client() as late, suppress(redis.RedisError):
                return bool(late.set("k", 2))
            return False

        eventually(written)
        with client(sentinels.replica.port) as behind, proxy.client() as late:
            assert behind.get("k") == b"2"
            assert late.get("k") == b"2"
            behind.set("k", 3)
            eventually(lambda: late.get("k") == b"3")
    finally:
        sentinels.kill()


def test_a_cluster_looks_like_one_server(start: Start, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        places = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
        proxy = start(f"redis+cluster://{places}", upstream_timeout=0.5)
        keys = [f"key:{at}" for at in range(60)]
        with proxy.client() as some:
            pipe = some.pipeline(transaction=False)
            for at, key in enumerate(keys):
                pipe.set(key, at)
                pipe.get(key)
            expected = [answer for at in range(60) for answer in (True, str(at).encode())]
            assert pipe.execute() == expected
            for _ in range(2):
                assert [some.get(key) for key in keys] == [str(at).encode() for at in range(60)]
            assert proxy.info()["fills"] == 60
            pipe = some.pipeline()
            pipe.set("{a}1", 1).set("{a}2", 2).mget("{a}1", "{a}2")
            assert pipe.execute() == [True, True, [b"1", b"2"]]
            assert some.eval("return redis.call('get', KEYS[1])", 1, "key:7") == b"7"
            assert proxy.info()["tracking_connections"] == 3
            source = redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
            source.set("key:1", "new")
            eventually(lambda: some.get("key:1") == b"new")
            moved = source.keyslot("key:1")
            here = source.nodes_manager.get_node_from_slot(moved)
            there = next(node for node in cluster.nodes if node.port != here.port)
            migrate(here.port, there.port, moved, "key:1", finish=False)
            assert some.set("key:1", "while it moves")
            assert some.get("key:1") == b"while it moves"
            migrate(here.port, there.port, moved, "key:1", finish=True)
            assert some.set("key:1", "there")
            eventually(lambda: proxy.info()["redirects"] > 0)
            assert some.get("key:1") == b"there"
            source.close()
    finally:
        cluster.kill()


def migrate(source: int, target: int, slot: int, key: str, finish: bool) -> None:
    """Move a slot with one key, but for telling; then tell."""
    with client(source) as here, client(target) as there:
        mine, other = here.cluster("myid"), there.cluster("myid")
        if not finish:
            there.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", mine)
            here.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", other)
            here.execute_command("MIGRATE", "127.0.0.1", target, key, 0, 5000)
        else:
            there.execute_command("CLUSTER SETSLOT", slot, "NODE", other)
            here.execute_command("CLUSTER SETSLOT", slot, "NODE", other)
