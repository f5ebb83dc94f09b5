"""What the tests of outages share: a cache over Redis whose methods are called both ways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cachecore import TieredCache
from cachecore.tiers import Breaker, RedisTier
from cachecore.tiers.testing import eventually

DEADLINE = 0.1  # seconds of a tier
SLACK = 0.9  # for a machine that does other things as well
PAUSE = 0.1  # seconds until a breaker probes


class Calls:
    """A cache's methods, sync or async; each call must end within the deadline of its tiers."""

    def __init__(self, cache: TieredCache, runner: asyncio.Runner | None) -> None:
        self.cache, self._runner = cache, runner
        self.breaker: Any = cache.tiers[-1]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        runner = self._runner
        method = getattr(self.cache, name if runner is None else f"a{name}")

        def call(*args: Any, **settings: Any) -> Any:
            begin = time.monotonic()
            try:
                if runner is None:
                    return method(*args, **settings)
                return runner.run(method(*args, **settings))
            finally:
                assert time.monotonic() - begin < DEADLINE + SLACK

        return call

    def fresh(self, key: Any) -> Any:
        """What a look-up below this process's own memory finds."""
        self.cache.l0.clear()
        return self.get(key)

    @property
    def tier(self) -> Any:
        """What was counted of the last tier."""
        return self.cache.stats().tiers[-1]


@contextmanager
def redis_cache(
    port: int,
    runner: asyncio.Runner | None = None,
    user: str = "",
    timeout: float = DEADLINE,
    **settings: Any,
) -> Iterator[Calls]:
    """A cache over a Redis at that port; at its end nothing is under way any more."""
    tier = Breaker(
        RedisTier(f"redis://{user}127.0.0.1:{port}", timeout=timeout), pause=PAUSE, most=PAUSE
    )
    settings = {"maxsize": 1000, "namespace": "test", **settings}
    tiers = [*settings.pop("above", ()), tier]
    cache = TieredCache(tiers=tiers, **settings)
    try:
        yield Calls(cache, runner)
        eventually(lambda: cache.flights == {})
    finally:
        cache.close()
