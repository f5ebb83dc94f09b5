"""Look-ups of TieredCache: hits, and misses that a tier or the loader serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter_ns
from typing import Any

import numpy as np

from bars import OURS, SMALL
from cachecore import Cache, TieredCache
from cachecore.tiers import MemcachedTier, MmapTier, RedisTier
from report import Line, ratio_line
from tier_servers import memcached_server, redis_server
from tier_world import DISK, ROOM, cache_over, folder, keys, parts, prepared, values
from timing import Contender, Effort, Samples, hot
from workloads import fresh_keys, make_keys, shuffled

BATCH, MISSING = 1_000, 150
RAW = "with c.begin(buffers=True) as txn: txn.get(k)"


# --- hits


def _filled(stored: Sequence[str], ttl: float | None) -> tuple[TieredCache, Cache[str, float]]:
    """Return a cache with a loader and a plain one that hold the same objects."""
    numbers = {key: float(at) for at, key in enumerate(stored)}
    tiered = TieredCache(len(stored), ttl=ttl, loader_many=lambda some: [numbers[k] for k in some])
    plain: Cache[str, float] = Cache(len(stored), ttl=ttl)
    tiered.get_many(stored)
    plain.update(numbers)
    return tiered, plain


def hit(effort: Effort) -> list[Line]:
    """`t.get(k)` of what the process holds."""
    lines = []
    for ttl, note in ((None, ""), (3600.0, " with a TTL")):
        samples = Samples()
        for build in range(effort.builds):
            stored = make_keys("str", SMALL)
            asked = shuffled(stored, build)
            tiered, plain = _filled(stored, ttl)
            sides = [hot("loop", "pass", None, asked)]
            sides += [hot(OURS, "c.get(k)", tiered, asked), hot("plain", "c.get(k)", plain, asked)]
            samples.play(sides, effort.rounds)
        ratio = samples.ratio(OURS, "plain", "loop")
        lines.append(ratio_line(f"get hit{note}, 10k str keys", "Cache.get", ratio, 1.1))
    return lines


def hit_many(effort: Effort) -> list[Line]:
    """`t.get_many` of 1,000 keys, all of which the process holds."""
    stored = make_keys("str", SMALL)
    batches = [shuffled(stored, at)[:BATCH] for at in range(8)]
    tiered, plain = _filled(stored, None)
    samples = Samples()
    sides = [hot(OURS, "c.get_many(k)", tiered, batches, BATCH)]
    sides.append(hot("plain", "c.get_many(k)", plain, batches, BATCH))
    samples.play(sides, effort.rounds * effort.builds)
    name = "get_many(1,000) all hits, per key"
    return [ratio_line(name, "Cache.get_many", samples.ratio(OURS, "plain"))]


# --- misses that a tier serves


@contextmanager
def raw_lmdb() -> Iterator[Any]:
    """Yield LMDB with the same arrays as bytes, opened as MmapTier does."""
    import lmdb

    with (
        folder() as place,
        lmdb.open(place, map_size=DISK, sync=False, metasync=False, readahead=False) as env,
    ):
        with env.begin(write=True) as txn:
            for key, value in zip(keys(), values(), strict=True):
                txn.put(key.encode(), value.tobytes())
        yield env


def mmap(effort: Effort) -> list[Line]:
    """4 KB arrays in an MmapTier, beside transactions that only find them."""
    samples = Samples()
    with folder() as place, cache_over(MmapTier(place, max_bytes=DISK)) as cache, raw_lmdb() as env:
        cache.set_many(zip(keys(), values(), strict=True))
        encoded = [[key.encode() for key in part] for part in parts(500)]
        samples.play(
            [
                prepared("loop", "pass", None, encoded),
                prepared(OURS, "c.get(k)", cache, parts(500), cache.l0.clear),
                prepared("lmdb", RAW, env, encoded),
            ],
            effort.large_rounds,
        )
        counts = cache.stats()
        assert counts.tiers[0].misses == 0
    ratio = samples.ratio(OURS, "lmdb", "loop")
    return [ratio_line("miss served by MmapTier, 4 KB array", "raw lmdb get", ratio, 6, 3)]


def redis(effort: Effort) -> list[Line]:
    """4 KB arrays in a Redis on the loopback, one and many."""
    from redis import Redis

    samples, many = Samples(), Samples()
    with ExitStack() as stack:
        server = stack.enter_context(redis_server())
        client = stack.enter_context(Redis(port=server.port))
        cache = stack.enter_context(cache_over(RedisTier(server.url, timeout=5)))
        cache.set_many(zip(keys(), values(), strict=True))
        client.mset({f"raw:{k}": v.tobytes() for k, v in zip(keys(), values(), strict=True)})
        named = [[f"raw:{key}" for key in part] for part in parts(100)]
        samples.play(
            [
                prepared(OURS, "c.get(k)", cache, parts(100), cache.l0.clear),
                prepared("redis-py", "c.get(k)", client, named),
            ],
            effort.large_rounds,
        )
        batches = [shuffled(keys(), at)[:BATCH] for at in range(16)]
        few = [[f"raw:{key}" for key in batch[:MISSING]] for batch in batches]
        many.play(
            [
                _partly_there(OURS, cache, batches, lambda at, batch: cache.get_many(batch)),
                _partly_there("redis-py", cache, batches, lambda at, batch: client.mget(few[at])),
            ],
            effort.large_rounds,
        )
        assert cache.stats().tiers[0].misses == 0
    ratio = samples.ratio(OURS, "redis-py")
    name = "get_many(1,000), 150 of them in Redis"
    return [
        ratio_line("miss served by RedisTier, 4 KB array", "redis-py GET", ratio, 1.15),
        ratio_line(name, "redis-py MGET(150)", many.ratio(OURS, "redis-py"), 1.2),
    ]


def _partly_there(
    name: str,
    cache: TieredCache,
    batches: list[list[str]],
    get: Callable[[int, list[str]], object],
) -> Contender:
    """Get batches of which the first keys have just been deleted from the process's memory.

    Both sides come after the same work: a client that only asks for the same values again and again
    finds its memory, and the server, warm.
    """

    def turn(i: int) -> float:
        at = i % len(batches)
        cache.get_many(batches[at])
        cache.l0.delete_many(batches[at][:MISSING])
        batch = shuffled(batches[at], i)
        start = perf_counter_ns()
        get(at, batch)
        return perf_counter_ns() - start

    turn(0)
    return Contender(name, turn)


def memcached(effort: Effort) -> list[Line]:
    """4 KB arrays in a memcached on the loopback."""
    from pymemcache import Client

    samples = Samples()
    with ExitStack() as stack:
        server = stack.enter_context(memcached_server())
        client = Client(("127.0.0.1", server.port), no_delay=True)
        stack.callback(client.close)
        tier = MemcachedTier(f"127.0.0.1:{server.port}", timeout=5)
        cache = stack.enter_context(cache_over(tier))
        cache.set_many(zip(keys(), values(), strict=True))
        client.set_many({f"raw:{k}": v.tobytes() for k, v in zip(keys(), values(), strict=True)})
        named = [[f"raw:{key}" for key in part] for part in parts(100)]
        samples.play(
            [
                prepared(OURS, "c.get(k)", cache, parts(100), cache.l0.clear),
                prepared("pymemcache", "c.get(k)", client, named),
            ],
            effort.large_rounds,
        )
        assert cache.stats().tiers[0].misses == 0
    ratio = samples.ratio(OURS, "pymemcache")
    return [ratio_line("miss served by MemcachedTier, 4 KB array", "pymemcache get", ratio)]


# --- misses that the loader serves


def loader(effort: Effort) -> list[Line]:
    """A loader that costs next to nothing: what a load of a new key takes beyond it."""
    from cachetools import LRUCache, cached

    samples = Samples()
    fresh = fresh_keys(200, 0)
    supply = [next(fresh) for _ in range(4 * (effort.large_rounds + 2))]
    plain: Cache[str, int] = Cache(ROOM)
    theirs = cached(LRUCache(ROOM))(len)
    with cache_over(loader=len) as cache:
        samples.play(
            [
                prepared(OURS, "c.get(k)", cache, supply[0::4]),
                prepared("plain", "c.get_or_set(k, lambda: len(k))", plain, supply[1::4]),
                prepared("cachetools", "c(k)", theirs, supply[2::4]),
                prepared("loop", "len(k)", None, supply[3::4]),
            ],
            effort.large_rounds,
        )
    beyond = (samples.median(OURS) - samples.median("loop")) / 1000
    name = "miss served by a loader, len"
    return [
        ratio_line(name, "Cache.get_or_set", samples.ratio(OURS, "plain", "loop")),
        ratio_line(
            name,
            "cachetools.cached(LRUCache)",
            samples.ratio(OURS, "cachetools", "loop"),
            note=f"{beyond:.2f} us beyond the loader",
        ),
    ]


# --- on an event loop


def _awaiting(
    name: str,
    loop: asyncio.AbstractEventLoop,
    get: Callable[[Any], Any],
    parts: Sequence[Sequence[Any]],
    prepare: Callable[[], object] = lambda: None,
) -> Contender:
    """Await one look-up after another in a task."""

    async def play(part: Sequence[Any]) -> int:
        start = perf_counter_ns()
        for key in part:
            await get(key)
        return perf_counter_ns() - start

    def turn(i: int) -> float:
        prepare()
        part = parts[i % len(parts)]
        return loop.run_until_complete(play(part)) / len(part)

    turn(0)
    return Contender(name, turn)


def asynchronous(effort: Effort) -> list[Line]:
    """`await t.aget(k)`, of what the process holds and of what is in Redis."""
    import redis.asyncio

    hits, misses = Samples(), Samples()
    with ExitStack() as stack:
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        server = stack.enter_context(redis_server())
        client = redis.asyncio.Redis(port=server.port)
        stack.callback(lambda: loop.run_until_complete(client.aclose()))
        cache = stack.enter_context(cache_over(RedisTier(server.url, timeout=5)))
        cache.set_many(zip(keys(), values(), strict=True))
        plain = dict(zip(keys(), values(), strict=True))

        async def plain_get(key: str) -> np.ndarray | None:
            return plain.get(key)

        hits.play(
            [
                _awaiting(OURS, loop, cache.aget, parts(1_000)),
                _awaiting("dict", loop, plain_get, parts(1_000)),
            ],
            effort.large_rounds,
        )
        misses.play(
            [
                _awaiting(OURS, loop, cache.aget, parts(100), cache.l0.clear),
                _awaiting("redis-py", loop, client.get, parts(100)),
            ],
            effort.large_rounds,
        )
    return [
        ratio_line("aget hit", "async def: return dict.get(k)", hits.ratio(OURS, "dict")),
        ratio_line(
            "aget served by RedisTier, 4 KB array",
            "redis.asyncio GET",
            misses.ratio(OURS, "redis-py"),
        ),
    ]
