"""The contract of tiers as tests, for ours and for yours.

    class TestMyTier(TierContract):
        @pytest.fixture
        def tier(self):
            tier = MyTier(...)
            yield tier
            tier.close()

pytest runs every `test_*` of it on the tier of that fixture, which is empty at first. Without
pytest, call them with a tier. Lifetimes are real: some tests wait for tenths of a second.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cachecore.errors import TierError
from cachecore.tiers.base import Item, Tier

SHORT = 300  # milliseconds that an item lives which is to expire
PATIENCE = 10.0  # seconds until what must happen has happened

ODD_KEYS = [
    b"a", b"\0", b"\xff\xfe", b"with space", b"new\r\nline", "\u00e9\u20ac".encode(),
    b"x" * 250, b"x" * 251, b"y" * 512, b"z" * 5000, b"%s{}*?[a]", b"a:b:c", b"{tag}1", b"}{",
]  # fmt: skip
ODD_VALUES = [
    b"", b"\0", b"None", b"\r\n$-1\r\n", b"END\r\n", bytes(range(256)), b"v" * 4096,
    b"w" * 900_000,
]  # fmt: skip


def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; AssertionError when it does not within 10 s."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


class TierContract:
    """What holds of every tier."""

    tells_deletions = True
    """Whether `delete_many` knows how many there were; False for tiers that delete later."""

    def deleted(self, count: int, told: int) -> bool:
        """Whether `delete_many` may have told that number when it was that one."""
        return told == count if self.tells_deletions else 0 <= told <= count

    # --- what is kept

    def test_nothing_is_there_at_first(self, tier: Tier) -> None:
        assert tier.get_many([b"a", b"b"]) == [None, None]
        assert self.deleted(0, tier.delete_many([b"a"]))

    def test_what_was_set_is_there(self, tier: Tier) -> None:
        tier.set_many([Item(b"a", b"1"), Item(b"b", b"2", 60_000)])
        assert tier.get_many([b"b", b"none", b"a"]) == [b"2", None, b"1"]
        assert all(type(data) is bytes for data in tier.get_many([b"a", b"b"]))

    def test_a_key_twice(self, tier: Tier) -> None:
        tier.set_many([Item(b"a", b"1"), Item(b"a", b"2")])
        assert tier.get_many([b"a", b"b", b"a"]) == [b"2", None, b"2"]

    def test_later_takes_the_place_of_earlier(self, tier: Tier) -> None:
        tier.set_many([Item(b"a", b"long" * 100, SHORT)])
        tier.set_many([Item(b"a", b"short")])
        assert tier.get_many([b"a"]) == [b"short"]
        time.sleep(2 * SHORT / 1000)  # the earlier one's lifetime went with it
        assert tier.get_many([b"a"]) == [b"short"]

    def test_odd_keys(self, tier: Tier) -> None:
        items = [Item(key, b"%d" % at) for at, key in enumerate(ODD_KEYS)]
        tier.set_many(items)
        assert tier.get_many(ODD_KEYS) == [item.data for item in items]
        assert self.deleted(len(ODD_KEYS), tier.delete_many(ODD_KEYS))
        assert tier.get_many(ODD_KEYS) == [None] * len(ODD_KEYS)

    def test_odd_values(self, tier: Tier) -> None:
        items = [Item(b"%d" % at, data) for at, data in enumerate(ODD_VALUES)]
        tier.set_many(items)
        assert tier.get_many([item.key for item in items]) == ODD_VALUES

    def test_empty_batches(self, tier: Tier) -> None:
        assert tier.get_many([]) == []
        tier.set_many([])
        assert tier.delete_many([]) == 0
        tier.demote_many([], [])

    def test_a_large_batch(self, tier: Tier) -> None:
        items = [Item(b"key %d" % at, b"value %d" % at, 60_000) for at in range(3000)]
        tier.set_many(items)
        assert tier.get_many([item.key for item in items]) == [item.data for item in items]
        keys = [item.key for item in items[:1000]]
        assert self.deleted(1000, tier.delete_many(keys))
        assert tier.get_many([b"key 999", b"key 1000"]) == [None, b"value 1000"]

    def test_sequences_of_any_kind(self, tier: Tier) -> None:
        tier.set_many((Item(b"a", b"1"), Item(b"b", b"2")))
        assert tier.get_many((b"a", b"b")) == [b"1", b"2"]
        assert self.deleted(2, tier.delete_many((b"a", b"none", b"b")))

    # --- lifetimes

    def test_what_has_expired_is_gone(self, tier: Tier) -> None:
        tier.set_many([Item(b"a", b"1", SHORT), Item(b"b", b"2", 600_000), Item(b"c", b"3")])
        assert tier.get_many([b"b", b"c"]) == [b"2", b"3"]
        eventually(lambda: tier.get_many([b"a"]) == [None])
        assert tier.get_many([b"b", b"c"]) == [b"2", b"3"]
        assert tier.add(Item(b"a", b"4"))

    def test_short_and_long_lifetimes(self, tier: Tier) -> None:
        year = 365 * 24 * 3_600_000
        tier.set_many([Item(b"a", b"1", 1), Item(b"b", b"2", 10 * year)])
        eventually(lambda: tier.get_many([b"a"]) == [None])
        assert tier.get_many([b"b"]) == [b"2"]

    # --- add

    def test_add_keeps_what_is_there(self, tier: Tier) -> None:
        assert tier.add(Item(b"a", b"1")) is True
        assert tier.add(Item(b"a", b"2")) is False
        assert tier.get_many([b"a"]) == [b"1"]
        tier.delete_many([b"a"])
        assert tier.add(Item(b"a", b"3", SHORT)) is True
        eventually(lambda: tier.add(Item(b"a", b"4")))
        assert tier.get_many([b"a"]) == [b"4"]

    def test_one_of_many_adds(self, tier: Tier) -> None:
        start = threading.Barrier(4)

        def add(name: int) -> list[bool]:
            start.wait(PATIENCE)
            return [tier.add(Item(b"%d" % at, b"%d" % name)) for at in range(50)]

        with ThreadPoolExecutor(4) as pool:
            added = list(pool.map(add, range(4)))
        assert [sum(each) for each in zip(*added, strict=True)] == [1] * 50
        for at, each in enumerate(zip(*added, strict=True)):
            assert tier.get_many([b"%d" % at]) == [b"%d" % each.index(True)]

    # --- the rest

    def test_demoted_items_are_there(self, tier: Tier) -> None:
        tier.demote_many([Item(b"a", b"1"), Item(b"b", b"2", 60_000)], [3, 1])
        assert tier.get_many([b"a", b"b"]) == [b"1", b"2"]
        tier.demote_many([Item(b"a", b"new")], [4])
        assert tier.get_many([b"a"]) == [b"new"]

    def test_scan(self, tier: Tier) -> None:
        tier.set_many([Item(b"x:%d" % at, b"") for at in range(100)])
        tier.set_many([Item(b"y:%d" % at, b"") for at in range(5)])
        try:
            found = list(tier.scan(b"y:"))
        except TierError:  # it says that it cannot
            return
        assert sorted(set(found)) == [b"y:%d" % at for at in range(5)]
        assert len(set(tier.scan())) == 105
        assert list(tier.scan(b"z")) == []

    def test_threads(self, tier: Tier) -> None:
        def work(name: int) -> bool:
            for turn in range(100):
                key = b"%d:%d" % (name, turn % 10)
                tier.set_many([Item(key, b"%d" % turn), Item(b"all", b"%d" % name)])
                if tier.get_many([key]) != [b"%d" % turn]:
                    return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))

    def test_it_says_what_it_is(self, tier: Tier) -> None:
        assert tier.name
        assert isinstance(tier.name, str)
        assert isinstance(tier.shared, bool)
        assert all(isinstance(number, int) for number in tier.stats().values())

    def test_after_close(self, tier: Tier) -> None:
        tier.set_many([Item(b"a", b"1")])
        tier.close()
        tier.close()
        for call in (
            lambda: tier.get_many([b"a"]),
            lambda: tier.set_many([Item(b"a", b"1")]),
            lambda: tier.delete_many([b"a"]),
            lambda: tier.add(Item(b"b", b"1")),
        ):
            try:
                call()
            except TierError:
                continue
            raise AssertionError("a call after close() must raise TierError")

    # --- the asynchronous twins

    def test_async(self, tier: Tier) -> None:
        async def use() -> None:
            await tier.aset_many([Item(b"a", b"1"), Item(b"b", b"2", SHORT)])
            assert await tier.aget_many([b"a", b"none"]) == [b"1", None]
            assert await tier.aadd(Item(b"a", b"3")) is False
            assert await tier.aadd(Item(b"c", b"3")) is True
            assert self.deleted(1, await tier.adelete_many([b"a", b"none"]))
            assert await tier.aget_many([]) == []

        asyncio.run(use())
        assert tier.get_many([b"a", b"c"]) == [None, b"3"]

    def test_many_tasks(self, tier: Tier) -> None:
        async def work(name: int) -> bool:
            for turn in range(10):
                key = b"%d:%d" % (name, turn)
                await tier.aset_many([Item(key, b"%d" % turn)])
                if await tier.aget_many([key]) != [b"%d" % turn]:
                    return False
            return True

        async def use() -> list[bool]:
            return await asyncio.gather(*[work(name) for name in range(30)])

        assert all(asyncio.run(use()))

    def test_one_event_loop_after_another(self, tier: Tier) -> None:
        for turn in range(3):
            asyncio.run(tier.aset_many([Item(b"a", b"%d" % turn)]))
            assert asyncio.run(tier.aget_many([b"a"])) == [b"%d" % turn]
        asyncio.run(tier.aclose())
        tier.close()
