"""PrefixCache over a tier: what is evicted goes there, and comes back from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cachecore import TieredCache
from cachecore.codecs import Codec
from cachecore.ml import PrefixCache
from cachecore.tiers import Item, MmapTier, Tier, TierError

BLOCK, SHAPE = 4, (2, 4, 16)
ROOM = 10_000  # bytes: some ten blocks


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[MmapTier]:
    tier = MmapTier(tmp_path / "blocks", max_bytes="64MB")
    yield tier
    tier.close()


def state(number: int) -> npt.NDArray[np.float16]:
    return np.full(SHAPE, number, np.float16)


def tokens(number: int, count: int = 5) -> list[int]:
    return [1000 * number + at for at in range(BLOCK * count)]


def fill(cache: PrefixCache, prompts: int = 10, block: Any = state) -> None:
    for number in range(prompts):
        blocks = [block(10 * number + at) for at in range(5)]
        assert cache.put(tokens(number), blocks) == 20


def check(cache: PrefixCache, prompts: int = 10) -> None:
    """Everything is found, in memory or below."""
    for number in range(prompts):
        found = cache.match(tokens(number))
        assert [int(block.flat[0]) for block in found.blocks] == [
            10 * number + at for at in range(5)
        ]
        assert all(block.dtype == np.float16 and block.shape == SHAPE for block in found.blocks)
        cache._check()


def cache_over(below: Tier | TieredCache, **settings: Any) -> PrefixCache:
    return PrefixCache(block=BLOCK, max_bytes=ROOM, below=below, **settings)


def test_what_is_evicted_comes_back(tier: MmapTier) -> None:
    cache = cache_over(tier)
    fill(cache)
    counts = cache.stats()
    assert counts.spilled == counts.evictions > 20
    check(cache)
    counts = cache.stats()
    assert counts.matched_tokens == counts.asked_tokens == 200
    assert counts.returned > 20
    assert counts.lost == 0


def test_blocks_come_back_without_a_copy_and_read_only(tier: MmapTier) -> None:
    cache = cache_over(tier)
    fill(cache)
    cache.clear()
    found = cache.match(tokens(0))
    again = cache.match(tokens(0))
    assert found.length == 20
    assert all(ours is theirs for ours, theirs in zip(found.blocks, again.blocks, strict=True))
    assert cache.stats().returned == 5
    assert not any(block.flags.writeable or block.flags.owndata for block in found.blocks)


def test_what_came_back_is_not_written_again(tier: MmapTier) -> None:
    cache = cache_over(tier)
    fill(cache)
    check(cache)
    spilled = cache.stats().spilled
    check(cache)
    assert cache.stats().spilled == spilled
    assert cache.stats().evictions > spilled


def test_another_process_finds_them(tier: MmapTier) -> None:
    fill(cache_over(tier, model="llama", version="3", salt=b"tenant"))
    other = cache_over(tier, model="llama", version="3", salt=b"tenant")
    assert other.match(tokens(0)).length == 20


@pytest.mark.parametrize(
    "settings",
    [{"model": "b"}, {"version": "b"}, {"salt": b"b"}, {"block": 2}, {"model": "", "version": "m"}],
)
def test_who_differs_finds_nothing(tier: MmapTier, settings: dict[str, Any]) -> None:
    fill(cache_over(tier, model="m"))
    other = PrefixCache(
        **{"block": BLOCK, "max_bytes": ROOM, "below": tier, "model": "m", **settings}
    )
    for number in range(10):
        assert other.match(tokens(number)).length == 0


def test_tuples_of_layers(tier: MmapTier) -> None:
    cache = cache_over(tier)
    for number in range(10):
        cache.put(tokens(number), [(state(number), state(at), b"x") for at in range(5)])
    assert cache.stats().evictions > 0
    for number in range(10):
        found = cache.match(tokens(number))
        assert found.length == 20
        for at, (first, second, third) in enumerate(found.blocks):
            assert (first.flat[0], second.flat[0], third) == (number, at, b"x")
    assert all(type(block) is tuple for block in found.blocks)


def test_over_a_tiered_cache(tier: MmapTier) -> None:
    with TieredCache(max_bytes="1MB", tiers=[tier], exclusive=True) as below:
        cache = cache_over(below)
        fill(cache)
        check(cache)
        assert cache.stats().returned > 20
        below.l0.clear()
        assert cache.stats().lost == 0


def test_over_a_tiered_cache_that_cannot_write_arrays() -> None:
    with TieredCache(10, codec="raw") as below, pytest.raises(ValueError, match="raw"):
        cache_over(below)


class Unable(Codec):
    """Cannot write anything."""

    name = "unable"

    def encode(self, value: Any) -> bytes:
        raise TypeError("no")

    def decode(self, data: bytes | memoryview) -> Any:
        raise AssertionError("nothing was written")


def test_blocks_that_the_codec_cannot_write_are_lost_and_counted(tier: MmapTier) -> None:
    with TieredCache(1, tiers=[tier], codec=Unable()) as below:
        cache = cache_over(below)
        fill(cache)
        counts = cache.stats()
        assert counts.lost == counts.evictions > 0
        assert counts.spilled == 0
        cache._check()


class Poisoned(Tier):
    """A tier that keeps what it is given, and returns it as `change` says."""

    quick = True

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.fails = False

    def change(self, key: bytes) -> bytes | None:
        return self.kept.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self.fails:
            raise TierError("down")
        return [self.change(key) for key in keys]

    def set_many(self, items: Sequence[Item]) -> None:
        if self.fails:
            raise TierError("down")
        self.kept.update({item.key: item.data for item in items})


def test_another_blocks_bytes_are_a_miss() -> None:
    """As after a collision of keys, or by someone who writes to the tier."""
    tier = Poisoned()
    cache = cache_over(tier)
    fill(cache)
    cache.clear()
    keys = list(tier.kept)
    for key, data in zip(keys, [tier.kept[key] for key in keys[1:] + keys[:1]], strict=True):
        tier.kept[key] = data
    assert [cache.match(tokens(number)).length for number in range(8)] == [0] * 8


@pytest.mark.parametrize("place", [0, 5, 40, 150, -1])
def test_a_flipped_byte_is_a_miss(place: int) -> None:
    tier = Poisoned()
    cache = cache_over(tier)
    fill(cache)
    cache.clear()
    for key, data in tier.kept.items():
        flipped = bytearray(data)
        flipped[place] ^= 1
        tier.kept[key] = bytes(flipped)
    assert cache.match(tokens(0)).length == 0


def test_what_cannot_have_been_a_block_is_a_miss() -> None:
    poison: list[Any] = [{"not": "a block"}, np.array([None]), [state(0), "text"], None, 7, "text"]
    with TieredCache(100) as below:
        cache = cache_over(below)
        fill(cache)
        cache.clear()
        for value in poison:
            for key in list(below.l0):
                below.set(key, value)
            assert cache.match(tokens(0)).length == 0
        cache._check()


def test_an_interrupted_put_leaves_the_cache_sound() -> None:
    class Interrupted(Poisoned):
        def set_many(self, items: Sequence[Item]) -> None:
            raise KeyboardInterrupt

    cache = cache_over(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        fill(cache)
    cache._check()
    counts = cache.stats()
    assert counts.lost == counts.evictions > 0
    assert counts.spilled == 0


def test_a_cache_that_is_set_up_again_keeps_its_tier(tier: MmapTier) -> None:
    cache = cache_over(tier)
    fill(cache)
    with pytest.raises(RuntimeError, match="once"):
        PrefixCache.__init__(cache, block=BLOCK, max_bytes=ROOM)
    check(cache)


def test_a_tier_that_fails_is_a_miss() -> None:
    tier = Poisoned()
    cache = cache_over(tier)
    fill(cache, prompts=5)
    tier.fails = True
    lost = cache.stats().evictions
    fill(cache, prompts=8)
    counts = cache.stats()
    assert counts.lost == counts.evictions - lost > 0
    assert cache.match(tokens(0)).length == 0
    assert cache.match(tokens(7)).length == 20
    tier.fails = False
    assert cache.match(tokens(0)).length == 20
    cache._check()


def test_a_gap_in_the_tier_ends_the_prefix() -> None:
    tier = Poisoned()
    cache = cache_over(tier)
    fill(cache)
    cache.clear()
    third = np.array(tokens(0)[2 * BLOCK : 3 * BLOCK], np.int32).tobytes()
    del tier.kept[next(key for key in tier.kept if key.endswith(third))]
    assert cache.match(tokens(0)).length == 2 * BLOCK
    cache._check()


@pytest.mark.parametrize("count", [3, 4, 5, 20, 21, 100])
def test_long_prefixes_come_back_whole(count: int) -> None:
    """However many they are, in a few calls of the tier."""
    calls: list[int] = []

    class Counting(Poisoned):
        def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            calls.append(len(keys))
            return super().get_many(keys)

    room = PrefixCache(block=BLOCK, max_bytes="1MB")
    long = list(range(count * BLOCK))
    room.put(long, [state(at) for at in range(count)])
    cache = PrefixCache(block=BLOCK, max_bytes=room.nbytes, below=Counting())
    cache.put(long, [state(at) for at in range(count)])
    number = 100
    while cache.put(long, [], start=len(long)) > BLOCK:  # as much of it as is here
        number += 1
        for _ in range(3):
            cache.match(tokens(number, 2))
        cache.put(tokens(number, 2), [state(0)] * 2)
    calls.clear()
    found = cache.match(long)
    assert [int(block.flat[0]) for block in found.blocks] == list(range(count))
    assert len(calls) <= 4
    cache._check()
