"""Lifetimes: exact to 10 ms by an injected timer, near and far ones, jitter."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore import Cache
from support import ENTRY_OVERHEAD, Clock, MakeCache, Value, check

EXACT = 0.01  # seconds: what a TTL promises
DAY = 86400.0
EDGE = 2**31 / 1000  # seconds: the most of milliseconds that half of 32 bits hold


def seconds_left(cache: Cache[Any, Any], key: object) -> float:
    left = cache.get_ttl(key)
    return math.inf if left is None else left


def is_there(cache: Cache[Any, Any], key: object) -> bool:
    """Whether a key is found, by every way there is to look."""
    ways = [
        key in cache,
        cache.get(key) is not None,
        cache.peek(key) is not None,
        cache.get_many([key])[0] is not None,
        cache.get_many([key] * 40)[33] is not None,
        key in list(cache),
        key in dict(cache.items()),
        key in cache.copy(),
    ]
    assert len(set(ways)) == 1, ways
    return ways[0]


@given(
    start=st.floats(-1e6, 1e9),
    ttl=st.one_of(st.floats(0.02, 100), st.floats(0.02, 400 * DAY)),
    per_entry=st.booleans(),
)
def test_an_entry_lives_as_long_as_its_ttl(start: float, ttl: float, per_entry: bool) -> None:
    clock = Clock(start)
    cache: Cache[Any, Any] = Cache(8, ttl=None if per_entry else ttl, timer=clock)
    cache.set("k", 1, ttl=ttl if per_entry else None)
    assert abs(seconds_left(cache, "k") - ttl) <= EXACT
    clock.now = start + ttl - EXACT
    assert is_there(cache, "k")
    clock.now = start + ttl + EXACT
    assert not is_there(cache, "k")
    check(cache)


def test_a_lifetime_counts_from_the_last_set(clock: Clock, make: MakeCache) -> None:
    cache = make(8, ttl=10, timer=clock)
    cache["k"] = 1
    clock.advance(9)
    cache["k"] = 2
    clock.advance(9)
    assert cache["k"] == 2
    clock.advance(2)
    assert "k" not in cache


def test_reading_does_not_prolong_a_life(clock: Clock, make: MakeCache) -> None:
    cache = make(8, ttl=10, timer=clock)
    cache["k"] = 1
    for _ in range(9):
        clock.advance(1)
        assert cache.get("k") == cache.setdefault("k", 2) == cache.get_or_set("k", lambda: 3) == 1
    clock.advance(2)
    assert "k" not in cache


def test_an_entrys_own_ttl_goes_before_the_caches(clock: Clock, make: MakeCache) -> None:
    cache = make(8, ttl=10, timer=clock)
    cache.set("short", 1, ttl=1)
    cache.set("forever", 1, ttl=math.inf)
    cache.set_many({"many": 1}, ttl=2)
    cache.get_or_set("computed", lambda: 1, ttl=3)
    assert cache.get_ttl("forever") is None
    for second, left in [
        (0.5, {"short", "forever", "many", "computed"}),
        (1.5, {"forever", "many", "computed"}),
        (2.5, {"forever", "computed"}),
        (3.5, {"forever"}),
        (1e9, {"forever"}),
    ]:
        clock.now = 1000 + second
        assert set(cache) == left


def test_an_overwrite_takes_the_new_lifetime(clock: Clock, make: MakeCache) -> None:
    cache = make(8, timer=clock)
    cache.set("k", 1, ttl=1)
    cache["k"] = 2
    assert cache.get_ttl("k") is None
    cache.set("k", 3, ttl=60 * DAY)
    assert cache.get_ttl("k") == 60 * DAY
    cache.set("k", 4, ttl=5)
    assert cache.get_ttl("k") == 5
    clock.advance(6)
    assert "k" not in cache


def test_touch_gives_a_new_lifetime_from_now(clock: Clock, make: MakeCache) -> None:
    cache = make(8, ttl=10, timer=clock)
    cache["k"] = 1
    clock.advance(9)
    assert cache.touch("k", 5) is True
    assert cache.get_ttl("k") == 5
    assert cache.touch("k", math.inf) is True
    assert cache.get_ttl("k") is None
    assert cache.touch("k", 100 * DAY) is True
    clock.advance(100 * DAY - 1)
    assert cache["k"] == 1
    assert cache.touch("k", None) is True
    assert cache.get_ttl("k") == 10
    clock.advance(11)
    assert cache.touch("k", 5) is False
    assert cache.touch("absent", 5) is False
    assert "k" not in cache


def test_get_ttl_tells_the_absent_from_the_eternal(clock: Clock, make: MakeCache) -> None:
    cache = make(8, timer=clock)
    cache["forever"] = 1
    cache.set("k", 1, ttl=2)
    assert cache.get_ttl("forever") is None
    clock.advance(0.5)
    assert cache.get_ttl("k") == 1.5
    clock.advance(2)
    for absent in ("k", "absent"):
        with pytest.raises(KeyError, match=absent):
            cache.get_ttl(absent)


def test_the_caches_ttl_can_be_changed_for_what_comes(clock: Clock, make: MakeCache) -> None:
    cache = make(8, timer=clock)
    cache["before"] = 1
    assert cache.ttl is None
    cache.ttl = 5
    assert cache.ttl == 5
    cache["after"] = 1
    assert (cache.get_ttl("before"), cache.get_ttl("after")) == (None, 5)
    for never in (None, math.inf):
        cache.ttl = never
        assert cache.ttl is None
        cache["later"] = 1
        assert cache.get_ttl("later") is None


def test_len_counts_the_expired_until_they_are_reclaimed(clock: Clock, make: MakeCache) -> None:
    cache = make(100, timer=clock)
    for i in range(50):
        cache.set(i, i, ttl=1 if i % 2 else 10)
    clock.advance(5)
    assert len(cache) == 50
    assert sorted(cache) == sorted(cache.values()) == list(range(0, 50, 2))
    assert cache == {i: i for i in range(0, 50, 2)}
    assert cache.expire() == 25
    assert len(cache) == 25
    assert cache.expire() == 0
    assert cache.stats().expirations == 25


def test_a_get_of_what_expired_does_not_disturb_iteration(clock: Clock, make: MakeCache) -> None:
    cache = make(8, timer=clock)
    cache.update(a=1, b=2)
    cache.set("old", 1, ttl=1)
    iterator = iter(cache)
    seen = [next(iterator)]
    clock.advance(2)
    assert cache.get("old") is None
    assert "old" not in cache
    seen += iterator
    assert set(seen) == {"a", "b"}


def test_insertions_reclaim_what_has_expired(clock: Clock, make: MakeCache) -> None:
    heard: list[tuple[Any, Any, str]] = []
    cache = make(1000, timer=clock, on_evict=lambda *leaver: heard.append(leaver))
    for i in range(500):
        cache.set(("old", i), i, ttl=1)
    clock.advance(2)
    for i in range(1000):
        cache[i] = i
    assert set(heard) == {(("old", i), i, "expired") for i in range(500)}
    assert len(cache) == 1000
    assert cache.stats().evictions == cache.stats().rejections == 0


def test_the_expired_leave_before_the_living(clock: Clock, make: MakeCache) -> None:
    cache = make(100, timer=clock)
    for i in range(90):
        cache.set(("old", i), i, ttl=1)
    cache.update({i: i for i in range(10)})
    clock.advance(2)
    assert cache.expire() == 90
    cache.update({i: i for i in range(100)})
    assert set(cache) == set(range(100))


@pytest.mark.parametrize("way", ["on_evict", "release"])
def test_expire_misses_nothing_that_moves_meanwhile(
    clock: Clock, make: MakeCache, way: str
) -> None:
    """What leaves lets something new in, for which the rest is brought together in lower slots."""

    def let_in(i: int) -> None:
        if i % 100 == 99:
            cache["new", i] = 1

    on_evict = (lambda key, value, reason: let_in(key)) if way == "on_evict" else None
    cache = make(1000, timer=clock, on_evict=on_evict)
    for i in range(1000):
        release = partial(let_in, i) if way == "release" else None
        cache.set(i, Value(i, release), ttl=5)
    clock.advance(10)
    assert cache.expire() == 1000
    assert cache.expire() == 0
    assert set(cache) == {("new", i) for i in range(99, 1000, 100)}


@pytest.mark.parametrize("way", ["resize", "resize to bytes", "overwrite", "insert"])
def test_what_has_expired_leaves_as_expired_whoever_removes_it(
    clock: Clock, make: MakeCache, way: str
) -> None:
    heard: list[tuple[Any, str]] = []
    cache = make(
        40,
        max_bytes=10_000,
        timer=clock,
        on_evict=lambda key, value, reason: heard.append((key[0], reason)),
    )
    for i in range(40):
        kind = "old" if i % 2 else "live"
        cache.set((kind, i), b"x" * 80, ttl=1 if kind == "old" else None)
    clock.advance(2)
    act: dict[str, Callable[[], object]] = {
        "resize": lambda: cache.resize(3),
        "resize to bytes": lambda: cache.resize(max_bytes=1000),
        "overwrite": lambda: cache.set(("live", 0), b"x" * 9800),
        "insert": lambda: cache.set(("new", 0), b"x" * 9800),
    }
    act[way]()
    assert ("old", "expired") in heard
    assert {reason for kind, reason in heard if kind == "old"} == {"expired"}
    assert {reason for kind, reason in heard if kind == "live"} <= {"evicted", "rejected"}


def test_popitem_and_hottest_skip_the_expired(clock: Clock, make: MakeCache) -> None:
    cache = make(8, timer=clock)
    cache["a"] = 1
    cache.set("old", 1, ttl=1)
    for _ in range(9):
        cache.get("old")
    clock.advance(2)
    assert [key for key, _ in cache.hottest(5)] == ["a"]
    assert cache.popitem() == ("a", 1)
    with pytest.raises(KeyError):
        cache.popitem()


@pytest.mark.parametrize("ttl", [25 * DAY, 50 * DAY, 365 * DAY, 3e9, 1e18, 2**63, 1e300, 10**400])
def test_far_deadlines_hold_across_long_times(clock: Clock, make: MakeCache, ttl: float) -> None:
    cache = make(8, timer=clock)
    cache.set("far", 1, ttl=ttl)
    cache.set("near", 1, ttl=1)
    cache["never"] = 1
    assert seconds_left(cache, "far") >= min(ttl, 9e12)
    for _ in range(24):  # two years in steps of a month
        step = 30.5 * DAY
        clock.advance(step)
        age = clock.now - 1000
        assert ("far" in cache) == (age < ttl)
        assert "near" not in cache
        assert cache["never"] == 1
        cache.set("near", 1, ttl=1)
        assert cache.get_ttl("near") == 1
        check(cache)


def test_a_clock_that_jumps_expires_what_it_passed(clock: Clock, make: MakeCache) -> None:
    cache = make(1000, timer=clock)
    for i in range(500):
        cache.set(i, i, ttl=(i + 1) * DAY)
    for days in (10.5, 40.5, 41.5, 200.5, 499.5):
        clock.now = 1000 + days * DAY
        assert sorted(cache) == list(range(int(days), 500))
        check(cache)
    clock.now = 1000 + 1e5 * DAY
    assert cache.expire() == 500


def test_a_far_deadline_does_not_outlive_its_entry(clock: Clock, make: MakeCache) -> None:
    """A slot that held a far deadline is used again for an entry with a near one, or none."""
    rng = random.Random(2)
    cache = make(50, timer=clock)
    expected: dict[int, float] = {}
    for _ in range(5000):
        key = rng.randrange(200)
        ttl = rng.choice([1.0, 40 * DAY, math.inf])
        cache.set(key, key, ttl=ttl)
        expected[key] = clock.now + ttl
        clock.advance(rng.choice([0, 0.01, DAY]))
        for held in cache:
            assert clock.now < expected[held]
            assert seconds_left(cache, held) == pytest.approx(expected[held] - clock.now)


@pytest.mark.parametrize("seed", range(5))
def test_far_deadlines_move_with_their_entries(clock: Clock, make: MakeCache, seed: int) -> None:
    """Most entries go; the next insertion brings the others together in the lowest slots."""
    cache = make(1000, timer=clock)
    lives = {n: 30 * DAY + n if n < 16 and n % 3 else 5.0 + n for n in range(200)}
    for n, ttl in lives.items():
        cache.set(n, n, ttl=ttl)
    kept = sorted({10, *random.Random(seed).sample(range(200), 30)})
    cache.delete_many(lives.keys() - kept)
    cache["new"] = 1
    assert [cache.get_ttl(n) for n in kept] == [lives[n] for n in kept]
    clock.advance(DAY)
    assert set(cache) == {"new", *(n for n in kept if lives[n] > DAY)}


@pytest.mark.parametrize("age", [-0.002, -0.001, 0, 0.001, EDGE])
@pytest.mark.parametrize("ttl", [EDGE - 0.002, EDGE - 0.001, EDGE, EDGE + 0.001, 1e7])
def test_no_lifetime_wraps_around(clock: Clock, make: MakeCache, age: float, ttl: float) -> None:
    """A record holds 32 bits of milliseconds, of the table's age and the lifetime together."""
    cache = make(8, timer=clock)
    cache.set("first", 1, ttl=1e9)
    clock.advance(EDGE + age)
    cache.set("k", 1, ttl=ttl)
    assert cache.get_ttl("k") == pytest.approx(ttl, abs=EXACT)
    clock.advance(ttl - EXACT)
    assert is_there(cache, "k")
    clock.advance(2 * EXACT)
    assert not is_there(cache, "k")


