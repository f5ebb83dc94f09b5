"""TieredCache under stress: many ask for a key that has expired; a Redis that is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from time import perf_counter_ns
from typing import Any

import numpy as np

from cachecore import TieredCache
from cachecore.tiers import Breaker, RedisTier
from report import Line, absolute_line
from tier_servers import redis_server
from tier_world import cache_over
from timing import Effort, compile_loop

THREADS, TASKS = 64, 1_000
LOADING = 0.02  # seconds
TTL = 0.05  # seconds
DEADLINE = 0.05  # seconds
LOOPS = 25  # look-ups of a turn


def stampede(effort: Effort) -> list[Line]:
    """One key that has just expired, here and in Redis; all ask for it at the same time."""
    with redis_server() as server:
        calls = count()

        def load(key: str) -> int:
            time.sleep(LOADING)
            return next(calls)

        async def aload(key: str) -> int:
            await asyncio.sleep(LOADING)
            return next(calls)

        with (
            cache_over(RedisTier(server.url, timeout=5), loader=load, ttl=TTL) as cache,
            ThreadPoolExecutor(THREADS) as pool,
        ):
            from_threads = [_ask_in_threads(cache, pool) for _ in range(effort.rounds)]
        with cache_over(
            RedisTier(server.url, timeout=5), loader=aload, ttl=TTL, namespace="tasks"
        ) as cache:
            from_tasks = asyncio.run(_ask_in_tasks(cache, effort.rounds))
    return [
        _loads_line(f"{THREADS} threads", from_threads),
        _loads_line(f"{TASKS:,} tasks", from_tasks),
    ]


def _ask_in_threads(cache: TieredCache, pool: ThreadPoolExecutor) -> int:
    barrier = threading.Barrier(THREADS)

    def ask() -> Any:
        barrier.wait()
        return cache.get("hot")

    cache.get("hot")
    before = cache.stats().loads
    time.sleep(1.2 * TTL)
    answers = [future.result() for future in [pool.submit(ask) for _ in range(THREADS)]]
    assert len(set(answers)) == 1
    return cache.stats().loads - before


async def _ask_in_tasks(cache: TieredCache, rounds: int) -> list[int]:
    loads = []
    for _ in range(rounds):
        await cache.aget("hot")
        before = cache.stats().loads
        await asyncio.sleep(1.2 * TTL)
        answers = await asyncio.gather(*[cache.aget("hot") for _ in range(TASKS)])
        assert len(set(answers)) == 1
        loads.append(cache.stats().loads - before)
    return loads


def _loads_line(askers: str, loads: list[int]) -> Line:
    detail = f"most of {len(loads)} expiries; fewest {min(loads)}; a load takes {LOADING} s"
    return Line(f"a key expires under {askers}", "loads", max(loads), 1, detail=detail)


def stopped(effort: Effort) -> list[Line]:
    """`t.get` of new keys while the Redis is SIGSTOPped, with a loader that costs nothing."""
    slow: list[float] = []
    with ExitStack() as stack:
        server = stack.enter_context(redis_server())
        tier = Breaker(RedisTier(server.url, timeout=DEADLINE), pause=10)
        cache = stack.enter_context(cache_over(tier, loader=len))
        alone = stack.enter_context(cache_over(loader=len))
        cache.get("warm")
        server.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, server.process.pid, os.WSTOPPED | os.WNOWAIT)
        while tier.state == "closed" and len(slow) < 100:
            start = perf_counter_ns()
            cache.get(f"slow {len(slow)}")
            slow.append((perf_counter_ns() - start) / 1e6)
        calls = len(slow)
        added = _beside(cache, alone, effort.large_rounds)
        server.process.send_signal(signal.SIGCONT)
    each = ", ".join(f"{ms:.1f}" for ms in slow)
    return [
        Line("get, Redis stopped, deadline 50 ms: slowest", "ms", max(slow), 60, detail=each),
        Line("the same: calls until the breaker opens", "calls", calls, 5),
        absolute_line(
            "then: added to a cache without tiers", "us", added[0], 20, f"of {added[1]:.1f} us"
        ),
    ]


def _beside(cache: TieredCache, alone: TieredCache, rounds: int) -> tuple[Any, float]:
    """What a look-up in one cache takes beyond that in another, in us, in turns; and in all."""
    ours: list[float] = []
    theirs: list[float] = []
    timed = compile_loop("c.get(k)")
    for turn in range(rounds):
        fresh = [f"new {turn} {at}" for at in range(LOOPS)]
        for side in ((cache, ours), (alone, theirs))[:: 1 - 2 * (turn % 2)]:
            side[1].append(timed(side[0], fresh, 1)[0] / LOOPS / 1000)
    return np.array(ours) - np.array(theirs), float(np.median(ours))
