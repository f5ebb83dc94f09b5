"""A node of a Redis Cluster dies under a TieredCache, and comes back empty.

    python docs/examples/cluster.py [1 | 2 | 3, the node]

Starts three nodes with ci/services.sh, in a folder and on ports of its own, or those that SERVICES=
and BASE_PORT= name. The cache holds hardly anything itself, so that what the cluster does is seen.
"""

from __future__ import annotations

import sys
import time

from cachecore import TieredCache
from cachecore.tiers import RedisTier
from services import Services, say

KEYS = [f"user:{number}" for number in range(3_000)]
WRITTEN = KEYS[::10]


class Store:
    """The source of truth: the version of each key."""

    def __init__(self) -> None:
        self.versions = dict.fromkeys(KEYS, 1)

    def load(self, keys: list[str]) -> list[int]:
        """Return the values of keys."""
        return [self.versions[key] for key in keys]


def read_all(cache: TieredCache, store: Store) -> int:
    """Look all keys up, say who answered, and return how many values were old."""
    before = cache.stats()
    start = time.monotonic()
    values: list[int | None] = []
    for at in range(0, len(KEYS), 100):
        values += cache.get_many(KEYS[at : at + 100])
    spent = time.monotonic() - start
    after = cache.stats()
    old = sum(store.versions[key] != value for key, value in zip(KEYS, values, strict=True))
    here = after.l0.hits - before.l0.hits
    redis = after.tiers[0].hits - before.tiers[0].hits
    loads = after.loads - before.loads
    say(
        f"{len(KEYS):,} look-ups in {spent:.2f} s: {here} here, {redis:,} in the cluster, "
        f"{loads:,} loaded, {old} old"
    )
    return old


def main(services: Services, node: int) -> int:
    """Kill a node, and see."""
    base = services.base
    services.start()
    say("three nodes run, each with a third of the slots")
    store, old = Store(), 0
    url = f"redis+cluster://127.0.0.1:{base + 1},127.0.0.1:{base + 2}"
    tier = RedisTier(url, timeout=0.25)
    with TieredCache(10, tiers=[tier], loader_many=store.load, namespace="demo") as cache:
        cache.set_many(store.versions)
        old += read_all(cache, store)

        services.kill(base + node)
        say(f"node {node} is killed")
        time.sleep(1)  # until nothing is believed any more that was known of the cluster before
        old += read_all(cache, store)
        for key in WRITTEN:
            store.versions[key] = 2
            cache.set(key, 2)
        owed = cache.stats().tiers[0].owed
        say(f"{len(WRITTEN)} keys are written: {len(WRITTEN) - owed} taken, {owed} owed")
        old += read_all(cache, store)

        services.start()
        say(f"node {node} is started again, and knows nothing")
        end = time.monotonic() + 20
        while cache.stats().tiers[0].owed and time.monotonic() < end:
            time.sleep(0.02)
        owed = cache.stats().tiers[0].owed
        say(f"{cache.stats().replayed} writes were made up for, {owed} are still owed")
        old += read_all(cache, store)
        old += read_all(cache, store)
    print(f"\nOld values: {old}. Writes that were forgotten: {owed}.")
    return 1 if old or owed else 0


if __name__ == "__main__":
    with Services("cluster") as services:
        status = main(services, int(sys.argv[1]) if sys.argv[1:] else 3)
    sys.exit(status)
