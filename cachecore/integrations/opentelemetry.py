"""Caches as instruments of OpenTelemetry's metrics: `CacheObserver`. Needs cachecore-ml[otel]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from cachecore import __version__
from cachecore.integrations.metrics import METRICS, Metric, buckets, text_of
from cachecore.integrations.readings import Watch

_UNITS = {"seconds": "s", "bytes": "By", "": "1"}


class CacheObserver(Watch):
    """What watched caches count, for OpenTelemetry to export.

        caches = CacheObserver()
        caches.add(users, name="users")

    The metrics are those of docs/metrics.md, under names such as `cachecore.requests`, as
    observable counters and gauges: they are read when the SDK collects, in its thread, and cost
    nothing between. OpenTelemetry has no observable histogram: a histogram is three counters, whose
    names end with `.bucket` (those that took at most `le` seconds), `.count` and `.sum`, which an
    exporter to Prometheus shows as a histogram's series.

    It keeps no cache alive, and leaves out those that are closed. Thread safe, also across a fork.

    Args:
        meter: of whom to make the instruments, by default the global provider's.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        super().__init__()
        meter = meter or get_meter("cachecore", __version__)
        for metric in METRICS:
            name, unit = f"cachecore.{metric.name.removesuffix('_seconds')}", _UNITS[metric.unit]
            text = metric.text
            if metric.kind == "histogram":
                for part, of_it in (("bucket", "1"), ("count", "1"), ("sum", unit)):
                    look = partial(self._durations, metric, part)
                    meter.create_observable_counter(f"{name}.{part}", [look], of_it, text)
            elif metric.kind == "counter":
                meter.create_observable_counter(name, [partial(self._values, metric)], unit, text)
            else:
                meter.create_observable_gauge(name, [partial(self._values, metric)], unit, text)

    def _rows(self, metric: Metric) -> Iterator[tuple[dict[str, str], Any]]:
        for cache, reading in self.readings():
            for values, value in metric.rows(reading):
                names = zip(("cache", *metric.labels), (cache, *values), strict=True)
                yield {name: text_of(label) for name, label in names}, value

    def _values(self, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, labels) for labels, value in self._rows(metric)]

    def _durations(self, metric: Metric, part: str, _: CallbackOptions) -> Iterable[Observation]:
        found = []
        for labels, durations in self._rows(metric):
            if part == "bucket":
                bounds = [(str(bound), count) for bound, count in buckets(durations)]
                for bound, count in [*bounds, ("+Inf", durations.calls)]:
                    found.append(Observation(count, {**labels, "le": bound}))
            else:
                value = durations.calls if part == "count" else durations.seconds
                found.append(Observation(value, labels))
        return found
