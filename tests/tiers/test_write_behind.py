"""WriteBehind: the contract, what waits, and what there is no room for."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import TierContract, eventually
from cachecore.tiers.write_behind import WriteBehind

LONG = 1000.0  # a delay that no test waits for: what is put waits until flush()


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
    tier.set_many([Item(b"a", b"1", 50), Item(b"b", b"2", 50_000)])
    assert tier.get_many([b"b"]) == [b"2"]
    eventually(lambda: tier.get_many([b"a", b"b"]) == [None, b"2"])
    (_, over), (_, operation) = taken = tier.backlog.take(2)
    tier.backlog.back(taken)
    assert over.lifetime is not None
    assert over.lifetime <= 0
    assert operation.lifetime is not None
    assert 0 < operation.lifetime <= 49_960
    tier.flush()
    assert inner.get_many([b"a", b"b"]) == [None, b"2"]  # what was older did not come back


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
        WriteBehind(Tier(), **settings)


def test_bad_items(tier: WriteBehind) -> None:
    bad: list[Any] = [("a", b"1", None), (b"a", "1", None), (b"a", b"1", "soon"), (b"a",)]
    for item in bad:
        with pytest.raises((TypeError, ValueError, AttributeError)):
            tier.set_many([item])
    assert tier.stats()["waiting"] == 0
