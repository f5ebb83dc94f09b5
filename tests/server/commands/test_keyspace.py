"""What commands need of the cache: patterns, scans, deadlines, sizes."""

from __future__ import annotations

import random
from sys import getsizeof
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore import Cache, _keyspace
from cachecore._keyspace import KEEP, NEVER, Hash
from support import Clock, check


def new_cache(max_bytes: int | str = "64MB", **options: Any) -> Cache[bytes, Any]:
    return Cache(max_bytes=max_bytes, getsizeof=getsizeof, **options)


# --- patterns ---


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"*", [b"", b"a"], []),
        (b"**", [b"a"], [b""]),
        (b"a*c", [b"ac", b"abc", b"acc"], [b"", b"a", b"acb"]),
        (b"a?", [b"ab", b"a\xff"], [b"a", b"abc"]),
        (b"[a-c]", [b"a", b"b", b"c"], [b"d", b"-"]),
        (b"[c-a]", [b"a", b"b", b"c"], [b"d"]),
        (b"[^a]", [b"b", b"^"], [b"a", b""]),
        (b"[a", [b"a"], [b"[", b"[a"]),
        (b"[", [], [b"[", b""]),
        (b"[]", [], [b"]", b"[]"]),
        (b"[\\]]", [b"]"], [b"\\"]),
        (b"[\\]", [b"]"], [b"\\", b"a"]),
        (b"\\*", [b"*"], [b"a", b"\\*"]),
        (b"\\", [b"\\"], [b""]),
        (b"*a*b", [b"ab", b"aab", b"xaxbxb"], [b"ba", b"abx"]),
        (b"*[ab]*[^b]", [b"ac", b"xbb\xff"], [b"ab", b"c"]),
    ],
)
def test_patterns(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    assert [text for text in matching + others if _keyspace.glob(pattern, text)] == matching


def test_many_stars_end() -> None:
    assert not _keyspace.glob(b"*a" * 200 + b"b", b"a" * 4000)
    assert _keyspace.glob(b"*a" * 200, b"a" * 4000)


# --- scans ---


def scanned(
    cache: Cache[bytes, Any], count: int, database: int = 0, meanwhile: Any = None
) -> list[bytes]:
    """All names of a whole scan."""
    cursor, names = _keyspace.scan(cache, database, 0, count)
    while cursor:
        if meanwhile is not None:
            meanwhile()
        cursor, more = _keyspace.scan(cache, database, cursor, count)
        names += more
    return names


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_a_quiet_scan_names_each_key_once(count: int) -> None:
    cache = new_cache()
    for i in range(300):
        cache.set(b"%c%d" % (i % 3, i), b"")
    for database in range(3):
        names = scanned(cache, count, database)
        assert sorted(names) == sorted(b"%d" % i for i in range(database, 300, 3))
    assert scanned(cache, count, 3) == []


@given(seed=st.integers(0, 2**32), count=st.integers(1, 40), many=st.integers(1, 400))
def test_what_stays_is_named(seed: int, count: int, many: int) -> None:
    dice = random.Random(seed)
    cache = new_cache(dice.choice([30_000, 1_000_000]))
    for i in range(many):
        cache.set(b"\0%d" % i, b"")
    staying = {bytes(key) for key in cache if dice.random() < 0.5}
    passing = [b"\0%d" % i for i in range(many, 2 * many)]

    def churn() -> None:
        for _ in range(dice.randrange(20)):
            key = dice.choice(passing)
            if dice.random() < 0.5:
                _keyspace.store(cache, key, b"x" * dice.randrange(200), NEVER)
            else:
                cache.delete(key)
        if dice.random() < 0.1:
            cache.delete_many([key for key in cache if key not in staying])
        staying.intersection_update(cache)  # some may have been evicted
        if staying:
            _keyspace.store(cache, dice.choice(sorted(staying)), b"changed", NEVER)
        staying.intersection_update(cache)

    names = scanned(cache, count, meanwhile=churn)
    assert {key[1:] for key in staying} <= set(names)
    check(cache)


def test_a_scan_begins_again_when_entries_have_moved() -> None:
    cache = new_cache()
    for i in range(4000):
        cache.set(b"\0%d" % i, b"")
    staying = [b"\0%d" % i for i in range(3500, 3600)]
    cursor, names = _keyspace.scan(cache, 0, 0, 3550)
    cache.delete_many([key for key in cache if key not in staying])
    cache.set(b"\0new", b"")  # which brings the others together
    second, _ = _keyspace.scan(cache, 0, cursor, 1)
    assert second >> 32 != cursor >> 32
    while cursor:
        cursor, more = _keyspace.scan(cache, 0, cursor, 10)
        names += more
    assert {key[1:] for key in staying} <= set(names)


def test_a_random_key_is_one_of_the_database() -> None:
    cache = new_cache()
    assert _keyspace.random_key(cache, 0) is None
    for i in range(1000):
        cache.set(b"\0%d" % i, b"")
    assert _keyspace.random_key(cache, 1) is None
    cache.set(b"\1one", b"")
    assert _keyspace.random_key(cache, 1) == b"one"
    assert len({_keyspace.random_key(cache, 0) for _ in range(50)}) > 10
    cache.delete_many([b"\0%d" % i for i in range(999)])
    assert _keyspace.random_key(cache, 0) == b"999"


# --- deadlines ---


def test_deadlines_are_kept_to_the_millisecond() -> None:
    cache = new_cache()
    far = _keyspace.unix_time(cache)
    for deadline in [far + 10**4, far + 10**9 + 1, far + 10**12 + 3, 9_999_999_999_999]:
        assert _keyspace.store(cache, b"\0k", b"v", deadline)
        assert _keyspace.deadline_of(cache, b"\0k") == deadline
        _keyspace.store(cache, b"\0k", b"longer", KEEP)
        assert _keyspace.deadline_of(cache, b"\0k") == deadline
        assert _keyspace.expire_at(cache, b"\0k", deadline + 1)
        assert _keyspace.deadline_of(cache, b"\0k") == deadline + 1
    _keyspace.store(cache, b"\0k", b"v")
    assert _keyspace.deadline_of(cache, b"\0k") == NEVER
    assert _keyspace.deadline_of(cache, b"\0absent") is None
    assert not _keyspace.expire_at(cache, b"\0absent", far + 1000)


def test_a_deadline_ends_a_key() -> None:
    clock = Clock()
    cache = new_cache(timer=clock)
    now = _keyspace.unix_time(cache)
    _keyspace.store(cache, b"\0k", b"v", now + 1000)
    clock.advance(0.5)
    assert b"\0k" in cache
    clock.advance(1)
    assert b"\0k" not in cache
    assert _keyspace.scan(cache, 0, 0, 10) == (0, [])
    assert _keyspace.count_keys(cache, 0) == 0
    _keyspace.store(cache, b"\0k", b"v", KEEP)  # it is not there: there is nothing to keep
    assert _keyspace.deadline_of(cache, b"\0k") == NEVER


@pytest.mark.parametrize("past", [0, 1, -5, -(2**63)])
def test_a_deadline_in_the_past_removes(past: int) -> None:
    cache = new_cache()
    cache.set(b"\0k", b"v")
    assert _keyspace.expire_at(cache, b"\0k", past)
    assert b"\0k" not in cache
    if past >= 0:
        cache.set(b"\0k", b"v")
        assert _keyspace.store(cache, b"\0k", b"w", past)
        assert b"\0k" not in cache


# --- sizes ---


def test_what_is_larger_than_the_cache_changes_nothing() -> None:
    cache = new_cache(10_000)
    cache.set(b"\0k", b"v")
    assert not _keyspace.fits(cache, b"\0k", bytes(10_000))
    assert not _keyspace.store(cache, b"\0k", bytes(10_000))
    assert cache.peek(b"\0k") == b"v"
    assert _keyspace.store(cache, b"\0k", bytes(9_000))
    check(cache)


@given(
    changes=st.lists(
        st.tuples(st.binary(max_size=3), st.none() | st.binary(max_size=300)), max_size=60
    )
)
def test_a_hash_knows_its_size(changes: list[tuple[bytes, bytes | None]]) -> None:
    value = Hash()
    model: dict[bytes, bytes] = {}
    for field, new in changes:
        if new is None:
            assert value.drop(field) == model.pop(field, None)
        else:
            assert value.put(field, new) == model.get(field)
            model[field] = new
        assert value == model
        assert list(value) == list(model)
        parts = sum(getsizeof(each) for pair in value.items() for each in pair)
        assert getsizeof(value) == dict.__sizeof__(value) + parts + getsizeof({}) - {}.__sizeof__()
    assert getsizeof(Hash(value.items())) <= getsizeof(value)


# --- floats ---


@pytest.mark.parametrize(
    ("one", "other", "total"),
    [
        (b"0.1", b"0.2", b"0.3"),
        (b"3.0e3", b"200", b"3200"),
        (b"-0.5", b"0.5", b"0"),
        (b"-0", b"-0", b"0"),
        (b"0x1p3", b"1", b"9"),
        (b"1e-18", b"0", b"0"),
        (b"1e19", b"1", b"10000000000000000001"),
        (b"inf", b"-inf", None),
        (b"inf", b"1", None),
    ],
)
def test_sums_of_floats(one: bytes, other: bytes, total: bytes | None) -> None:
    assert _keyspace.add_floats(one, other) == total


@pytest.mark.parametrize("text", [b"", b" 1", b"1 ", b"1x", b"nan", b"1\0", b"x", b"1" * 5120])
def test_what_is_no_float(text: bytes) -> None:
    assert not _keyspace.is_float(text)
    with pytest.raises(ValueError, match="not a number"):
        _keyspace.add_floats(b"1", text)
