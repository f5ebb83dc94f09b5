"""The report of what was saved: estimates, counts, and how it looks."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore.ml import ResultCache
from cachecore.ml.savings import Ledger, report
from ml.models import Weighted, table

SIZES = st.lists(st.integers(1, 500), min_size=2, max_size=30).filter(lambda s: len(set(s)) > 1)


def asked_and_computed(requests: int, rows: int, calls: list[tuple[int, float]]) -> Ledger:
    ledger = Ledger("model", "1")
    for _ in range(requests - 1):
        ledger.asked(0)
    ledger.asked(rows)
    for count, spent in calls:
        ledger.computed(count, spent)
    return ledger


@given(SIZES, st.floats(0, 1), st.floats(0, 0.1), st.integers(0, 50), st.integers(0, 10_000))
def test_seconds_saved_by_a_model_of_linear_time(
    sizes: list[int], fixed: float, per_row: float, more: int, rows: int
) -> None:
    calls = [(size, fixed + per_row * size) for size in sizes]
    ledger = asked_and_computed(len(sizes) + more, sum(sizes) + rows, calls)
    line = report([ledger], 3.6).lines[0]
    assert math.isclose(line.seconds_saved, fixed * more + per_row * rows, abs_tol=1e-6)
    assert line.money_saved == pytest.approx(line.seconds_saved / 1000)
    assert line.seconds == pytest.approx(sum(spent for _, spent in calls))


def test_a_slow_first_call_changes_little() -> None:
    calls = [(100, 60.0), *((size, 0.01 + 0.001 * size) for size in (100, 10, 50, 20, 100, 30))]
    ledger = asked_and_computed(17, 1_310, calls)
    line = report([ledger], None).lines[0]
    assert line.rows - line.rows_computed == 900
    assert line.seconds_saved == pytest.approx(0.01 * 10 + 0.001 * 900, rel=0.1)


def test_calls_of_one_size_count_as_calls() -> None:
    ledger = asked_and_computed(10, 400, [(1, 0.002), (1, 0.002)])
    assert report([ledger], None).total.seconds_saved == pytest.approx(8 * 0.002)


def test_nothing_was_computed_yet() -> None:
    savings = report([Ledger("model", "1")], 2)
    assert savings.total.seconds_saved == savings.total.money_saved == 0
    assert report([], None).total.requests == 0


def test_a_cache_reports() -> None:
    cache = ResultCache(Weighted(), model="fraud", version="7", maxsize=100)
    for rows in (table(10), table(30), table(30), table(20)[[1, 1, 1]]):
        cache.predict(rows)
    savings = cache.savings(gpu_cost_per_hour=4)
    counts = savings.as_dict()["lines"][0]
    del counts["seconds"], counts["seconds_saved"], counts["money_saved"]
    assert counts == {
        "name": "fraud", "version": "7", "requests": 4, "rows": 73, "calls": 2, "rows_computed": 30,
    }  # fmt: skip
    assert json.loads(json.dumps(savings.as_dict()))["gpu_cost_per_hour"] == 4
    lines = str(savings).splitlines()
    assert lines[0].split() == (
        "name version requests rows calls rows computed seconds seconds saved money saved".split()
    )
    assert [line.split()[0] for line in lines[1:]] == ["fraud", "total"]
    assert len(set(map(len, lines))) == 1
    assert "money" not in str(cache.savings())


@pytest.mark.parametrize("version", [7, 0, -3, 10**5_000], ids=["7", "0", "-3", "long"])
def test_a_version_that_is_a_number(version: int) -> None:
    line = report([Ledger("model", version)], None).lines[0]
    assert int(line.version, 0) == version


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (math.inf, ValueError),
        ("2", TypeError),
        (True, TypeError),
    ],
)
def test_prices(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="gpu_cost_per_hour must be"):
        report([], value)  # type: ignore[arg-type]
