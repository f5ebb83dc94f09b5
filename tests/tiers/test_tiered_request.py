"""TieredCache: what a block of code has looked up stays what it was until its end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from tiers.caches import HANGS, Counting, Make, Source, in_threads


def change(cache: Any, key: str, value: Any) -> None:
    """What somebody else does to a key: another thread, in no block."""
    thread = threading.Thread(target=cache.set, args=(key, value))
    thread.start()
    thread.join(HANGS)


def test_the_same_value_until_the_end(make: Make, store: Counting) -> None:
    cache = make(tiers=[store], loader=lambda key: "loaded")
    cache.set("key", "old")
    with cache.request():
        assert cache.get("key") == "old"
        change(cache, "key", "new")
        assert cache.get("key") == "old"
        assert cache.get_many(["key", "key", "other"]) == ["old", "old", "loaded"]
        change(cache, "other", "new")
        assert cache.get_many(["other", "key"]) == ["loaded", "old"]
        store.told()
        cache.get_many(["other", "key"])
        assert store.told() == []
    assert cache.get_many(["key", "other"]) == ["new", "new"]


def test_absence_too(make: Make) -> None:
    source = Source("key")
    cache = make(loader=source.one)
    with cache.request():
        assert cache.get("key", 1) == 1
        assert cache.get("key", 2) == 2
        change(cache, "key", "new")
        assert cache.get_many(["key"], 3) == [3]
    assert source.calls == 1
    assert cache.get("key") == "new"


def test_a_block_in_a_block_and_one_after_it(make: Make) -> None:
    cache = make()
    cache.set("key", 1)
    with cache.request():
        with cache.request():
            assert cache.get("key") == 1
        change(cache, "key", 2)
        with cache.request():
            assert cache.get("key") == 1
        assert cache.get("key") == 1
    with cache.request():
        assert cache.get("key") == 2


def test_one_cache_of_two(make: Make) -> None:
    one, other = make(), make()
    one.set("key", 1)
    other.set("key", 1)
    with one.request():
        one.get("key")
        other.get("key")
        change(one, "key", 2)
        change(other, "key", 2)
        assert (one.get("key"), other.get("key")) == (1, 2)
        with other.request():
            change(other, "key", 3)
            assert (one.get("key"), other.get("key")) == (1, 3)


def test_other_threads_are_in_no_block(make: Make) -> None:
    cache = make()
    cache.set("key", 1)
    with cache.request():
        assert cache.get("key") == 1
        change(cache, "key", 2)
        assert in_threads(2, lambda at: cache.get("key")) == [2, 2]
        assert cache.get("key") == 1


def test_blocks_of_many_threads(make: Make) -> None:
    cache = make(loader=lambda key: object())

    def work(at: int) -> None:
        for turn in range(50):
            with cache.request():
                found = cache.get(turn % 5)
                cache.delete(f"{turn}") if at % 2 else change(cache, "other", turn)
                assert cache.get(turn % 5) is found

    in_threads(8, work)
    assert cache.slow == 0


def test_hits_are_plain_again_after_a_block(make: Make) -> None:
    cache = make()
    cache.set("key", 1)
    with pytest.raises(ZeroDivisionError), cache.request():
        cache.set("key", 1 // 0)
    with cache.request():
        assert cache.slow == 1
    assert cache.slow == 0
    before = cache.l0.stats()
    cache.get("key")
    assert cache.l0.stats().hits == before.hits + 1


def test_tasks_share_the_block_they_were_begun_in(make: Make, store: Counting) -> None:
    async def main() -> None:
        source = Source()
        cache = make(tiers=[store], loader=source.aone)
        with cache.request():
            found = await asyncio.gather(*(cache.aget("key") for _ in range(10)))
            assert found == ["'key' v0"] * 10
            await asyncio.to_thread(change, cache, "key", "new")
            assert await cache.aget("key") == "'key' v0"
            assert await asyncio.create_task(cache.aget_many(["key", "x", "x"])) == [
                "'key' v0", "'x' v0", "'x' v0",
            ]  # fmt: skip
        assert await cache.aget("key") == "new"
        assert source.asked == ["key", "x"]

    asyncio.run(main())


def test_blocks_of_tasks_are_their_own(make: Make) -> None:
    async def main() -> None:
        cache = make()
        cache.set("key", 0)
        turn = asyncio.Barrier(5)

        async def one(at: int) -> None:
            async with asyncio.timeout(HANGS):
                for number in range(5):
                    await turn.wait()
                    if number == at:
                        with cache.request():
                            assert cache.get("key") == at
                            await cache.aset("key", at + 1)
                            assert cache.get("key") == at + 1

        await asyncio.gather(*map(one, range(5)))
        assert cache.slow == 0

    asyncio.run(main())


# --- what the block itself writes


def test_its_own_writes_are_seen(make: Make, store: Counting) -> None:
    source = Source()
    cache = make(tiers=[store], loader=source.one)
    with cache.request():
        cache.get("key")
        cache.set("key", "mine")
        assert cache.get("key") == "mine"
        change(cache, "key", "of another")
        assert cache.get("key") == "mine"
        cache.set_many({"key": "mine again", "other": 1})
        assert cache.get_many(["key", "other"]) == ["mine again", 1]
        assert cache.delete("key") is True
        assert cache.get("key") == "'key' v0"
        cache.set("tagged", 1, tags=["tag"])
        assert cache.get("tagged") == 1
        cache.invalidate("tag")
        assert cache.get("tagged") == "'tagged' v0"
        source.version = 1
        cache.invalidate("")
        assert cache.get_many(["key", "other"]) == ["'key' v1", "'other' v1"]


def test_its_own_writes_as_a_task(make: Make, store: Counting) -> None:
    async def main() -> None:
        cache = make(tiers=[store], write="around")
        with cache.request():
            await cache.aset("key", 1)
            assert await cache.aget("key") == 1
            await cache.aset_many({"key": 2})
            assert await cache.aget("key") == 2
            assert await cache.adelete("key") is True
            assert await cache.aget("key") is None
            await cache.aset("key", 3, tags=["tag"])
            assert await cache.aget("key") == 3
            await cache.ainvalidate("tag")
            assert await cache.aget("key") is None

    asyncio.run(main())


def test_a_write_that_was_refused_is_not_seen(make: Make, store: Counting) -> None:
    cache = make(tiers=[store])
    cache.set("key", "before")
    with cache.request():
        assert cache.get("key") == "before"
        for value, settings in ((object(), {}), (1, {"ttl": -1}), (1, {"tags": [1]})):
            with pytest.raises((TypeError, ValueError)):
                cache.set("key", value, **settings)
            assert cache.get("key") == "before"


@pytest.mark.parametrize("write", ["through", "around"])
def test_arrays_in_a_block_are_nobodys_to_change(make: Make, store: Counting, write: str) -> None:
    cache = make(tiers=[store], write=write)
    array = np.zeros(3)
    with cache.request():
        cache.set("key", array)
        array[:] = 1
        found = cache.get("key")
        assert found.tolist() == [0, 0, 0]
        assert not found.flags.writeable
        assert cache.get("key") is found
    assert cache.get("key").tolist() == [0, 0, 0]
