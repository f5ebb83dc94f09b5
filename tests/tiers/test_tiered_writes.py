"""TieredCache: what set and delete do here and in the tiers, alone and against loads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cachecore.tiers import Item, TierError, Wrapper
from cachecore.tiers.testing import eventually
from tiers.caches import HANGS, Counting, Gate, Make, Open, Slow, Source, call, counts, written

# --- through, around, exclusive


def test_through(make: Make, store_at: Open, mode: str) -> None:
    tiers = [store_at("a"), store_at("b")]
    cache = make(tiers=tiers)
    assert call(mode, cache.set, "key", 1) is None
    assert call(mode, cache.set_many, {"x": 2, "y": 3}) is None
    for tier in tiers:
        assert tier.told() == [("set", [b"key"]), ("set", [b"x", b"y"])]
        assert make(tiers=[tier]).get_many(["key", "x", "y"]) == [1, 2, 3]
    assert cache.l0.copy() == {"key": 1, "x": 2, "y": 3}
    assert [tier.writes for tier in cache.stats().tiers] == [3, 3]
    assert all(tier.bytes_written > 0 for tier in cache.stats().tiers)


def test_around(make: Make, store_at: Open, mode: str) -> None:
    first, last = store_at("first"), store_at("last")
    cache = make(tiers=[first, last], write="around")
    make(tiers=[first, last]).set("key", "old")
    assert call(mode, cache.get, "key") == "old"
    call(mode, cache.set, "key", "new")
    assert "key" not in cache.l0
    assert written(first.tier, b"key") == [False]
    assert written(last.tier, b"key") == [True]
    assert call(mode, cache.get, "key") == "new"
    assert written(first.tier, b"key") == [True]
    call(mode, cache.set_many, {"key": np.arange(3), "other": 2})
    assert len(cache.l0) == 0
    assert call(mode, cache.get, "key").tolist() == [0, 1, 2]


def test_a_deletion_is_one_everywhere(make: Make, store_at: Open, mode: str) -> None:
    tiers = [store_at("a"), store_at("b")]
    for write in ("through", "around"):
        cache = make(tiers=tiers, write=write)
        cache.set_many({"a": 1, "b": 2})
        cache.get_many(["a", "b"])
        [tier.told() for tier in tiers]
        assert call(mode, cache.delete, "a") is True
        assert call(mode, cache.delete, "a") is False
        assert call(mode, cache.delete_many, ["a", "b", "b", "c"]) == 1
        assert call(mode, cache.delete_many, []) == 0
        for tier in tiers:
            assert tier.told() == [
                ("delete", [b"a"]), ("delete", [b"a"]), ("delete", [b"a", b"b", b"c"]),
            ]  # fmt: skip
        assert cache.get_many(["a", "b"]) == [None, None]


def test_what_only_one_place_has_is_deleted(make: Make, store_at: Open, mode: str) -> None:
    tiers = [store_at("a"), store_at("b")]
    make(tiers=[tiers[1]]).set("below", 1)
    cache = make(tiers=tiers)
    cache.l0["here"] = 1
    assert call(mode, cache.delete, "below") is True
    assert call(mode, cache.delete, "here") is True


def test_pairs_of_any_kind(make: Make, mode: str) -> None:
    cache = make()
    call(mode, cache.set_many, [("a", 1), ("b", 2), ("a", 3)])
    call(mode, cache.set_many, ((key, key) for key in "cd"))
    call(mode, cache.set_many, {})
    assert cache.l0.copy() == {"a": 3, "b": 2, "c": "c", "d": "d"}
    for wrong in ([1], ["abc"], 5, None):
        with pytest.raises((TypeError, ValueError)):
            call(mode, cache.set_many, wrong)
    assert len(cache.l0) == 4


def test_a_value_set_at_a_bound_is_kept_or_below(make: Make, store: Counting, mode: str) -> None:
    cache = make(2, tiers=[store])
    for key in range(50):
        call(mode, cache.set, key, str(key))
        assert call(mode, cache.get, key) == str(key)
    assert call(mode, cache.get_many, range(50)) == [str(key) for key in range(50)]


# --- values that cannot be written down


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1}, object(), {1: 2}, [1, (2,)], np.array([object()]), bytearray(b"x"), 1j],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("write", ["through", "around"])
def test_what_the_codec_does_not_take_changes_nothing(
    make: Make, store_at: Open, mode: str, write: str, value: Any
) -> None:
    tiers = [store_at("a"), store_at("b")]
    cache = make(tiers=tiers, write=write)
    cache.set("key", "before")
    [tier.told() for tier in tiers]
    with pytest.raises(TypeError):
        call(mode, cache.set, "key", value)
    with pytest.raises(TypeError):
        call(mode, cache.set_many, {"other": 1, "key": value})
    assert [tier.told() for tier in tiers] == [[], []]
    assert cache.get_many(["key", "other"]) == ["before", None]
    assert not cache.flights
    assert [tier.owed for tier in cache.stats().tiers] == [0, 0]


def test_tags_that_are_none(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store])
    cache.set("key", "before")
    for tags, error in (
        ("tag", TypeError), ([1], TypeError), (5, TypeError), ([b"tag"], TypeError),
        (map(str, range(70_000)), ValueError),
    ):  # fmt: skip
        with pytest.raises(error):
            call(mode, cache.set, "key", 1, tags=tags)
    assert cache.get("key") == "before"
    assert not cache.flights
    call(mode, cache.set, "key", 1, tags=map(str, range(3)))
    assert cache.get("key") == 1


# --- a load that is overtaken


@pytest.fixture(params=["one key", "batch"])
def gated(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A gate, and a loader of either kind that goes through it."""
    gate = Gate("old")
    return {"gate": gate, **({"loader": gate.one} if "one" in request.param
            else {"loader_many": gate.many})}  # fmt: skip


