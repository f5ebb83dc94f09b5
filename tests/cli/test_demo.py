"""`cachecore demo`: the workload, the encoder, the chart, and a small run of the whole."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from cachecore.cli.charts import Line, log_chart
from cachecore.cli.encoder import HashingEncoder
from cachecore.cli.group import cli
from cachecore.cli.workload import docstrings, zipf_requests
from cachecore.units import duration, size

SMALL = ["demo", "--texts", "400", "--requests", "5000"]


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    result = CliRunner().invoke(cli, [*SMALL, "--json"])
    assert result.exit_code == 0, result.output
    parsed = json.loads(result.stdout)
    assert isinstance(parsed, dict)
    return parsed


def test_the_numbers_add_up(report: dict[str, object]) -> None:
    holders = {holder["name"]: holder for holder in report["holders"]}  # type: ignore[attr-defined]
    requests = zipf_requests(400, 5000, 1)
    distinct = len(np.unique(requests))
    assert holders["no cache"]["hit_ratio"] == 0
    assert holders["dict (unbounded)"]["hit_ratio"] == pytest.approx(1 - distinct / 5000)
    assert holders["dict (unbounded)"]["vectors"] == distinct
    assert holders["lru_cache"]["vectors"] == 100
    assert 0.3 < holders["Cache"]["hit_ratio"] < 1
    assert report["bytes"] <= report["max_bytes"] == 400 * 1024  # type: ignore[operator]
    for holder in holders.values():
        assert 0 < holder["p50_ns"] <= holder["p99_ns"]


def test_vectors_come_back_as_they_were_computed(report: dict[str, object]) -> None:
    assert report["candidates"] == report["equal_to_fresh"]
    assert report["candidates"] == report["holders"][-1]["vectors"]  # type: ignore[index]


def test_the_hottest_were_asked_for_often(report: dict[str, object]) -> None:
    hottest = report["hottest"]
    assert isinstance(hottest, list)
    assert len(hottest) == 10
    counts = [item["frequency"] for item in hottest]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0
    counted = np.sort(np.bincount(zipf_requests(400, 5000, 1)))
    assert hottest[0]["requests"] >= counted[-20]


def test_tables_and_chart() -> None:
    result = CliRunner().invoke(cli, SMALL, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "feature hashing, not a neural model" in result.stdout
    for words in ("hit ratio", "dict (unbounded)", "lru_cache", "cache.gather", "cache.hottest"):
        assert words in result.stdout
    assert max(cell_len(line) for line in result.stdout.splitlines()) <= 80


def test_docstrings_are_those_of_the_library() -> None:
    shares: list[float] = []
    texts = docstrings(None, shares.append)
    assert len(texts) == len(set(texts.values())) > 2_000
    assert texts["json.loads"] == inspect.getdoc(json.loads)
    assert texts["inspect"] == inspect.getdoc(inspect)
    assert texts["inspect.Signature.bind"] == inspect.getdoc(inspect.Signature.bind)
    assert shares == sorted(shares)
    assert shares[-1] <= 1


def test_requests_are_skewed_drift_and_repeat_by_seed() -> None:
    first = zipf_requests(1_000, 50_000, 5)
    assert np.array_equal(first, zipf_requests(1_000, 50_000, 5))
    assert not np.array_equal(first, zipf_requests(1_000, 50_000, 6))
    assert len(first) == 50_000
    assert (first.min(), first.max()) == (0, 999)
    counts = np.sort(np.bincount(first))
    assert counts[-100:].sum() > 0.4 * len(first)
    early, late = (
        np.argsort(np.bincount(part, minlength=1000))[-50:]
        for part in (
            first[:5_000],
            first[-5_000:],
        )
    )
    assert 5 < len(np.intersect1d(early, late)) < 45


def test_feature_hashing() -> None:
    encoder = HashingEncoder()
    texts = ["Return the median of data.", "Return the median of numeric data", "Send an e-mail"]
    vectors = [encoder.encode(text) for text in texts]
    assert all(v.dtype == np.float32 and v.shape == (1024,) for v in vectors)
    assert [float(v @ v) for v in vectors] == pytest.approx([1, 1, 1], abs=1e-6)
    assert np.array_equal(vectors[0], HashingEncoder().encode(texts[0]))
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > abs(vectors[0] @ vectors[2])
    for odd in ("", " ", "a", "é", "\n", "😀"):
        assert np.isfinite(encoder.encode(odd)).all()
    with pytest.raises(ValueError, match="power of two"):
        HashingEncoder(1000)


def test_chart_names_each_line_and_keeps_to_its_width() -> None:
    x = np.geomspace(10, 5_000, 20)
    lines = [
        Line("flat", "red", x[[0, -1]], np.array([50.0, 50.0])),
        Line("falling", "green", x, 1e4 / x),
        Line("level", "blue", x, np.full(20, 50.0)),
        Line("below", "blue", x, np.full(20, 2.0)),
    ]
    chart = log_chart(lines, width=60, height=12, x_tick=str, y_tick=duration).plain
    rows = chart.split("\n")
    assert len(rows) == 12
    assert max(map(len, rows)) <= 60
    for line in lines:
        assert sum(row.endswith(f" {line.label}") for row in rows) == 1
    assert sum("┤" in row for row in rows) == 4  # 1, 10, 100 and 1,000 ns


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (duration(7.25), "7.25 ns"),
        (duration(999.4), "999 ns"),
        (duration(999.6), "1.00 µs"),
        (duration(12_345), "12.3 µs"),
        (duration(3e9), "3 s"),
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(64 << 20), "64 MB"),
        (size(1.5 * (1 << 30)), "1.50 GB"),
        (size(-2048), "-2 KB"),
    ],
)
def test_units(text: str, value: str) -> None:
    assert text == value
