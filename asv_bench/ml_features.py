"""FeatureCache beside what services have in its place: dicts of dicts, and Redis each time."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from bars import OURS
from cachecore import VectorCache
from cachecore.ml import Feature, FeatureCache
from cachecore.tiers import RedisTier
from report import Line, ratio_line
from tier_servers import redis_server
from tier_world import prepared
from timing import Contender, Effort, Samples, hot

ENTITIES, BATCH, WIDTH = 20_000, 1_000, 20
TTLS = ("static", "batch", 3600.0)
NAMES = [f"feature_{at}" for at in range(WIDTH)]
KIND = np.dtype([(name, "f4") for name in NAMES])


def _cache(**options: Any) -> FeatureCache:
    schema = [Feature(name, "f4", TTLS[at % 3]) for at, name in enumerate(NAMES)]
    return FeatureCache(schema, maxsize=2 * ENTITIES, **options)


def _values() -> np.ndarray:
    random = np.random.default_rng(0).random((ENTITIES, WIDTH), np.float32)
    return random.view(KIND).reshape(ENTITIES)


def _batches(names: list[Any], count: int = 16) -> list[list[Any]]:
    random = np.random.default_rng(1)
    return [[names[at] for at in random.integers(0, ENTITIES, BATCH)] for _ in range(count)]


def hits(effort: Effort) -> list[Line]:
    """1,000 entities x 20 features, all in memory: a row each, a dict each, a plain gather."""
    entities, rows = [f"user:{at}" for at in range(ENTITIES)], _values()
    cache = _cache()
    cache.set_features(entities, rows)
    nested = {
        entity: dict(zip(NAMES, row.tolist(), strict=True))
        for entity, row in zip(entities, rows, strict=True)
    }
    gathered = VectorCache(None, KIND, capacity=ENTITIES)
    gathered.put(np.arange(ENTITIES), rows)
    building = "np.array([tuple([d[n] for n in c[1]]) for d in [c[0][e] for e in k]], c[2])"
    samples, batches = Samples(), _batches(entities)
    ids = [np.array(batch) for batch in _batches([*range(ENTITIES)])]
    samples.play(
        [
            hot(OURS, "c.get_features(k)", cache, batches, BATCH),
            hot("named", "c[0].get_features(k, c[1])", (cache, NAMES), batches, BATCH),
            hot("dicts", building, (nested, NAMES, KIND), batches, BATCH),
            hot("rows", "c.gather(k)", gathered, ids, BATCH),
        ],
        effort.rounds,
    )
    name = "get_features(1,000 x 20 float32), all hits, per entity"
    return [
        ratio_line(name, "dict of dicts, np.array of tuples", samples.ratio(OURS, "dicts")),
        ratio_line(
            name, "VectorCache.gather by int64 id, one lifetime", samples.ratio(OURS, "rows")
        ),
        ratio_line(f"{name}, by names", "dict of dicts", samples.ratio("named", "dicts")),
    ]


def below(effort: Effort) -> list[Line]:
    """The same over Redis hashes: hits against asking Redis each time, and misses it serves."""
    from redis import Redis

    entities, rows = [f"user:{at}" for at in range(ENTITIES)], _values()
    batches = _batches(entities, 8)
    with ExitStack() as stack:
        server = stack.enter_context(redis_server())
        client = stack.enter_context(Redis(port=server.port))
        tier = RedisTier(server.url, timeout=5)
        stack.callback(tier.close)
        cache = _cache(store=tier)
        for start in range(0, ENTITIES, BATCH):
            cache.set_features(entities[start : start + BATCH], rows[start : start + BATCH])
            pipeline = client.pipeline(transaction=False)
            for entity, row in zip(entities[start:][:BATCH], rows[start:], strict=False):
                pipeline.hset(f"raw:{entity}", mapping=dict(zip(NAMES, row.tolist(), strict=True)))
            pipeline.execute()

        def ask(batch: list[str]) -> np.ndarray:
            pipeline = client.pipeline(transaction=False)
            for entity in batch:
                pipeline.hmget(f"raw:{entity}", NAMES)
            return np.array([tuple(map(float, reply)) for reply in pipeline.execute()], KIND)

        def forget() -> None:
            cache._shelf.rows.clear()

        few = max(8, effort.large_rounds // 4)
        hitting, missing = Samples(), Samples()
        cache.get_features(entities)
        theirs = prepared("redis-py", "c(k)", ask, [[batch] for batch in batches], per_item=BATCH)
        hitting.play([hot(OURS, "c.get_features(k)", cache, batches, BATCH), theirs], few)
        ours: Contender = prepared(
            OURS, "c.get_features(k)", cache, [[batch] for batch in batches], forget, BATCH
        )
        missing.play([ours, theirs], few)
        assert not any(counts.missing for counts in cache.stats().features.values())
    peer = "redis-py HMGET, pipelined, np.array"
    name = "get_features(1,000 x 20 float32)"
    return [
        ratio_line(f"{name}, all hits, per entity", peer, hitting.ratio(OURS, "redis-py")),
        ratio_line(f"{name}, all from Redis, per entity", peer, missing.ratio(OURS, "redis-py")),
    ]


def rows(effort: Effort) -> list[Line]:
    """All of it."""
    return [*hits(effort), *below(effort)]
