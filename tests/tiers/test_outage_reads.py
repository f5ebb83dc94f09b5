"""Redis in trouble under a TieredCache: reads go to the loader in time, and come back after it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from cachecore.tiers.testing import eventually
from servers import Server, free_port, redis_server
from support import Clock
from tiers.outages import DEADLINE, Calls, redis_cache
from tiers.proxy import Proxy

Loads = list[Any]


def value(key: str) -> bytes:
    return f"the value of {key}".encode() * 100


@contextmanager
def loading(
    port: int, runner: asyncio.Runner | None, **settings: Any
) -> Iterator[tuple[Calls, Loads]]:
    """A cache with a loader that keeps account."""
    loads: Loads = []

    def load(key: str) -> bytes:
        loads.append(key)
        return value(key)

    with redis_cache(port, runner, loader=load, **settings) as calls:
        yield calls, loads


def falls_through(calls: Calls, loads: Loads, reads: int = 12) -> None:
    """While the tier is in trouble every read is loaded in time, and then without asking it."""
    before = calls.tier
    for at in range(reads):
        key = f"in trouble {at}"
        assert calls.get(key) == value(key)
        assert loads[-1] == key
    assert calls.get_many(["in trouble 0", "in trouble x"]) == [
        value("in trouble 0"), value("in trouble x"),
    ]  # fmt: skip
    assert calls.tier.errors >= before.errors + 5
    assert calls.tier.hits == before.hits
    assert calls.tier.own["opened"] >= 1
    calls.breaker._circuit._retry_at = time.monotonic() + 60  # no probe for a while
    asked = {name: calls.tier.own[name] for name in ("made", "errors", "timeouts", "refusals")}
    refused = calls.tier.own["refused"]
    begin = time.monotonic()
    for at in range(20):
        calls.get(f"refused {at}")
    assert time.monotonic() - begin < DEADLINE * 5  # none of them waited
    assert calls.tier.own["refused"] >= refused + 20
    assert {name: calls.tier.own[name] for name in asked} == asked
    calls.breaker._circuit._retry_at = 0.0


def comes_back(calls: Calls, loads: Loads) -> None:
    """A probe notices that the tier is back, and what is loaded then is found there."""
    turns = iter(range(10_000))

    def hit() -> bool:
        key = f"after it {next(turns)}"
        calls.get(key)
        calls.cache.l0.clear()
        count = len(loads)
        return bool(calls.get(key) == value(key)) and len(loads) == count

    eventually(hit)
    count, hits = len(loads), calls.tier.hits
    for key in ("a", "b"):
        calls.get(key)
    calls.cache.l0.clear()
    assert calls.get_many(["a", "b"]) == [value("a"), value("b")]
    assert len(loads) <= count + 2
    assert calls.tier.hits == hits + (2 if len(loads) == count + 2 else 4)
    assert calls.breaker.state == "closed"


def test_absent_from_the_start(tmp_path: Path, runner: asyncio.Runner | None) -> None:
    port = free_port()
    with loading(port, runner) as (calls, loads):
        falls_through(calls, loads)
        server = redis_server(tmp_path, port=port)
        comes_back(calls, loads)
    server.kill()


def test_killed_and_empty_again(server: Server, runner: asyncio.Runner | None) -> None:
    with loading(server.port, runner) as (calls, loads):
        comes_back(calls, loads)
        server.kill()
        falls_through(calls, loads)
        assert calls.get("a") == value("a")
        server.start()
        comes_back(calls, loads)


def test_stopped(server: Server, runner: asyncio.Runner | None) -> None:
    with loading(server.port, runner) as (calls, loads):
        comes_back(calls, loads)
        server.send(signal.SIGSTOP)
        falls_through(calls, loads)
        assert calls.tier.timeouts >= 5
        server.send(signal.SIGCONT)
        comes_back(calls, loads)


def test_a_stopped_one_costs_one_deadline_a_call(
    server: Server, runner: asyncio.Runner | None, clock: Clock
) -> None:
    """What failed in a call is not asked again in it: no second deadline for the write."""
    with loading(server.port, runner, timer=clock) as (calls, loads):
        comes_back(calls, loads)
        server.send(signal.SIGSTOP)
        clock.advance(1)  # so that generations are asked for, too
        begin = time.monotonic()
        calls.get("slow")
        assert DEADLINE * 0.9 < time.monotonic() - begin < DEADLINE * 1.9
        assert calls.tier.timeouts == 1
        server.send(signal.SIGCONT)
        comes_back(calls, loads)


FAULTS: dict[str, Callable[[Proxy], object]] = {
    "refusing": Proxy.refuse,
    "resetting": Proxy.reset,
    "stalling": Proxy.stall,
    "dribbling": lambda proxy: proxy.dribble(0.05),
    "cut in mid-reply": lambda proxy: proxy.cut(3),
    "reset in mid-reply": lambda proxy: proxy.reset(2),
    "late": lambda proxy: proxy.delay(DEADLINE * 1.5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_on_the_way(proxy: Proxy, runner: asyncio.Runner | None, fault: str) -> None:
    with loading(proxy.port, runner) as (calls, loads):
        comes_back(calls, loads)
        FAULTS[fault](proxy)
        falls_through(calls, loads)
        proxy.pass_on()
        comes_back(calls, loads)


def test_killed_in_mid_reply(proxy: Proxy, server: Server, runner: asyncio.Runner | None) -> None:
    with loading(proxy.port, runner) as (calls, loads):
        calls.get_many([f"key {at}" for at in range(100)])
        calls.cache.l0.clear()
        proxy.cut(20_000)  # some of the hundred values
        count = len(loads)
        values = calls.get_many([f"key {at}" for at in range(100)])
        assert values == [value(f"key {at}") for at in range(100)]
        assert len(loads) > count
        server.kill()
        falls_through(calls, loads)
        server.start()
        proxy.pass_on()
        comes_back(calls, loads)


def test_loading(tmp_path: Path, runner: asyncio.Runner | None) -> None:
    before = redis_server(tmp_path)
    with redis.Redis(port=before.port) as client:
        client.mset({f"key {at}": os.urandom(2000) for at in range(60)})
        client.save()
    before.kill()
    slowly = ["--key-load-delay", "30000", "--loading-process-events-interval-bytes", "1024"]
    server = redis_server(tmp_path, *slowly, port=before.port)
    with loading(server.port, runner) as (calls, loads):
        falls_through(calls, loads)
        assert calls.tier.own["refusals"] >= 5
        comes_back(calls, loads)
    server.kill()


def test_read_only(server: Server, runner: asyncio.Runner | None) -> None:
    with loading(server.port, runner) as (calls, loads), redis.Redis(port=server.port) as client:
        comes_back(calls, loads)
        client.replicaof("127.0.0.1", 1)
        refusals = calls.tier.own["refusals"]
        for at in range(20):
            assert calls.fresh(f"read only {at}") == value(f"read only {at}")
        assert calls.tier.own["refusals"] >= refusals + 10  # the writes
        count = len(loads)
        assert calls.fresh("a") == value("a")  # can still be read
        assert len(loads) == count
        calls.set("a", b"new")
        assert calls.fresh("a") == b"new"  # what is owed is known, and the older not read
        assert len(loads) == count
        calls.delete("a")
        client.replicaof("NO", "ONE")
        comes_back(calls, loads)
        eventually(lambda: calls.tier.owed == 0)


def test_read_only_and_empty(server: Server, runner: asyncio.Runner | None) -> None:
    """Nobody can put a generation there: that is a failure, not an exception of a read."""
    with redis.Redis(port=server.port) as client:
        client.replicaof("127.0.0.1", 1)
        with loading(server.port, runner) as (calls, loads):
            for at in range(10):
                assert calls.fresh(f"key {at}") == value(f"key {at}")
            assert calls.tier.own["refusals"] >= 10
            client.replicaof("NO", "ONE")
            comes_back(calls, loads)


def test_out_of_memory(server: Server, runner: asyncio.Runner | None) -> None:
    with loading(server.port, runner) as (calls, loads), redis.Redis(port=server.port) as client:
        comes_back(calls, loads)
        client.config_set("maxmemory", 1)
        count = len(loads)
        assert calls.fresh("a") == value("a")
        assert len(loads) == count  # can still be read
        for at in range(10):
            assert calls.fresh(f"no room {at}") == value(f"no room {at}")
        assert calls.tier.own["refusals"] >= 5
        client.config_set("maxmemory", 0)
        comes_back(calls, loads)


def test_wrong_password(server: Server, runner: asyncio.Runner | None) -> None:
    with redis.Redis(port=server.port) as client:
        client.config_set("requirepass", "secret")
    with loading(server.port, runner, user=":guess@") as (calls, loads):
        falls_through(calls, loads)
        with redis.Redis(port=server.port, password="secret") as client:
            client.config_set("requirepass", "guess")
            client.connection_pool.disconnect()
        comes_back(calls, loads)


def test_a_reader_without_the_right_to_write(server: Server, runner: asyncio.Runner | None) -> None:
    with redis.Redis(port=server.port) as client:
        client.acl_setuser("reader", True, passwords=["+secret"], keys=["*"], commands=["+@read"])
    with loading(server.port, None) as (writer, _):
        writer.get("a")
        with loading(server.port, runner, user="reader:secret@") as (calls, mine):
            assert calls.get("a") == value("a")
            assert not mine
            for at in range(10):
                assert calls.get(f"key {at}") == value(f"key {at}")
            assert calls.tier.errors >= 5
