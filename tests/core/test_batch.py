"""Many keys at once: results aligned with the keys, the same accounting as one by one, gather."""

from __future__ import annotations

import random
from collections import OrderedDict, UserDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore import MISSING, Cache
from support import Clock, Key, MakeCache

keys = st.one_of(
    st.integers(-3, 60), st.text("abc", max_size=2), st.binary(max_size=1), st.booleans(),
    st.floats(0, 5).map(round), st.tuples(st.integers(0, 5)),
)  # fmt: skip


@given(st.dictionaries(keys, st.integers()), st.lists(keys, max_size=120), st.booleans())
def test_get_many_is_get_of_each(held: dict[Any, int], asked: list[Any], expiring: bool) -> None:
    cache: Cache[Any, int] = Cache(1000, ttl=1e6 if expiring else None)
    cache.set_many(held)
    singly = cache.copy()
    assert cache.get_many(asked, MISSING) == [held.get(key, MISSING) for key in asked]
    for key in asked:
        singly.get(key)
    assert cache.stats()[:2] == singly.stats()[:2]
    assert dict(cache.hottest(1000)) == dict(singly.hottest(1000))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32, 33, 1000])
def test_get_many_of_any_length(make: MakeCache, count: int) -> None:
    cache = make(2000)
    cache.update({f"key:{i}": i for i in range(0, count, 2)})
    asked = [f"key:{i}" for i in range(count)]
    expected = [i if i % 2 == 0 else None for i in range(count)]
    assert cache.get_many(asked) == cache.get_many(tuple(asked)) == expected
    assert cache.get_many(iter(asked)) == cache.get_many(key for key in asked) == expected
    assert cache.get_many(dict.fromkeys(asked), -1) == [-1 if e is None else e for e in expected]
    assert cache.get_many(keys=asked, default=None) == expected


def test_get_many_returns_a_new_list_each_time(make: MakeCache) -> None:
    cache = make(8)
    cache["a"] = [1]
    first, second = cache.get_many(["a"]), cache.get_many(["a"])
    assert first is not second
    assert first[0] is second[0] is cache["a"]


def test_get_many_mixes_kinds_of_keys(make: MakeCache) -> None:
    cache = make(1000)
    mixed: list[Any] = []
    for i in range(100):
        mixed += [i, f"{i}", f"{i}".encode(), (i,), float(i) + 0.5, Key(i), -(i + 2) * 2**80]
    cache.update({key: ("of", key) for key in mixed})
    random.Random(1).shuffle(mixed)
    assert cache.get_many(mixed) == [("of", key) for key in mixed]
    assert cache.stats().hits == len(mixed)


def test_get_many_skips_the_expired(clock: Clock, make: MakeCache) -> None:
    cache = make(200, timer=clock)
    for i in range(100):
        cache.set(i, i, ttl=1 if i % 3 == 0 else 10)
    clock.advance(5)
    assert cache.get_many(range(100)) == [None if i % 3 == 0 else i for i in range(100)]
    assert (cache.stats().hits, cache.stats().misses) == (66, 34)


@pytest.mark.parametrize("keys", ["abc", b"abc", None, 5, object()])
@pytest.mark.parametrize("method", ["get_many", "delete_many", "gather"])
def test_keys_must_be_an_iterable_of_keys(make: MakeCache, method: str, keys: Any) -> None:
    cache = make(8)
    cache["a"] = 1
    extra = (np.empty((3, 1)),) if method == "gather" else ()
    with pytest.raises(TypeError, match="keys"):
        getattr(cache, method)(keys, *extra)
    assert cache == {"a": 1}


def test_an_error_of_the_iterable_passes_through(make: MakeCache) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("torn")

    cache = make(8)
    cache[1] = 1
    for method in ("get_many", "delete_many"):
        with pytest.raises(LookupError, match="torn"):
            getattr(cache, method)(broken())
    assert cache == {1: 1}
    with pytest.raises(TypeError, match="unhashable"):
        cache.get_many([1] * 20 + [[]] + [1] * 20)


@pytest.mark.parametrize(
    "items",
    [
        {"a": 1, "b": 2},
        OrderedDict(a=1, b=2),
        UserDict(a=1, b=2),
        [("a", 1), ["b", 2]],
        (pair for pair in [("a", 0), ("b", 2), ("a", 1)]),
        zip("ab", [1, 2], strict=True),
        {"a": 1, "b": 2}.items(),
    ],
    ids=lambda items: type(items).__name__,
)
def test_set_many_takes_mappings_and_pairs(make: MakeCache, items: Any) -> None:
    cache = make(8)
    cache.set_many(items)
    assert cache == {"a": 1, "b": 2}


def test_set_many_of_a_cache_and_of_itself(make: MakeCache) -> None:
    cache, other = make(8), make(8)
    other.update(a=1, b=2)
    cache.set_many(other)
    other.update(other)
    assert cache == other == {"a": 1, "b": 2}


@pytest.mark.parametrize("items", [5, None, ["ab", "c"], [("a",)], [("a", 1, 2)], [5]])
@pytest.mark.parametrize("method", ["set_many", "update"])
def test_what_is_not_pairs_is_an_error(make: MakeCache, method: str, items: Any) -> None:
    cache = make(8)
    with pytest.raises((TypeError, ValueError)):
        getattr(cache, method)(items)


