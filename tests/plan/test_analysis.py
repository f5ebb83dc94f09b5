"""analyze: sizes that reach what was asked, money that adds up, and the right verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cachecore.plan import Plan, Terms, analysis, analyze, collect, simulate, trace_of
from cachecore.plan.logs import Chunk
from plan.traces import loop, randoms, skewed

KEYS = skewed(100_000, 1 << 14, 1)


@pytest.fixture(autouse=True)
def _without_libcachesim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its curves have tests of their own, and take most of the time."""
    monkeypatch.setattr(analysis, "libcachesim_is_installed", lambda: False)


def plan(keys: Any, terms: Terms | None = None, **options: Any) -> Plan:
    return analyze(trace_of(keys), terms, **options)


def test_the_curve_is_what_simulate_says() -> None:
    result = plan(KEYS)
    distinct = len(np.unique(KEYS))
    assert result.traffic.distinct_keys == distinct
    assert result.attainable == pytest.approx(1 - distinct / len(KEYS))
    sizes = [outcome.entries or 0 for outcome in result.curve]
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (100, distinct)
    numbered = trace_of(KEYS).keys
    for outcome in result.curve:
        assert outcome.hit_ratio == pytest.approx(simulate(numbered, outcome.entries).hit_ratio)
        assert outcome.memory_bytes == (outcome.entries or 0) * (4096 + 64 + 28)
        assert outcome.error == 0
    assert result.policies == {}
    assert any("pip install" in note for note in result.notes)


def test_targets_are_reached_by_the_least_size() -> None:
    result = plan(KEYS, targets=(0.5, 0.7, 0.99))
    low, middle, high = result.targets
    assert high.outcome is None
    numbered = trace_of(KEYS).keys
    for target in (low, middle):
        assert target.outcome is not None
        assert target.outcome.entries is not None
        assert target.outcome.hit_ratio >= target.hit_ratio
        smaller = simulate(numbered, round(target.outcome.entries * 0.95))
        assert smaller.hit_ratio < target.hit_ratio
    assert result.recommended.hit_ratio >= 0.9 * result.attainable
    assert result.recommended.hit_ratio < 0.93 * result.attainable


def test_sizes_asked_for() -> None:
    result = plan(KEYS, Terms(value_bytes=1000), maxsize=[77], max_bytes=[109_200])
    first, second = result.asked
    assert (first.entries, first.memory_bytes) == (77, 77 * 1092)
    assert (second.entries, second.memory_bytes) == (100, 109_200)


def test_bounds_of_bytes_where_sizes_are_known() -> None:
    sizes = KEYS % 50 * 100 + 1
    result = analyze(trace_of(KEYS, sizes=sizes), max_bytes=[10**6])
    counted = sizes + 64 + 28
    expected = simulate(trace_of(KEYS).keys, sizes=counted, max_bytes=10**6)
    (asked,) = result.asked
    assert asked.entries is None
    assert asked.hit_ratio == pytest.approx(expected.hit_ratio)
    assert asked.byte_hit_ratio == pytest.approx(expected.byte_hit_ratio)
    curve = result.byte_curve
    assert [o.memory_bytes for o in curve] == sorted(o.memory_bytes for o in curve)
    assert curve[-1].hit_ratio == pytest.approx(result.attainable)
    assert result.terms.value_bytes == result.traffic.object_bytes
    assert "value_bytes" not in result.terms.assumed


def test_costs_are_saved() -> None:
    costs = 10.0 ** (KEYS % 3)
    result = analyze(trace_of(KEYS, costs=costs))
    expected = simulate(trace_of(KEYS).keys, result.curve[3].entries, costs=costs)
    assert result.curve[3].cost_saved == pytest.approx(expected.cost_saved)


def test_latency_and_money() -> None:
    terms = Terms(
        value_bytes=932,
        hit_latency=1e-6,
        miss_latency=10e-3,
        gpu_time=0.036,
        gpu_hour_price=2.0,
        memory_price=0.01,
        rate=100.0,
    )
    result = plan(KEYS, terms, maxsize=[2**20])
    assert result.terms.assumed == ()
    for o in (*result.curve, *result.asked):
        assert o.latency == pytest.approx(1e-6 + (1 - o.hit_ratio) * 10e-3)
        assert o.gpu_hours_a_day == pytest.approx(o.hit_ratio * 100 * 86_400 * 1e-5)
        assert o.saved_a_day == pytest.approx(2 * (o.gpu_hours_a_day or 0))
        assert o.memory_a_day == pytest.approx(o.memory_bytes / 2**30 * 0.24)
        assert o.net_a_day == pytest.approx((o.saved_a_day or 0) - (o.memory_a_day or 0))
    assert result.asked[0].memory_bytes == 2**30
    most = max(o.net_a_day or 0 for o in result.curve)
    assert result.recommended.net_a_day is not None
    assert result.recommended.net_a_day >= most
    assert result.verdict.worth_it


