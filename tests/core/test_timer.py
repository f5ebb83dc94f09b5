"""The injected timer: what reads it, and what comes of one that errs, stands still or leaps."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from cachecore import Cache
from support import Clock, Key, MakeCache, check

DAY = 86400.0


def fill(cache: Cache[Any, Any]) -> None:
    cache["a"] = 1
    cache.set("b", 2, ttl=5)


READS_THE_TIMER: dict[str, Callable[[Cache[Any, Any]], object]] = {
    "c[k]": lambda c: c["b"],
    "get": lambda c: c.get("b"),
    "peek": lambda c: c.peek("b"),
    "in": lambda c: "b" in c,
    "get_many": lambda c: c.get_many(["b"]),
    "get_many of many": lambda c: c.get_many(["b"] * 40),
    "set": lambda c: c.set("c", 3, ttl=1),
    "set of an old key": lambda c: c.set("b", 3, ttl=1),
    "set_many": lambda c: c.set_many([("c", 3)], ttl=1),
    "setdefault": lambda c: c.setdefault("b", 3),
    "get_or_set": lambda c: c.get_or_set("b", lambda: 3),
    "pop": lambda c: c.pop("b"),
    "popitem": Cache.popitem,
    "delete": lambda c: c.delete("b"),
    "touch": lambda c: c.touch("b", 1),
    "get_ttl": lambda c: c.get_ttl("b"),
    "expire": Cache.expire,
    "iteration": list,
    "items": lambda c: list(c.items()),
    "==": lambda c: c == {"a": 1},
    "repr": repr,
    "copy": Cache.copy,
    "hottest": lambda c: c.hottest(2),
}


def bad_timers(clock: Clock) -> dict[str, tuple[Callable[[], object], type[Exception], str]]:
    def fail() -> object:
        raise OSError("no clock")

    return {
        "backwards": (lambda: clock.now - 0.5, ValueError, "timer"),
        "far back": (lambda: -1e9, ValueError, "timer"),
        "raises": (fail, OSError, "no clock"),
        "NaN": (lambda: math.nan, ValueError, "timer"),
        "infinite": (lambda: math.inf, ValueError, "timer"),
        "absurd": (lambda: 1e300, ValueError, "timer"),
        "no number": (lambda: "noon", TypeError, "timer"),
        "None": (lambda: None, TypeError, "timer"),
    }


@pytest.mark.parametrize("operation", READS_THE_TIMER)
@pytest.mark.parametrize("kind", bad_timers(Clock()))
def test_a_bad_timer_is_an_error_that_changes_nothing(
    clock: Clock, make: MakeCache, operation: str, kind: str
) -> None:
    timers: list[Callable[[], Any]] = [clock]

    def last_timer() -> Any:
        return timers[-1]()

    cache = make(8, timer=last_timer)
    fill(cache)
    before = (dict(cache.items()), cache.get_ttl("b"), cache.stats())
    timer, error, match = bad_timers(clock)[kind]
    timers.append(timer)
    with pytest.raises(error, match=match):
        READS_THE_TIMER[operation](cache)
    timers.pop()
    assert (dict(cache.items()), cache.get_ttl("b"), cache.stats()) == before


def test_a_timer_that_stands_still_expires_nothing(make: MakeCache) -> None:
    cache = make(100, ttl=0.001, timer=lambda: 5)
    for i in range(100):
        cache[i] = i
    assert sorted(cache) == list(range(100))
    assert cache.expire() == 0


def test_a_timer_of_another_kind_of_number(make: MakeCache) -> None:
    for kind in (int, Fraction, Decimal, np.float64, np.int64):
        now = [0]
        cache = make(4, ttl=10, timer=lambda kind=kind, now=now: kind(now[0]))
        cache["k"] = 1
        now[0] = 9
        assert cache["k"] == 1
        now[0] = 11
        assert "k" not in cache


def test_without_an_expiry_the_timer_is_not_asked_by_a_look_up(make: MakeCache) -> None:
    asked: list[int] = []

    def timer() -> float:
        asked.append(1)
        return 0.0

    cache = make(8, timer=timer)
    cache["a"] = 1
    assert cache.get("a") == cache["a"] == cache.peek("a") == cache.get_many(["a"])[0] == 1
    assert asked == []


def test_a_comparison_that_lets_a_month_pass(clock: Clock, make: MakeCache) -> None:
    """The table's own time starts anew every 25 days; a `now` from before must not be used."""

    class Slow:
        passing = 0.0

        def __hash__(self) -> int:
            return 5

        def __eq__(self, other: object) -> bool:
            clock.advance(Slow.passing)
            Slow.passing = 0
            # Something must read the clock for the table to notice.
            return cache.get("near") is None or True

    cache = make(8, timer=clock)
    for act in (lambda: cache.get(Slow()), lambda: cache.set(Slow(), 2, ttl=7 * DAY)):
        cache.clear()
        cache.set("near", 1, ttl=DAY)
        cache.set(Slow(), 1, ttl=60 * DAY)
        clock.advance(20 * DAY)
        Slow.passing = 30 * DAY
        act()
        assert cache.peek(Slow()) is not None
        left = cache.get_ttl(Slow())
        assert left == pytest.approx(10 * DAY) or left == pytest.approx(7 * DAY, abs=30 * DAY)
        check(cache)