def overtake(cache: Any, mode: str, how: str) -> Any:
    """Do to "key" what overtakes a load; what the cache must say afterwards."""
    if how == "set":
        call(mode, cache.set, "key", "new")
        return "new"
    if how == "set_many":
        call(mode, cache.set_many, {"other": 1, "key": "new"})
        return "new"
    if how == "delete":
        call(mode, cache.delete, "key")
    elif how == "namespace":
        call(mode, cache.invalidate, "ns")
    elif how == "tag":
        call(mode, cache.invalidate, "some tag")
    return "asked again"


@pytest.mark.parametrize("how", ["set", "set_many", "delete", "namespace", "tag"])
@pytest.mark.parametrize("write", ["through", "around"])
def test_a_load_that_was_overtaken_never_comes_back(
    make: Make, store_at: Open, mode: str, gated: dict[str, Any], how: str, write: str
) -> None:
    tiers = [store_at("a"), store_at("b")]
    gate = gated.pop("gate")
    cache = make(tiers=tiers, namespace="ns", write=write, **gated)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(call, mode, cache.get, "key")
        gate.wait()
        waiter = pool.submit(call, mode, cache.get_many, ["key"])
        if mode == "sync":
            eventually(lambda: cache.flights["key"].waiters)
        else:
            eventually(lambda: len(cache.flights["key"].waiters or ()) > 1)
        expected = overtake(cache, mode, how)
        if expected == "new":
            assert call(mode, cache.get, "key") == "new"
        gate.let()
        assert first.result(HANGS) == "old"
        assert waiter.result(HANGS)[0] in ("old", "new")
    if expected == "new":
        assert call(mode, cache.get, "key") == "new"
        cache.l0.clear()
        assert call(mode, cache.get, "key") == "new"
        assert make(tiers=[tiers[1]], namespace="ns").get("key") == "new"
    else:
        assert "key" not in cache.l0
        gate.value = "asked again"
        gate.let()
        assert call(mode, cache.get, "key") == "asked again"
    assert counts(cache, "overtaken") == (1,)
    assert not cache.flights


