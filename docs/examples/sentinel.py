"""The master of a Sentinel pair dies under a TieredCache, and the replica takes its place.

    python docs/examples/sentinel.py

Starts a master, its replica and three sentinels with ci/services.sh, in a folder and on ports of
its own, or those that SERVICES= and BASE_PORT= name. Threads look keys up and write them all the
while. What the master had accepted and not yet passed on is lost with it: that is how Redis
replicates. Here it is at most the writes of the last milliseconds.
"""

from __future__ import annotations

import random
import sys
import threading
import time

from cachecore import TieredCache
from cachecore.tiers import Breaker, RedisTier
from services import Services, say

KEYS = [f"user:{number}" for number in range(1_000)]
THREADS, RATE = 4, 100  # look-ups a second of each; a tenth as many writes
MOST = 30.0  # seconds that a failover may take


class Load:
    """Threads that look keys up and write them, each its own, and look whether a value is old."""

    def __init__(self) -> None:
        self.versions = dict.fromkeys(KEYS, 1)
        self.look_ups = self.writes = self.errors = self.old = 0
        self.slowest = 0.0
        self.stop = threading.Event()

    def source(self, keys: list[str]) -> list[int]:
        """Return the values of keys, for the cache to load."""
        return [self.versions[key] for key in keys]

    def work(self, cache: TieredCache, number: int) -> None:
        """Look up and write until told to stop."""
        turn = 0
        while not self.stop.wait(1 / RATE):
            turn += 1
            key = random.choice(KEYS[number::THREADS])
            start = time.monotonic()
            try:
                if turn % 10 == 0:
                    self.versions[key] += 1
                    cache.set(key, self.versions[key])
                    self.writes += 1
                else:
                    self.old += cache.get(key) != self.versions[key]
                    self.look_ups += 1
            except Exception:
                self.errors += 1
            self.slowest = max(self.slowest, time.monotonic() - start)


def watch(cache: TieredCache, breaker: Breaker) -> int:
    """Say what changes until nothing is owed any more; how many writes are, then."""
    state, end, most = breaker.state, time.monotonic() + MOST, 0
    while time.monotonic() < end:
        owed = cache.stats().tiers[0].owed
        if breaker.state != state:
            state = breaker.state
            say(f"the breaker is {state}; {owed} writes are owed")
        most = max(most, owed)
        if most and not owed:
            say(f"the new master has been given the {cache.stats().replayed} writes it missed")
            break
        time.sleep(0.01)
    return cache.stats().tiers[0].owed


def main(services: Services) -> int:
    """Kill the master, and see."""
    base = services.base
    services.start()
    say("a master, its replica and three sentinels run")
    sentinels = ",".join(f"127.0.0.1:{base + at}" for at in (6, 7, 8))
    breaker = Breaker(RedisTier(f"redis+sentinel://{sentinels}/cache", timeout=0.1), most=1)
    load = Load()
    with TieredCache(10, tiers=[breaker], loader_many=load.source) as cache:
        cache.set_many(load.versions)
        threads = [
            threading.Thread(target=load.work, args=(cache, number)) for number in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1)
        services.kill(base + 4)
        say(f"the master, on port {base + 4}, is killed")
        owed = watch(cache, breaker)
        time.sleep(0.5)
        load.stop.set()
        for thread in threads:
            thread.join()
        hits = cache.stats().tiers[0].hits
        values = cache.get_many(KEYS)
        load.old += sum(
            value != load.versions[key] for key, value in zip(KEYS, values, strict=True)
        )
        hits = cache.stats().tiers[0].hits - hits
        say(f"of all {len(KEYS):,} keys, {hits:,} are found in the new master")
    print(
        f"\n{load.look_ups:,} look-ups and {load.writes:,} writes, the slowest "
        f"{1000 * load.slowest:.0f} ms; errors: {load.errors}."
        f"\nOld values: {load.old}. Writes that were forgotten: {owed}."
    )
    return 1 if load.errors or load.old or owed else 0


if __name__ == "__main__":
    with Services("sentinel") as services:
        status = main(services)
    sys.exit(status)
