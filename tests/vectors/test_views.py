"""Views of rows: they stay as they are whatever happens to the table, and are never too many."""

from __future__ import annotations

import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import VectorCache
from support import LONG
from vectors.helpers import DEADLINE, DIM, MakeTable, check_counts, rows_for, whole

SETTINGS: dict[str, dict[str, Any]] = {
    "private": {},
    "checked": {"checksums": True},
    "file": {"path": "t"},
    "int8": {"codec": "int8"},
}


def make_kind(make: MakeTable, shm: Path, kind: str, **more: Any) -> VectorCache:
    settings = dict(SETTINGS[kind], **more)
    if "path" in settings:
        settings["path"] = shm / settings["path"]
    return make(DIM, **settings)


def view_of(table: VectorCache, id: int) -> Any:
    view = table.view(id)
    assert view is not None
    return view


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_view_is_a_read_only_row(make: MakeTable, shm: Path, kind: str) -> None:
    table = make_kind(make, shm, kind, capacity=100)
    table.put([5], np.full((1, DIM), 127, np.float32))
    view = view_of(table, 5)
    assert (view.shape, str(view.dtype)) == ((DIM,), "float32")
    assert (view == 127).all()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    assert table.view(6) is None
    stats = table.stats()
    assert (stats.hits, stats.misses) == (1, 1)
    pinned = kind in {"private", "checked"}
    assert stats.pinned_bytes == (DIM * 4 if pinned else 0)
    if pinned:
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True
        again = view_of(table, 5)
        assert np.shares_memory(view, again)
        assert table.stats().pinned_bytes == DIM * 4
        del again
    del view
    assert table.stats().pinned_bytes == 0


ENDS: dict[str, Any] = {
    "overwrite": lambda table: [table.put([1], rows_for([1], serial)) for serial in range(1, 300)],
    "delete": lambda table: table.delete([1]),
    "evict": lambda table: table.put(range(100, 9000), rows_for(range(100, 9000), 3)),
    "clear": lambda table: (table.clear(), table.put(range(100), rows_for(range(100), 5))),
    "expire": lambda table: (table._advance(1e5), table.put([1], rows_for([1], 5))),
    "close": lambda table: table.close(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_view_outlives(make: MakeTable, shm: Path, kind: str, end: str) -> None:
    table = make_kind(make, shm, kind, capacity=100, ttl=1000)
    table.put([1, 2], rows_for([1, 2]))
    views = [view_of(table, 1), view_of(table, 2)[3:]]
    before = [view.tobytes() for view in views]
    for _ in range(3):
        if not table.closed:
            ENDS[end](table)
            if not table.closed:
                table.put(range(200, 400), rows_for(range(200, 400), 4))
    del table
    gc.collect()
    assert [view.tobytes() for view in views] == before


def test_a_view_of_a_row_that_is_overwritten_shows_the_new_row(make: MakeTable) -> None:
    table = make(DIM, capacity=10)
    for serial in range(3):
        table.put([1], rows_for([1], serial))
        np.testing.assert_array_equal(view_of(table, 1), rows_for([1], serial)[0])


@pytest.mark.parametrize("capacity", [1, 3, 1000, 70_000])
def test_views_hold_no_more_than_their_share(make: MakeTable, capacity: int) -> None:
    table = make(DIM, capacity=capacity)
    serial, views, refused = 0, [], False
    while not refused:
        ids = np.arange(min(capacity, 5000)) + serial * capacity
        table.put(ids, rows_for(ids % 1000, serial % 100))
        held = ids[table.find(ids)]
        assert len(held)
        for id in held.tolist():
            try:
                views.append(view_of(table, id))
            except BufferError as error:
                assert "views" in str(error)  # noqa: PT017
                refused = True
                break
        serial += 1
    assert capacity // 4 <= len(views) * 2
    assert table.stats().pinned_bytes == len(views) * DIM * 4
    copies = [view.copy() for view in views]
    # What is put finds room all the same, as many rows as ever.
    table.clear()
    ids = np.arange(capacity) % 1000 + np.arange(capacity) * 1000
    table.put(ids, rows_for(ids % 1000, 7))
    assert len(table) == capacity
    assert whole(table.gather(ids[:50])[0], ids[:50] % 1000).all()
    for view, copy in zip(views, copies, strict=True):
        np.testing.assert_array_equal(view, copy)
    with pytest.raises(BufferError):
        views.extend(view_of(table, id) for id in ids.tolist())
    del views, view
    assert table.stats().pinned_bytes == 0
    assert view_of(table, int(ids[0])) is not None
    check_counts(table)


def test_rows_come_back_when_views_go(make: MakeTable) -> None:
    """Whatever the order in which rows leave and views end."""
    table = make(DIM, capacity=64)
    rng = np.random.default_rng(5)
    views: dict[int, tuple[Any, bytes]] = {}
    for step in range(20_000 if LONG else 4000):
        id = int(rng.integers(0, 100))
        act = rng.integers(0, 10)
        if act < 4:
            table.put([id], rows_for([id], step % 1000))
        elif act < 6:
            table.delete([id])
        elif act < 8 and len(views) < 30:
            view = table.view(id)
            if view is not None:
                assert whole(view[None], [id]).all()
                views[step] = view, view.tobytes()
        elif views:
            view, before = views.pop(next(iter(views)))
            assert view.tobytes() == before
        if step % 500 == 0:
            table.clear()
        view = None
        assert table.stats().pinned_bytes <= len(views) * DIM * 4
    assert all(view.tobytes() == before for view, before in views.values())
    views.clear()
    assert table.stats().pinned_bytes == 0
    table.delete(range(100))
    for serial in range(10):
        table.put(range(64), rows_for(range(64), serial))
        np.testing.assert_array_equal(table.gather(range(64))[0], rows_for(range(64), serial))


def test_views_in_threads(make: MakeTable) -> None:
    """Views are taken and let go while others overwrite, delete and clear."""
    table = make(256, capacity=50)
    stop, wrong = threading.Event(), []

    def write() -> None:
        for serial in itertools.takewhile(
            lambda _: not stop.is_set(), itertools.cycle(range(1000))
        ):
            ids = np.arange(serial % 40, serial % 40 + 30)
            table.put(ids, rows_for(ids, serial, 256))
            table.delete(ids[::3])
            if serial % 100 == 0:
                table.clear()

    def look() -> None:
        rng = np.random.default_rng(threading.get_ident() % 2**32)
        for _ in range(20_000 if LONG else 3000):
            id = int(rng.integers(0, 70))
            view = table.view(id)
            before = view.tobytes() if view is not None else b""
            if view is not None and not (
                whole(view[None], [id]).all() and view.tobytes() == before
            ):
                wrong.append(id)

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write) for _ in range(2)]
        lookers = [pool.submit(look) for _ in range(2)]
        try:
            for looker in lookers:
                looker.result(DEADLINE)
        finally:
            stop.set()
        for writer in writers:
            writer.result(DEADLINE)
    assert wrong == []
    assert table.stats().pinned_bytes == 0
    check_counts(table)


def test_the_memory_goes_with_the_last_view(make: MakeTable) -> None:
    """What a closed table held is unmapped when nobody looks at it any more."""
    table = make(1024, capacity=50_000)
    table.put([1], rows_for([1], 0, 1024))
    view = view_of(table, 1)
    held = table.nbytes
    before = mapped()
    table.close()
    assert mapped() == before
    del view
    assert before - mapped() >= held - 2**22


def mapped() -> int:
    """Bytes of this process' address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4096
