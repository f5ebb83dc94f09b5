"""VectorCache keeps what Cache keeps: hit ratios of real traces, and of one made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import Cache
from cachecore.plan import simulate
from plan.traces import drifting, skewed
from support import LONG
from vectors.helpers import MakeTable

TRACES = Path(__file__).parents[2] / ".." / "shared" / "traces"
REQUESTS = None if LONG else 400_000
TOLERANCE = 0.005  # half a point

MADE: dict[str, Any] = {
    "skewed": lambda: skewed(200_000, 1 << 16, 4),
    "drifting": lambda: drifting(200_000, 1 << 14, 5),
}


def keys_of(name: str) -> Any:
    if name in MADE:
        return MADE[name]()
    if not TRACES.is_dir():
        pytest.skip("the real traces are not part of the project, and not here")
    return np.load(TRACES / f"{name}.npz")["key"][:REQUESTS]


def hit_ratio_of_rows(table: Any, keys: Any) -> float:
    """Ids are looked up one by one; what is missing is put."""
    row = np.zeros((1, 1), np.uint8)
    gather, put = table.gather, table.put
    for at in range(len(keys)):
        if not gather(keys[at : at + 1])[1][0]:
            put(keys[at : at + 1], row)
    ratio: float = table.stats().hit_ratio
    return ratio


@pytest.mark.parametrize(
    ("name", "capacity"),
    [
        ("skewed", 1000),
        ("skewed", 20_000),
        ("drifting", 3000),
        ("oltp", 1000),
        ("oltp", 10_000),
        ("scarab_a", 5000),
        ("web12", 2000),
        ("wikitok_a", 1000),
        ("p3", 20_000),
        ("cpio", 5000),
        ("loop", 1000),
    ],
)
@pytest.mark.parametrize("shared", [False, True] if LONG else [False])
def test_hit_ratio(make: MakeTable, shm: Path, name: str, capacity: int, shared: bool) -> None:
    keys = keys_of(name)
    table = make(1, "uint8", capacity=capacity, path=shm / "t" if shared else None)
    ratio = hit_ratio_of_rows(table, keys)
    assert ratio == pytest.approx(simulate(keys, capacity).hit_ratio, abs=TOLERANCE)


def test_the_simulator_stands_for_cache() -> None:
    keys = MADE["skewed"]()
    cache: Cache[int, int] = Cache(1000)
    for key in keys.tolist():
        if cache.get(key) is None:
            cache[key] = 1
    assert simulate(keys, 1000).hit_ratio == pytest.approx(cache.stats().hit_ratio, abs=TOLERANCE)


@pytest.mark.parametrize("batch", [8, 100])
def test_batches_hit_as_often(make: MakeTable, batch: int) -> None:
    """What is missing of a batch is put when the whole batch has been looked up."""
    keys, table = MADE["skewed"](), make(1, "uint8", capacity=5000)
    for at in range(0, len(keys), batch):
        table.get_or_load(keys[at : at + batch], lambda ids: np.zeros((len(ids), 1), np.uint8))
    expected = simulate(keys, 5000).hit_ratio
    assert table.stats().hit_ratio == pytest.approx(expected, abs=0.02)
