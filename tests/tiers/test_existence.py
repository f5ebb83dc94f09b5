"""ExistenceFilter: the contract, what it spares the tier, and what it must never keep from it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachecore.errors import TierError
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.existence import ExistenceFilter
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import TierContract


class TestContract(TierContract):
    @pytest.fixture
    def tier(self, inner: MemcachedTier) -> ExistenceFilter:
        return ExistenceFilter(inner, expected=5000)


def test_what_is_not_there_is_not_asked_for(inner: MemcachedTier) -> None:
    inner.set_many([Item(b"%d" % at, b"x") for at in range(1000)])
    known = [b"%d" % at for at in range(1000)]
    tier = ExistenceFilter(inner, known, expected=1000)
    absent = [b"absent %d" % at for at in range(10_000)]
    assert tier.get_many(absent) == [None] * 10_000
    assert tier.stats()["spared"] > 9_800  # 1 of 100 is asked for in vain
    mixed = [key for pair in zip(known, absent, strict=False) for key in pair]
    assert tier.get_many(mixed) == [b"x", None] * 1000
    assert asyncio.run(tier.aget_many(mixed)) == [b"x", None] * 1000


def test_what_is_set_is_let_through(inner: MemcachedTier) -> None:
    tier = ExistenceFilter(inner, expected=100)
    tier.set_many([Item(b"a", b"1")])
    assert tier.add(Item(b"b", b"2"))
    tier.demote_many([Item(b"c", b"3")], [1])
    asyncio.run(tier.aset_many([Item(b"d", b"4")]))
    assert asyncio.run(tier.aadd(Item(b"e", b"5")))
    assert tier.get_many([b"a", b"b", b"c", b"d", b"e"]) == [b"1", b"2", b"3", b"4", b"5"]
    inner.set_many([Item(b"by another", b"6")])
    assert tier.get_many([b"by another"]) == [None]
    tier.fill([b"by another"])
    assert tier.get_many([b"by another"]) == [b"6"]


def test_it_says_when_it_has_too_many_keys(inner: MemcachedTier) -> None:
    tier = ExistenceFilter(inner, (b"%d" % at for at in range(90)), expected=100)
    assert not tier.overfull
    assert 80 < tier.stats()["filter_keys"] < 100
    assert tier.stats()["filter_overfull"] == 0
    tier.fill(b"more %d" % at for at in range(100_000))
    assert tier.overfull
    assert tier.stats()["filter_overfull"] == 1
    assert tier.stats()["filter_keys"] > 100


class Listed(Tier):
    """A tier that can list its keys, and answers some of them before it fails."""

    def scan(self, prefix: bytes = b"") -> Iterator[bytes]:
        return iter([key for key in (b"x:1", b"x:2", b"y:1") if key.startswith(prefix)])

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        error = TierError("half of it")
        error.values = [b"1", *[None] * (len(keys) - 1)]
        raise error


def test_filled_from_a_scan() -> None:
    tier = ExistenceFilter(Listed(), expected=10)
    tier.fill_from_scan(b"x:")
    assert tier.stats()["filter_keys"] in (2, 3)
    assert tier.get_many([b"y:1"]) == [None]
    with pytest.raises(TierError, match="half of it") as caught:
        tier.get_many([b"y:1", b"x:2", b"y:1", b"x:1"])
    assert caught.value.values == [None, b"1", None, None]  # aligned with what was asked here


def test_a_tier_that_cannot_list_its_keys(inner: MemcachedTier) -> None:
    with pytest.raises(TierError, match="cannot list"):
        ExistenceFilter(inner, expected=10).fill_from_scan()


def test_all_processes_make_the_same_filter() -> None:
    program = "from cachecore.tiers.existence import _number; print(_number(b'a key'))"
    numbers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(numbers) == 1


def test_threads() -> None:
    tier = ExistenceFilter(Listed(), expected=100_000)

    def work(name: int) -> bool:
        for at in range(3000):
            key = b"%d:%d" % (name, at)
            tier.fill([key])
            if tier._places([key, key]) != [0, 1]:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expected": 0}, "expected"),
        ({"expected": 10**11}, "expected must be at most"),
        ({"expected": 10, "false_positives": 0}, "false_positives"),
        ({"expected": 10, "false_positives": 0.9}, "false_positives"),
        ({"expected": 10, "false_positives": float("nan")}, "false_positives"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExistenceFilter(Listed(), **settings)
