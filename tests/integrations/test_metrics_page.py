"""docs/metrics.md lists every metric, as it is."""

from __future__ import annotations

import re
from pathlib import Path

from cachecore.integrations.metrics import BREAKER_STATES, METRICS

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def test_the_table_is_that_of_the_metrics() -> None:
    rows = re.findall(r"^\| `(cachecore_\w+)` \| (\w+) \| (.*?) \|", PAGE, re.MULTILINE)
    listed = [(name, kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows]
    assert listed == [
        (
            f"cachecore_{metric.name}" + ("_total" if metric.kind == "counter" else ""),
            metric.kind,
            list(metric.labels),
        )
        for metric in METRICS
    ]
    assert all(f"`{state}`" in PAGE for state in BREAKER_STATES)


def test_names_follow_the_conventions() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith(metric.unit)
        assert metric.text.endswith(".")
        assert (metric.kind == "histogram") == metric.name.endswith("_duration_seconds")
