"""Caches as metrics of prometheus_client: `CacheCollector`. Needs cachecore-ml[server]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from cachecore.integrations.metrics import METRICS, Metric, buckets, text_of
from cachecore.integrations.readings import Reading, Watch


class CacheCollector(Watch, Collector):
    """What watched caches count, for Prometheus to scrape.

        caches = CacheCollector()
        caches.add(users, name="users")

    A scrape reads what each cache counts anyway: between scrapes it costs nothing. It keeps no
    cache alive, may go on while they are used, and leaves out those that are closed. Thread safe,
    also across a fork, whose child counts for itself. docs/metrics.md lists the metrics.

    Args:
        registry: where to register, by default that of the process; None: nowhere.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        super().__init__()
        if registry is not None:
            registry.register(self)

    def describe(self) -> Iterable[Family]:
        """The metrics without values, by which a registry finds what is registered twice."""
        return [*(_family(metric, []) for metric in METRICS), self._unread()]

    def collect(self) -> Iterator[Family]:
        """The metrics of the caches that there are."""
        readings = [(text_of(name), reading) for name, reading in self.readings()]
        for metric in METRICS:
            family = _family(metric, readings)
            if family.samples:
                yield family
        yield self._unread()

    def _unread(self) -> Family:
        text = "Readings that left a cache out because its stats() raised."
        family = CounterMetricFamily("cachecore_unread", text, labels=["cache"])
        for name, count in self.unread.copy().items():
            family.add_metric([text_of(name)], count)
        return family


def _family(metric: Metric, readings: Iterable[tuple[str, Reading]]) -> Family:
    name, labels = f"cachecore_{metric.name}", ["cache", *metric.labels]
    rows = (
        ([cache, *map(text_of, values)], value)
        for cache, reading in readings
        for values, value in metric.rows(reading)
    )
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.text, labels=labels, unit=metric.unit)
        for row, durations in rows:
            bounds = [(str(bound), count) for bound, count in buckets(durations)]
            histogram.add_metric(row, [*bounds, ("+Inf", durations.calls)], durations.seconds)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(name, metric.text, labels=labels, unit=metric.unit)
    for row, value in rows:
        family.add_metric(row, value)
    return family
