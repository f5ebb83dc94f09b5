"""PrefixCache used from within its own calls, by tokens and by collections, and by threads."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from cachecore.ml import PrefixCache
from ml.blocks import BLOCK, bytes_of_one, cache, numbers, states


class Reentrant:
    """A token that uses the cache while it is converted."""

    def __init__(self, kept: PrefixCache) -> None:
        self.kept = kept

    def __index__(self) -> int:
        self.kept.clear()
        self.kept.put([3] * BLOCK, states(1))
        return 3


def test_a_token_that_changes_the_cache() -> None:
    kept = cache()
    kept.put(range(8), states(2))
    assert kept.match([Reentrant(kept), 3, 3, 3]).length == 4
    assert kept.put([3, 3, 3, 3, Reentrant(kept), 3, 3, 3], states(2)) == 8
    kept._check()


@pytest.fixture
def collecting() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Have garbage collected as often as can be, and something done each time."""
    threshold = gc.get_threshold()
    called: list[Callable[..., object]] = []

    def each_time(act: Callable[[], object]) -> None:
        called.append(lambda phase, info: act() if phase == "stop" else None)
        gc.callbacks.append(called[0])
        gc.set_threshold(1)

    yield each_time
    gc.set_threshold(*threshold)
    gc.callbacks.remove(called[0])


def layers(count: int) -> list[tuple[Any, ...]]:
    """Blocks so large that CPython 3.11 has none in reserve: making one may start a collection."""
    return [(state,) * 25 for state in states(count)]


def test_a_collection_that_changes_the_cache(
    collecting: Callable[[Callable[[], object]], None],
) -> None:
    """What was there when a put began is gone before it has copied the rest: at each moment."""
    kept = cache()
    tokens = range(6 * BLOCK)
    left, partial = [-1], 0

    def clear_at_last() -> None:
        left[0] -= 1
        if left[0] == 0:
            kept.clear()

    collecting(clear_at_last)
    for moment in range(1, 60):
        kept.clear()
        kept.put(tokens[: 2 * BLOCK], layers(2))
        given = layers(6)
        left[0] = moment
        here = kept.put(tokens, given)
        partial += left[0] <= 0 and here == 0
        left[0] = -1
        for state, *_ in given:
            state[:] = 99
        found = kept.match(tokens)
        assert found.length == here
        assert numbers([block[0] for block in found.blocks]) == list(range(len(found.blocks)))
        kept._check()
    if sys.version_info < (3, 12):  # from then on collections wait for the interpreter's loop
        assert partial > 0


def test_threads_that_put_and_match_the_same_prefixes() -> None:
    kept = cache(40 * bytes_of_one())
    wrong: list[object] = []
    shared = [7] * (3 * BLOCK)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(300):
            tail = int(random.integers(20))
            tokens = shared + [100 + tail] * (3 * BLOCK)
            expected = [0, 1, 2, *(10 * (tail + 1) + at for at in range(3))]
            found = kept.match(tokens)
            if numbers(found.blocks) != expected[: len(found.blocks)]:
                wrong.append(found)
            rest = [np.full((2, BLOCK, 3), number, np.float32) for number in expected]
            kept.put(tokens, [*found.blocks, *rest[len(found.blocks) :]])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    kept._check()
    assert kept.stats().lookups == 1200
