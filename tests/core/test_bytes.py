"""The byte bound: what an entry counts for, that it holds at every moment, what is refused."""

from __future__ import annotations

import random
import sys
from array import array
from typing import Any

import numpy as np
import pytest

from cachecore import Cache
from support import ENTRY_OVERHEAD, Clock, MakeCache, check

KIB = 1024


def cost(key: object, size_of_value: int) -> int:
    return sys.getsizeof(key) + size_of_value + ENTRY_OVERHEAD


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (np.zeros(1000, np.float32), 4000),
        (np.zeros((10, 10), np.float64)[::2, ::5], 80),
        (np.arange("2020-01", "2020-05", dtype="M8[M]"), 32),  # no buffer has such items
        (np.zeros(2, [("when", "m8[s]"), ("score", "f4")]), 24),
        (np.float64(1), 8),
        (b"x" * 100, 100),
        (bytearray(100), 100),
        (memoryview(bytes(100))[::2], 50),
        (array("d", [0.0] * 10), 80),
        ("x" * 100, sys.getsizeof("x" * 100)),
        ([1, 2, 3], sys.getsizeof([1, 2, 3])),
        (None, sys.getsizeof(None)),
        (12345, sys.getsizeof(12345)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_entry_counts_key_value_and_overhead(make: MakeCache, value: Any, size: int) -> None:
    cache = make(max_bytes="1MB")
    for key in ("key", 17, ("a", "tuple")):
        cache[key] = value
        assert cache.stats().bytes == cost(key, size)
        cache[key] = value
        assert cache.stats().bytes == cost(key, size)
        del cache[key]
        assert cache.stats().bytes == 0


@pytest.mark.parametrize("size", [2**53 + 1, 2**62 - 1, 2**63 - 1])
def test_a_bound_given_as_text_is_exact(make: MakeCache, size: int) -> None:
    assert make(max_bytes=f"{size}").max_bytes == size
    assert make(max_bytes=f"{size // 1024}KB").max_bytes == size // 1024 * 1024


def test_bytes_follow_overwrites(make: MakeCache) -> None:
    cache = make(max_bytes="1MB")
    for size in (10, 1000, 0, 500):
        cache["k"] = b"x" * size
        assert cache.stats().bytes == cost("k", size)


def test_an_overwrite_counts_the_key_that_is_kept(make: MakeCache) -> None:
    class LongerText(str):
        def __sizeof__(self) -> int:
            return 1000

    cache = make(max_bytes="1MB")
    cache["k"] = b""
    cache[LongerText("k")] = b""
    assert type(next(iter(cache))) is str
    assert cache.stats().bytes == cache.copy().stats().bytes == cost("k", 0)


def test_getsizeof_sizes_values(make: MakeCache) -> None:
    cache = make(max_bytes=10_000, getsizeof=lambda value: value["size"])
    cache["k"] = {"size": 5000}
    assert cache.stats().bytes == cost("k", 5000)
    cache["k"] = {"size": 0}
    assert cache.stats().bytes == cost("k", 0)


def test_getsizeof_counts_without_a_byte_bound(make: MakeCache) -> None:
    cache = make(4, getsizeof=len)
    cache.update({i: "x" * i for i in range(20)})
    assert cache.stats().bytes == sum(cost(key, len(value)) for key, value in cache.items())


def test_enormous_sizes_do_not_wrap_the_sum(make: MakeCache) -> None:
    cache = make(10, getsizeof=lambda _: 2**62 - 1)
    for key in range(10):
        cache[key] = key
        check(cache)
    assert 2**62 <= cache.stats().bytes <= 2**63
    assert cache[9] == 9
    assert cache.max_bytes is None


def test_bytes_are_not_counted_where_nobody_asked(make: MakeCache) -> None:
    cache = make(4)
    cache["k"] = b"x" * 1000
    assert cache.stats().bytes == 0


def test_resize_to_a_byte_bound_counts_what_is_there(make: MakeCache) -> None:
    cache = make(1000)
    cache.update({i: b"x" * i for i in range(500)})
    cache.resize(max_bytes="10MB")
    assert cache.stats().bytes == sum(cost(i, i) for i in range(500))
    cache.resize(max_bytes=10_000)
    assert cache.stats().bytes == sum(cost(key, len(value)) for key, value in cache.items())
    assert 5000 < cache.stats().bytes <= 10_000


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("4GB", 4 * KIB**3),
        ("512MB", 512 * KIB**2),
        ("1.5 GiB", 3 * KIB**3 // 2),
        ("100k", 100 * KIB),
        ("100", 100),
        ("2 tb", 2 * KIB**4),
        ("10B", 10),
        (1, 1),
        (2**63 - 1, 2**63 - 1),
        (np.int64(77), 77),
    ],
)
def test_sizes_are_read_in_units_of_1024(text: int | str, number: int) -> None:
    assert Cache[Any, Any](max_bytes=text).max_bytes == number


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_holds_at_every_moment(make: MakeCache, seed: int) -> None:
    """Also while on_evict, getsizeof and a value's __del__ look at it in the middle of a set."""
    rng = random.Random(seed)
    bound = 20 * KIB
    seen: list[int] = []

    def look(*_: object) -> None:
        seen.append(cache.stats().bytes)

    class Blob:
        def __init__(self, size: int) -> None:
            self.size = size

        def __del__(self) -> None:
            look()

    def getsizeof(value: Blob) -> int:
        look()
        return value.size

    cache = make(max_bytes=bound, on_evict=look, getsizeof=getsizeof)
    for _ in range(3000):
        cache[rng.randrange(100)] = Blob(int(bound * rng.random() ** 6))
        look()
    assert max(seen) <= bound
    assert max(seen) > bound * 0.9
    assert cache.stats().evictions + cache.stats().rejections > 100
    cache.clear()


