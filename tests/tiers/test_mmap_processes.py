"""The memory-mapped tier among processes: sharing, forks, kills at any moment, long readers."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest

from cachecore.tiers import Item, MmapTier, TierError
from cachecore.tiers.testing import eventually
from tiers.children import in_child
from tiers.stores import BOUND, end, is_value, says, start, value

# --- one process


def test_two_on_one_path(tmp_path: Path) -> None:
    first = MmapTier(tmp_path, max_bytes=BOUND)
    second = MmapTier(tmp_path / ".." / tmp_path.name, max_bytes=BOUND)
    first.set_many([Item(b"a", b"1")])
    assert second.get_many([b"a"]) == [b"1"]
    first.close()
    with pytest.raises(TierError):
        first.get_many([b"a"])
    second.set_many([Item(b"a", b"2")])
    assert second.get_many([b"a"]) == [b"2"]
    second.close()
    third = MmapTier(tmp_path, max_bytes=BOUND)
    assert third.get(b"a") == b"2"
    third.close()


def test_one_that_was_forgotten(tmp_path: Path) -> None:
    files = len(os.listdir("/proc/self/fd"))
    tier = MmapTier(tmp_path, max_bytes=BOUND)
    tier.set_many([Item(b"a", b"1")])
    del tier
    assert len(os.listdir("/proc/self/fd")) == files
    MmapTier(tmp_path, max_bytes=BOUND).close()


def test_closing_during_calls(tmp_path: Path) -> None:
    """Whoever is in a call gets what he asked for or a TierError."""
    for _ in range(10):
        tier = MmapTier(tmp_path, max_bytes=BOUND)
        tier.set_many([Item(b"%d" % at, b"x" * 4000) for at in range(20)])
        wrong: list[object] = []

        def use(tier: MmapTier = tier, wrong: list[object] = wrong) -> None:
            with suppress(TierError):
                for turn in range(100_000):
                    tier.set_many([Item(b"a", b"%d" % turn)])
                    found = tier.get_many([b"%d" % at for at in range(1, 20)])
                    wrong.extend(data for data in found if data != b"x" * 4000)

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        tier.close()
        for thread in threads:
            thread.join()
        assert wrong == []


# --- forks


def test_a_child_opens_its_own(tmp_path: Path) -> None:
    tier = MmapTier(tmp_path, max_bytes=BOUND)
    tier.set_many([Item(b"a", b"1")])
    assert tier.get(b"a") == b"1"

    def work() -> bool:
        seen = tier.get_many([b"a", b"b"])
        tier.set_many([Item(b"b", b"2")])
        again = MmapTier(tmp_path, max_bytes=BOUND)
        grandchild = in_child(lambda: tier.get(b"b") == b"2" and tier.delete_many([b"a"]) == 1)
        return seen == [b"1", None] and again.get(b"b") == b"2" and grandchild == 0

    for _ in range(5):
        tier.set_many([Item(b"a", b"1")])
        tier.delete_many([b"b"])
        assert in_child(work) == 0
        assert tier.get_many([b"a", b"b"]) == [None, b"2"]
    assert in_child(lambda: tier.close() is None) == 0  # without having used it
    assert tier.get(b"b") == b"2"
    tier.close()

    def closed() -> bool:
        with pytest.raises(TierError):
            tier.get(b"a")
        return True

    assert in_child(closed) == 0


def test_forks_while_threads_use_it(tmp_path: Path) -> None:
    tier = MmapTier(tmp_path, max_bytes=BOUND, timeout=30)
    keys = [b"%d" % at for at in range(50)]
    tier.set_many([Item(key, value(key, 1)) for key in keys])
    stop = threading.Event()
    wrong: list[object] = []

    def use() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            key = random.choice(keys)
            tier.set_many([Item(key, value(key, turn))])
            for key, data in zip(keys, tier.get_many(keys), strict=True):
                if data is None or not is_value(key, data):
                    wrong.append((key, data))

    def work() -> bool:
        tier.set_many([Item(keys[0], value(keys[0], 7))])
        found = tier.get_many(keys)
        return all(
            data is not None and is_value(key, data) for key, data in zip(keys, found, strict=True)
        )

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    codes = [in_child(work) for _ in range(30)]
    stop.set()
    for thread in threads:
        thread.join()
    assert codes == [0] * 30
    assert wrong == []
    tier.close()


# --- kills

WRITER = """
import random, sys
from cachecore.tiers import Item, MmapTier, TierError
from tiers.stores import value
folder, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
tier = MmapTier(folder, max_bytes=4 << 20, timeout=20)
print("started", flush=True)
turn = seed * 1_000_000
while True:
    keys = [b"%d" % random.randrange(300) for _ in range(random.choice([1, 1, 20]))]
    turn += 1
    what = random.random()
    if what < 0.6:
        tier.set_many([Item(key, value(key, turn)) for key in keys])
    elif what < 0.7:
        tier.delete_many(keys)
    elif what < 0.8:
        tier.add(Item(keys[0], value(keys[0], turn)))
    else:
        tier.get_many(keys)
