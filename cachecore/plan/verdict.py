"""`Verdict`: whether a cache is worth it, and the numbers that say so."""

from __future__ import annotations

from dataclasses import dataclass

from cachecore.plan.terms import Settled
from cachecore.units import amount, duration, size

FEW_REPEATS = 0.1  # attainable hit ratio
LITTLE_FASTER = 0.9  # of the latency without a cache
SMALL = 2**30  # bytes: what any service can spare to hold everything
STRAIGHT = 0.6  # of the attainable hits by half of the keys: half would be a straight line


@dataclass(frozen=True)
class Verdict:
    """The answer.

    `why` is "worth it", "few repeats", "hits not faster", "memory costs more" or "no hot set",
    `reason` a sentence or two.
    """

    worth_it: bool
    why: str
    reason: str


def judge(
    *,
    attainable: float,
    half: float,
    hit_ratio: float,
    memory_bytes: float,
    net_a_day: float | None,
    saved_a_day: float | None,
    memory_a_day: float | None,
    distinct_keys: int,
    terms: Settled,
) -> Verdict:
    """The verdict on the recommended cache, of a hit ratio, bytes and prices.

    Money decides where it is known. `half` is the hit ratio of a cache of half of the keys.
    """
    without, with_it = terms.miss_latency, terms.latency(hit_ratio)
    change = f"{duration(without * 1e9)} to {duration(with_it * 1e9)}"
    net = 0.0 if net_a_day is None else net_a_day
    if attainable < FEW_REPEATS and net <= 0:
        return Verdict(
            False,
            "few repeats",
            f"Only {attainable:.1%} of the requests ask for a key that was asked for before: no"
            " cache, however large, hits more often.",
        )
    if net_a_day is not None:
        saved, memory = amount(saved_a_day or 0), amount(memory_a_day or 0)
        if net <= 0:
            return Verdict(
                False,
                "memory costs more",
                f"Even the best cache, of {size(memory_bytes)}, costs {memory} of memory a day and"
                f" saves {saved} of GPU time.",
            )
        return Verdict(
            True,
            "worth it",
            f"{size(memory_bytes)} of memory answer {hit_ratio:.1%} of the requests and save"
            f" {saved} of GPU time a day for {memory}: {amount(net)} remain. The mean latency"
            f" goes from {change}.",
        )
    if with_it > LITTLE_FASTER * without:
        return Verdict(
            False,
            "hits not faster",
            f"With {hit_ratio:.1%} of hits the mean latency only goes from {change}.",
        )
    whole = distinct_keys * terms.entry_bytes
    if half < STRAIGHT * attainable and whole > SMALL:
        return Verdict(
            False,
            "no hot set",
            f"Hits grow in step with the size: half of the keys would hit {half:.1%}, all of them"
            f" {attainable:.1%}. Hold all {distinct_keys:,} keys, {size(whole)}, or none: there is"
            " no hot set that a cache could keep.",
        )
    return Verdict(
        True,
        "worth it",
        f"{size(memory_bytes)} of memory answer {hit_ratio:.1%} of the requests, of at most"
        f" {attainable:.1%} that any cache could; the mean latency goes from {change}.",
    )
