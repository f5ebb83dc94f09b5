"""get_or_load and load: what is missing is computed once; much is put step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectors.helpers import DIM, MakeTable, check_counts, rows_for


class Loader:
    """Gives rows, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, ids: Any) -> Any:
        assert ids.dtype == np.int64
        self.asked.append(ids.tolist())
        rows = rows_for(ids, 2)
        ids[:] = -5  # it is the loader's own
        return rows


def test_the_missing_are_loaded_once(make: MakeTable) -> None:
    table, loader = make(DIM, capacity=100), Loader()
    table.put([1, 2], rows_for([1, 2], 1))
    asked = [9, 1, 7, 9, 2, -1, 7, 9]
    rows = table.get_or_load(asked, loader)
    assert loader.asked == [[9, 7, -1]]
    expected = rows_for(asked, 2)
    expected[[1, 4]] = rows_for([1, 2], 1)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(table.get_or_load(asked, loader, threads=2), expected)
    assert len(loader.asked) == 1
    stats = table.stats()
    assert (stats.hits, stats.misses, stats.inserts) == (2 + 8, 6, 5)


@pytest.mark.parametrize("capacity", [1, 10, 500])
def test_more_missing_than_fit(make: MakeTable, capacity: int) -> None:
    table, loader = make(DIM, capacity=capacity), Loader()
    ids = list(range(1000)) * 2
    np.testing.assert_array_equal(table.get_or_load(ids, loader), rows_for(ids, 2))
    assert loader.asked == [list(range(1000))]
    assert len(table) == capacity


class TroubleError(Exception):
    pass


@pytest.mark.parametrize("error", [TroubleError, KeyboardInterrupt, SystemExit])
def test_a_loader_that_raises_leaves_nothing(make: MakeTable, error: type[BaseException]) -> None:
    table = make(DIM, capacity=100)

    def fail(ids: Any) -> Any:
        raise error

    with pytest.raises(error):
        table.get_or_load([1, 2], fail)
    assert len(table) == 0
    np.testing.assert_array_equal(table.get_or_load([1, 2], Loader()), rows_for([1, 2], 2))


def test_a_loader_that_uses_the_table_or_closes_it(make: MakeTable) -> None:
    table = make(DIM, capacity=100)

    def recurse(ids: Any) -> Any:
        below = ids[ids > 0] - 1
        if len(below):
            table.get_or_load(below, recurse)
        return rows_for(ids)

    np.testing.assert_array_equal(table.get_or_load([20, 10], recurse), rows_for([20, 10]))
    assert table.find(range(21)).all()

    def clear(ids: Any) -> Any:
        table.clear()
        return rows_for(ids, 3)

    rows = table.get_or_load([50, 0], clear)
    np.testing.assert_array_equal(rows, np.concatenate([rows_for([50], 3), rows_for([0])]))
    assert table.find([50, 0]).tolist() == [True, False]

    def close(ids: Any) -> Any:
        table.close()
        return rows_for(ids)

    with pytest.raises(ValueError, match="closed"):
        table.get_or_load([60], close)


def test_load_tells_its_progress(make: MakeTable) -> None:
    table = make(1 << 20, capacity=10)  # 4 MB a row: four fit in a step
    rows = np.broadcast_to(np.arange(10, dtype=np.float32)[:, None], (10, 1 << 20))
    told: list[tuple[int, int]] = []
    assert table.load(range(10), rows, progress=lambda *step: told.append(step)) == 10
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert table.gather(range(10))[0][:, -1].tolist() == list(range(10))
    with pytest.raises(TroubleError):
        table.load(range(10), rows, progress=lambda *_: (_ for _ in ()).throw(TroubleError))
    check_counts(table)


def test_load_from_a_memory_mapped_file(make: MakeTable, tmp_path: Path) -> None:
    ids = np.arange(20_000)
    np.save(tmp_path / "rows.npy", rows_for(ids))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    table = make(DIM, capacity=20_000)
    assert table.load(ids, mapped) == 20_000
    rows, found = table.gather(ids[::-1])
    assert found.all()
    np.testing.assert_array_equal(rows, mapped[::-1])


class Lazy:
    """What has a length and slices, such as a dataset in a file."""

    def __init__(self, ids: Any) -> None:
        self.ids, self.slices = ids, 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Any:
        self.slices += 1
        return rows_for(self.ids[part])


def test_load_from_what_slices(make: MakeTable) -> None:
    ids = np.arange(300_000)
    table, rows = make(DIM, capacity=300_000), Lazy(ids)
    assert table.load(ids, rows) == 300_000
    assert rows.slices == 2
    np.testing.assert_array_equal(table.gather(ids[-100:])[0], rows_for(ids[-100:]))