@pytest.mark.parametrize("bounds", [{"maxsize": 5}, {"max_bytes": 1000}])
def test_the_bounds_hold_while_they_shrink(make: MakeCache, bounds: dict[str, int]) -> None:
    """Callbacks, and other threads while they run, see a cache within the bounds that it tells."""
    errors: list[AssertionError] = []

    def look(*_: object) -> None:
        try:
            check(cache)
        except AssertionError as error:
            errors.append(error)

    cache = make(200, max_bytes=50_000, on_evict=look)
    cache.update(dict.fromkeys(range(200), b"x" * 50))
    cache.resize(**bounds)
    assert errors == []


def test_a_resize_that_never_ends_leaves_a_bound_that_holds(make: MakeCache) -> None:
    """A callback that grows the cache and fills it again, each time entries leave."""
    busy, fresh = False, 1000

    def grow(key: int, value: int, reason: str) -> None:
        nonlocal busy, fresh
        if busy:
            return
        busy = True
        cache.resize(200)
        while len(cache) < 200:
            cache[fresh := fresh + 1] = 0
        busy = False

    cache = make(100, on_evict=grow)
    cache.update(dict.fromkeys(range(100), 0))
    with pytest.raises(RuntimeError, match="filled again"):
        cache.resize(10)
    assert cache.maxsize == 200
    check(cache)
    for key in range(300):
        cache[key] = 0
    assert len(cache) == 200
    check(cache)


def test_the_bound_is_used_up_to_the_last_byte(make: MakeCache) -> None:
    key_size = sys.getsizeof(1)
    each = key_size + ENTRY_OVERHEAD + 100
    cache = make(max_bytes=10 * each)
    for i in range(1, 11):
        cache[i] = b"x" * 100
    assert len(cache) == 10
    assert cache.stats().bytes == cache.max_bytes
    cache[1] = b"x" * 101  # one byte more: somebody else must leave
    assert cache[1] == b"x" * 101
    assert len(cache) == 9