FINDS: dict[str, Callable[[Cache[Any, Any], Key], object]] = {
    "c[k]": lambda c, k: c[k],
    "get": lambda c, k: c.get(k),
    "peek": lambda c, k: c.peek(k),
    "in": lambda c, k: k in c,
    "get_many": lambda c, k: c.get_many([k])[0],
    "get_many of many": lambda c, k: c.get_many([k] * 40)[0],
    "gather": lambda c, k: c.gather([k], np.empty(1))[0],
    "setdefault": lambda c, k: c.setdefault(k, None),
    "get_or_set": lambda c, k: c.get_or_set(k, lambda: None),
    "pop": lambda c, k: c.pop(k),
    "delete": lambda c, k: c.delete(k),
    "touch": lambda c, k: c.touch(k, 1),
    "get_ttl": lambda c, k: c.get_ttl(k),
}


@pytest.mark.parametrize("operation", FINDS)
@pytest.mark.parametrize("ttl", [10 * DAY, 40 * DAY])
def test_what_lives_is_found_while_time_starts_anew(
    clock: Clock, make: MakeCache, operation: str, ttl: float
) -> None:
    """The table's time does so in a comparison, after the operation has read the clock."""

    def let_time_pass(_: Key) -> None:
        clock.now = start + 25 * DAY
        cache.get("first")

    start = clock.now
    cache = make(8, timer=clock)
    cache.set("first", 1, ttl=1e9)
    clock.advance(24.8 * DAY)
    cache.set(Key("k", on_eq=let_time_pass), np.array(1.0), ttl=ttl)
    assert FINDS[operation](cache, Key("k"))
    assert cache.stats().expirations == cache.stats().misses == 0


def test_expire_spares_what_lives_while_time_starts_anew(clock: Clock, make: MakeCache) -> None:
    def let_time_pass(*_: object) -> None:
        clock.advance(0.2 * DAY)
        cache.get("first")

    cache = make(1000, timer=clock, on_evict=let_time_pass)
    cache.set("first", 1, ttl=1e9)
    clock.advance(24.6 * DAY)
    cache.set_many({i: i for i in range(20)}, ttl=1)
    cache.set_many({i: i for i in range(100, 200)}, ttl=20 * DAY)
    clock.advance(2)
    assert cache.expire() == 20
    assert set(cache) == {"first", *range(100, 200)}


def test_what_has_expired_stays_so_while_time_starts_anew(clock: Clock, make: MakeCache) -> None:
    class Jumping:
        """Equal to every other; the first comparison takes its time."""

        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            if "first" in cache:
                clock.advance(0.2 * DAY)
                del cache["first"]
            return True

    cache = make(100, timer=clock)
    cache.set("first", 1, ttl=1e9)
    clock.advance(24.8 * DAY)
    cache.set(Jumping(), "stale", ttl=5)
    clock.advance(10)
    assert cache.get(Jumping()) is None
