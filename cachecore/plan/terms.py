"""`Terms`: what hits, misses and memory cost, and what is assumed where nobody says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from cachecore.plan.trace import Trace
from cachecore.plan.traffic import Traffic

VALUE_BYTES = 4096.0  # an embedding of 1,024 float32
HIT_LATENCY = 200e-9  # a look-up in the process's own memory, cold caches included
MISS_LATENCY = 5e-3  # a small model, or a few trips to a store
MEMORY_PRICE = 0.005  # a GB-hour: about what the large clouds ask, in US dollars
DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Terms:
    """What a cache costs and saves; None: not known.

    Attributes:
        value_bytes: mean size of a value.
        hit_latency, miss_latency: seconds that a hit takes, and the computation after a miss.
        gpu_time: seconds of a GPU that a miss takes.
        gpu_hour_price: of a GPU.
        memory_price: of a GB (2^30 bytes) for an hour, in the same currency.
        rate: requests a second.
    """

    value_bytes: float | None = None
    hit_latency: float | None = None
    miss_latency: float | None = None
    gpu_time: float | None = None
    gpu_hour_price: float | None = None
    memory_price: float | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a number above 0, not {value}")


@dataclass(frozen=True)
class Settled:
    """Terms of which nothing that is needed is missing, and the entry's size that follows.

    `entry_bytes` are those of value, key and the cache's own 64; `assumed` names what was assumed.
    """

    value_bytes: float
    entry_bytes: float
    hit_latency: float
    miss_latency: float
    gpu_time: float | None
    gpu_hour_price: float | None
    memory_price: float | None
    rate: float | None
    assumed: tuple[str, ...]

    def latency(self, hit_ratio: float) -> float:
        """Mean seconds of a request: the look-up, and on a miss the computation."""
        return self.hit_latency + (1 - hit_ratio) * self.miss_latency

    def gpu_hours_a_day(self, hit_ratio: float) -> float | None:
        """GPU-hours that hits save in a day."""
        if self.gpu_time is None or self.rate is None:
            return None
        return hit_ratio * self.rate * DAY * self.gpu_time / 3600

    def memory_a_day(self, memory_bytes: float) -> float | None:
        """Price of memory for a day."""
        if self.memory_price is None:
            return None
        return memory_bytes / 2**30 * 24 * self.memory_price


def settle(terms: Terms, trace: Trace, known: Traffic) -> Settled:
    """Fill in what the log tells, and assume the rest.

    Raises:
        ValueError: a price needs what neither the terms nor the log tell.
    """
    rate = known.requests_per_second if terms.rate is None else terms.rate
    if terms.gpu_hour_price is not None:
        if terms.gpu_time is None:
            raise ValueError("a price of GPU-hours needs the GPU time of a miss")
        if rate is None:
            raise ValueError("a price of GPU-hours needs a rate of requests: the log has no times")
    assumed = []

    def given(name: str, default: float) -> float:
        value: float | None = getattr(terms, name)
        if value is None:
            assumed.append(name)
        return default if value is None else value

    if terms.value_bytes is None and known.object_bytes is not None:
        terms = replace(terms, value_bytes=known.object_bytes)
    value_bytes = given("value_bytes", VALUE_BYTES)
    hit_latency = given("hit_latency", HIT_LATENCY)
    miss_latency = given("miss_latency", max(MISS_LATENCY, terms.gpu_time or 0))
    memory_price = terms.memory_price
    if terms.gpu_hour_price is not None:
        memory_price = given("memory_price", MEMORY_PRICE)
    return Settled(
        value_bytes=value_bytes,
        entry_bytes=value_bytes + overhead(trace),
        hit_latency=hit_latency,
        miss_latency=miss_latency,
        gpu_time=terms.gpu_time,
        gpu_hour_price=terms.gpu_hour_price,
        memory_price=memory_price,
        rate=rate,
        assumed=tuple(assumed),
    )


def overhead(trace: Trace) -> float:
    """Bytes of an entry beside its value: the key, and 64 as `Cache` counts them."""
    return trace.key_bytes + 64
