"""Traces: what a log leaves behind, whole or sampled, and that statistics survive sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cachecore.plan import Trace, collect, trace_of
from cachecore.plan.logs import UNKNOWN, Chunk
from cachecore.plan.traffic import fit_zipf, traffic
from plan.traces import skewed


def chunked(keys: list[Any], length: int = 5_000) -> list[Chunk]:
    return [Chunk(keys[at : at + length]) for at in range(0, len(keys), length)]


def zipf_keys(count: int, keys: int, exponent: float, seed: int) -> npt.NDArray[np.int64]:
    """Requests drawn independently by Zipf's law."""
    weights = np.arange(1, keys + 1) ** -exponent
    drawn = np.random.default_rng(seed).random(count)
    return np.searchsorted(np.cumsum(weights) / weights.sum(), drawn)


# --- traces ---


@pytest.mark.parametrize("kind", [str, int])
def test_keys_are_numbered_as_they_come(kind: type) -> None:
    keys = skewed(20_000, 1 << 12, 1).tolist()
    number: dict[int, int] = {}
    expected = [number.setdefault(key, len(number)) for key in keys]
    trace = collect(chunked([kind(key) for key in keys]))
    assert trace.keys.tolist() == expected
    assert (trace.requests, trace.rate, trace.complete) == (20_000, 1.0, True)
    assert (trace.sizes, trace.times, trace.costs) == (None, None, None)


def test_key_bytes_are_those_of_the_objects() -> None:
    assert collect([Chunk(["abcd", "ef"])]).key_bytes == 49 + 3
    assert collect([Chunk([1, 2])]).key_bytes == 28


def test_requests_come_in_the_order_of_their_times() -> None:
    chunks = [
        Chunk(["a", "b"], [1, 2], [5.0, 7.0], [1.0, 2.0]),
        Chunk(["c", "b"], [3, 4], [6.0, 6.0], [3.0, 4.0]),
    ]
    trace = collect(chunks)
    for column, expected in (
        (trace.keys, [0, 1, 2, 2]),
        (trace.sizes, [1, 3, 4, 2]),
        (trace.times, [5, 6, 6, 7]),
        (trace.costs, [1, 3, 4, 2]),
    ):
        assert column is not None
        assert column.tolist() == expected


def test_sizes_that_are_not_known() -> None:
    chunks = [Chunk(list("abca"), [UNKNOWN, 30, UNKNOWN, 10]), Chunk(["b", "d"])]
    trace = collect(chunks)
    assert trace.sizes is not None
    assert trace.sizes.tolist() == [10, 30, 20, 10, 30, 20]
    assert trace.sizes_known == pytest.approx(2 / 6)
    assert collect([Chunk(["a"], [0])]).sizes == [1]
    assert collect([Chunk(["a"], [UNKNOWN])]).sizes is None


@pytest.mark.parametrize("kind", [str, int])
def test_a_long_log_leaves_a_sample_of_its_keys(kind: type) -> None:
    keys = zipf_keys(400_000, 200_000, 0.7, 2).tolist()
    trace = collect(chunked([kind(key) for key in keys]), most=80_000)
    assert trace.requests == 400_000
    assert trace.rate in (0.125, 0.25)
    assert trace.complete
    assert len(trace.keys) <= 80_000
    whole, counts = np.unique(keys, return_counts=True)
    sampled = np.bincount(trace.keys)
    assert len(sampled) / trace.rate == pytest.approx(len(whole), rel=0.05)
    # The requests of a key are all there or none.
    assert (sampled == 1).mean() == pytest.approx((counts == 1).mean(), abs=0.02)
    assert set(sampled.tolist()) <= set(counts.tolist())


