"""WriteBehind: the contract, what waits, what there is no room for, outages and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import TierContract, eventually
from cachecore.tiers.write_behind import WriteBehind
from servers import Server, memcached_server

LONG = 1000.0  # a delay that no test waits for: what is put waits until flush()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = memcached_server(tmp_path_factory.mktemp("memcached"))
    yield server
    server.kill()


@pytest.fixture
def inner(server: Server, request: pytest.FixtureRequest) -> Iterator[MemcachedTier]:
    prefix = f"{getattr(request.cls, '__name__', '')}.{request.node.name}:"
    tier = MemcachedTier(f"127.0.0.1:{server.port}", timeout=5, prefix=prefix)
    yield tier
    tier.close()


class TestContract(TierContract):
    tells_deletions = False

    @pytest.fixture
    def tier(self, inner: MemcachedTier) -> Iterator[WriteBehind]:
        tier = WriteBehind(inner, delay=0.001)
        yield tier
        tier.close()


class TestContractOfWhatWaits(TestContract):
    @pytest.fixture
    def tier(self, inner: MemcachedTier) -> Iterator[WriteBehind]:
        tier = WriteBehind(inner, delay=LONG)
        yield tier
        tier.close()


class TestContractWithLittleRoom(TestContract):
    @pytest.fixture
    def tier(self, inner: MemcachedTier) -> Iterator[WriteBehind]:
        tier = WriteBehind(inner, delay=0.001, max_items=20, overflow="block", block_timeout=20)
        yield tier
        tier.close()


@pytest.fixture
def tier(inner: MemcachedTier) -> Iterator[WriteBehind]:
    tier = WriteBehind(inner, delay=LONG)
    yield tier
    tier.close()


# --- what waits


def test_reads_see_what_waits(tier: WriteBehind, inner: MemcachedTier) -> None:
    inner.set_many([Item(b"a", b"old"), Item(b"b", b"old"), Item(b"c", b"old")])
    tier.set_many([Item(b"a", b"new")])
    assert tier.delete_many([b"b", b"a2"]) == 0
    keys = [b"c", b"a", b"b", b"none", b"a"]
    assert tier.get_many(keys) == [b"old", b"new", None, None, b"new"]
    assert asyncio.run(tier.aget_many(keys)) == [b"old", b"new", None, None, b"new"]
    assert inner.get_many([b"a", b"b"]) == [b"old", b"old"]
    assert tier.stats()["waiting"] == 3
    tier.flush()
    assert inner.get_many(keys) == [b"old", b"new", None, None, b"new"]
    assert tier.get_many(keys) == [b"old", b"new", None, None, b"new"]
    assert (tier.stats()["waiting"], tier.stats()["waiting_bytes"]) == (0, 0)
    assert tier.stats()["written"] == 3


def test_the_last_operation_of_a_key_is_done(tier: WriteBehind, inner: MemcachedTier) -> None:
    for turn in range(10):
        tier.set_many([Item(b"a", b"%d" % turn)])
    assert tier.delete_many([b"a"]) == 1
    tier.set_many([Item(b"a", b"last"), Item(b"b", b"1")])
    tier.delete_many([b"b"])
    assert tier.stats()["waiting"] == 2
    tier.flush()
    assert inner.get_many([b"a", b"b"]) == [b"last", None]
    assert tier.stats()["written"] == 2


def test_the_thread_does_it(inner: MemcachedTier) -> None:
    with closing(WriteBehind(inner, delay=0.001, batch=7)) as tier:
        for turn in range(5):
            items = [Item(b"%d" % at, b"%d" % turn) for at in range(100)]
            tier.set_many(items)
            eventually(lambda: tier.stats()["waiting"] == 0)
            assert inner.get_many([item.key for item in items]) == [b"%d" % turn] * 100


def test_lifetimes_go_on_while_it_waits(tier: WriteBehind, inner: MemcachedTier) -> None:
    inner.set_many([Item(b"a", b"old")])
    tier.set_many([Item(b"a", b"1", 50), Item(b"b", b"2", 500)])
    assert tier.get_many([b"a", b"b"]) == [b"1", b"2"]
    time.sleep(0.1)
    assert tier.get_many([b"a", b"b"]) == [None, b"2"]
    tier.flush()
    assert inner.get_many([b"a", b"b"]) == [None, b"2"]  # what was older did not come back
    begin = time.monotonic()
    eventually(lambda: inner.get_many([b"b"]) == [None])
    assert time.monotonic() - begin < 0.45


def test_add_and_what_waits(tier: WriteBehind, inner: MemcachedTier) -> None:
    inner.set_many([Item(b"deleted", b"old"), Item(b"there", b"old"), Item(b"over", b"old")])
    tier.set_many([Item(b"waits", b"1"), Item(b"over", b"1", 1)])
    tier.delete_many([b"deleted"])
    time.sleep(0.05)
    keys = [b"deleted", b"waits", b"there", b"over", b"none"]
    assert [tier.add(Item(key, b"added")) for key in keys] == [True, False, False, True, True]
    assert tier.get_many(keys) == [b"added", b"1", b"old", b"added", b"added"]
    tier.delete_many([b"none"])
    assert asyncio.run(tier.aadd(Item(b"none", b"again"))) is True
    tier.flush()
    assert tier.get_many(keys) == [b"added", b"1", b"old", b"added", b"again"]


def test_what_is_demoted_is_not_overwritten(tier: WriteBehind, inner: MemcachedTier) -> None:
    tier.set_many([Item(b"a", b"older"), Item(b"b", b"1")])
    tier.demote_many([Item(b"a", b"newer")], [3])
    assert inner.get_many([b"a", b"b"]) == [b"newer", None]
    tier.flush()
    assert inner.get_many([b"a", b"b"]) == [b"newer", b"1"]


class Encoder:
    """Data that is made when it is needed."""

    def __init__(self, data: bytes | None) -> None:
        self.data, self.nbytes, self.calls = data, len(data or b""), 0

    def __call__(self) -> bytes:
        self.calls += 1
        if self.data is None:
            raise TypeError("this cannot be encoded")
        return self.data


def test_functions_as_data(tier: WriteBehind, inner: MemcachedTier) -> None:
    assert tier.lazy
    assert not inner.lazy
    later: Any = Encoder(b"1234")
    tier.set_many([Item(b"ab", later)])
    assert (later.calls, tier.stats()["waiting_bytes"]) == (0, 6)
    assert tier.get_many([b"ab"]) == [b"1234"]
    tier.flush()
    assert inner.get_many([b"ab"]) == [b"1234"]


def test_a_function_that_raises(tier: WriteBehind, inner: MemcachedTier) -> None:
    heard: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda caught: heard.append(caught.exc_value)
    try:
        inner.set_many([Item(b"a", b"old")])
        never: Any = Encoder(None)
        tier.set_many([Item(b"a", never), Item(b"b", b"1")])
        assert tier.get_many([b"a", b"b"]) == [None, b"1"]
        tier.flush()
    finally:
        sys.unraisablehook = before
    assert [str(error) for error in heard] == ["this cannot be encoded"] * 2
    assert inner.get_many([b"a", b"b"]) == [None, b"1"]
    assert tier.stats()["lost"] == 1


# --- room


def many(count: int, data: bytes = b"x" * 10) -> list[Item]:
    return [Item(b"%03d" % at, data) for at in range(count)]


def test_the_oldest_are_dropped(inner: MemcachedTier) -> None:
    with closing(WriteBehind(inner, delay=LONG, max_items=10, max_bytes=60)) as tier:
        tier.set_many(many(3))
        tier.set_many([Item(b"000", b"y" * 10)])  # in its old place
        tier.set_many([Item(b"003", b"z"), Item(b"004", b"x" * 20)])
        assert tier.get_many([b"000", b"001"]) == [None, b"x" * 10]
        assert tier.stats()["lost"] == 1
        assert tier.stats()["lost_bytes"] == 13
        assert tier.stats()["waiting_bytes"] == 53
        tier.delete_many([b"%d" % at for at in range(10)])
        assert tier.stats()["waiting"] == 10
        assert tier.stats()["lost"] == 5


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "block"])
def test_an_item_too_large_for_any_room(inner: MemcachedTier, overflow: str) -> None:
    with closing(WriteBehind(inner, delay=LONG, max_bytes=60, overflow=overflow)) as tier:
        with pytest.raises(TierError, match="no room for 1 of 3"):
            tier.set_many([Item(b"a", b"1"), Item(b"b", b"x" * 60), Item(b"c", b"3")])
        assert tier.get_many([b"a", b"c"]) == [b"1", b"3"]
        assert tier.stats()["lost"] == 1


def test_the_newest_are_not_taken(inner: MemcachedTier) -> None:
    with closing(WriteBehind(inner, delay=LONG, max_items=10, overflow="drop_newest")) as tier:
        tier.set_many(many(8))
        new = [11, 10, 9, 8, 7, 0, 1]  # two of them with room, two without, and three that wait
        with pytest.raises(TierError, match="no room for 2 of 7 operations"):
            tier.set_many([Item(b"%03d" % at, b"new") for at in new])
        values = tier.get_many([b"%03d" % at for at in new])
        assert values == [b"new", b"new", None, None, b"new", b"new", b"new"]
        with pytest.raises(TierError, match="no room"):
            asyncio.run(tier.adelete_many([b"other"]))
        assert tier.stats()["lost"] == 3


def test_callers_wait_for_room(inner: MemcachedTier) -> None:
    with closing(WriteBehind(inner, delay=0.01, max_items=10, overflow="block")) as tier:
        tier.set_many(many(100))
        asyncio.run(tier.aset_many(many(100)))
        tier.flush()
        assert None not in inner.get_many([item.key for item in many(100)])
        assert tier.stats()["lost"] == 0


def test_callers_wait_for_room_so_long(inner: MemcachedTier) -> None:
    tier = WriteBehind(inner, delay=LONG, max_items=10, overflow="block", block_timeout=0.1)
    with closing(tier):
        tier.set_many(many(10))
        for call in (
            lambda: tier.set_many([Item(b"one", b"more")]),
            lambda: asyncio.run(tier.aset_many([Item(b"one", b"more")])),
        ):
            begin = time.monotonic()
            with pytest.raises(TierTimeoutError, match="no room for 1 of 1"):
                call()
            assert 0.09 < time.monotonic() - begin < 1
        assert tier.stats()["lost"] == 2


# --- outages and ends


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
        time.sleep(0.1)  # the thread waits for the server now
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


def test_close_writes_what_waits(inner: MemcachedTier) -> None:
    for close in (lambda tier: tier.close(), lambda tier: asyncio.run(tier.aclose())):
        other = MemcachedTier(inner._servers[0].name.partition(": ")[2], timeout=5)
        tier = WriteBehind(other, delay=LONG)
        tier.set_many(many(1000))
        close(tier)
        close(tier)
        with pytest.raises(TierError, match="is closed"):
            tier.set_many(many(1))
        with pytest.raises(TierError, match="is closed"):
            asyncio.run(tier.adelete_many([b"a"]))
        reader = MemcachedTier(inner._servers[0].name.partition(": ")[2], timeout=5)
        keys = [item.key for item in many(1000)]
        assert reader.delete_many(keys) == 1000
        reader.close()


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


def test_the_end_of_the_interpreter(server: Server, inner: MemcachedTier) -> None:
    program = f"""
