"""A similarity threshold for a stated rate of false hits, with an exact bound for small samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from cachecore.settings import share

ROUNDING = 1e-6  # what the same cosine may differ by, computed in another order


@dataclass(frozen=True)
class Calibration:
    """What a threshold does, as a labelled sample tells.

    A false hit is one between two queries whose answers differ. Both rates are of pairs of a
    query and its nearest cached one, whatever their share in the sample.
    """

    threshold: float
    false_hit_rate: float
    """Share of the sample's pairs with different answers that would be hits."""
    false_hit_bound: float
    """What that rate is at most beyond the sample, with the stated confidence."""
    confidence: float
    hit_rate: float
    """Share of the sample's pairs with the same answer that would be hits."""
    different: int
    """Pairs with different answers, from which the bound comes."""
    same: int

    @property
    def pairs(self) -> int:
        """How many pairs the sample had."""
        return self.different + self.same

    def wrong_share(self, same: float) -> float:
        """Which share of the hits is false at most where a share `same` of look-ups has an answer.

        That is, where so many of the queries that are not cached have their answer under the
        nearest cached one. The hit rate is taken as the sample shows it.
        """
        same = share(same, "same")
        wrong, right = self.false_hit_bound * (1 - same), self.hit_rate * same
        return wrong / (wrong + right) if wrong + right else 0.0


def _chances(trials: int, rate: float) -> Iterator[float]:
    """The probability of 0, 1, 2 ... successes in so many trials of a rate above 0, below 1."""
    log_rate, log_rest, whole = math.log(rate), math.log1p(-rate), math.lgamma(trials + 1)
    for hits in range(trials + 1):
        ways = whole - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
        yield math.exp(ways + hits * log_rate + (trials - hits) * log_rest)


def binomial_cdf(most: int, trials: int, rate: float) -> float:
    """The probability of at most `most` successes in so many trials of a rate within 0 ... 1."""
    if most >= trials or rate == 0:
        return 1.0
    if rate == 1:
        return 0.0
    return min(1.0, math.fsum(islice(_chances(trials, rate), most + 1)))


def most_hits(trials: int, rate: float, confidence: float) -> int:
    """The most hits of which the bound is at most that rate; -1: even none says too little."""
    likely = enumerate(accumulate(_chances(trials, rate)))
    return next((hits for hits, sum_ in likely if sum_ > 1 - confidence), trials) - 1


def upper_bound(hits: int, trials: int, confidence: float) -> float:
    """The greatest rate that leaves so few hits likely enough (Clopper and Pearson, 1934).

    One-sided: a greater rate shows at most `hits` in `trials` with probability 1 - confidence or
    less.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if binomial_cdf(hits, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def calibrated(
    same: Sequence[float], different: Sequence[float], rate: float, confidence: float
) -> Calibration:
    """The lowest threshold that keeps to the rate, from similarities of pairs; -inf: never a hit.

    It lies just above the (k + 1)-th greatest similarity of the pairs with different answers, k
    being the most that the bound permits among so many. The share of all such pairs above an order
    statistic has a beta distribution, whatever the similarities' own is (Wilks, 1941), and its
    quantile is the Clopper-Pearson bound: the bound holds although the sample chose the threshold.

    Raises:
        ValueError: the sample is too small for the rate, or no threshold keeps to it.
    """
    if not same:
        raise ValueError("pairs must have some with the same answer")
    trials = len(different)
    allowed = most_hits(trials, rate, confidence)
    if allowed < 0:
        needed = math.ceil(min(2**63, math.log(1 - confidence) / math.log1p(-rate)))
        raise ValueError(
            f"max_false_hit_rate={rate:g} at {confidence:g} confidence takes at least {needed} "
            f"pairs with different answers; pairs has {trials}"
        )
    limit = sorted(different, reverse=True)[allowed]
    # Lower than the least similar pair that is right there is nothing to gain.
    threshold = max(limit + ROUNDING, min(same) - ROUNDING)
    if threshold > 1:
        raise ValueError(
            f"no threshold keeps max_false_hit_rate={rate:g}: of {trials} pairs with different "
            f"answers more than {allowed} have the same embedding. A verifier may tell them apart"
        )
    threshold = max(threshold, 0.0)
    return Calibration(
        threshold=threshold,
        false_hit_rate=sum(each >= threshold for each in different) / trials,
        false_hit_bound=upper_bound(allowed, trials, confidence),
        confidence=confidence,
        hit_rate=sum(each >= threshold for each in same) / len(same),
        different=trials,
        same=len(same),
    )
