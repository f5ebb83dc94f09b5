"""Hash flooding: keys chosen against the table must not make look-ups slow.

Int keys hash to themselves in Python, so anybody who chooses keys chooses hashes; the table mixes
them with a secret. Times are compared with those of random keys in the same process, in turns.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from cachecore import Cache
from support import check

COUNT = 20_000
MOST = 4.0  # times an ordinary look-up


def stride(power: int) -> Callable[[int], int]:
    return lambda n: n << power


FLOODS: dict[str, Callable[[int], Any]] = {
    "consecutive": lambda n: n,
    **{f"stride 2^{power}": stride(power) for power in (*range(1, 32, 5), *range(32, 46))},
    "equal modulo the table": lambda n: 7 + n * 2**15,
    "negative strides": lambda n: -(n << 32) - 2,
    "two strides": lambda n: (n & 127) << 32 | (n >> 7) << 20,
    "high and low bits": lambda n: n << 40 | n,
    "multiples of an odd number": lambda n: n * 0x9E3779B97F4A7C15,
    "floats": lambda n: float(n << 30),
    "pairs": lambda n: (n << 32, 0),
}


def build(keys: list[Any]) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(COUNT)
    for key in keys:
        cache[key] = key
    return cache


def seconds(cache: Cache[Any, Any], keys: list[Any]) -> float:
    random.shuffle(keys)
    start = time.perf_counter()
    cache.get_many(keys)
    return time.perf_counter() - start


@pytest.mark.parametrize("flood", FLOODS)
def test_chosen_keys_are_looked_up_at_most_four_times_slower(flood: str) -> None:
    """Present keys and absent ones of the same kind; the best of many turns is free of noise."""
    kind = type(FLOODS[flood](1))
    hostile = [FLOODS[flood](n) for n in range(2 * COUNT)]
    random.shuffle(hostile)
    numbers = [random.getrandbits(60) for _ in range(2 * COUNT)]
    ordinary = [(n, 0) if kind is tuple else kind(n) for n in numbers]
    caches = [build(keys[:COUNT]) for keys in (hostile, ordinary)]
    assert len(caches[0]) == COUNT
    for part in (slice(COUNT), slice(COUNT, None)):
        asked = [hostile[part], ordinary[part]]
        times = [[seconds(*turn) for turn in zip(caches, asked, strict=True)] for _ in range(25)]
        best = [min(side) for side in zip(*times, strict=True)]
        assert best[0] / best[1] < MOST, best
    check(caches[0])


@pytest.mark.parametrize("power", [0, 32, 40, 44])
def test_no_secret_is_an_unlucky_one(power: int) -> None:
    """Every table mixes with a secret of its own; all of 200 of them must do well with a stride."""
    count = 4000
    keys = [n << power for n in range(2 * count)]
    random.shuffle(keys)
    present, absent = keys[:count], keys[count:]
    caches = []
    for _ in range(200):
        caches.append(Cache[Any, Any](count))
        caches[-1].update(zip(present, present, strict=True))
    for asked in (present, absent):
        times = [min(seconds(cache, asked) for _ in range(5)) for cache in caches]
        typical = sorted(times)[len(times) // 2]
        for cache, best in zip(caches, times, strict=True):
            if best > MOST * typical:  # once more, should it have been noise
                again = min(seconds(cache, asked) for _ in range(50))
                assert again < MOST * typical, (again, typical)


def test_keys_of_one_hash_stay_correct() -> None:
    """Multiples of 2^61 - 1 all hash to 0 in Python itself: slow in a dict too, never wrong."""
    keys = [n * (2**61 - 1) for n in range(1000)]
    cache = build(keys)
    assert cache.get_many(keys) == keys
    assert cache.get(2000 * (2**61 - 1)) is None
    assert cache.delete_many(keys[::2]) == 500
    assert cache.get_many(keys) == [None if n % 2 == 0 else keys[n] for n in range(1000)]
    check(cache)


def test_every_table_has_its_own_secret() -> None:
    """What the secret decides is not visible from outside, except in whom sampling evicts."""
    assert len({frozenset(build(list(range(2 * COUNT)))) for _ in range(5)}) > 1
