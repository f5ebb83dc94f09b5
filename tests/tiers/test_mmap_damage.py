"""The memory-mapped tier on damaged records, flipped files, and disks that are full."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest

from cachecore.tiers import Item, MmapTier, TierError
from tiers.children import in_child
from tiers.stores import closed_store

BOUND = 1 << 20
ITEMS = [
    Item(b"%d" % at * (200 if at % 10 == 0 else 1), b"v%d;" % at * (100 + at % 2 * 900), lifetime)
    for at, lifetime in enumerate([None, 10**9] * 40)
]
DATA = {item.key: item.data for item in ITEMS}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A closed store that holds ITEMS."""
    return closed_store(tmp_path / "store", ITEMS, BOUND)


def overwrite(folder: Path, table: bytes, change: dict[bytes, bytes]) -> list[bytes]:
    """Change records behind the tier's back; which keys there were."""
    with lmdb.open(str(folder), max_dbs=2, map_size=BOUND) as env:
        database = env.open_db(table, create=False)
        with env.begin(database, write=True) as txn:
            keys = [key for key, _ in txn.cursor()]
            for key, record in change.items():
                txn.put(key, record)
            return keys


@pytest.mark.parametrize("at", range(16))
def test_a_flip_in_a_head_is_a_miss(store: Path, at: int) -> None:
    tier = MmapTier(store, max_bytes=BOUND)
    with tier._store.writing() as txn:
        for key in (b"1", b"2"):
            record = bytearray(txn.get(key, db=tier._store.data))
            record[at] ^= 1 << at % 8
            txn.put(key, bytes(record), db=tier._store.data)
    assert tier.get_many([b"1", b"2", b"3"]) == [None, None, DATA[b"3"]]
    assert tier.get(b"1") is None
    assert tier.stats()["damaged"] == 3
    assert not {b"1", b"2"} & set(tier.scan())
    assert tier.add(Item(b"1", b"new"))
    tier.set_many([Item(b"2", b"new")])
    assert tier.get_many([b"1", b"2"]) == [b"new", b"new"]
    tier.close()


@pytest.mark.parametrize("record", [b"", b"x", bytes(15), bytes(16), b"\xff" * 100])
def test_a_record_that_is_none(store: Path, record: bytes) -> None:
    overwrite(store, b"data", {b"1": record, b"2": record, b"\0": record, b"\xff" * 32: record})
    tier = MmapTier(store, max_bytes=BOUND)
    assert tier.get(b"1") is None
    assert tier.get_many([b"1", b"2", b"3", b"\0"]) == [None, None, DATA[b"3"], None]
    assert tier.delete_many([b"1"]) == 0
    assert tier.add(Item(b"2", b"new"))
    tier.demote_many([Item(b"\0", b"new")], [5])
    assert tier.get_many([b"2", b"\0"]) == [b"new", b"new"]
    assert tier.stats()["damaged"] >= 3
    assert len(list(tier.scan())) == sum(len(key) <= 511 for key in DATA) - 1 + 1
    tier.close()


def test_a_digest_is_no_key(store: Path) -> None:
    """Whoever asks for the very bytes that a long key is kept under finds nothing, and back."""
    tier = MmapTier(store, max_bytes=BOUND)
    tier.set_many([Item(b"L" * 600, b"long")])
    with tier._store.begin(tier._store.data) as txn:
        (digest,) = {key for key, _ in txn.cursor()} - set(DATA)
    assert tier.get(digest) is None
    assert tier.delete_many([digest]) == 0
    tier.set_many([Item(b"L" * 600, b"long"), Item(digest, b"plain")])
    assert tier.get_many([b"L" * 600, digest]) == [None, b"plain"]
    tier.close()