def test_a_log_of_few_keys_is_read_in_part() -> None:
    taken = 0

    def chunks() -> Any:
        nonlocal taken
        for chunk in chunked((np.arange(100_000) % 5000).tolist()):
            taken += 1
            yield chunk

    trace = collect(chunks(), most=20_000)
    assert not trace.complete
    assert trace.rate == 1
    assert trace.requests == len(trace.keys) == 25_000
    assert taken == 5


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"keys": ["a"]}, TypeError, "keys"),
        ({"sizes": [1]}, ValueError, "sizes"),
        ({"sizes": [1, -1]}, ValueError, "sizes"),
        ({"times": [1, np.nan]}, ValueError, "times"),
        ({"costs": [1, 0]}, ValueError, "costs"),
    ],
)
def test_bad_arrays_are_named(arguments: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        trace_of(**{"keys": [1, 2], **arguments})


# --- statistics ---


@pytest.mark.parametrize("exponent", [0.6, 0.8, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("keys", [2_000, 100_000])
def test_zipf_exponent(exponent: float, keys: int) -> None:
    found = traffic(trace_of(zipf_keys(400_000, keys, exponent, 1))).zipf
    assert found is not None
    assert found.exponent == pytest.approx(exponent, abs=0.03)


def test_zipf_exponent_of_a_sample() -> None:
    keys = zipf_keys(2_000_000, 200_000, 0.9, 3)
    trace = collect([Chunk(part.tolist()) for part in np.array_split(keys, 20)], most=500_000)
    assert trace.rate < 0.5
    found = traffic(trace).zipf
    assert found is not None
    assert found.exponent == pytest.approx(0.9, abs=0.05)
    assert 0.5 < found.first / np.bincount(keys).max() < 2  # the first hundred were not fitted


def test_no_zipf_law_for_keys_asked_for_once() -> None:
    assert fit_zipf(np.ones(1000, np.int64)) is None
    flat = fit_zipf(np.full(1000, 50))
    assert flat is not None
    assert flat.exponent == pytest.approx(0, abs=1e-5)


def test_counts() -> None:
    # Key 0 a hundred times, 1 ... 99 twice, then 100 others once.
    keys = [0] * 100 + [*range(1, 100)] * 2 + [*range(100, 200)]
    times = np.linspace(100, 140, len(keys))
    seen = traffic(trace_of(keys, sizes=[10] * len(keys), times=times))
    assert seen.distinct_keys == 200
    assert seen.one_hit_keys == 0.5
    assert seen.one_hit_requests == pytest.approx(100 / 398)
    assert seen.top_1_percent == pytest.approx(102 / 398)
    assert seen.top_10_percent == pytest.approx(138 / 398)
    assert (seen.object_bytes, seen.working_set_bytes) == (10, 2000)
    assert seen.seconds == pytest.approx(40)
    assert seen.requests_per_second == pytest.approx(398 / 40)
    assert seen.popularity[0] == (1, 100)
    assert seen.popularity[-1] == (200, 1)


@pytest.mark.parametrize("timed", [False, True])
def test_working_set_over_time(timed: bool) -> None:
    keys = np.concatenate([np.arange(40_000) % 100, 1000 + np.arange(40_000) % 500])
    # With times the first half takes three quarters.
    at = np.concatenate([np.linspace(0, 30, 40_000), np.linspace(30, 40, 40_001)[1:]])
    slices = traffic(trace_of(keys, times=at if timed else None)).slices
    assert len(slices) == 40
    first = 30 if timed else 20
    assert [part.distinct_keys for part in slices[: first - 1]] == [100] * (first - 1)
    assert [part.distinct_keys for part in slices[first + 1 :]] == [500] * (39 - first)
    assert sum(part.new_keys for part in slices) == 600
    assert slices[0].new_keys == 100
    assert slices[1].start == pytest.approx(1 if timed else 2000)


def test_a_sample_says_what_the_whole_says() -> None:
    keys = zipf_keys(600_000, 200_000, 0.8, 5).tolist()
    whole = traffic(collect(chunked(keys)))
    sample: Trace = collect(chunked(keys), most=200_000)
    assert sample.rate < 0.5
    part = traffic(sample)
    assert part.distinct_keys == pytest.approx(whole.distinct_keys, rel=0.02)
    assert part.one_hit_keys == pytest.approx(whole.one_hit_keys, abs=0.02)
    assert part.top_10_percent == pytest.approx(whole.top_10_percent, abs=0.02)
    assert part.one_hit_requests == pytest.approx(whole.one_hit_requests, abs=0.01)
    for a, b in zip(part.slices, whole.slices, strict=True):
        assert a.distinct_keys == pytest.approx(b.distinct_keys, rel=0.15)
