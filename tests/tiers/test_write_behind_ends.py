"""WriteBehind in outages and faults, at the end of tiers, threads and processes, among threads."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import eventually
from cachecore.tiers.write_behind import WriteBehind
from servers import Server, memcached_server
from tiers.children import in_child

LONG = 1000.0  # a delay that no test waits for: what is put waits until flush()


def many(count: int, data: bytes = b"x" * 10) -> list[Item]:
    return [Item(b"%03d" % at, data) for at in range(count)]


def test_an_outage(tmp_path: Path) -> None:
    server = memcached_server(tmp_path)
    inner = MemcachedTier(f"127.0.0.1:{server.port}", timeout=0.1)
    with closing(WriteBehind(inner, delay=0.01)) as tier:
        server.kill()
        tier.set_many(many(100))
        eventually(lambda: tier.stats()["failed"] > 1)
        tier.set_many(many(50, b"newer"))
        tier.delete_many([b"099"])
        assert tier.get_many([b"000", b"099"]) == [b"newer", None]
        with pytest.raises(TierError) as caught:
            tier.get_many([b"000", b"other"])
        assert caught.value.values == [b"newer", None]
        with pytest.raises(TierError):
            tier.flush()
        server.start()
        eventually(lambda: tier.stats()["waiting"] == 0)
        values = inner.get_many([item.key for item in many(100)])
        assert values == [b"newer"] * 50 + [b"x" * 10] * 49 + [None]
        assert tier.stats()["lost"] == 0
    server.kill()


def test_what_comes_while_a_batch_is_being_done(tmp_path: Path) -> None:
    server = memcached_server(tmp_path)
    inner = MemcachedTier(f"127.0.0.1:{server.port}", timeout=5)
    with closing(WriteBehind(inner, delay=0.001)) as tier:
        server.send(signal.SIGSTOP)
        tier.set_many([Item(b"a", b"1"), Item(b"b", b"1")])
        eventually(lambda: tier.backlog.waiting() == 0)  # both are being done
        tier.set_many([Item(b"a", b"2")])
        tier.delete_many([b"b"])
        assert tier.get_many([b"a", b"b"]) == [b"2", None]
        with pytest.raises(TierTimeoutError, match="still busy"):
            tier.flush(0.05)
        server.send(signal.SIGCONT)
        eventually(lambda: tier.stats()["waiting"] == 0)
        assert inner.get_many([b"a", b"b"]) == [b"2", None]
    server.kill()


class Faulty(Tier):
    """A tier with a fault, until it is mended."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.error: Exception | None = ValueError("a fault")

    def set_many(self, items: Sequence[Item]) -> None:
        if self.error:
            raise self.error
        self.kept.update((item.key, item.data) for item in items)

    def close(self) -> None:
        pass


def test_a_fault_is_told_and_not_met_again() -> None:
    heard: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda caught: heard.append(caught.exc_value)
    faulty = Faulty()
    try:
        with closing(WriteBehind(faulty, delay=0.001)) as tier:
            tier.set_many([Item(b"a", b"12")])
            eventually(lambda: tier.stats()["waiting"] == 0)
            assert heard == [faulty.error]
            assert (tier.stats()["lost"], tier.stats()["lost_bytes"]) == (1, 3)
            faulty.error = None
            tier.set_many([Item(b"b", b"2")])
            eventually(lambda: faulty.kept == {b"b": b"2"})
    finally:
        sys.unraisablehook = before


def test_close_writes_what_waits(memcached: Server) -> None:
    place = f"127.0.0.1:{memcached.port}"
    for close in (lambda tier: tier.close(), lambda tier: asyncio.run(tier.aclose())):
        tier = WriteBehind(MemcachedTier(place, timeout=5), delay=LONG)
        tier.set_many(many(1000))
        close(tier)
        close(tier)
        with pytest.raises(TierError, match="is closed"):
            tier.set_many(many(1))
        with pytest.raises(TierError, match="is closed"):
            asyncio.run(tier.adelete_many([b"a"]))
        with closing(MemcachedTier(place, timeout=5)) as reader:
            assert reader.delete_many([item.key for item in many(1000)]) == 1000


def test_close_says_what_is_lost() -> None:
    faulty = Faulty()
    faulty.error = TierError("it is down")
    tier = WriteBehind(faulty, close_timeout=0.2)
    tier.set_many(many(7))
    begin = time.monotonic()
    with pytest.warns(RuntimeWarning, match="7 operations waited for it: they are lost"):
        tier.close()
    assert 0.15 < time.monotonic() - begin < 1.2
    assert (tier.stats()["lost"], tier.stats()["lost_bytes"]) == (7, 91)


def test_the_end_of_the_interpreter(memcached: Server) -> None:
    program = f"""
from cachecore.tiers.base import Item
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.write_behind import WriteBehind
tier = WriteBehind(MemcachedTier("127.0.0.1:{memcached.port}", timeout=5), delay=1000)
tier.set_many([Item(b"written at the end", b"1")])
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
    reader = MemcachedTier(f"127.0.0.1:{memcached.port}", timeout=5)
    assert reader.delete_many([b"written at the end"]) == 1
    reader.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_writes_its_own(inner: MemcachedTier) -> None:
    tier = WriteBehind(inner, delay=LONG)
    tier.set_many([Item(b"parent", b"1")])

    def child() -> bool:
        assert tier.stats()["waiting"] == 0
        tier.set_many([Item(b"child", b"2")])
        assert tier.get_many([b"child", b"parent"]) == [b"2", None]
        tier.flush()
        return tier.add(Item(b"added", b"3"))

    assert in_child(child) == 0
    assert inner.get_many([b"parent", b"child", b"added"]) == [None, b"2", b"3"]
    assert tier.stats()["waiting"] == 1
    tier.flush()
    assert inner.get_many([b"parent"]) == [b"1"]


def test_the_thread_ends_when_it_idles(
    inner: MemcachedTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachecore.tiers.writer.IDLE", 0.02)
    with closing(WriteBehind(inner, delay=0.001, name="to end soon")) as tier:
        for turn in range(20):
            tier.set_many([Item(b"a", b"%d" % turn)])
            eventually(partial(has, inner, b"%d" % turn))
            if turn % 5 == 0:
                eventually(lambda: "to end soon: writer" not in names_of_threads())


def has(tier: Tier, data: bytes) -> bool:
    return tier.get_many([b"a"]) == [data]


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_many_writers(inner: MemcachedTier) -> None:
    """Each thread reads what it wrote last, at every moment; at the end all of it is there."""
    wrong: list[object] = []

    def work(name: int, tier: WriteBehind) -> None:
        for turn in range(1000):
            key, value = b"%d:%d" % (name, turn % 7), b"%d" % turn
            if turn % 11 == 0:
                tier.delete_many([key])
                value = None  # type: ignore[assignment]
            else:
                tier.set_many([Item(key, value)])
            if turn % 5 == 0 and tier.get_many([key]) != [value]:
                wrong.append((key, value))

    with closing(WriteBehind(inner, delay=0.001, batch=3)) as tier:
        threads = [threading.Thread(target=work, args=(name, tier)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        tier.flush()
        last = {turn % 7: b"%d" % turn if turn % 11 else None for turn in range(1000)}
        for name in range(4):
            keys = [b"%d:%d" % (name, at) for at in last]
            assert inner.get_many(keys) == list(last.values())
        assert tier.stats()["waiting_bytes"] == 0
