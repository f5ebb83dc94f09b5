"""WeightStore and memory: what is read in, what is kept, what is let go."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from safetensors.numpy import save_file

from cachecore._safetensors import Place
from cachecore.ml import WeightStore, residency, weights
from cachecore.ml.residency import _resident_pages
from cachecore.ml.shards import Shard
from ml.weightfiles import Arrays, described, packed

PAGE = mmap.PAGESIZE
SIZE = 40 * PAGE + 1000  # bytes of a tensor: no two begin at the same place of a page

READ_AHEAD = 32 << 20  # bytes; the kernel reads some beyond what is asked for

Fresh = Callable[[Arrays], Path]


def arrays(count: int = 6) -> Arrays:
    return {f"t{at}": np.full(SIZE, at, np.uint8) for at in range(count)}


def forget(path: Path) -> None:
    """Have a file written to the disk and none of it in memory."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder on a disk, whose files need not be in memory; /tmp may be memory itself."""
    for place in (tempfile.gettempdir(), "/var/tmp", os.getcwd()):
        made = Path(tempfile.mkdtemp(dir=place))
        probe = made / "probe"
        probe.write_bytes(bytes(64 * PAGE))
        forget(probe)
        if not _resident_pages(Shard(str(probe))).any():
            break
        shutil.rmtree(made)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def fresh(folder: Path) -> Fresh:
    """Write a file of which nothing is in memory."""

    def make(content: Arrays) -> Path:
        path = folder / "m.safetensors"
        path.unlink(missing_ok=True)
        save_file(content, path)
        forget(path)
        return path

    return make


def resident(store: WeightStore) -> dict[str, float]:
    return {name: each.resident / each.total for name, each in store.residency().items()}


def test_opening_touches_the_header_only(folder: Path) -> None:
    path = folder / "large.safetensors"
    shape = [1024, 1024, 256]
    header = {f"t{at}": described("F32", shape, at << 30, (at + 1) << 30) for at in range(8)}
    with open(path, "wb") as file:
        file.write(packed(header))
        file.truncate(file.tell() + (8 << 30))  # 8 GB that take no room on the disk
    forget(path)
    store = WeightStore(path)
    last = store["t7"]
    assert sum(each.resident for each in store.residency().values()) < READ_AHEAD
    assert (last.shape, last.nbytes, last[-1, -1, -1]) == ((1024, 1024, 256), 1 << 30, 0)
    assert sum(each.resident for each in store.residency().values()) < 3 * READ_AHEAD
    path.unlink()


def test_residency_counts_bytes(fresh: Fresh) -> None:
    store = WeightStore(fresh(arrays()))
    total = sum(each.total for each in store.residency().values())
    assert total == store.nbytes == 6 * SIZE
    assert sum(each.resident for each in store.residency().values()) < total
    assert all((array == int(name[1:])).all() for name, array in store.items())
    assert all(share == 1 for share in resident(store).values())


def test_residency_of_parts_of_pages(fresh: Fresh) -> None:
    small = {f"s{at}": np.arange(10 + at, dtype=np.uint8) for at in range(4)}
    store = WeightStore(fresh(small | {"empty": np.empty(0, np.uint8)}))
    assert store["s0"][0] == 0
    seen = store.residency()
    assert [seen[f"s{at}"] for at in range(4)] == [(10 + at, 10 + at) for at in range(4)]
    assert seen["empty"] == (0, 0)


# --- pinning


def test_pinned_tensors_are_in_memory(fresh: Fresh) -> None:
    store = WeightStore(fresh(arrays()))
    store.pin(name for name in ("t1", "t1", "t4"))
    shares = resident(store)
    assert shares["t1"] == shares["t4"] == 1
    stats = store.stats()
    assert (stats.pinned, stats.pinned_bytes) == (2, 2 * SIZE)
    assert stats.locked_bytes + stats.unlocked_bytes == 2 * SIZE
    assert (stats.hot, stats.hits, stats.misses, stats.drops) == (0, 0, 0, 0)
    store.unpin(["t1", "t2"])
    assert store.stats().pinned == 1
    store.close()


