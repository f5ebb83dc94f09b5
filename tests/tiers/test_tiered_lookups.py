"""TieredCache: one look-up, here and below; keys; what a value is when it comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cachecore import MISSING, Cache
from support import Clock
from tiers.caches import LONG, Counting, Make, Open, Source, call, counts

THREE = [1, "1", b"1"]
NO_KEYS: list[Any] = [True, None, 1.0, (1,), ["a"], np.int64(1), np.str_("a"), bytearray(b"a")]


@pytest.fixture(params=["timer", "clock of the system"])
def timer(request: pytest.FixtureRequest, clock: Clock) -> Clock | None:
    """Hits with a timer and without take different ways."""
    return clock if request.param == "timer" else None


# --- hits


def test_a_hit_is_the_same_object(make: Make, timer: Clock | None, mode: str) -> None:
    cache = make(timer=timer)
    value = object()
    cache.set("key", value)
    assert call(mode, cache.get, "key") is value
    assert call(mode, cache.get, "key", default=1) is value
    assert call(mode, cache.get_many, ["key", "key"]) == [value, value]
    assert cache.l0.stats().hits == 4
    assert cache.l0.stats().misses == 0


def test_equal_keys_are_one_key(make: Make, timer: Clock | None) -> None:
    cache = make(timer=timer)
    cache.set("a key of some length", 1)
    cache.set(10**30, 2)
    assert cache.get("a key of" + " some length") == 1
    assert cache.get(10**29 * 10) == 2


def test_absent_is_the_default(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store])
    default = object()
    assert call(mode, cache.get, "key") is None
    assert call(mode, cache.get, "key", default) is default
    assert call(mode, cache.get, "key", default=default) is default
    assert call(mode, cache.get_many, ["a", "b"]) == [None, None]
    assert call(mode, cache.get_many, ["a", "b"], default) == [default, default]
    assert cache.l0.stats().misses == 7


def test_none_is_a_value(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], loader=lambda key: None)
    assert call(mode, cache.get, "key", 1) is None
    assert cache.get("key", 1) is None
    cache.l0.clear()
    assert call(mode, cache.get, "key", 1) is None
    assert cache.stats().loads == 1


def test_get_takes_its_arguments_as_a_method_does(make: Make) -> None:
    cache = make()
    assert cache.get(key="a", default=1) == 1
    with pytest.raises(TypeError):
        cache.get()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        cache.get("a", 1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        cache.get("a", other=1)  # type: ignore[call-arg]


# --- keys


def test_an_int_a_str_and_bytes_are_three_keys(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], loader=lambda key: [type(key).__name__])
    assert call(mode, cache.get_many, THREE) == [["int"], ["str"], ["bytes"]]
    assert [call(mode, cache.get, key) for key in THREE] == [["int"], ["str"], ["bytes"]]
    cache.l0.clear()
    # They have one place in a tier, and who was written last is there.
    assert call(mode, cache.get_many, THREE) == [["int"], ["str"], ["bytes"]]
    (tier,) = cache.stats().tiers
    assert tier.refused == {"other key": 2}


@pytest.mark.parametrize("key", NO_KEYS, ids=repr)
def test_what_is_no_key(make: Make, store: Counting, mode: str, key: Any) -> None:
    cache = make(tiers=[store], loader=lambda key: 1)
    cache.set(1, "one")
    cache.set("a", "letter")
    for method in (cache.get, cache.delete):
        with pytest.raises(TypeError, match="key must be a str, bytes or int"):
            call(mode, method, key)
    for many in (cache.get_many, cache.delete_many):
        with pytest.raises(TypeError, match="key must be a str, bytes or int"):
            call(mode, many, ["a", key])
    with pytest.raises(TypeError):
        call(mode, cache.set_many, [("b", 2), (key, 3)])
    with pytest.raises(TypeError):
        call(mode, cache.set, key, 2)
    assert cache.get_many([1, "a", "b"]) == ["one", "letter", 1]


class Text(str):
    __slots__ = ()


def test_subclasses_are_no_keys_even_where_an_equal_key_is_here(make: Make) -> None:
    cache = make()
    cache.set("a", 1)
    with pytest.raises(TypeError, match="not Text"):
        cache.get(Text("a"))
    with pytest.raises(TypeError, match="not Text"):
        cache.set(Text("a"), 2)
    assert cache.get("a") == 1


def test_odd_keys(make: Make, store: Counting, mode: str) -> None:
    keys = ["", b"", 0, -1, 2**64, -(2**200), 10**5000, "\0", "é€", "x" * 10_000, b"\xff" * 5000]
    cache = make(tiers=[store])
    call(mode, cache.set_many, [(key, repr(type(key))) for key in keys[2:]])
    cache.l0.clear()
    assert call(mode, cache.get_many, keys[2:]) == [repr(type(key)) for key in keys[2:]]
    assert call(mode, cache.delete_many, keys[2:]) == len(keys) - 2


def test_keys_without_text_in_a_namespace(make: Make, store: Counting) -> None:
    cache = make(tiers=[store], namespace="n")
    cache.set("", 1)
    cache.l0.clear()
    assert cache.get("") == 1
    assert cache.get(b"") is None


def test_text_that_utf8_cannot_say_is_refused(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], loader=lambda key: 1)
    calls: list[tuple[Any, Any]] = [
        (cache.get, ["\ud800"]), (cache.get_many, [["a", "\ud800"]]), (cache.delete, ["\ud800"]),
        (cache.set, ["\ud800", 1]), (cache.set, ["\ud800", b"1"]),
        (cache.set_many, [{"a": 1, "\ud800": 1}]),
    ]  # fmt: skip
    for method, args in calls:
        with pytest.raises(ValueError, match="surrogates"):
            call(mode, method, *args)
    assert len(cache.l0) == 0
    assert not cache.flights
    assert cache.stats().tiers[0].owed == 0


# --- values


def test_an_array_comes_back_read_only_and_equal(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store])
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    call(mode, cache.set, "key", array)
    array[:] = 0  # the caller's own
    for _ in range(2):
        found = call(mode, cache.get, "key")
        assert found.dtype == np.float32
        assert (found == np.arange(12).reshape(3, 4)).all()
        assert not found.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 1
        assert call(mode, cache.get, "key") is found
        cache.l0.clear()


def test_an_array_that_was_loaded_is_nobody_elses(make: Make, store: Counting, mode: str) -> None:
    array = np.zeros(4)
    cache = make(tiers=[store], loader=lambda key: array)
    found = call(mode, cache.get, "key")
    array[:] = 1
    assert found.tolist() == [0] * 4
    assert not found.flags.writeable
    cache.l0.clear()
    assert call(mode, cache.get, "key").tolist() == [0] * 4


def test_rows_of_one_array(make: Make, mode: str) -> None:
    rows = np.arange(6.0).reshape(3, 2)
    cache = make(loader_many=lambda keys: rows[: len(keys)])
    found = call(mode, cache.get_many, ["a", "b", "c"])
    assert [row.tolist() for row in found] == rows.tolist()
    assert all(row.base is not rows and not np.shares_memory(row, rows) for row in found)
    assert cache.get("b") is found[1]


VALUES: list[Any] = [
    None, True, False, 0, -5, 2**70, 1.5, "", "text", b"", b"bytes", [], [1, ["a", None]],
    {"a": [1.0], "b": {}}, np.float32(1.5), np.int8(3),
]  # fmt: skip


def test_values_come_back_equal_and_of_the_same_type(
    make: Make, store: Counting, mode: str
) -> None:
    cache = make(tiers=[store], namespace="values")
    for at, value in enumerate(VALUES):
        call(mode, cache.set, at, value)
    cache.l0.clear()
    for at, value in enumerate(VALUES):
        found = call(mode, cache.get, at, "absent")
        assert type(found) is type(value)
        assert found == value


# --- on the way up


def test_a_value_climbs_with_what_is_left_of_its_life(
    make: Make, store_at: Open, clock: Clock, mode: str
) -> None:
    upper, lower = store_at("upper"), store_at("lower")
    below = make(tiers=[lower], timer=clock, ttl=LONG)
    below.set("key", "value")
    clock.advance(LONG - 10)
    cache = make(tiers=[upper, lower], timer=clock, ttl=2 * LONG)
    assert call(mode, cache.get, "key") == "value"
    assert cache.l0.get_ttl("key") == pytest.approx(10, abs=0.01)
    assert upper.told() == [("get", [b"key"]), ("set", [b"key"])]
    assert upper.tier.get_many([b"key"]) != lower.tier.get_many([b"key"])  # other generations
    cache.l0.clear()
    assert call(mode, cache.get, "key") == "value"
    assert lower.told()[-1] == ("get", [b"key"])
    assert upper.told() == [("get", [b"key"])]
    assert cache.l0.get_ttl("key") == pytest.approx(10, abs=0.01)
    clock.advance(10)
    assert call(mode, cache.get, "key") is None
    assert cache.stats().tiers[0].refused == {"expired": 1}


def test_a_value_that_was_loaded_is_in_every_tier(make: Make, store_at: Open, mode: str) -> None:
    tiers = [store_at("a"), store_at("b"), store_at("c")]
    source = Source()
    cache = make(tiers=tiers, loader=source.one)
    assert call(mode, cache.get, "key") == "'key' v0"
    for tier in tiers:
        assert tier.told() == [("get", [b"key"]), ("set", [b"key"])]
        alone = make(tiers=[tier])
        assert call(mode, alone.get, "key") == "'key' v0"


def test_who_finds_it_asks_nobody_further(make: Make, store_at: Open, mode: str) -> None:
    first, second = store_at("first"), store_at("second")
    source = Source()
    cache = make(tiers=[first, second], loader=source.one)
    call(mode, cache.get, "key")
    first.told(), second.told()
    assert call(mode, cache.get, "key") == "'key' v0"
    assert first.told() == second.told() == []
    cache.l0.clear()
    assert call(mode, cache.get, "key") == "'key' v0"
    assert first.told() == [("get", [b"key"])]
    assert second.told() == []
    assert source.asked == ["key"]


def test_over_redis(make: Make, redis_tier: Counting, mode: str) -> None:
    source = Source()
    cache = make(tiers=[redis_tier], loader=source.one, namespace="ns")
    assert call(mode, cache.get, "key") == "'key' v0"
    assert redis_tier.told() == [("get", [b"ns:key"]), ("set", [b"ns:key"])]
    cache.l0.clear()
    assert call(mode, cache.get, "key") == "'key' v0"
    assert source.asked == ["key"]
    assert call(mode, cache.delete, "key") is True
    assert call(mode, cache.delete, "key") is False
    assert redis_tier.tier.get_many([b"ns:key"]) == [None]


def test_what_is_evicted_is_found_below(make: Make, store: Counting) -> None:
    cache = make(10, tiers=[store])
    cache.set_many({key: f"value {key}" for key in range(100)})
    assert len(cache.l0) == 10
    assert cache.get_many(range(100)) == [f"value {key}" for key in range(100)]
    assert counts(cache, "loads") == (0,)


def test_a_value_too_large_for_here_is_returned(make: Make, store: Counting, mode: str) -> None:
    cache = make(None, max_bytes=1000, tiers=[store], loader=lambda key: b"x" * 5000)
    for _ in range(2):
        assert call(mode, cache.get, "key") == b"x" * 5000
    assert cache.stats().loads == 1
    assert isinstance(cache.l0, Cache)
    assert cache.l0.stats().refused == 2


def test_missing_is_no_value(make: Make, store: Counting, mode: str) -> None:
    for cache in (make(), make(tiers=[store])):
        with pytest.raises(TypeError):
            call(mode, cache.set, "key", MISSING)
        assert call(mode, cache.get, "key", 1) == 1
