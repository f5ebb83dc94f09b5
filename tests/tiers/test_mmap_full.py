"""The memory-mapped tier where no page is free: reads that do not end, and what it does then."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from cachecore.tiers import Item, MmapTier, TierError
from tiers.children import in_child
from tiers.stores import end, says, start

BOUND = 1 << 20


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[MmapTier]:
    tier = MmapTier(tmp_path / "store", max_bytes=BOUND, timeout=0.05)
    yield tier
    tier.close()


def write(tier: MmapTier, turns: int = 300) -> None:
    """Write far more pages than there are, though little is kept."""
    for turn in range(turns):
        data = b"%d" % turn * 100
        tier.set_many([Item(b"%d" % (turn % 5), data)])
        assert tier.get(b"%d" % (turn % 5)) == data


LOCKS = """
import fcntl, os, sys, time
from cachecore.tiers import mmap_files as files
mark = os.open(sys.argv[1], os.O_RDWR)
files.lock_byte(mark, files.WRITER, fcntl.LOCK_EX, 0)
print("locked", flush=True)
time.sleep(60)
"""


def a_delete_that_timed_out(tier: MmapTier, folder: Path) -> None:
    locker = start(LOCKS, folder / "cachecore.mark")
    says(locker, b"locked")
    try:
        tier.delete_many([b"a"])
    finally:
        end(locker)


def a_key_that_is_none(tier: MmapTier, folder: Path) -> None:
    tier.get(b"")


def keys_of_which_one_is_none(tier: MmapTier, folder: Path) -> None:
    tier.get_many([b"a", b"", b"b"])


def a_key_of_another_type(tier: MmapTier, folder: Path) -> None:
    tier.get("a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        a_delete_that_timed_out, a_key_that_is_none, keys_of_which_one_is_none,
        a_key_of_another_type,
    ],
)  # fmt: skip
def test_an_exception_that_is_kept_keeps_no_page(
    tier: MmapTier, tmp_path: Path, call: Callable[[MmapTier, Path], None]
) -> None:
    """Its traceback refers to the frames, and they to the transaction."""
    tier.set_many([Item(b"a", b"1")])
    with pytest.raises((TierError, TypeError)) as kept:
        call(tier, tmp_path / "store")
    write(tier)
    stats = tier.stats()
    assert stats["refused"] == stats["write_errors"] == stats["emptied"] == 0
    # A child opens the files anew, which it cannot while something refers to the old ones.
    assert in_child(lambda: write(tier, 10) is None) == 0
    assert kept.value.__traceback__ is not None


def test_a_read_of_this_process_that_does_not_end(tier: MmapTier, tmp_path: Path) -> None:
    """The files are begun anew, without it; it goes on to see what was there."""
    tier.set_many([Item(b"old", b"1")])
    txn = tier._store.begin(tier._store.data)
    write(tier)
    stats = tier.stats()
    assert stats["emptied"] == 1
    assert stats["refused"] == stats["write_errors"] == stats["damaged"] == 0
    assert tier.get(b"old") is None
    assert txn.get(b"old")
    txn.abort()
    assert (tmp_path / "store" / "data.mdb").stat().st_size == BOUND
    kept = tier.get_many([b"%d" % at for at in range(5)])
    tier.close()
    again = MmapTier(tmp_path / "store", max_bytes=BOUND)
    assert again.get_many([b"%d" % at for at in range(5)]) == kept
    again.close()


def test_a_delete_that_finds_no_page(tier: MmapTier) -> None:
    tier.set_many([Item(b"a", b"1"), Item(b"b", b"2")])
    txn = tier._store.begin(tier._store.data)
    with contextlib.suppress(lmdb.MapFullError):
        while True:
            with tier._tables.writing() as writing:
                tier._tables.touch(writing)
    tier.delete_many([b"a"])
    assert tier.get(b"a") is None
    assert tier.stats()["emptied"] == 1
    txn.abort()


def test_a_delete_does_not_read_while_it_waits(tier: MmapTier) -> None:
    """It would hold on to what was freed since."""
    tier.set_many([Item(b"a", b"1")])
    delete = threading.Thread(target=tier.delete_many, args=([b"a"],))
    with tier._tables.writing():
        delete.start()
        time.sleep(0.05)
        reading = [line.split()[-1] for line in tier._store.env.readers().splitlines()[1:]]
    delete.join()
    assert set(reading) == {"-"}
    assert tier.get(b"a") is None


USES = """
import sys, time
from cachecore.tiers import MmapTier
tier = MmapTier(sys.argv[1], max_bytes=1 << 20)
print("open", flush=True)
time.sleep(60)
"""


def test_files_that_others_use_are_not_emptied(tier: MmapTier, tmp_path: Path) -> None:
    """What finds no room is refused until the read ends."""
    for at in range(100):
        tier.set_many([Item(b"old %d" % at, bytes(12_000))])
    other = start(USES, tmp_path / "store")
    says(other, b"open")
    txn = tier._store.begin(tier._store.data)
    failed = 0
    for turn in range(200):
        key, data = b"%d" % turn, b"%d" % turn * 8000
        try:
            tier.set_many([Item(key, data)])
        except TierError:
            failed += 1
        else:
            assert tier.get(key) in {None, data}
        if failed + tier.stats()["refused"] > 15:
            break
    stats = tier.stats()
    assert failed + stats["refused"] > 15
    assert stats["emptied"] == 0
    assert stats["entries"] > 30
    txn.abort()
    evicted = stats["evictions"]
    write(tier, 20)
    stats = tier.stats()
    assert stats["emptied"] == 0
    assert stats["evictions"] < evicted + 20  # what was refused is not made room for
    end(other)


def test_a_write_that_is_given_up_among_reads(tmp_path: Path) -> None:
    """It ends, though somebody reads at every moment."""
    tier = MmapTier(tmp_path / "store", max_bytes=BOUND, timeout=20)
    tier.set_many([Item(b"%d" % at, bytes(500)) for at in range(20)])
    stop = threading.Event()
    wrong: list[BaseException] = []
    given_up = 0

    def read() -> None:
        keys = [b"%d" % at for at in range(20)]
        try:
            while not stop.is_set():
                assert tier.get_many(keys) == [bytes(500)] * 20
        except BaseException as error:
            wrong.append(error)

    def give_up() -> None:
        nonlocal given_up
        for _ in range(10):
            try:
                with tier._store.writing() as txn:
                    tier._tables.drop(txn, b"1")
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                given_up += 1

    threads = [threading.Thread(target=read) for _ in range(6)]
    writer = threading.Thread(target=give_up)
    for thread in [*threads, writer]:
        thread.start()
    writer.join(20)
    ended = not writer.is_alive()
    stop.set()
    for thread in [*threads, writer]:
        thread.join()
    assert ended
    assert given_up == 10
    assert wrong == []
    tier.close()
