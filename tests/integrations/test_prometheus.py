"""CacheCollector: what Prometheus reads is what caches count."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)

from cachecore import TieredCache
from cachecore.integrations.metrics import BOUNDS, METRICS
from cachecore.integrations.prometheus import CacheCollector
from cachecore.tiers import RedisTier
from cachecore.tiers.testing import eventually
from integrations.watched import Caches, samples, scrape, value
from servers import redis_server

# --- the numbers


@pytest.mark.parametrize("name", ["users", "sessions", "items"])
def test_counts_of_a_cache_are_its_own(made: Caches, collector: CacheCollector, name: str) -> None:
    made.use()
    found = scrape(collector)
    stats: Any = getattr(made, name).stats()
    own = stats.l0 if name == "users" else stats
    assert value(found, "requests_total", cache=name, tier="l0", result="hit") == own.hits > 0
    assert value(found, "requests_total", cache=name, tier="l0", result="miss") == own.misses > 0
    for metric in ("entries", "bytes"):
        assert value(found, metric, cache=name) == getattr(own, metric) > 0
    for metric in ("inserts", "deletions", "refused"):
        assert value(found, f"{metric}_total", cache=name) == getattr(own, metric)
    reasons = {"evicted": own.evictions, "rejected": own.rejections, "expired": own.expirations}
    for reason, count in reasons.items():
        assert value(found, "evictions_total", cache=name, reason=reason) == count
    assert own.inserts == own.entries + sum(reasons.values()) + own.deletions


def test_bounds_are_told_where_there_are_some(made: Caches, collector: CacheCollector) -> None:
    found = scrape(collector)
    assert value(found, "max_bytes", cache="users") == 64 << 10
    assert value(found, "max_entries", cache="items") == 50
    assert ("cachecore_max_entries", frozenset({("cache", "users")})) not in found
    assert ("cachecore_max_bytes", frozenset({("cache", "items")})) not in found


def test_counts_of_tiers_and_of_the_loader(made: Caches, collector: CacheCollector) -> None:
    made.use()
    made.failing = True
    with pytest.raises(ConnectionError):
        made.users.get("none")
    eventually(lambda: made.users.stats().tiers[1].own["waiting"] == 0)
    found, stats = scrape(collector), made.users.stats()
    for tier in stats.tiers:
        place = {"cache": "users", "tier": tier.name}
        assert value(found, "requests_total", **place, result="hit") == tier.hits
        assert value(found, "requests_total", **place, result="miss") == tier.misses > 0
        assert value(found, "tier_bytes_total", **place, direction="written") == tier.bytes_written
        assert value(found, "tier_failures_total", **place, kind="error") == 0
        assert value(found, "events_total", **place, event="writes") == tier.writes > 0
        assert value(found, "level", **place, of="owed") == 0
    assert value(found, "level", cache="users", tier="redis", of="waiting") == 0
    loaded = stats.loads - stats.load_errors
    assert value(found, "requests_total", cache="users", tier="loader", result="hit") == loaded > 0
    assert value(found, "requests_total", cache="users", tier="loader", result="error") == 1
    assert value(found, "events_total", cache="users", tier="l0", event="overtaken") == 0


def test_values_served_past_their_time_are_told_apart() -> None:
    clock = [1e9]
    collector, failing = CacheCollector(None), [False]

    def load(key: str) -> str:
        if failing[0]:
            raise ConnectionError
        return key

    with TieredCache(
        10, loader=load, ttl=10, stale_ttl=10, timer=lambda: clock[0], namespace="c"
    ) as cache:
        collector.add(cache)
        cache.get("a")
        clock[0] += 11
        cache.get("a")
        eventually(lambda: cache.stats().loads == 2)
        eventually(lambda: not cache.flights)
        found = scrape(collector)
        assert value(found, "stale_served_total", cache="c", reason="revalidate") == 1
        assert value(found, "stale_served_total", cache="c", reason="error") == 0
        failing[0] = True
        clock[0] += 11
        cache.get("a")
        eventually(lambda: cache.stats().load_errors == 1)
        eventually(lambda: not cache.flights)
        clock[0] += 0.5
        for _ in range(3):
            cache.get("a")
        stale = cache.stats()
        found = scrape(collector)
        assert value(found, "stale_served_total", cache="c", reason="error") == stale.stale_if_error
        assert (
            value(found, "stale_served_total", cache="c", reason="revalidate")
            == stale.stale_while_revalidate
        )
        assert stale.stale_if_error + stale.stale_while_revalidate == 5


def test_histograms_hold_every_call(made: Caches, collector: CacheCollector) -> None:
    made.use()
    found, stats = scrape(collector), made.users.stats()
    timed = [("tier", {"tier": tier.name}, tier.latencies, tier.seconds) for tier in stats.tiers]
    timed.append(("load", {}, stats.load_latencies, stats.load_seconds))
    for part, labels, counts, seconds in timed:
        name, place = f"{part}_duration_seconds", {"cache": "users", **labels}
        assert value(found, f"{name}_count", **place) == sum(counts) > 0
        assert value(found, f"{name}_sum", **place) == pytest.approx(seconds)
        reached = [value(found, f"{name}_bucket", **place, le=str(le)) for le in BOUNDS]
        assert reached == [sum(counts[: at + 1]) for at in range(len(BOUNDS))]
        assert value(found, f"{name}_bucket", **place, le="+Inf") == sum(counts)


def test_a_slow_load_is_in_no_bucket_of_faster_ones() -> None:
    collector, wait = CacheCollector(None), threading.Event()
    with TieredCache(10, loader=lambda key: wait.wait(0.02), namespace="c") as cache:
        collector.add(cache)
        cache.get("a")
        found = scrape(collector)
        for bound in BOUNDS:
            if bound < 0.02:
                bucket = "load_duration_seconds_bucket"
                assert value(found, bucket, cache="c", le=str(bound)) == 0
        assert value(found, "load_duration_seconds_sum", cache="c") > 0.019


def test_breaker_opens_and_closes(tmp_path: Path) -> None:
    server = redis_server(tmp_path)
    collector = CacheCollector(None)

    def state() -> str:
        found = scrape(collector)
        states = [
            state
            for state in ("closed", "half-open", "open")
            if value(found, "breaker_state", cache="c", tier="redis", state=state)
        ]
        assert len(states) == 1
        return states[0]

    tier = RedisTier(f"redis://127.0.0.1:{server.port}")
    with TieredCache(10, tiers=[tier], loader=str.upper, namespace="c") as cache:
        collector.add(cache)
        cache.get("a")
        assert state() == "closed"
        server.kill()
        for at in range(10):
            cache.get(f"b{at}")
        assert state() == "open"
        failures = cache.stats().tiers[0]
        found = scrape(collector)
        kinds = {
            kind: value(found, "tier_failures_total", cache="c", tier="redis", kind=kind)
            for kind in ("timeout", "error")
        }
        assert sum(kinds.values()) == failures.errors > 0
        server.start()
        eventually(lambda: cache.get(os.urandom(8).hex()) and state() == "closed")
    server.kill()


def test_a_source_tells_what_it_counts(collector: CacheCollector) -> None:
    found = scrape(collector)
    place = {"cache": "server"}
    assert value(found, "requests_total", **place, tier="upstream", result="hit") == 6
    assert value(found, "stale_served_total", **place, reason="upstream") == 1
    assert value(found, "breaker_state", **place, tier="upstream", state="open") == 1
    assert value(found, "server_clients", **place) == 3
    assert value(found, "server_commands_total", **place, command="get") == 100
    assert value(found, "server_command_duration_seconds_sum", **place) == 0.25
    assert value(found, "server_command_duration_seconds_bucket", **place, le="3.2e-05") == 0
    assert value(found, "server_command_duration_seconds_bucket", **place, le="6.4e-05") == 1
    assert value(found, "server_refused_total", **place, reason="too many clients") == 1


def test_every_metric_is_in_some_exposition(made: Caches, collector: CacheCollector) -> None:
    made.use()
    found = {name for name, _ in scrape(collector)}
    for metric in METRICS:
        ending = {"counter": "_total", "gauge": "", "histogram": "_count"}[metric.kind]
        if metric.name != "feature_events":  # of a FeatureCache: test_ml.py
            assert f"cachecore_{metric.name}{ending}" in found


def test_openmetrics_too(made: Caches, collector: CacheCollector) -> None:
    made.use()
    registry = CollectorRegistry()
    registry.register(collector)
    text = openmetrics(registry).decode()
    families = {family.name: family for family in parse_openmetrics(text)}
    assert families["cachecore_tier_duration_seconds"].unit == "seconds"
    assert text.endswith("# EOF\n")
    plain = samples(generate_latest(registry).decode())
    assert len(plain) == sum(len(family.samples) for family in families.values())