def test_set_many_past_the_bound_keeps_the_last(make: MakeCache) -> None:
    cache = make(10)
    cache.set_many((i, i) for i in range(1000))
    assert len(cache) == 10
    assert cache[999] == 999


def test_delete_many_counts_what_was_there(make: MakeCache) -> None:
    cache = make(8)
    cache.update(a=1, b=2, c=3)
    assert cache.delete_many(["a", "z", "a", "c"]) == 2
    assert cache.delete_many(key for key in ["a"]) == 0
    assert cache.delete_many(cache) == 1
    assert len(cache) == 0


# --- gather ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", "f4 f8 u1 i8 c16 ? >f4 S7 M8[s] f4,i2".split())
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (0,), (1024,)])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_gather_copies_values_and_zeroes_missing_rows(
    make: MakeCache, dtype: str, shape: tuple[int, ...], count: int
) -> None:
    rng = np.random.default_rng(1)
    cache = make(100)
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    rows: list[npt.NDArray[Any]] = []
    for i in range(count):
        data = rng.integers(0, 2, size, np.uint8).tobytes()
        rows.append(np.frombuffer(data, dtype).reshape(shape))
        if i % 3:
            cache[i] = rows[-1].copy()
    out = np.frombuffer(bytearray(b"\xff" * size * count), dtype).reshape(count, *shape)
    found = cache.gather(list(range(count)), out)
    assert found.dtype == np.bool_
    assert found.tolist() == [i % 3 != 0 for i in range(count)]
    for i in range(count):
        expected = rows[i].tobytes() if i % 3 else bytes(size)
        assert out[i : i + 1].tobytes() == expected  # scalars would be converted
    assert cache.stats().hits + cache.stats().misses == count


def test_gather_takes_any_layout_of_a_value(make: MakeCache) -> None:
    cache = make(8, copy_arrays=False)
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    cache.update(
        plain=plain,
        fortran=np.asfortranarray(plain),
        strided=np.repeat(plain, 2, axis=1)[:, ::2],
        flat=plain.ravel(),
        reversed=plain[::-1, ::-1][::-1, ::-1],
        scalar_rows=plain.reshape(12, 1),
        as_bytes=plain.tobytes(),
        subclass=np.asmatrix(plain),
    )
    names = list(cache)
    out = np.empty((len(names), 3, 4), np.float32)
    assert cache.gather(names, out).all()
    assert (out == plain).all()


def test_gather_repeats_a_row_for_a_repeated_key(make: MakeCache) -> None:
    cache = make(8)
    cache["a"] = np.arange(4.0)
    out = np.empty((50, 4))
    assert cache.gather(["a", "z"] * 25, out).tolist() == [True, False] * 25
    assert (out[::2] == np.arange(4.0)).all()
    assert not out[1::2].any()


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array


BAD_OUT: dict[str, tuple[Any, type[Exception]]] = {
    "no array": ([[0.0] * 4] * 2, TypeError),
    "None": (None, TypeError),
    "bytearray": (bytearray(32), TypeError),
    "0-d": (np.zeros((), np.float32), ValueError),
    "fewer rows": (np.ones((1, 4), np.float32), ValueError),
    "more rows": (np.ones((3, 4), np.float32), ValueError),
    "short rows": (np.ones((2, 3), np.float32), ValueError),
    "long rows": (np.ones((2, 5), np.float32), ValueError),
    "no columns": (np.ones(2, np.float32), ValueError),
    "another dtype": (np.ones((2, 4), np.float64), ValueError),
    "same size, other dtype": (np.ones((2, 4), np.int32), ValueError),
    "other byte order": (np.ones((2, 4), ">f4"), ValueError),
    "objects": (np.ones((2, 4), object), ValueError),
    "strided": (np.ones((2, 8), np.float32)[:, ::2], ValueError),
    "Fortran order": (np.asfortranarray(np.ones((2, 4), np.float32)), ValueError),
    "read-only": (read_only(np.ones((2, 4), np.float32)), ValueError),
}


@pytest.mark.parametrize("kind", BAD_OUT)
def test_a_bad_out_is_named_and_untouched(make: MakeCache, kind: str) -> None:
    cache = make(8)
    cache["a"] = np.arange(4, dtype=np.float32)
    cache["b"] = np.arange(4, dtype=np.float32)
    out, error = BAD_OUT[kind]
    before = repr(out)
    with pytest.raises(error, match="out"):
        cache.gather(["a", "b"], out)
    assert repr(out) == before


@pytest.mark.parametrize(
    "value", [1.0, "text", None, b"123", np.zeros(3, np.float32), np.zeros(4), [0.0] * 4]
)
def test_a_value_that_does_not_fit_writes_nothing(make: MakeCache, value: Any) -> None:
    cache = make(8)
    cache["a"] = np.arange(4, dtype=np.float32)
    cache["odd"] = value
    out = np.ones((3, 4), np.float32)
    with pytest.raises((TypeError, ValueError), match="odd"):
        cache.gather(["a", "absent", "odd"], out)
    assert (out == 1).all()


def test_out_may_be_a_part_of_a_larger_array_and_hold_a_cached_value(make: MakeCache) -> None:
    cache = make(8, copy_arrays=False)
    block = np.zeros((10, 4), np.float32)
    block[2] = 7
    cache["own row"] = block[2]
    assert cache.gather(["own row"] * 3, block[1:4]).all()
    assert (block[1:4] == 7).all()
    assert not block[[0, *range(4, 10)]].any()
