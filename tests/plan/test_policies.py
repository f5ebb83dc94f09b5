"""Other policies by libcachesim: LRU and the optimum against exact ones, and sampling."""

from __future__ import annotations

import heapq
import platform
import sys
from collections import OrderedDict

import numpy as np
import pytest

from cachecore.plan import Trace, collect, policies, trace_of
from cachecore.plan.logs import Chunk
from cachecore.plan.policies import POLICIES, libcachesim_is_installed, published_curves
from plan.traces import Keys, loop, scanned, skewed

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14) or platform.machine() != "x86_64",
    reason="libcachesim has no wheel for this machine",
)
TRACES = {
    "skewed": skewed(40_000, 1 << 13, 1),
    "loop": loop(40_000, 1_000),
    "scanned": scanned(40_000, 1 << 11, 2),
}


def exact_lru(keys: Keys, size: int) -> int:
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in keys.tolist():
        if key in held:
            hits += 1
            held.move_to_end(key)
        else:
            held[key] = None
            if len(held) > size:
                held.popitem(last=False)
    return hits


def exact_optimum(keys: Keys, size: int) -> int:
    """Belady's: the entry goes that is asked for again the latest, or never."""
    ahead = dict.fromkeys(keys.tolist(), len(keys))
    following = np.empty(len(keys), np.int64)
    for at in range(len(keys) - 1, -1, -1):
        following[at] = ahead[keys[at]]
        ahead[keys[at]] = at
    held: dict[int, int] = {}
    latest: list[tuple[int, int]] = []
    hits = 0
    for key, again in zip(keys.tolist(), following.tolist(), strict=True):
        hits += key in held
        if key not in held and len(held) == size:
            while True:
                place, victim = heapq.heappop(latest)
                if held.get(victim) == -place:
                    del held[victim]
                    break
        held[key] = again
        heapq.heappush(latest, (-again, key))
    return hits


@pytest.mark.parametrize("name", TRACES)
def test_lru_and_the_optimum_are_exact(name: str) -> None:
    keys = TRACES[name]
    distinct = len(np.unique(keys))
    sizes = [50, 100, 400, distinct // 2, distinct, distinct + 5]
    shares: list[float] = []
    curves = published_curves(trace_of(keys), sizes, shares.append)
    assert list(curves) == list(POLICIES)
    assert shares[-1] == 1
    for ratios in curves.values():
        assert ratios[0] is None  # too small for some of them
        assert ratios[-2:] == [1 - distinct / len(keys)] * 2
    for place, size in enumerate(sizes[1:4], 1):
        assert curves["LRU"][place] == pytest.approx(exact_lru(keys, size) / len(keys))
        optimum = exact_optimum(keys, size) / len(keys)
        assert curves["optimum"][place] == pytest.approx(optimum, abs=1e-4)
        for name in ("LFU", "S3-FIFO", "W-TinyLFU"):
            ratio = curves[name][place]
            assert ratio is not None
            assert 0 <= ratio <= optimum + 1e-4


def test_samples_are_near_the_whole() -> None:
    keys = skewed(120_000, 1 << 17, 3)
    sizes = [100, 4_000, 12_000]
    half: Trace = collect([Chunk(part.tolist()) for part in np.array_split(keys, 9)], most=90_000)
    assert half.rate < 1
    whole = published_curves(trace_of(keys), sizes, lambda _share: None)
    for trace, most in ((trace_of(keys), 40_000), (half, 10**6), (half, 40_000)):
        sampled = published_curves(trace, sizes, lambda _share: None, most=most)
        for policy in POLICIES:
            assert sampled[policy][0] is None
            assert sampled[policy][1:] == pytest.approx(whole[policy][1:], abs=0.04)


def test_what_fails_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert libcachesim_is_installed()
    monkeypatch.setitem(policies.POLICIES, "LRU", "Nonesuch")
    with pytest.raises(RuntimeError, match="libcachesim's Nonesuch failed: AttributeError"):
        published_curves(trace_of(TRACES["loop"]), [200], lambda _share: None)
