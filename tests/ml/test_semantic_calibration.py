"""The threshold of a stated false-hit rate: the bound is exact, and it holds beyond the sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore.ml import SemanticCache, word_guard
from cachecore.ml.calibration import binomial_cdf, calibrated, most_hits, upper_bound
from ml.texts import trigrams

# (hits, trials, confidence, bound): published one-sided Clopper-Pearson limits. Of no hit it is
# 1 - (1 - confidence)^(1/trials), "the rule of three".
KNOWN = [
    (0, 10, 0.95, 1 - 0.05**0.1),
    (0, 299, 0.95, 1 - 0.05 ** (1 / 299)),
    (1, 10, 0.95, 0.394163),
    (2, 20, 0.975, 0.316983),
    (5, 100, 0.975, 0.112835),
    (10, 10, 0.95, 1.0),
]


@pytest.mark.parametrize(("hits", "trials", "confidence", "bound"), KNOWN)
def test_the_bound_is_that_of_clopper_and_pearson(
    hits: int, trials: int, confidence: float, bound: float
) -> None:
    assert upper_bound(hits, trials, confidence) == pytest.approx(bound, abs=1e-6)


@given(st.integers(1, 800), st.floats(0, 1), st.floats(0.5, 0.999))
def test_the_bound_is_where_so_few_hits_become_unlikely(
    trials: int, part: float, confidence: float
) -> None:
    hits = int(part * (trials - 1))
    bound = upper_bound(hits, trials, confidence)
    assert hits / trials <= bound <= 1
    assert binomial_cdf(hits, trials, bound) == pytest.approx(1 - confidence, abs=1e-6)


@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 60))
def test_the_distribution_is_binomial(trials: int, rate: float, most: int) -> None:
    expected = math.fsum(
        math.comb(trials, hits) * rate**hits * (1 - rate) ** (trials - hits)
        for hits in range(min(most, trials) + 1)
    )
    assert binomial_cdf(most, trials, rate) == pytest.approx(expected, abs=1e-9)


def test_the_rate_holds_beyond_the_sample_as_often_as_stated() -> None:
    """Similarities of a known distribution: the true rate of each threshold is known."""
    random = np.random.default_rng(5)
    kept, runs, rates = 0, 600, []
    for _ in range(runs):
        different = random.uniform(0, 0.9, 120).tolist()
        chosen = calibrated([0.0, 0.95], different, 0.05, 0.9)
        true = 1 - chosen.threshold / 0.9
        rates.append(true)
        kept += true <= 0.05
        assert chosen.false_hit_rate <= chosen.false_hit_bound <= 0.05
    # 90 % at least (here 1 - P(at most 2 of 120 at 5 %) = 0.94), less four standard deviations.
    assert kept / runs > 0.94 - 4 * math.sqrt(0.94 * 0.06 / runs)
    assert max(rates) > 0.05  # the confidence is no certainty
    assert np.mean(rates) > 0.02  # and the threshold no higher than it must be


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=40),
    st.lists(st.floats(-1, 0.9), min_size=30, max_size=300),
    st.floats(0.1, 0.9),
)
def test_what_is_promised_is_what_the_sample_shows(
    same: list[float], different: list[float], rate: float
) -> None:
    chosen = calibrated(same, different, rate, 0.9)
    assert 0 <= chosen.threshold <= 1
    assert chosen.hit_rate == sum(each >= chosen.threshold for each in same) / len(same)
    false = sum(each >= chosen.threshold for each in different)
    assert chosen.false_hit_rate == false / len(different)
    assert chosen.false_hit_rate <= chosen.false_hit_bound <= rate
    assert chosen.pairs == len(same) + len(different)
    # No lower threshold gains a hit within the bound: one more false hit would exceed it.
    if chosen.threshold > max(0, min(same)):
        lower = sorted(different, reverse=True)
        beyond = sum(each >= chosen.threshold - 2e-6 for each in lower)
        assert upper_bound(beyond, len(different), 0.9) > rate


def test_the_sample_must_support_the_rate() -> None:
    with pytest.raises(
        ValueError, match="at least 299 pairs with different answers; pairs has 298"
    ):
        calibrated([0.9], [0.1] * 298, 0.01, 0.95)
    chosen = calibrated([0.9], [0.1] * 299, 0.01, 0.95)
    assert chosen.false_hit_rate == 0
    assert 0.0099 < chosen.false_hit_bound <= 0.01
    with pytest.raises(ValueError, match="at least 2302 pairs"):
        calibrated([0.9], [0.1] * 299, 0.001, 0.9)
    with pytest.raises(ValueError, match="with the same answer"):
        calibrated([], [0.1] * 299, 0.01, 0.95)


@given(st.integers(0, 300), st.floats(0.001, 0.999), st.floats(1e-17, 0.999))
def test_as_many_hits_are_allowed_as_keep_to_the_rate(
    trials: int, rate: float, confidence: float
) -> None:
    allowed = most_hits(trials, rate, confidence)
    assert -1 <= allowed <= trials - (trials > 0)
    assert allowed < 0 or binomial_cdf(allowed, trials, rate) <= 1 - confidence + 1e-12
    assert allowed == trials - 1 or binomial_cdf(allowed + 1, trials, rate) > 1 - confidence - 1e-12


def test_a_large_sample_is_no_more_work_than_its_hits() -> None:
    random = np.random.default_rng(1)
    chosen = calibrated([0.5, 0.95], random.uniform(0, 0.9, 50_000).tolist(), 0.3, 0.95)
    assert 0.29 < chosen.false_hit_rate <= chosen.false_hit_bound <= 0.3


def test_the_same_embedding_for_other_answers_cannot_be_calibrated_away() -> None:
    with pytest.raises(ValueError, match="more than 0 have the same embedding"):
        calibrated([1.0], [1.0] * 299, 0.01, 0.95)


def test_the_share_of_wrong_hits_depends_on_the_traffic() -> None:
    chosen = calibrated([0.9] * 10, [0.1] * 299, 0.01, 0.95)
    assert chosen.hit_rate == 1.0
    bound = chosen.false_hit_bound
    assert chosen.wrong_share(1) == 0
    assert chosen.wrong_share(0) == 1
    assert chosen.wrong_share(0.1) == pytest.approx(bound * 0.9 / (bound * 0.9 + 0.1))
    with pytest.raises(ValueError, match="same"):
        chosen.wrong_share(2)


# --- of a cache


def sample() -> list[tuple[str, str, bool]]:
    """Pairs as support desks see them: another wording; another number; the other way round."""
    pairs = []
    for at in range(100):
        ask = f"how do I cancel order {at} of my account"
        pairs += [
            (ask, f"How can I cancel the order {at} in my account?", True),
            (ask, f"how do I cancel order {at + 7} of my account", False),
            (ask, f"how do I not cancel order {at} of my account", False),
            (f"is part {at} older than kit {at + 300}", f"is kit {at + 300} older than part {at}",
             False),
        ]  # fmt: skip
    return pairs


def test_calibrate_sets_a_threshold_that_keeps_to_the_rate_on_the_sample() -> None:
    cache = SemanticCache(trigrams, maxsize=10)
    pairs = sample()
    chosen = cache.calibrate(pairs, max_false_hit_rate=0.05)
    assert cache.threshold == chosen.threshold
    assert (chosen.different, chosen.same, chosen.pairs) == (300, 100, 400)
    assert chosen.false_hit_rate <= 0.05
    false = 0
    for query, cached, same in pairs:
        cache.clear()
        cache.set(cached, 1)
        false += cache.get(query) is not None and not same
    assert false / 300 == chosen.false_hit_rate


def test_with_the_guard_the_same_rate_costs_fewer_hits() -> None:
    bare = SemanticCache(trigrams, maxsize=10).calibrate(sample(), 0.01)
    guarded = SemanticCache(trigrams, maxsize=10, verify=word_guard)
    without = guarded.calibrate(sample(), 0.01)
    assert without == bare
    chosen = guarded.calibrate(sample(), 0.01, verified=True)
    assert bare.hit_rate < 0.1 < 0.9 < chosen.hit_rate
    assert chosen.false_hit_rate == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_false_hit_rate": 0}, ValueError, "max_false_hit_rate"),
        ({"max_false_hit_rate": 1}, ValueError, "max_false_hit_rate"),
        ({"max_false_hit_rate": "1%"}, TypeError, "max_false_hit_rate"),
        ({"max_false_hit_rate": 1e-4}, ValueError, "at least 29956 pairs"),
        ({"confidence": 1.0}, ValueError, "confidence"),
        ({"confidence": float("nan")}, ValueError, "confidence"),
        ({"verified": True}, ValueError, "verify="),
        ({"pairs": []}, ValueError, "same answer"),
        ({"pairs": [("a", 1, True)]}, TypeError, "query"),
        ({"pairs": [("a", "b")]}, ValueError, "unpack"),
        ({"pairs": [("a", "b", "no")]}, TypeError, "True or False, not 'no'"),
        ({"pairs": [("a", "b", float("nan"))]}, TypeError, "True or False, not nan"),
        ({"pairs": [("a", "b", None)]}, TypeError, "True or False"),
        ({"max_false_hit_rate": 5e-324}, ValueError, "max_false_hit_rate"),
    ],
)
def test_a_calibration_that_fails_leaves_the_threshold(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    cache = SemanticCache(trigrams, maxsize=10, threshold=0.75)
    with pytest.raises(error, match=message):
        cache.calibrate(**{"pairs": sample(), **arguments})
    assert cache.threshold == 0.75
