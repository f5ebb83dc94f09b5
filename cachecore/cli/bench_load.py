"""The work of `cachecore bench`: what is asked for, of whom, and what came of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic, perf_counter_ns, thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cachecore._bench import Load, bucket_bounds
from cachecore.cli.client import Client
from cachecore.cli.failures import Failure, InputError
from cachecore.cli.target import Target
from cachecore.cli.terminal import progress_bars

STREAM = 1 << 20  # requests that are drawn, and repeated
SLICE = 0.1  # seconds between looks at the clock and the keyboard
FILL_PIPELINE = 16
TOGETHER = 100  # operations in process that are timed as one
PERCENTILES = (50, 90, 99, 99.9, 99.99)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is asked for; see the options of the command."""

    clients: int
    pipeline: int
    seconds: float
    requests: int | None
    keys: int
    sizes: tuple[int, int]
    distribution: str
    exponent: float
    gets: float
    prefix: str
    fill: bool
    seed: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of it."""

    where: str
    work: Work
    seconds: float
    requests: int
    hits: int
    misses: int
    errors: int
    first_error: str
    lost: int
    busy: float | None
    """Share of the time that this client was computing; None: in process."""
    counts: NDArray[np.int64]
    """Latencies in buckets: those of SETs and those of GETs."""

    def latency(self, kind: int) -> dict[str, float]:
        """Mean and percentiles of SETs (0) or GETs (1), in microseconds; empty: there are none."""
        counts, bounds = self.counts[kind], bucket_bounds()
        total = counts.sum()
        if not total:
            return {}
        middles = (bounds + np.append(bounds[1:], bounds[-1])) / 2
        sums = counts.cumsum()
        ranks = {f"p{p:g}": np.searchsorted(sums, total * p / 100) for p in PERCENTILES}
        ranks["max"] = int(counts.nonzero()[0][-1])
        named = {name: float(middles[rank]) / 1e3 for name, rank in ranks.items()}
        return {"mean": float(counts @ middles / total) / 1e3, **named}

    def as_object(self) -> dict[str, Any]:
        """The object of `--json`: latencies in microseconds, and their histogram."""
        asked = self.hits + self.misses
        bounds = bucket_bounds()
        return {
            "where": self.where,
            "requests": self.requests,
            "seconds": self.seconds,
            "requests_per_second": self.requests / self.seconds,
            "clients": self.work.clients,
            "pipeline": self.work.pipeline,
            "keys": self.work.keys,
            "sizes": self.work.sizes,
            "hit_ratio": self.hits / asked if asked else None,
            "errors": self.errors,
            "first_error": self.first_error or None,
            "connections_lost": self.lost,
            "client_busy": self.busy,
            "latency_us": {
                name: {
                    **self.latency(kind),
                    "histogram": [
                        [float(bounds[at]) / 1e3, int(self.counts[kind, at])]
                        for at in self.counts[kind].nonzero()[0]
                    ],
                }
                for name, kind in (("get", 1), ("set", 0))
                if self.counts[kind].any()
            },
        }


def stream_of(work: Work) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int32]]:
    """The keys' numbers, 1 where a request is a GET, and the size of each key's value."""
    rng = np.random.default_rng(work.seed)
    low, high = work.sizes
    sizes = np.exp(rng.uniform(np.log(low), np.log(high + 1), work.keys)).astype(np.int32)
    if work.distribution == "uniform":
        keys = rng.integers(0, work.keys, STREAM)
    else:
        weights = np.arange(1, work.keys + 1) ** -work.exponent
        shares = weights.cumsum()
        ranks = np.searchsorted(shares, rng.uniform(0, shares[-1], STREAM))
        keys = rng.permutation(work.keys)[ranks]
    gets = (rng.random(STREAM) < work.gets).astype(np.uint8)
    return keys, gets, np.clip(sizes, low, high)


def run_on_server(work: Work, target: Target) -> Result:
    """Load a server.

    Raises:
        InputError: it speaks TLS.
        NotRunning, Failure: nobody listens, or it refused connections, or lost all of them.
    """
    if target.tls:
        raise InputError(
            "bench cannot speak TLS: use the server's unix_socket, by --url unix://..."
        )
    keys, gets, sizes = stream_of(work)
    with ExitStack() as opened, progress_bars() as bars:
        fds = []
        for _ in range(work.clients):
            client = opened.enter_context(Client(target))
            client.socket.setblocking(False)
            fds.append(client.socket.fileno())
        prefix = work.prefix.encode()
        if work.fill:
            every = np.arange(work.keys)
            filling = Load(
                fds, every, np.zeros(work.keys, np.uint8), sizes, prefix,
                pipeline=FILL_PIPELINE, limit=work.keys,
            )  # fmt: skip
            bar = bars.add("setting all keys")
            while filling.run(SLICE):
                bar.update(filling.answered / work.keys)
            _check(filling, target)
        load = Load(fds, keys, gets, sizes, prefix, pipeline=work.pipeline, limit=work.requests)
        bar = bars.add("loading")
        begin, busy = monotonic(), thread_time()
        while load.run(SLICE):
            spent = monotonic() - begin
            bar.update(load.answered / work.requests if work.requests else spent / work.seconds)
            if work.requests is None and spent >= work.seconds:
                break
        spent, busy = monotonic() - begin, thread_time() - busy
        _check(load, target)
    return Result(
        where=str(target),
        work=work,
        seconds=spent,
        requests=load.answered,
        hits=load.hits,
        misses=load.misses,
        errors=load.errors,
        first_error=load.first_error.decode("utf-8", "replace"),
        lost=load.lost,
        busy=busy / spent,
        counts=load.counts,
    )


def _check(load: Load, target: Target) -> None:
    """Fail where what was measured would be errors only."""
    error = load.first_error.decode("utf-8", "replace")
    if load.errors and load.errors == load.answered:
        raise Failure(f"{target} answers each request with: {error}")
    if load.lost and not load.answered:
        raise Failure(f"{target} closed all connections")


def run_in_process(work: Work, budget: int) -> Result:
    """The same requests to a Cache here; a latency is the mean of 100 operations, loop included."""
    from cachecore import Cache

    stream, gets, sizes = stream_of(work)
    prefix = work.prefix.encode()
    names = [b"%b%012d" % (prefix, key) for key in range(work.keys)]
    filling = np.random.default_rng(1).bytes(int(sizes.max()))
    cache: Cache[bytes, bytes] = Cache(max_bytes=budget)
    if work.fill:
        for name, size in zip(names, sizes.tolist(), strict=True):
            cache.set(name, filling[:size])
    requests = [
        (names[key], None if get else filling[: sizes[key]])
        for key, get in zip(stream.tolist(), gets.tolist(), strict=True)
    ]
    before, done, spent = cache.stats(), 0, 0
    latencies: list[int] = []
    look, put = cache.get, cache.set
    most = work.requests or 1 << 62
    while spent < work.seconds * 1e9 and done < most:
        at = done % (STREAM - TOGETHER)
        some = requests[at : at + min(TOGETHER, most - done)]
        start = perf_counter_ns()
        for name, value in some:
            if value is None:
                look(name)
            else:
                put(name, value)
        took = perf_counter_ns() - start
        spent += took
        done += len(some)
        latencies.append(took // len(some))
    stats = cache.stats()
    counts = np.zeros((2, len(bucket_bounds())), np.int64)
    at_bucket = np.searchsorted(bucket_bounds(), latencies, side="right") - 1
    np.add.at(counts[1], at_bucket, TOGETHER)
    return Result(
        where="a Cache in this process",
        work=work,
        seconds=spent / 1e9,
        requests=done,
        hits=stats.hits - before.hits,
        misses=stats.misses - before.misses,
        errors=0,
        first_error="",
        lost=0,
        busy=None,
        counts=counts,
    )
