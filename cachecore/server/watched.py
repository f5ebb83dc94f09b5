"""The server as its metrics see it: what its cache, its engine and its upstream counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachecore.integrations.caches import read
from cachecore.integrations.readings import Durations, Reading, ServerReading, TierReading

if TYPE_CHECKING:
    from cachecore.server.proxy import Proxy
    from cachecore.server.service import Server

UPSTREAM = "upstream"
# How a connection ends of itself; all other reasons are the server's.
ENDED = frozenset(("ended", "quit", "lost", "stopped"))
EVENTS = ("invalidations", "drops", "forwarded", "redirects")
BREAKERS = {"up": "closed", "doubtful": "half-open", "down": "open"}


class Watched:
    """A server, for a `CacheCollector`. Belongs to the server's loop."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def read(self) -> Reading:
        """What was counted so far."""
        engine, proxy = self._server.engine, self._server.proxy
        counts, seconds = engine.latencies()
        closes = {reason: n for reason, n in engine.closes.items() if reason not in ENDED}
        served = ServerReading(
            clients=len(engine.clients),
            commands={name.decode(): count for name, count in engine.calls().items()},
            durations=Durations(counts, seconds, sum(counts)),
            traffic={"read": engine.bytes_in, "written": engine.bytes_out},
            refused={**closes, "too many clients": engine.refused},
        )
        kind = "RESP" if proxy is None else "Proxy"
        reading = dataclasses.replace(read(engine.cache), kind=kind, server=served)
        if proxy is None:
            return reading
        stale = {UPSTREAM: proxy.stale_served}
        return dataclasses.replace(reading, tiers=[_upstream(proxy)], stale=stale)

    def hottest(self, n: int) -> Sequence[tuple[bytes, int]]:
        """The keys asked for most often, without the byte of their database."""
        return [(key[1:], count) for key, count in self._server.cache.hottest(n)]

    def trouble(self) -> str:
        """What is wrong; nothing while all is well."""
        saver, proxy = self._server.saver, self._server.proxy
        if saver is not None and saver.error is not None:
            return f"the snapshot was not written: {saver.error}"
        if proxy is not None and proxy.info()["upstream_status"] == "down":
            return f"upstream {proxy.called} cannot be reached"
        return ""


def _upstream(proxy: Proxy) -> TierReading:
    told, fetched = proxy.info(), proxy.latencies
    return TierReading(
        name=UPSTREAM,
        results=dict(proxy.results),
        durations=Durations(fetched.histogram(), fetched.seconds, sum(fetched.histogram())),
        breaker=BREAKERS[str(told["upstream_status"])],
        failures={"error": proxy.losses},
        events={name: getattr(proxy, name) for name in EVENTS},
        levels={"connections": float(told["upstream_connections"])},
    )
