"""What a table holds: as many rows as it is for, for as long as it says, of one version."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import VectorCache
from vectors.helpers import DIM, MakeTable, check_counts, rows_for, works

DAY = 86_400.0


# --- capacity and counts ---


@pytest.mark.parametrize("codec", [None, "int8"])
@pytest.mark.parametrize("capacity", [1, 7, 1000, 31_001, 100_000])
def test_exactly_so_many_rows_fit(make: MakeTable, capacity: int, codec: str | None) -> None:
    table = make(1, capacity=capacity, codec=codec)
    ids = np.arange(capacity)
    for part in np.array_split(ids, 10):
        table.put(part, np.ones((len(part), 1), np.float32))
    assert table.find(ids).all()
    assert len(table) == capacity
    stats = table.stats()
    assert (stats.evictions, stats.rejections, stats.inserts) == (0, 0, capacity)
    table.put([-1], [[1]])
    assert len(table) == capacity


@pytest.mark.parametrize("shift", range(0, 47, 5))
def test_ids_far_apart_fit_as_well(make: MakeTable, shift: int) -> None:
    table = make(1, "int8", capacity=60_000)
    ids = (np.arange(60_000) - 30_000) << shift
    table.put(ids, np.ones((60_000, 1), np.int8))
    assert table.find(ids).sum() == len(table) == 60_000


def test_counts(make: MakeTable) -> None:
    table = make(DIM, capacity=500, ttl=10)
    rng = np.random.default_rng(1)
    looked_up = 0
    for step in range(300):
        ids = rng.integers(0, 2000, 40)
        table.gather(ids)
        table.put(ids, rows_for(ids))
        table.delete(rng.integers(0, 2000, 10))
        table.find(ids)  # no look-up
        table.view(int(ids[0]))
        looked_up += 41
        if step % 20 == 0:
            table._advance(8)
        if step % 100 == 50:
            table.clear()
        check_counts(table)
    stats = table.stats()
    assert stats.hits + stats.misses == looked_up
    assert stats.hit_ratio == stats.hits / looked_up
    assert min(stats[:6]) >= 0
    assert min(stats.evictions + stats.rejections, stats.expirations, stats.deletions) > 0
    assert (stats.refused, stats.damaged, stats.pinned_bytes) == (0, 0, 0)


def test_an_overwrite_is_no_insert(make: MakeTable) -> None:
    table = make(DIM, capacity=3)
    for serial in range(5):
        table.put([1, 2, 3], rows_for([1, 2, 3], serial))
    assert table.stats().inserts == len(table) == 3
    np.testing.assert_array_equal(table.gather([1, 2, 3])[0], rows_for([1, 2, 3], 4))


@pytest.mark.parametrize("shared", [False, True], ids=["private", "file"])
def test_clear(make: MakeTable, shm: Path, shared: bool) -> None:
    table = make(DIM, capacity=1000, path=shm / "t" if shared else None)
    other = make(DIM, capacity=1000, path=shm / "t") if shared else table
    table.put(range(1000), rows_for(range(1000)))
    other.clear()
    assert len(table) == 0
    assert not table.find(range(1000)).any()
    assert not table.gather(range(1000))[1].any()
    assert table.view(1) is None
    assert table.delete(range(1000)) == 0
    check_counts(table)
    assert table.stats().deletions == 1000
    works(table)


# --- lifetime ---


@pytest.mark.parametrize("shared", [False, True], ids=["private", "file"])
def test_rows_expire(make: MakeTable, shm: Path, shared: bool) -> None:
    table = make(DIM, capacity=10, ttl=60, path=shm / "t" if shared else None)
    table.put([1, 2], rows_for([1, 2]))
    table._advance(30)
    table.put([2, 3], rows_for([2, 3], 1))
    assert table.find([1, 2, 3]).all()
    table._advance(30.02)
    assert table.find([1, 2, 3]).tolist() == [False, True, True]
    rows, found = table.gather([1, 2, 3])
    assert found.tolist() == [False, True, True]
    assert not rows[0].any()
    assert table.view(1) is None
    assert table.delete([1]) == 0
    assert table.stats().expirations == 1
    table.put([1], rows_for([1], 2))
    table._advance(59)
    assert table.find([1, 2, 3]).tolist() == [True, False, False]
    table.put([2, 3], rows_for([2, 3], 3))
    assert table.stats().expirations == 3
    np.testing.assert_array_equal(table.gather([2, 3])[0], rows_for([2, 3], 3))


@pytest.mark.parametrize(("ttl", "lives"), [(1e-9, 0.01), (0.01, 0.01), (0.019, 0.01), (5, 5.0)])
def test_ttl_is_in_hundredths(make: MakeTable, ttl: float, lives: float) -> None:
    assert make(DIM, capacity=1, ttl=ttl).ttl == lives


@pytest.mark.parametrize("ttl", [None, math.inf])
def test_without_ttl_rows_stay(make: MakeTable, ttl: float | None) -> None:
    table = make(DIM, capacity=10, ttl=ttl)
    table.put([1], rows_for([1]))
    table._advance(10_000 * DAY)
    assert table.find([1]).all()
    assert table.ttl is None


@pytest.mark.parametrize("back", [3600.0, 400 * DAY])
def test_a_clock_that_is_set_back(make: MakeTable, back: float) -> None:
    """What comes from a time that has not been yet is not served: nobody knows how old it is."""
    table = make(DIM, capacity=10, ttl=60)
    table._advance(5)  # no time is before the table's birth
    table.put([1], rows_for([1]))
    table._advance(-back)
    assert not table.find([1]).any()
    table.put([2], rows_for([2]))
    assert table.find([1, 2]).tolist() == [False, True]
    table.put([1], rows_for([1], 1))
    assert table.gather([1, 2])[1].all()
    works(table)


@pytest.mark.parametrize("ttl", [1, 21_474_836])
def test_years_go_by(make: MakeTable, ttl: int) -> None:
    """Times are counted in 32 bits; the table begins anew before they overflow."""
    table = make(DIM, capacity=10, ttl=ttl)
    for serial in range(12):
        table.put([1], rows_for([1], serial))
        assert table.view(1) is not None
        assert table.view(1)[1] == serial  # type: ignore[index]
        table._advance(100 * DAY)
        assert table.find([1]).all() == (ttl > 200 * DAY)
        works(table)


def test_the_expired_make_room_before_the_living(make: MakeTable) -> None:
    table = make(DIM, capacity=1000, ttl=100)
    table.put(range(900), rows_for(range(900)))
    table._advance(50)
    living = range(900, 1000)
    table.put(living, rows_for(living))
    table._advance(51)
    table.put(range(2000, 2850), rows_for(range(2000, 2850)))
    assert table.find(living).sum() > 80
    assert table.stats().expirations > 400


# --- versions ---


@pytest.mark.parametrize("codec", [None, "int8"])
def test_another_version_empties_the_table(make: MakeTable, shm: Path, codec: Any) -> None:
    settings: dict[str, Any] = {"capacity": 2000, "path": shm / "t", "codec": codec}
    old = make(DIM, version="1", **settings)
    ids = np.arange(2000)
    old.put(ids, rows_for(ids))
    same = make(DIM, version="1", **settings)
    assert same.find(ids).all()
    new = make(DIM, version="2", **settings)
    assert len(new) == 0
    new.put(ids[:10], rows_for(ids[:10]))
    for outdated in (old, same):
        assert not outdated.find(ids).any()
        assert not outdated.gather(ids)[1].any()
        assert outdated.view(1) is None
        assert outdated.delete(ids) == 0
        assert len(outdated) == 0
        outdated.put(ids[:5], rows_for(ids[:5], 1))
        outdated.clear()
        np.testing.assert_array_equal(outdated.get_or_load([1], rows_for), rows_for([1]))
    assert new.find(ids).sum() == len(new) == 10
    if codec is None:
        np.testing.assert_array_equal(new.gather(ids[:10])[0], rows_for(ids[:10]))
    assert new.stats().refused == 2 * (5 + 1)
    assert new.stats().deletions == 2000
    assert len(make(DIM, version="2", **settings)) == 10
    for table in (old, same):
        table.close()  # they cannot count what is not theirs


def test_going_back_to_a_version_is_another_one_too(make: MakeTable, shm: Path) -> None:
    first = VectorCache(DIM, capacity=10, path=shm / "t", version="1")
    first.put([1], rows_for([1]))
    VectorCache(DIM, capacity=10, path=shm / "t", version="2").close()
    again = make(DIM, capacity=10, path=shm / "t", version="1")
    assert len(again) == len(first) == 0
    again.put([1], rows_for([1]))
    assert not first.find([1]).any()
    first.close()


# --- codec and checksums ---


def test_int8_is_off_by_no_more_than_it_says(make: MakeTable) -> None:
    rng = np.random.default_rng(1)
    largest = np.finfo(np.float32).max
    rows = np.concatenate(
        [
            rng.normal(0, 1, (500, 64)),
            rng.normal(0, 1, (100, 64)) * 10.0 ** rng.integers(-37, 37, (100, 1)),
            rng.choice([-1, 0, 1], (20, 64)) * largest,
            rng.uniform(-1, 1, (100, 64)) * largest,
            rng.uniform(-1, 1, (50, 64)) * 1e-40,
            np.eye(64) * 127,
            np.zeros((1, 64)),
            -np.zeros((1, 64)),
        ]
    ).astype(np.float32)
    table = make(64, capacity=len(rows), codec="int8", checksums=True)
    ids = np.arange(len(rows))
    table.put(ids, rows)
    gathered, found = table.gather(ids)
    assert found.all()
    most = np.abs(rows.astype(np.float64)).max(axis=1, keepdims=True)
    error = np.abs(gathered.astype(np.float64) - rows)
    assert (error <= most / 254 * (1 + 1e-5) + 2e-36).all()
    assert not gathered[-2:].any()
    np.testing.assert_array_equal(table.gather(ids[:9], out=bytearray(9 * 256))[0], gathered[:9])
    table.put(ids, gathered)  # what was rounded once is not rounded again
    np.testing.assert_allclose(table.gather(ids)[0], gathered, rtol=1e-6, atol=1e-38)


def test_int8_takes_a_quarter_of_the_memory() -> None:
    sizes = [VectorCache(1024, capacity=4000, codec=codec).nbytes for codec in (None, "int8")]
    assert sizes[0] / sizes[1] > 3.5
    assert VectorCache(1024, capacity=4000, codec="int8").stats().bytes == 0


@pytest.mark.parametrize("codec", [None, "int8"])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 100])
def test_checksums_find_nothing_wrong(make: MakeTable, width: int, codec: str | None) -> None:
    table = make(width, capacity=1000, checksums=True, codec=codec)
    for serial in range(3):
        ids = np.arange(1500)
        table.put(ids, np.full((1500, width), serial, np.float32))
        rows, found = table.gather(ids)
        assert found.sum() == 1000
        assert (rows[found] == serial).all()
    assert table.stats().damaged == 0
