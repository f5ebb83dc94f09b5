"""Processes that share a table: killed, stopped, forked; the others go on, and no row is wrong."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from cachecore import VectorCache
from support import LONG
from vectors.helpers import DIM, Child, Start, attempts, check_counts, rows_for, whole, works

IDS = np.arange(1000)
WIDE = 1 << 20  # items of a row that takes a while to write


def open_table(folder: Path, **settings: Any) -> VectorCache:
    return VectorCache(**{"dim": DIM, "capacity": 700, "path": folder / "t", **settings})


def write_for_ever(table: VectorCache, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    while True:
        ids = rng.choice(IDS, 40)
        table.put(ids, rows_for(ids, int(rng.integers(1000)), table.dim or 1))
        table.delete(rng.choice(IDS, 5))


def check_rows(table: VectorCache) -> int:
    rows, found = table.gather(IDS)
    assert whole(rows[found], IDS[found]).all()
    assert not rows[~found].any()
    return int(found.sum())


# --- killed ---


@pytest.mark.parametrize("settings", [{}, {"checksums": True}, {"capacity": 70_000}, {"ttl": 100}])
def test_writers_are_killed(shm: Path, start: Start, settings: dict[str, Any]) -> None:
    table = open_table(shm, **settings)

    def write(child: Child) -> None:
        mine = table if child.pid % 2 else open_table(shm, **settings)
        child.tell()
        write_for_ever(mine, random.randrange(2**32))

    for _ in range(200 if LONG else 12):
        writers = [start(write) for _ in range(2)]
        for writer in writers:
            writer.hear()
        for writer in writers:
            check_rows(table)
            writer.kill()
        check_rows(table)
        works(table)
    assert table.stats().damaged == 0
    table.put(IDS, rows_for(IDS))
    check_counts(table)
    assert len(table) == min(table.capacity, len(IDS))


def test_a_reader_is_killed_with_views(shm: Path, start: Start) -> None:
    table = open_table(shm, capacity=100)
    table.put(IDS[:100], rows_for(IDS[:100]))

    def hold(child: Child) -> None:
        views = [table.view(int(id)) for id in IDS[:100]]
        child.tell()
        child.hear()
        del views

    for _ in range(5):
        reader = start(hold)
        reader.hear()
        reader.kill()
    for serial in range(5):
        table.put(IDS[:100], rows_for(IDS[:100], serial))
        np.testing.assert_array_equal(table.gather(IDS[:100])[0], rows_for(IDS[:100], serial))
    assert table.stats().pinned_bytes == 0
    check_counts(table)


def test_killed_again_and_again_during_repairs(shm: Path, start: Start) -> None:
    """One begins to write in a table that the last one was killed in, and is killed too."""
    settings = {"capacity": 120_000, "dim": 2}  # four stripes of thousands: a repair takes a while
    table = open_table(shm, **settings)
    ids = np.arange(30_000)
    rows = rows_for(ids, 1, 2)
    table.put(ids, rows)

    def write(child: Child) -> None:
        child.tell()
        while True:
            table.put(ids[: 64 * 4], rows[: 64 * 4])

    for _ in range(300 if LONG else 60):
        writer = start(write)
        writer.hear()
        writer.kill()
    gathered, found = table.gather(ids)
    assert found.all()
    np.testing.assert_array_equal(gathered, rows)
    table.put(ids, rows_for(ids, 2, 2))
    np.testing.assert_array_equal(table.gather(ids)[0], rows_for(ids, 2, 2))
    check_counts(table)


def test_all_die_and_the_rows_stay(shm: Path, start: Start) -> None:
    def work(child: Child) -> None:
        table = open_table(shm)
        table.put(IDS[:500], rows_for(IDS[:500], 3))
        child.tell()
        write_for_ever(table)

    for _ in range(5):
        workers = [start(work) for _ in range(3)]
        for worker in workers:
            worker.hear()
        for worker in workers:
            worker.kill()
        table = open_table(shm)
        assert check_rows(table) > 300
        works(table)
        table.close()
    assert [entry.name for entry in shm.iterdir()] == ["t"]


# --- stopped ---


def go_on(writer: Child) -> None:
    """Wake it and let it work: stopped at once, it would stand where it stood before."""
    writer.send(signal.SIGCONT)
    sleep(random.uniform(0, 0.005))


def stop_with_the_lock(table: VectorCache, writer: Child) -> str:
    """Stop a process that writes all the time while it holds the only lock; what put then says."""
    for _ in attempts():
        writer.send(signal.SIGSTOP)
        begin = monotonic()
        try:
            table.put([1], np.ones((1, WIDE), np.float32))
        except TimeoutError as error:
            assert monotonic() - begin < 10
            return str(error)
        go_on(writer)
    raise AssertionError


def test_a_stopped_writer(shm: Path, start: Start) -> None:
    settings = {"dim": WIDE, "capacity": 4}
    table = open_table(shm, **settings)
    table.put([1, 2], np.array([[1], [2]], np.float32) @ np.ones((1, WIDE), np.float32))

    def write(child: Child) -> None:
        mine = open_table(shm, **settings)
        rows = np.full((1, WIDE), 3, np.float32)
        child.tell()
        while True:
            mine.put([3], rows)

    writer = start(write)
    writer.hear()
    assert "put 0 of 1 rows" in stop_with_the_lock(table, writer)
    rows, found = table.gather([1, 2, 4])  # readers do not wait
    assert found.tolist() == [True, True, False]
    assert (rows[:, 0] == rows[:, -1]).all()
    assert rows[:, 0].tolist() == [1, 2, 0]
    assert table.find([1, 2]).all()
    with pytest.raises(TimeoutError, match="deleted 0 rows"):
        table.delete([1, 2])
    refused = table.stats().refused
    loaded = table.get_or_load([1, 9], lambda ids: np.full((1, WIDE), 9, np.float32))
    assert loaded[:, -1].tolist() == [1, 9]
    assert table.stats().refused == refused + 1
    with pytest.raises(TimeoutError):
        table.load([5], np.ones((1, WIDE), np.float32))
    other = open_table(shm, **settings)  # that he stands there does not keep others out
    assert other.find([1]).all()
    writer.send(signal.SIGCONT)
    table.put([1, 2], np.full((2, WIDE), 5, np.float32))
    assert table.gather([1, 2])[0][:, -1].tolist() == [5, 5]
    writer.kill()
    table.put([1], np.full((1, WIDE), 6, np.float32))
    check_counts(table)


def test_other_rows_are_put_while_one_lock_is_held(shm: Path, start: Start) -> None:
    settings = {"capacity": 120_000, "dim": 2}  # four stripes
    table = open_table(shm, **settings)
    ids = np.arange(20_000)

    def write(child: Child) -> None:
        child.tell()
        while True:
            table.put(ids, np.zeros((len(ids), 2), np.float32))

    writer = start(write)
    writer.hear()
    done = 0
    for attempt in attempts():
        writer.send(signal.SIGSTOP)
        try:
            table.put(ids, rows_for(ids, attempt + 1, 2))
        except TimeoutError as error:
            done = int(str(error).split()[1])
            break
        go_on(writer)
    assert (table.gather(ids)[0][:, 1] == attempt + 1).sum() == done
    assert 0.7 * len(ids) < done < len(ids)
    writer.kill()
    table.put(ids, rows_for(ids, 0, 2))
    np.testing.assert_array_equal(table.gather(ids)[0], rows_for(ids, 0, 2))


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_one_who_holds_no_lock_disturbs_nobody(
    shm: Path, start: Start, number: signal.Signals
) -> None:
    def idle(child: Child) -> None:
        table = open_table(shm)
        table.put(IDS[:10], rows_for(IDS[:10]))
        child.tell()
        child.hear()

    sleeper = start(idle)
    sleeper.hear()
    sleeper.send(number)
    table = open_table(shm)
    assert table.find(IDS[:10]).all()
    works(table)
    table.clear()
    works(table)


# --- forked ---


def use_private(table: VectorCache) -> None:
    check_rows(table)
    works(table)
    table.put(IDS, rows_for(IDS, 8))
    check_rows(table)
    table.clear()
    assert len(table) == 0
    works(table)
    check_counts(table)


def test_both_sides_of_a_fork_have_a_private_table(start: Start) -> None:
    table = VectorCache(DIM, capacity=700)
    table.put(IDS[:700], rows_for(IDS[:700]))
    view = table.view(7)
    assert view is not None

    def use(child: Child) -> None:
        np.testing.assert_array_equal(view, rows_for([7])[0])
        use_private(table)
        np.testing.assert_array_equal(view, rows_for([7])[0])

    child = start(use)
    assert child.end() == 0
    rows, found = table.gather(IDS[:700])
    assert found.all()
    np.testing.assert_array_equal(rows, rows_for(IDS[:700]))
    use_private(table)
    np.testing.assert_array_equal(view, rows_for([7])[0])


def test_both_sides_of_a_fork_share_a_file(shm: Path, start: Start) -> None:
    table = open_table(shm)
    table.put([1], rows_for([1], 1))

    def use(child: Child) -> None:
        np.testing.assert_array_equal(table.gather([1])[0], rows_for([1], 1))
        table.put([2], rows_for([2], 2))
        child.tell()
        child.hear()
        np.testing.assert_array_equal(table.gather([3])[0], rows_for([3], 3))
        table.close()

    child = start(use)
    child.hear()
    np.testing.assert_array_equal(table.gather([2])[0], rows_for([2], 2))
    table.put([3], rows_for([3], 3))
    child.tell()
    assert child.end() == 0
    works(table)
    assert table.find([1, 2, 3]).all()


def test_a_child_keeps_its_seat_when_its_parent_closes(shm: Path, start: Start) -> None:
    """Else the next to open the file would take locks away that the child holds."""
    table = open_table(shm)

    def use(child: Child) -> None:
        child.tell()
        write_for_ever(table)

    child = start(use)
    child.hear()
    table.close()
    for _ in range(20):
        other = open_table(shm)
        check_rows(other)
        works(other)
        other.close()
    assert child.status is None
    child.kill()
    check_counts_after_repair(shm)


def check_counts_after_repair(shm: Path) -> None:
    table = open_table(shm)
    table.put(IDS, rows_for(IDS))
    check_counts(table)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("shared", [False, True], ids=["private", "file"])
def test_fork_while_other_threads_write(shm: Path, start: Start, shared: bool) -> None:
    table = open_table(shm, path=shm / "t" if shared else None)
    stop = threading.Event()

    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            ids = rng.choice(IDS, 200)
            table.put(ids, rows_for(ids, int(rng.integers(1000))))
            table.delete(ids[:20])

    def use_shared(child: Child) -> None:
        table.put(IDS, rows_for(IDS))
        check_rows(table)
        table.delete(IDS)

    act: Callable[[Child], object] = use_shared if shared else lambda _: use_private(table)
    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(15):
            assert start(act).end(20) == 0
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    check_rows(table)
    check_counts(table)
