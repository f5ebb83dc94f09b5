"""PrefixCache under tokens and blocks that use it while they are converted, and under threads."""

from __future__ import annotations

import threading

import numpy as np

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


def test_a_block_that_changes_the_cache() -> None:
    kept = cache()

    class Part(np.ndarray):
        def __array_finalize__(self, other: object) -> None:
            kept.clear()
            kept.put(range(BLOCK), states(1, first=50))

    parts = [part.view(Part) for part in states(3)]
    assert kept.put(range(12), parts) in (0, 4, 12)
    kept._check()
    assert numbers(kept.match(range(4)).blocks) in ([], [0], [50])


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
