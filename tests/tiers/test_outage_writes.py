"""Writes and deletions that Redis has missed: none is forgotten, and nothing older is returned."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from cachecore.errors import TierError
from cachecore.tiers import MmapTier, ledger
from cachecore.tiers.testing import eventually
from servers import Server
from support import Clock
from tiers.outages import Calls, redis_cache
from tiers.proxy import Proxy

FAULTS: dict[str, tuple[Callable[[Server], object], Callable[[Server], object]]] = {
    "killed": (Server.kill, Server.start),
    "stopped": (lambda it: it.send(signal.SIGSTOP), lambda it: it.send(signal.SIGCONT)),
}


def refuse_writes(server: Server) -> None:
    with redis.Redis(port=server.port) as client:
        client.replicaof("127.0.0.1", 1)


def allow_writes(server: Server) -> None:
    with redis.Redis(port=server.port) as client:
        client.replicaof("NO", "ONE")


FAULTS["read-only"] = refuse_writes, allow_writes


def made_up(calls: Calls) -> bool:
    return calls.cache.levels[-1].ledger is None


@pytest.mark.parametrize("fault", FAULTS)
def test_remembered_and_made_up_for(
    server: Server, runner: asyncio.Runner | None, fault: str
) -> None:
    down, up = FAULTS[fault]
    with redis_cache(server.port, runner) as calls, redis_cache(server.port) as other:
        calls.set_many({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1})
        assert other.get_many(["a", "b", "c", "d", "e"]) == [1] * 5
        down(server)
        calls.set("a", 2)
        calls.set("b", 2)
        calls.set("b", 3)
        calls.delete("c")
        calls.set("d", 2)
        calls.delete("d")
        calls.delete("e")
        calls.set("e", 2)
        calls.set("new", 2)
        assert calls.tier.owed == 6
        for _ in range(3):  # an older value is there, and must never be seen by this cache
            assert calls.get_many(["a", "b", "c", "d", "e"]) == [2, 3, None, None, 2]
            calls.cache.l0.clear()  # what is owed is known all the same
        calls.cache.l0.clear()
        up(server)
        while not made_up(calls):
            assert calls.fresh("a") == 2
            assert calls.fresh("b") == 3
            assert calls.fresh("c") is None
            assert calls.fresh("d") is None
        assert calls.tier.owed == 0
        assert calls.cache.stats().replayed == 6
        calls.cache.l0.clear()
        expected = [2, 3, None, None, 2, 2]
        assert calls.get_many(["a", "b", "c", "d", "e", "new"]) == expected
        other.cache.l0.clear()
        other.cache.levels[-1].generation_read = 0
        assert other.get_many(["a", "b", "c", "d", "e", "new"]) == expected


def test_not_over_what_others_have_written_since(
    server: Server, proxy: Proxy, runner: asyncio.Runner | None
) -> None:
    with redis_cache(proxy.port, runner) as calls, redis_cache(server.port) as other:
        calls.set("a", "ours, first")
        calls.set("b", "ours, first")
        proxy.refuse()
        calls.set("a", "ours, missed")
        calls.delete("b")
        time.sleep(0.01)
        other.set("a", "theirs, later")
        other.set("b", "theirs, later")
        proxy.pass_on()
        eventually(lambda: made_up(calls))
        assert calls.fresh("a") == "theirs, later"
        assert calls.fresh("b") == "theirs, later"
        proxy.refuse()
        other.set("a", "theirs, earlier")
        time.sleep(0.01)
        calls.set("a", "ours, later")
        proxy.pass_on()
        eventually(lambda: made_up(calls))
        assert other.fresh("a") == "ours, later"


def test_with_what_has_expired_meanwhile(server: Server, proxy: Proxy) -> None:
    with redis_cache(proxy.port) as calls, redis_cache(server.port) as other:
        calls.set_many({"short": 1, "long": 1})
        proxy.refuse()
        calls.set("short", 2, ttl=0.05)
        calls.set("long", 2, ttl=60)
        time.sleep(0.06)
        proxy.pass_on()
        eventually(lambda: made_up(calls))
        assert other.fresh("short") is None
        assert other.fresh("long") == 2
        with redis.Redis(port=server.port) as client:
            assert 50_000 < client.pttl("test:long") < 60_000


def test_a_set_that_succeeds_settles_what_was_missed(
    proxy: Proxy, runner: asyncio.Runner | None
) -> None:
    with redis_cache(proxy.port, runner) as calls:
        proxy.refuse()
        calls.set("a", 1)
        assert calls.tier.owed == 1
        proxy.pass_on()
        eventually(lambda: calls.set("a", 2) is None and calls.tier.owed == 0)
        assert calls.fresh("a") == 2
        eventually(lambda: made_up(calls))
        assert calls.fresh("a") == 2


def test_more_than_is_remembered(
    server: Server, proxy: Proxy, runner: asyncio.Runner | None, clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ledger, "MOST_KEYS", 50)
    with (
        redis_cache(proxy.port, runner, timer=clock) as calls,
        redis_cache(server.port, timer=clock) as other,
    ):
        calls.set_many(dict.fromkeys(range(200), "old"))
        assert other.get(199) == "old"
        proxy.refuse()
        for at in range(100):
            calls.set(at, "new")
        assert calls.cache.stats().ledgers_overflowed >= 1
        calls.cache.l0.clear()
        proxy.pass_on()
        while not made_up(calls):  # not one of them, written over or not
            assert calls.fresh(150) is None
            assert calls.fresh(50) is None
        assert calls.get_many(list(range(200))).count("old") == 0
        # Others notice when they next read the generation, a second later at most.
        clock.advance(1.0)
        other.cache.l0.clear()
        assert other.get_many(list(range(200))).count("old") == 0
        calls.set(7, "newer")
        assert other.fresh(7) == "newer"


def test_more_than_is_remembered_without_envelopes(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no generations cannot be made void: it is not read any more."""
    monkeypatch.setattr(ledger, "MOST_KEYS", 5)
    with redis_cache(proxy.port, codec="raw") as calls:
        calls.set_many({f"{at}": b"old" for at in range(20)})
        proxy.refuse()
        calls.delete_many([f"{at}" for at in range(10)])
        proxy.pass_on()
        time.sleep(1)
        for at in range(20):
            assert calls.fresh(f"{at}") is None