def test_meta_of_nonsense(store: Path) -> None:
    """What is kept beside the data may be anything: only who is evicted depends on it."""
    slots = overwrite(store, b"meta", {})
    nonsense = [random.randbytes(random.randrange(60)) for _ in slots]
    overwrite(store, b"meta", dict(zip(slots, nonsense, strict=True)))
    overwrite(store, b"meta", {b"x" * 500: b"", b"\0": b"\xff" * 400})
    tier = MmapTier(store, max_bytes=BOUND)
    with tier._store.writing() as txn:
        txn.put(b"clock", random.randbytes(random.randrange(20)))
    for turn in range(500):
        tier.set_many([Item(b"n%d" % turn, b"%d" % turn * 1000)])
        assert tier.get(b"n%d" % turn) == b"%d" % turn * 1000
    assert tier.stats()["damaged"] >= len(slots)
    assert tier.stats()["refused"] == 0
    tier.close()


def use(folder: Path) -> bool:
    """Do everything with a store; nothing but a TierError may come of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is said of a crash
    try:
        tier = MmapTier(folder, max_bytes=BOUND)
    except TierError:
        return True
    for key in DATA:
        with suppress(TierError):
            assert type(tier.get(key)) in {bytes, type(None)}
    for turn in range(200):
        with suppress(TierError):
            tier.set_many([Item(b"n%d" % turn, bytes(3000))])
            tier.get_many([b"n%d" % turn, b"1"])
            tier.delete_many([b"n%d" % (turn // 2)])
    with suppress(TierError):
        list(tier.scan())
    tier.close()
    return True


def test_flips_anywhere_raise_tier_errors_at_most(store: Path, tmp_path: Path) -> None:
    """But for those in LMDB's own pages that it does not survive: a documented limit."""
    data = (store / "data.mdb").read_bytes()
    used = len(data.rstrip(b"\0"))
    crashes = 0
    for turn in range(60):
        shutil.rmtree(tmp_path / "flipped", ignore_errors=True)
        shutil.copytree(store, tmp_path / "flipped")
        flipped = bytearray(data)
        flipped[random.randrange(used)] ^= 1 << random.randrange(8)
        with open(tmp_path / "flipped" / "data.mdb", "r+b") as file:
            file.write(flipped)
        code = in_child(lambda: use(tmp_path / "flipped"))
        assert code in {0, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS}, turn
        crashes += code < 0
    assert crashes < 6


# --- a full disk

FULL = """
import resource, sys
from cachecore.tiers import Item, MmapTier, TierError
tier = MmapTier(sys.argv[1], max_bytes=8 << 20)
tier.set_many([Item(b"%d" % at, bytes(8000)) for at in range(50)])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
failed = 0
for at in range(50, 300):
    try:
        tier.set_many([Item(b"%d" % at, bytes(8000))])
    except TierError:
        failed += 1
stats = tier.stats()
assert failed > 100, failed
assert stats["write_errors"] == 1, stats
assert stats["writes_off"] == 1, stats
kept = [at for at in range(300) if tier.get(b"%d" % at) == bytes(8000)]
assert kept == list(range(300 - failed)), kept
try:
    assert tier.delete_many([b"1", b"2"]) == 2
except TierError:  # to take something out takes a page, too
    assert tier.get(b"1") == bytes(8000)
else:
    assert tier.get(b"1") is None
for call in (lambda: tier.add(Item(b"a", b"1")), lambda: tier.demote_many([Item(b"a", b"1")], [3])):
    try:
        call()
        raise SystemExit("it writes")
    except TierError:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
tier._off_until = 0  # half a minute later
tier.set_many([Item(b"%d" % at, bytes(8000)) for at in range(300)])
assert tier.stats()["writes_off"] == 0
assert all(tier.get(b"%d" % at) == bytes(8000) for at in range(300))
tier.close()
"""


def test_a_full_disk_turns_writes_off(tmp_path: Path) -> None:
    """The kernel's bound on the size of files stands for a disk without room."""
    command = [sys.executable, "-c", FULL, str(tmp_path / "store")]
    subprocess.run(command, check=True, timeout=60)


def test_a_full_disk_at_creation(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(TierError, match="cannot be opened"):
            MmapTier(tmp_path / "store", max_bytes=BOUND)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    tier = MmapTier(tmp_path / "store", max_bytes=BOUND)
    assert tier.add(ITEMS[0])
    tier.close()