"""


def test_writers_are_killed_at_any_moment(tmp_path: Path) -> None:
    """Each key holds what was once written under it, or nothing; and the others go on."""
    keys = [b"%d" % at for at in range(300)]
    writers = [start(WRITER, tmp_path, seed) for seed in range(2)]
    kept = MmapTier(tmp_path, max_bytes=BOUND, timeout=20)
    found = 0
    for turn in range(30):
        writer = writers.pop(0)
        if turn % 5:  # others in the midst of opening
            says(writer, b"started")
            time.sleep(random.random() * 0.03)
        else:
            time.sleep(0.1 + random.random() * 0.1)
        end(writer)
        writers.append(start(WRITER, tmp_path, turn + 2))
        if turn % 3 == 0:
            kept.close()
            kept = MmapTier(tmp_path, max_bytes=BOUND, timeout=20)
        for key, data in zip(keys, kept.get_many(keys), strict=True):
            assert data is None or is_value(key, data), key
            found += data is not None
        kept.set_many([Item(keys[turn], value(keys[turn], turn))])
    for writer in writers:
        end(writer)
    kept.close()
    tier = MmapTier(tmp_path, max_bytes=BOUND)
    assert found > 1000
    assert tier.stats()["damaged"] == 0
    assert set(tier.scan()) <= set(keys)
    tier.set_many([Item(key, b"whole") for key in keys])
    assert tier.get_many(keys) == [b"whole"] * len(keys)
    tier.close()


def test_a_creation_is_killed_at_any_moment(tmp_path: Path) -> None:
    for turn in range(10):
        folder = tmp_path / str(turn)
        writer = start(WRITER, folder, turn)
        eventually(folder.exists)
        time.sleep(random.random() * 0.003)
        end(writer)
        tier = MmapTier(folder, max_bytes=BOUND)
        tier.set_many([Item(b"a", b"1")])
        assert tier.get(b"a") == b"1"
        tier.close()


def test_one_add_of_many_processes(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom cachecore.tiers import Item, MmapTier\n"
        "tier = MmapTier(sys.argv[1], max_bytes=4 << 20, timeout=20)\n"
        "print(*[int(tier.add(Item(b'%d' % at, sys.argv[2].encode()))) for at in range(300)])\n"
        "tier.close()"
    )
    adders = [start(program, tmp_path, name) for name in range(3)]
    added = [adder.communicate()[0].split() for adder in adders]
    assert [sum(map(int, each)) for each in zip(*added, strict=True)] == [1] * 300
    tier = MmapTier(tmp_path, max_bytes=BOUND)
    for at, each in enumerate(zip(*added, strict=True)):
        assert tier.get(b"%d" % at) == b"%d" % each.index(b"1")
    tier.close()


def test_a_stopped_writer(tmp_path: Path) -> None:
    """Readers go on; writers do when it continues or dies, and until then say that they cannot."""
    tier = MmapTier(tmp_path, max_bytes=BOUND, timeout=0.05)
    tier.set_many([Item(b"mine", b"1")])
    writer = start(WRITER, tmp_path, 1)
    says(writer, b"started")
    timeouts = 0
    for _ in range(10):
        writer.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
        began = time.monotonic()
        assert tier.get(b"mine") == b"1"
        try:
            tier.set_many([Item(b"more", b"2")])
        except TimeoutError:
            timeouts += 1
        assert time.monotonic() - began < 2
        writer.send_signal(signal.SIGCONT)
        time.sleep(random.random() * 0.01)
    end(writer)
    tier.set_many([Item(b"more", b"3")])
    assert tier.get_many([b"mine", b"more"]) == [b"1", b"3"]
    tier.close()


# --- readers that stay

READER = """
import sys, time, lmdb
env = lmdb.open(sys.argv[1], max_dbs=2, lock=True, map_size=4 << 20)
txn = env.begin()
print("reading", flush=True)
time.sleep(60)
"""


def test_a_reader_that_stays_holds_on_to_its_pages(tmp_path: Path) -> None:
    """What finds no room is refused and counted, and what was under the key is not served."""
    tier = MmapTier(tmp_path, max_bytes=BOUND)
    items = [Item(b"%d" % at, bytes(8000)) for at in range(1000)]
    tier.set_many(items)
    reader = start(READER, tmp_path)
    says(reader, b"reading")
    kept = tier.stats()["entries"]
    failed = 0
    for turn in range(200):
        key = b"%d" % (turn % 7)
        try:
            tier.set_many([Item(key, b"%d" % turn * 3000)])
        except TierError:  # there was not even the room to take out what was there before
            failed += 1
        else:
            assert tier.get(key) in {None, b"%d" % turn * 3000}
    assert tier.stats()["refused"] + failed > 50
    assert tier.stats()["entries"] > kept / 2  # it does not evict all that is there in vain
    assert (tmp_path / "data.mdb").stat().st_size == BOUND
    end(reader)  # killed: it is found to be gone
    tier.set_many([Item(b"a", b"1" * 8000)])
    assert tier.get(b"a") == b"1" * 8000
    tier.close()


def test_the_raw_reader_is_one_of_lmdb(tmp_path: Path) -> None:
    """What the test above leans on: any program may open the files."""
    MmapTier(tmp_path, max_bytes=BOUND).close()
    with lmdb.open(str(tmp_path), max_dbs=2, readonly=True) as env, env.begin() as txn:
        assert txn.get(b"identity") is not None