def test_dear_memory_asks_for_a_smaller_cache() -> None:
    terms = {"gpu_time": 1e-3, "gpu_hour_price": 1.0, "rate": 100.0}
    cheap = plan(KEYS, Terms(**terms)).recommended
    dear = plan(KEYS, Terms(**terms, memory_price=0.5)).recommended
    assert (dear.entries or 0) < (cheap.entries or 0)


def test_what_is_assumed_is_named() -> None:
    assert plan(KEYS[:999]).terms.assumed == ("value_bytes", "hit_latency", "miss_latency")
    priced = plan(KEYS[:999], Terms(gpu_time=1.0, gpu_hour_price=1, rate=1, hit_latency=1e-7)).terms
    assert priced.assumed == ("value_bytes", "miss_latency", "memory_price")
    assert priced.miss_latency == 1.0  # at least as long as the GPU works
    timed = analyze(trace_of(KEYS[:999], times=np.arange(999) / 50)).terms
    assert timed.rate == pytest.approx(50, rel=0.01)


UNIFORM = (randoms(100_000, 3) % np.uint64(10_000)).astype(np.int64)
SCARCE = {"gpu_time": 1e-6, "gpu_hour_price": 1.0, "rate": 1.0, "memory_price": 1.0}


@pytest.mark.parametrize(
    ("keys", "terms", "why"),
    [
        (KEYS, {}, "worth it"),
        (KEYS % 50, {}, "worth it"),  # a hot set, and little beside
        (np.arange(50_000), {}, "few repeats"),
        (np.arange(50_000) // 1.05, {}, "few repeats"),
        (UNIFORM, {"value_bytes": 2**20}, "no hot set"),
        (loop(100_000, 5_000), {"value_bytes": 2**20}, "no hot set"),
        (UNIFORM, {}, "worth it"),  # 40 MB hold it all
        (KEYS, {"hit_latency": 1e-3, "miss_latency": 1e-3}, "hits not faster"),
        (KEYS, {"hit_latency": 8e-4, "miss_latency": 1e-3}, "hits not faster"),
        (KEYS, SCARCE, "memory costs more"),
        (np.arange(50_000), SCARCE, "few repeats"),
        (UNIFORM, {**SCARCE, "gpu_time": 1.0}, "worth it"),  # money decides
    ],
)
def test_verdicts(keys: Any, terms: dict[str, float], why: str) -> None:
    verdict = plan(np.asarray(keys).astype(np.int64), Terms(**terms)).verdict
    assert verdict.why == why
    assert verdict.worth_it == (why == "worth it")
    assert any(character.isdigit() for character in verdict.reason)


@pytest.mark.parametrize("keys", [[7], [7] * 50, [1, 2], list(range(12)) * 3])
def test_tiny_traces(keys: list[int]) -> None:
    result = plan(keys, maxsize=[1, 10**9], max_bytes=[1, 10**12])
    assert result.curve[-1].hit_ratio == pytest.approx(1 - len(set(keys)) / len(keys))
    assert len(result.asked) == 4


def test_a_sample_is_near_the_whole_and_says_its_error() -> None:
    keys = skewed(300_000, 1 << 18, 4)
    chunks = [Chunk(part.tolist()) for part in np.array_split(keys, 20)]
    whole, sample = analyze(collect(chunks)), analyze(collect(chunks, most=150_000))
    numbered = trace_of(keys).keys
    assert sample.sample_rate < 1
    assert sample.attainable == pytest.approx(whole.attainable, abs=0.02)
    for outcome in sample.curve[:-1]:
        exact = simulate(numbered, outcome.entries).hit_ratio
        assert 0 < outcome.error < 0.05
        assert abs(outcome.hit_ratio - exact) < 5 * outcome.error + 0.01
    assert any("SHARDS" in note for note in sample.notes)


def test_a_log_of_few_keys_says_what_was_read() -> None:
    keys = (np.arange(60_000) % 3000).tolist()
    result = analyze(collect([Chunk(keys[:30_000]), Chunk(keys[30_000:])], most=20_000))
    assert (result.complete, result.requests) == (False, 30_000)
    assert any("first 30,000 were analysed" in note for note in result.notes)


@pytest.mark.parametrize(
    ("terms", "options", "message"),
    [
        ({"gpu_hour_price": 1.0}, {}, "GPU time"),
        ({"gpu_hour_price": 1.0, "gpu_time": 1.0}, {}, "rate"),
        ({}, {"targets": [1.0]}, "target"),
        ({}, {"targets": [0.0]}, "target"),
        ({}, {"maxsize": [0]}, "maxsize"),
        ({}, {"max_bytes": [-1]}, "max_bytes"),
    ],
)
def test_bad_wishes_are_named(
    terms: dict[str, float], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan([1, 2, 1], Terms(**terms), **options)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_bad_terms_are_named(value: float) -> None:
    with pytest.raises(ValueError, match="rate must be"):
        Terms(rate=value)


def test_no_request() -> None:
    with pytest.raises(ValueError, match="no request"):
        plan([])