@pytest.mark.parametrize("way", ["set", "setitem", "set_many", "setdefault", "get_or_set"])
def test_a_value_larger_than_the_budget_is_refused(make: MakeCache, way: str) -> None:
    heard: list[object] = []
    cache = make(max_bytes=10_000, on_evict=lambda *leaver: heard.append(leaver))
    cache.update(dict.fromkeys(range(30), b"x" * 100))
    before = dict(cache)
    absurd = b"x" * 10_000
    for key, there in ((3, way in ("set", "setitem", "set_many")), ("new", False)):
        stats = cache.stats()
        if there:
            del before[key]
        if way == "set":
            cache.set(key, absurd)
        elif way == "setitem":
            cache[key] = absurd
        elif way == "set_many":
            cache.set_many([(key, absurd)])
        elif key == "new":
            result = getattr(cache, way)(key, absurd if way == "setdefault" else lambda: absurd)
            assert result is absurd  # the caller has the value, though the cache does not
        else:
            continue
        after = cache.stats()
        assert key not in cache
        assert cache == before
        assert after.refused == stats.refused + 1
        assert after.deletions == stats.deletions + there
        assert (after.inserts, after.evictions) == (stats.inserts, stats.evictions)
    assert heard == []


def test_refusal_is_by_the_whole_entry(make: MakeCache) -> None:
    limit = cost("k", 100)
    cache = make(max_bytes=limit)
    cache["k"] = b"x" * 100
    assert "k" in cache
    cache["k"] = b"x" * 101
    assert "k" not in cache
    assert cache.stats().refused == 1


def test_an_expired_entry_under_a_refused_value_expires(clock: Clock, make: MakeCache) -> None:
    cache = make(max_bytes=1000, timer=clock)
    cache.set("k", b"", ttl=1)
    clock.advance(2)
    cache["k"] = b"x" * 1000
    stats = cache.stats()
    assert (stats.refused, stats.expirations, stats.deletions, stats.entries) == (1, 1, 0, 0)


def test_an_overwrite_that_grows_makes_room_without_leaving(make: MakeCache) -> None:
    rng = random.Random(9)
    cache = make(max_bytes=20 * KIB)
    cache.update(dict.fromkeys(range(100), b"x" * 50))
    for _ in range(500):
        key = rng.choice(list(cache))
        value = b"y" * rng.randrange(15 * KIB)
        cache[key] = value
        assert cache[key] is value
        check(cache)


def test_one_large_value_pushes_out_as_many_as_it_must(make: MakeCache) -> None:
    heard: list[Any] = []
    cache = make(max_bytes=100 * KIB, on_evict=lambda key, value, reason: heard.append(key))
    cache.update(dict.fromkeys(range(700), b""))
    cache["large"] = b"x" * (99 * KIB)
    assert cache["large"] == b"x" * (99 * KIB)
    assert len(heard) == len(set(heard)) == 700 + 1 - len(cache)
    assert not set(heard) & set(cache)


def test_entries_and_bytes_are_bounded_together(make: MakeCache) -> None:
    rng = random.Random(4)
    cache = make(30, max_bytes=8000)
    longest, largest = 0, 0
    for i in range(3000):
        sizes = [0, 100] if i < 1000 else [1000] if i < 2000 else [0, 0, 0, 100, 1000]
        cache[i % 97] = b"x" * rng.choice(sizes)
        longest, largest = max(longest, len(cache)), max(largest, cache.stats().bytes)
        check(cache)
    assert longest == 30
    assert largest > 8000 - 1200  # the largest entry


def test_the_memory_of_the_cache_itself_is_told(make: MakeCache) -> None:
    cache = make(100_000)
    empty = sys.getsizeof(cache)
    cache.update(dict.fromkeys(range(100_000)))
    full = sys.getsizeof(cache)
    assert 32 * 100_000 < full - empty < 64 * 100_000
    cache.clear()
    assert sys.getsizeof(cache) < full / 2


def test_the_memory_of_a_cache_is_told_once_and_all_of_it(make: MakeCache) -> None:
    cache = make(100_000)
    assert cache.__sizeof__() == Cache.__basicsize__
    cache.update(dict.fromkeys(range(100_000)))
    full = sys.getsizeof(cache)
    cache.delete_many(range(100_000))
    assert sys.getsizeof(cache) == full  # nothing is given back before clear()