@pytest.mark.parametrize("jitter", [0.1, 0.5, 1.0])
def test_jitter_shortens_lives_within_its_bounds_and_spreads_them(
    clock: Clock, make: MakeCache, jitter: float
) -> None:
    cache = make(4000, ttl=100, ttl_jitter=jitter, timer=clock)
    cache.update(dict.fromkeys(range(4000)))
    lives = sorted(seconds_left(cache, key) for key in range(4000))
    assert 100 * (1 - jitter) - EXACT <= lives[0]
    assert lives[-1] <= 100 + EXACT
    # Uniform: each tenth of the range holds a tenth of the lives; 4000 of them say 400 +- 19 x 5.
    for tenth in range(10):
        low = 100 - 100 * jitter * (tenth + 1) / 10
        count = sum(low < life <= low + 10 * jitter for life in lives)
        assert 300 < count < 500, (tenth, count)


def test_jitter_spares_those_that_never_expire(clock: Clock, make: MakeCache) -> None:
    cache = make(8, ttl_jitter=0.5, timer=clock)
    cache["a"] = 1
    cache.set("b", 1, ttl=math.inf)
    assert cache.get_ttl("a") is cache.get_ttl("b") is None
    cache.set("c", 1, ttl=10)
    assert 5 - EXACT <= seconds_left(cache, "c") <= 10


def test_what_expired_long_ago_counts_its_bytes(make: MakeCache, clock: Clock) -> None:
    """The clock has moved past what a record can say of its deadline."""
    cache = make(10, timer=clock)
    cache.set("gone", bytes(8), ttl=3)
    cache["kept"] = bytes(8)
    clock.advance(60 * DAY)
    assert "gone" not in cache
    cache.resize(max_bytes=10_000)
    assert cache.stats().bytes == sum(
        sys.getsizeof(k) + 8 + ENTRY_OVERHEAD for k in ("gone", "kept")
    )
    assert list(cache) == ["kept"]
