"""Writes of TieredCache: behind, through, and what climbs from one tier into the one above."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from time import perf_counter_ns
from typing import Any

import numpy as np

from bars import OURS, SMALL
from cachecore import TieredCache
from cachecore.tiers import MmapTier, RedisTier, WriteBehind
from report import Line, absolute_line, ratio_line
from tier_reads import raw_lmdb
from tier_servers import redis_server
from tier_world import DISK, cache_over, folder, keys, parts, prepared, values
from timing import Contender, Effort, Samples, compile_loop
from workloads import fresh_keys

BURST = 50  # sets
PAUSE = 0.005  # seconds between two bursts
SUSTAINED = 1.0  # seconds
FULL_OF_NEW = ("--maxmemory", "300mb", "--maxmemory-policy", "allkeys-lru")
OUR_SET, THEIR_SET = "c[0].set(k, c[1])", "c[0][k] = c[1]"
COPYING = "c[0][k] = c[1].copy()"


def _paced(name: str, body: str, c: Any, supply: Iterator[list[str]]) -> Contender:
    """Set new keys in bursts, with pauses in which the background thread may work."""
    timed = compile_loop(body)

    def turn(_: int) -> float:
        time.sleep(PAUSE)
        timed(c, next(supply)[:10], 1)  # the pause has cooled everything down
        return timed(c, next(supply), 1)[0] / BURST

    return Contender(name, turn)


def behind(effort: Effort) -> list[Line]:
    """`t.set(k, array)` of new keys at capacity, which a thread then writes to a Redis.

    In bursts, at some 5,000 sets a second, the thread keeps up, and sometimes takes the GIL in the
    middle of a turn, ours or theirs. Without pauses it does not keep up: the caller competes with
    it for the GIL, and what it cannot write in time is lost and counted.
    """
    from cachetools import LRUCache

    value = values()[0]
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(*FULL_OF_NEW))
        tier = WriteBehind(RedisTier(server.url, timeout=5))
        cache = stack.enter_context(cache_over(tier, maxsize=SMALL))
        theirs: Any = LRUCache(SMALL)
        copies: Any = LRUCache(SMALL)
        for key in next(fresh_keys(SMALL, 0)):
            cache.set(key, value)
            theirs[key] = copies[key] = value
        tier.flush()
        before = tier.stats()
        supplies = [fresh_keys(BURST, SMALL * at) for at in (100, 200, 300)]
        samples = Samples()
        samples.play(
            [
                _paced(OURS, OUR_SET, (cache, value), supplies[0]),
                _paced("cachetools", THEIR_SET, (theirs, value), supplies[1]),
                _paced("copies", COPYING, (copies, value), supplies[2]),
            ],
            4 * effort.large_rounds,
        )
        tier.flush()
        after = tier.stats()
        assert after["lost"] == before["lost"]
        paced, copied = samples.ratio(OURS, "cachetools"), samples.ratio(OURS, "copies")
        rush = _without_pause(cache, value, supplies[0])
        written = tier.stats()["written"] - after["written"]
        lost = tier.stats()["lost"]
        tier.flush()
    name = "write-behind set of a 4 KB array at capacity"
    note = f"bursts of {BURST}, each {1000 * PAUSE:g} ms; nothing lost"
    detail = f"in {SUSTAINED:g} s: {written:,} written, {lost:,} lost"
    return [
        ratio_line(name, "cachetools LRU", paced, 1.0, note=note),
        ratio_line(name, "cachetools LRU, of array.copy()", copied),
        absolute_line(f"{name}, without pauses", "us", rush, detail=detail),
    ]


def _without_pause(cache: TieredCache, value: Any, supply: Iterator[list[str]]) -> Any:
    timed = compile_loop(OUR_SET)
    end = perf_counter_ns() + SUSTAINED * 1e9
    spent = []
    while perf_counter_ns() < end:
        spent.append(timed((cache, value), next(supply), 1)[0] / BURST / 1000)
    return np.array(spent)


def through(effort: Effort) -> list[Line]:
    """`t.set(k, array)` of keys that are there, written to the tier before it returns."""
    from redis import Redis

    value = values()[0]
    data = value.tobytes()
    to_mmap, to_redis = Samples(), Samples()
    with folder() as place, cache_over(MmapTier(place, max_bytes=DISK)) as cache, raw_lmdb() as env:
        cache.set_many(zip(keys(), values(), strict=True))
        put = "with c[0].begin(write=True) as txn: txn.put(k, c[1])"
        encoded = [[key.encode() for key in part] for part in parts(50)]
        to_mmap.play(
            [
                prepared(OURS, OUR_SET, (cache, value), parts(50)),
                prepared("lmdb", put, (env, data), encoded),
            ],
            effort.large_rounds,
        )
    with ExitStack() as stack:
        server = stack.enter_context(redis_server())
        client = stack.enter_context(Redis(port=server.port))
        cache = stack.enter_context(cache_over(RedisTier(server.url, timeout=5)))
        to_redis.play(
            [
                prepared(OURS, OUR_SET, (cache, value), parts(50)),
                prepared("redis-py", "c[0].set(k, c[1])", (client, data), parts(50)),
            ],
            effort.large_rounds,
        )
        assert cache.stats().tiers[0].errors == 0
    name = "set through to {}, 4 KB array"
    return [
        ratio_line(name.format("MmapTier"), "raw lmdb put", to_mmap.ratio(OURS, "lmdb")),
        ratio_line(name.format("RedisTier"), "redis-py SET", to_redis.ratio(OURS, "redis-py")),
    ]


def climb(effort: Effort) -> list[Line]:
    """A look-up that finds its 4 KB array in Redis, and puts it into the MmapTier on its way."""
    from redis import Redis

    samples = Samples()
    with ExitStack() as stack:
        server = stack.enter_context(redis_server())
        client = stack.enter_context(Redis(port=server.port))
        near = MmapTier(stack.enter_context(folder()), max_bytes=DISK)
        cache = stack.enter_context(cache_over(near, RedisTier(server.url, timeout=5)))
        env = stack.enter_context(raw_lmdb())
        cache.set_many(zip(keys(), values(), strict=True))
        wires = [[key.encode() for key in part] for part in parts(50)]
        turns = itertools.count(-1)  # the first is a rehearsal, with the last part

        def forget() -> None:
            cache.l0.clear()
            near.delete_many(wires[next(turns) % len(wires)])

        def fetch(key: str) -> Any:
            found = client.get(key)
            with env.begin(write=True) as txn:
                txn.put(key.encode(), found)
            return found

        samples.play(
            [
                prepared(OURS, "c.get(k)", cache, parts(50), forget),
                prepared("both", "c(k)", fetch, parts(50)),
            ],
            effort.large_rounds,
        )
        assert cache.stats().tiers[0].hits == 0
    against = "redis-py GET, raw lmdb put"
    return [ratio_line("promotion Redis -> mmap, 4 KB array", against, samples.ratio(OURS, "both"))]