def locked_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmLck:")[2].split()[0])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 9), max_size=4)), max_size=8))
def test_pages_of_two_tensors_are_locked_while_one_is(
    folder: Path, steps: list[tuple[bool, set[int]]]
) -> None:
    """Tensors smaller than a page, and larger ones, share pages: what is locked is their union."""
    sizes = [10, PAGE - 3, 3 * PAGE, 0, 5, 2 * PAGE + 7, 1, 1, PAGE, 900]
    path = folder / "edges.safetensors"
    save_file({f"t{at}": np.zeros(size, np.uint8) for at, size in enumerate(sizes)}, path)
    store = WeightStore(path)
    before = locked_kilobytes()
    pinned: set[int] = set()
    for pin, which in steps:
        names = [f"t{at}" for at in which]
        if pin:
            store.pin(names)
            pinned |= which
        else:
            store.unpin(names)
            pinned -= which
        pages = set()
        for at in pinned:
            place = store._open()[f"t{at}"]
            end = place.offset + place.nbytes
            pages |= set(range(place.offset // PAGE, -(-end // PAGE))) if place.nbytes else set()
        assert locked_kilobytes() - before == len(pages) * PAGE // 1024
        assert store.stats().locked_bytes == sum(sizes[at] for at in pinned)
    view = store["t2"]
    store.close()
    assert locked_kilobytes() == before
    assert not view.any()


def test_pinning_what_is_not_there_changes_nothing(fresh: Fresh) -> None:
    store = WeightStore(fresh(arrays()), budget=4 * SIZE)
    with pytest.raises(KeyError, match="t9"):
        store.pin(["t0", "t9"])
    for wrong in ("t0", b"t0", 7, None):
        with pytest.raises(TypeError, match="names must be an iterable of names"):
            store.pin(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="budget must be at least"):
        store.pin(["t0", "t1", "t2", "t3"])
    assert (store.stats().pinned, store.stats().hot) == (0, 0)
    store.pin(["t0", "t1"])
    with pytest.raises(KeyError, match="t9"):
        store.unpin(["t0", "t9"])
    assert store.stats().pinned == 2


def test_an_interrupt_leaves_nothing_half_pinned(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, locked, lock = WeightStore(fresh(arrays())), locked_kilobytes(), residency._lock
    calls = iter([False, True])

    def interrupted(*where: Any) -> bool:
        if next(calls):
            raise KeyboardInterrupt
        return lock(*where)

    monkeypatch.setattr(residency, "_lock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.pin(["t0", "t5"])
    assert (store.stats().pinned, store.stats().hot, locked_kilobytes()) == (0, 0, locked)


def test_others_use_a_store_while_one_pins(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading tensors in may take minutes."""
    store, reading, used = WeightStore(fresh(arrays())), threading.Event(), threading.Event()

    def slowly(place: Place) -> None:
        reading.set()
        assert used.wait(30)

    monkeypatch.setattr(weights, "read_in", slowly)
    pinning = threading.Thread(target=store.pin, args=(["t0"],))
    pinning.start()
    assert reading.wait(30)
    using = threading.Thread(target=lambda: (store["t1"], store.stats(), store.pin([])))
    using.start()
    using.join(30)
    assert not using.is_alive()
    used.set()
    pinning.join()
    assert store.stats().pinned == 1


def test_pinning_a_file_that_was_truncated(fresh: Fresh) -> None:
    """Its pages are asked for in a way that says no, and does not end the process."""
    path = fresh(arrays())
    store = WeightStore(path)
    locked = locked_kilobytes()
    os.truncate(path, 60 * PAGE)
    with pytest.raises(OSError, match=r"the file was truncated, or its disk fails: .*m\.safetens"):
        store.pin(["t0", "t5"])
    assert (store.stats().pinned, store.stats().hot, locked_kilobytes()) == (0, 0, locked)
    store.pin(["t0"])
    assert store["t0"].max() == 0


# --- a budget


def test_a_budget_keeps_what_is_asked_for_most(fresh: Fresh) -> None:
    store = WeightStore(fresh(arrays()), budget=3 * SIZE)
    for at in range(200):
        for name in ("t0", "t1", f"t{2 + at % 4}"):
            assert (store[name] == int(name[1:])).all()
    hot, others = resident(store), ("t2", "t3", "t4", "t5")
    stats = store.stats()
    assert hot["t0"] == hot["t1"] == 1
    assert min(hot[name] for name in others) < 0.1
    assert (stats.hot, stats.hot_bytes) == (3, 3 * SIZE)
    assert stats.hits >= 396
    assert stats.hits + stats.misses == 600
    assert stats.drops == stats.misses - 3
    assert stats.dropped_bytes >= stats.drops * 39 * PAGE


def test_what_was_dropped_is_read_again(fresh: Fresh) -> None:
    store = WeightStore(fresh(arrays()), budget=SIZE)
    views = dict(store.items())
    assert store.stats().drops == 5
    assert all((view == int(name[1:])).all() for name, view in views.items())
    assert all((view == int(name[1:])).all() for name, view in store.items())


def test_a_budget_is_one_of_the_bytes_of_tensors(fresh: Fresh) -> None:
    path = fresh(arrays() | {"a name that takes some bytes " * 9: np.zeros(SIZE + 1, np.uint8)})
    with pytest.raises(ValueError, match=f"at least {SIZE + 1} bytes.*, not {SIZE}"):
        WeightStore(path, budget=SIZE)
    store = WeightStore(path, budget=SIZE + 1)
    for name in store:
        assert store.raw(name).nbytes >= SIZE
        assert set(store._hot or ()) == {name}
        assert store.stats().hot == 1
    store = WeightStore(path, budget=store.nbytes)
    assert len(dict(store)) == store.stats().hot == 7
    assert store.stats().hot_bytes == store.nbytes
    store.pin(store)
    assert (store.stats().hot, store.stats().pinned_bytes) == (0, store.nbytes)
    store.unpin(store)
    assert (store.stats().hot, store.stats().pinned_bytes, store.stats().drops) == (7, 0, 0)


def test_pinned_tensors_take_from_the_budget(fresh: Fresh) -> None:
    store = WeightStore(fresh(arrays()), budget=3 * SIZE)
    for name in ("t0", "t1", "t2"):
        store[name]
    store.pin(["t5", "t0"])
    assert (store.stats().pinned, store.stats().hot) == (2, 1)
    for _ in range(50):
        for name in store:
            store[name]
    assert resident(store)["t0"] == resident(store)["t5"] == 1
    before = store.stats()
    store["t0"].any()
    assert (store.stats().hits, store.stats().misses) == (before.hits, before.misses)
    store.unpin(["t0"])
    assert (store.stats().pinned, store.stats().hot) == (1, 2)
    with pytest.raises(ValueError, match="budget must be at least"):
        store.pin(store)