def test_strict(server: Server, runner: asyncio.Runner | None) -> None:
    with redis_cache(server.port, runner, strict=True) as calls:
        calls.set("a", 1)
        server.kill()
        with pytest.raises(TierError):
            calls.set("a", 2)
        with pytest.raises(TierError):
            calls.delete("b")
        with pytest.raises(TierError):
            calls.invalidate("test")
        assert calls.tier.owed == 1  # the writes are void with all the rest
        server.start()
        eventually(lambda: made_up(calls))
        calls.set("a", 3)
        assert calls.fresh("a") == 3


@pytest.mark.parametrize("what", ["namespace", "tag"])
def test_an_invalidation_during_an_outage(
    server: Server, proxy: Proxy, runner: asyncio.Runner | None, clock: Clock, what: str
) -> None:
    with (
        redis_cache(proxy.port, runner, timer=clock) as calls,
        redis_cache(server.port, timer=clock) as other,
    ):
        calls.set_many({"a": 1, "b": 1}, tags=["red"])
        calls.set("plain", 1)
        assert other.get_many(["a", "b", "plain"]) == [1, 1, 1]
        proxy.refuse()
        calls.set("c", 1, tags=["red"])  # owed, and void before it is made up for
        calls.invalidate("red" if what == "tag" else "test")
        calls.set("d", 1, tags=["red"])  # owed, and good
        assert calls.get_many(["a", "b", "c", "d"]) == [None, None, None, 1]
        calls.cache.l0.clear()
        proxy.pass_on()
        while not made_up(calls):
            assert calls.fresh("a") is None
            assert calls.fresh("c") is None
        assert calls.fresh("c") is None
        assert calls.fresh("d") == 1
        assert calls.fresh("plain") == (1 if what == "tag" else None)
        clock.advance(1.05)  # by then others have noticed
        other.get("d")
        assert other.get_many(["a", "b", "c", "d"]) == [None, None, None, 1]


def test_a_write_after_an_invalidation_that_is_owed(proxy: Proxy) -> None:
    """Redis is back, but its generation has not been replaced yet: the write goes after that."""
    with redis_cache(proxy.port) as calls:
        calls.set("a", 1)
        proxy.refuse()
        calls.invalidate("test")
        proxy.pass_on()
        calls.set("a", 2)
        eventually(lambda: made_up(calls))
        assert calls.fresh("a") == 2


def test_a_value_that_was_changed_until_nobody_can_write_it(proxy: Proxy) -> None:
    with redis_cache(proxy.port) as calls:
        calls.set_many({"a": 1, "b": 1})
        proxy.refuse()
        mutable: list[Any] = [1]
        calls.set("a", mutable)
        calls.set("b", 2)
        mutable.append(object())
        proxy.pass_on()
        eventually(lambda: made_up(calls))
        assert calls.fresh("a") is None
        assert calls.fresh("b") == 2


def test_what_is_owed_when_the_cache_is_closed(
    server: Server, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_cache(proxy.port) as calls:
        proxy.refuse()
        calls.set("a", 1)
        proxy.pass_on()
        calls.breaker._circuit._retry_at = 0.0
    with redis_cache(server.port) as other:
        assert other.get("a") == 1  # close() has made up for it
    with redis_cache(proxy.port) as calls:
        proxy.refuse()
        calls.set("a", 2)
    assert "have missed 1 writes" in caplog.text


def test_the_tiers_above_go_on(tmp_path: Path, proxy: Proxy, runner: asyncio.Runner | None) -> None:
    mmap = MmapTier(tmp_path / "mmap", max_bytes="4MB")
    with redis_cache(proxy.port, runner, above=[mmap]) as calls:
        calls.set_many({"a": 1, "b": 1})
        proxy.refuse()
        calls.set("a", 2)
        calls.delete("b")
        assert calls.fresh("a") == 2
        assert calls.fresh("b") is None
        proxy.pass_on()
        eventually(lambda: made_up(calls))
        assert calls.get_many(["a", "b"]) == [2, None]
        mmap.delete_many([b"test:a"])
        assert calls.fresh("a") == 2