from cachecore.tiers.base import Item
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.write_behind import WriteBehind
tier = WriteBehind(MemcachedTier("127.0.0.1:{server.port}", timeout=5), delay=1000)
tier.set_many([Item(b"written at the end", b"1")])
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
    reader = MemcachedTier(f"127.0.0.1:{server.port}", timeout=5)
    assert reader.delete_many([b"written at the end"]) == 1
    reader.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_writes_its_own(tier: WriteBehind, inner: MemcachedTier) -> None:
    tier.set_many([Item(b"parent", b"1")])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert tier.stats()["waiting"] == 0
            tier.set_many([Item(b"child", b"2")])
            assert tier.get_many([b"child", b"parent"]) == [b"2", None]
            tier.flush()
            assert tier.add(Item(b"added", b"3"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
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


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_items", 0),
        ("max_bytes", "some"),
        ("delay", 0),
        ("batch", 0),
        ("overflow", "drop"),
        ("block_timeout", -1),
        ("close_timeout", float("inf")),
        ("name", ""),
    ],
)
def test_bad_settings(argument: str, value: object) -> None:
    settings: dict[str, Any] = {argument: value}
    with pytest.raises(ValueError, match=argument):
        WriteBehind(Faulty(), **settings)


def test_bad_items(tier: WriteBehind) -> None:
    bad: list[Any] = [("a", b"1", None), (b"a", "1", None), (b"a", b"1", "soon"), (b"a",)]
    for item in bad:
        with pytest.raises((TypeError, ValueError, AttributeError)):
            tier.set_many([item])
    assert tier.stats()["waiting"] == 0
