"""A node of a Redis Cluster dies under a TieredCache, and comes back empty.

    python docs/examples/cluster.py [1 | 2 | 3, the node]

Starts three nodes with ci/services.sh, in a folder and on ports of its own, or those that SERVICES=
and BASE_PORT= name. The cache holds hardly anything itself, so that what the cluster does is seen.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cachecore import TieredCache
from cachecore.tiers import RedisTier

SCRIPT = Path(__file__).parents[2] / "ci" / "services.sh"
KEYS = [f"user:{number}" for number in range(3_000)]
WRITTEN = KEYS[::10]


def free_ports() -> int:
    """Return a port such that it and those after it, and theirs of the cluster bus, are free."""
    while True:
        base = random.randrange(20_000, 30_000, 10)
        try:
            for port in [*range(base, base + 10), *range(base + 10_000, base + 10_010)]:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue


def services(command: str) -> None:
    """Run ci/services.sh, which starts what does not run."""
    line = [str(SCRIPT), command, "cluster"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def say(text: str) -> None:
    """Print a line, with the time since the start."""
    print(f"{time.monotonic() - begin:5.1f} s  {text}", flush=True)


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


def main(node: int) -> int:
    """Kill a node, and see."""
    base = int(os.environ["BASE_PORT"])
    services("start")
    say("three nodes run, each with a third of the slots")
    store, old = Store(), 0
    url = f"redis+cluster://127.0.0.1:{base + 1},127.0.0.1:{base + 2}"
    tier = RedisTier(url, timeout=0.25)
    with TieredCache(10, tiers=[tier], loader_many=store.load, namespace="demo") as cache:
        cache.set_many(store.versions)
        old += read_all(cache, store)

        process = Path(os.environ["SERVICES"], str(base + node), "pid").read_text()
        os.kill(int(process), signal.SIGKILL)
        say(f"node {node} is killed")
        time.sleep(1)  # until nothing is believed any more that was known of the cluster before
        old += read_all(cache, store)
        for key in WRITTEN:
            store.versions[key] = 2
            cache.set(key, 2)
        owed = cache.stats().tiers[0].owed
        say(f"{len(WRITTEN)} keys are written: {len(WRITTEN) - owed} taken, {owed} owed")
        old += read_all(cache, store)

        services("start")
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


begin = time.monotonic()

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="cachecore-example-") as folder:
        own = "SERVICES" not in os.environ
        if own:
            os.environ |= {"SERVICES": folder, "BASE_PORT": str(free_ports())}
        try:
            status = main(int(sys.argv[1]) if sys.argv[1:] else 3)
        finally:
            if own:
                services("stop")
    sys.exit(status)