@pytest.mark.parametrize("how", ["set", "delete", "namespace"])
def test_a_load_that_is_writing_its_tier_is_waited_for(
    make: Make, store: Counting, mode: str, how: str
) -> None:
    slow = Slow(store)
    source = Source()
    cache = make(tiers=[slow], loader=source.one, namespace="ns")
    slow.holds = True
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(call, mode, cache.get, "key")
        slow.gate.wait()
        second = pool.submit(overtake, cache, mode, how)
        slow.holds = False
        slow.gate.let(2)
        assert first.result(HANGS) == "'key' v0"
        expected = second.result(HANGS)
    source.version = 1
    cache.l0.clear()
    found = call(mode, cache.get, "key")
    assert found == (expected if expected == "new" else "'key' v1")


def test_writes_of_a_key_follow_one_another(make: Make, store: Counting) -> None:
    slow = Slow(store)
    cache = make(tiers=[slow])
    slow.holds = True
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.set, "key", 1)
        slow.gate.wait()
        second = pool.submit(cache.set, "key", 2)
        assert cache.get("key") == 1
        slow.holds = False
        slow.gate.let()
        first.result(HANGS)
        second.result(HANGS)
    assert cache.get("key") == 2
    cache.l0.clear()
    assert cache.get("key") == 2


def test_who_looks_for_a_key_that_is_deleted_waits_for_that(make: Make, store: Counting) -> None:
    slow = Slow(store)
    cache = make(tiers=[slow])
    cache.set("key", "old")
    slow.holds = True
    with ThreadPoolExecutor(2) as pool:
        deletion = pool.submit(cache.delete, "key")
        slow.gate.wait()
        look = pool.submit(cache.get, "key", "absent")
        slow.holds = False
        slow.gate.let()
        assert deletion.result(HANGS) is True
        assert look.result(HANGS) == "absent"
    assert cache.get("key") is None


def test_a_task_that_is_cancelled_in_a_write(make: Make, store: Counting) -> None:
    """Nobody knows whether the tier took it, so that is made up for."""

    async def main() -> None:
        slow = Slow(store)
        cache = make(tiers=[slow])
        slow.holds = True
        task = asyncio.create_task(cache.aset("key", "new"))
        await slow.gate.await_()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        slow.holds = False
        slow.gate.let()
        assert cache.get("key") == "new"
        while cache.stats().tiers[0].owed:
            await asyncio.sleep(0.01)
        cache.l0.clear()
        assert await cache.aget("key") == "new"

    asyncio.run(main())


class Stopped(Wrapper):
    """A tier that fails as it is told to, before it does anything."""

    error: BaseException | None = None

    def set_many(self, items: Sequence[Item]) -> None:
        if self.error is not None:
            raise self.error
        self.tier.set_many(items)

    async def aset_many(self, items: Sequence[Item]) -> None:
        self.set_many(items)


@pytest.mark.parametrize("value", [b"bytes", 1, ["of set_many"]])
@pytest.mark.parametrize("error", [TierError("down"), KeyboardInterrupt()], ids=repr)
def test_the_tiers_below_one_that_fails(
    make: Make, store_at: Open, value: Any, error: BaseException
) -> None:
    """No tier keeps the older value: those below are written, or owed the write."""
    first, second = Stopped(store_at("first")), store_at("second")
    cache = make(tiers=[first, second], strict=True)
    cache.set("key", "old")
    first.error = error
    with pytest.raises(type(error)):
        cache.set("key", value)
    for _ in range(2):
        assert cache.get("key") == value
        cache.l0.clear()
        if not isinstance(error, Exception):
            break
    assert make(tiers=[second]).get("key") == (value if isinstance(error, Exception) else "old")
    first.error = None
    eventually(lambda: not any(tier.owed for tier in cache.stats().tiers))
    cache.l0.clear()
    assert cache.get("key") == value
    assert make(tiers=[second]).get("key") == value


def test_a_namespace_that_was_made_void_while_a_tier_was_down(make: Make, store: Counting) -> None:
    tier = Stopped(store)
    cache = make(tiers=[tier], namespace="ns")
    cache.set_many({"a": "old", "b": "old"})
    tier.error = TierError("down")
    cache.invalidate("ns")
    tier.error = None  # it is back, and does not know yet
    cache.set("a", "new")
    cache.l0.clear()
    eventually(lambda: cache.levels[0].ledger is None)
    assert cache.get_many(["a", "b"]) == ["new", None]
