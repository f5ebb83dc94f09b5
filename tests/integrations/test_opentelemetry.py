"""CacheObserver: what OpenTelemetry collects is what caches count."""

from __future__ import annotations

import gc
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from cachecore import Cache
from cachecore.integrations.metrics import METRICS
from cachecore.integrations.opentelemetry import CacheObserver
from cachecore.integrations.prometheus import CacheCollector
from integrations.watched import Caches, scrape

Points = dict[tuple[str, frozenset[tuple[str, Any]]], Any]


class Collected:
    """An observer, and what an SDK collects of it."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])
        self.observer = CacheObserver(self.provider.get_meter("test"))

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for each in data.resource_metrics for scope in each.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self) -> Points:
        return {
            (name, frozenset((point.attributes or {}).items())): point.value
            for name, metric in self.metrics().items()
            for point in metric.data.data_points
        }


def as_prometheus(name: str) -> str:
    """What an exporter makes of a name; that of a counter's sum has no other place for its unit."""
    name = name.replace(".", "_")
    for part in ("_bucket", "_count", "_sum"):
        if name.endswith(f"_duration{part}"):
            return name.removesuffix(part) + "_seconds" + part
    counters = {f"cachecore_{metric.name}" for metric in METRICS if metric.kind == "counter"}
    return f"{name}_total" if name in counters else name


def test_it_tells_what_prometheus_is_told(made: Caches, collector: CacheCollector) -> None:
    collected = Collected()
    for name, cache in made.named.items():
        collected.observer.add(cache, name)
    made.use()
    made.users.close()  # nothing is under way any more
    told = {(as_prometheus(name), labels): value for (name, labels), value in
            collected.points().items()}  # fmt: skip
    assert told == scrape(collector)
    assert ("cachecore_requests_total", frozenset({
        ("cache", "sessions"), ("tier", "l0"), ("result", "hit"),
    })) in told  # fmt: skip
    collected.provider.shutdown()


def test_kinds_and_units(made: Caches) -> None:
    collected = Collected()
    for name, cache in made.named.items():
        collected.observer.add(cache, name)
    made.use(5)
    metrics = collected.metrics()
    assert metrics["cachecore.requests"].data.is_monotonic
    assert metrics["cachecore.bytes"].unit == "By"
    assert not hasattr(metrics["cachecore.bytes"].data, "is_monotonic")  # a gauge
    assert metrics["cachecore.load_duration.sum"].unit == "s"
    assert metrics["cachecore.load_duration.count"].data.is_monotonic
    assert all(metric.description for metric in metrics.values())
    collected.provider.shutdown()


def test_it_keeps_no_cache_alive() -> None:
    collected = Collected()
    cache: Cache[str, int] = Cache(10, name="c")
    collected.observer.add(cache)
    assert collected.points()
    del cache
    gc.collect()
    assert collected.points() == {}
    collected.provider.shutdown()


def test_without_an_sdk_nothing_is_collected() -> None:
    cache: Cache[str, int] = Cache(10, name="c")
    CacheObserver(NoOpMeterProvider().get_meter("test")).add(cache)
    CacheObserver().add(cache)  # of the global provider, which is none
