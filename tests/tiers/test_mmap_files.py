"""What the memory-mapped tier refuses to open, and that it leaves it as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from cachecore.tiers import Item, MmapTier, TierError, TierTimeoutError
from tiers.stores import BOUND, closed_store, end, says, start

ITEMS = [Item(b"%d" % at, b"v%d" % at * 500) for at in range(200)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A closed store with something in it."""
    return closed_store(tmp_path / "store", ITEMS)


def refused(folder: Path, match: str, bound: int = BOUND) -> None:
    """Opening raises, says why, and changes nothing."""
    before = contents(folder) if folder.is_dir() else {}
    with pytest.raises(TierError, match=match):
        MmapTier(folder, max_bytes=bound)
    if before:
        assert contents(folder) == before


def test_what_was_kept_is_there_after_reopening(store: Path) -> None:
    tier = MmapTier(store, max_bytes=BOUND)
    assert tier.get_many([item.key for item in ITEMS]) == [item.data for item in ITEMS]
    assert tier.stats()["entries"] == len(ITEMS)
    tier.close()


def test_the_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        MmapTier(tmp_path / "a" / "store", max_bytes=BOUND).close()
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "a" / "store").st_mode & 0o777 == 0o700
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "a" / "store").iterdir()}
    assert modes == {"cachecore.mark": 0o600, "data.mdb": 0o600, "lock.mdb": 0o600}


@pytest.mark.parametrize("length", [0, 1, 100, 4096, 8192, 20_000, BOUND // 2, BOUND - 1])
def test_truncated_data(store: Path, length: int) -> None:
    os.truncate(store / "data.mdb", length)
    refused(store, "truncated|damaged")


def test_missing_data(store: Path) -> None:
    (store / "data.mdb").unlink()
    refused(store, "cannot be read")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("data.mdb", b"not LMDB's" * 1000, "no data of LMDB"),
        ("data.mdb", bytes(BOUND), "no data of LMDB"),
        ("cachecore.mark", b"something else\n", "damaged, or of something else"),
        ("cachecore.mark", b"\xff" * 9000, "damaged, or of something else"),
    ],
)
def test_other_content(store: Path, name: str, content: bytes, match: str) -> None:
    (store / name).write_bytes(content)
    refused(store, match)


def test_data_of_another_store(store: Path, tmp_path: Path) -> None:
    MmapTier(tmp_path / "other", max_bytes=BOUND).close()
    data = (tmp_path / "other" / "data.mdb").read_bytes()
    (store / "data.mdb").write_bytes(data)
    with pytest.raises(TierError, match="not those of the mark"):
        MmapTier(store, max_bytes=BOUND)
    assert (store / "data.mdb").read_bytes() == data


def test_an_environment_of_somebody_else(tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    with lmdb.open(str(folder)) as env, env.begin(write=True) as txn:
        txn.put(b"a", b"1")
    refused(folder, "not of a tier")
    assert sorted(contents(folder)) == ["data.mdb", "lock.mdb"]


def test_another_layout(store: Path) -> None:
    mark = (store / "cachecore.mark").read_bytes()
    (store / "cachecore.mark").write_bytes(mark.replace(b" 0001 ", b" 0002 "))
    refused(store, "layout 2; this version knows layout 1")


def test_symlinks(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    refused(tmp_path / "link", "is a symlink")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "dangling", "is a symlink")
    assert not (tmp_path / "nowhere").exists()
    for name in ("data.mdb", "lock.mdb", "cachecore.mark"):
        (store / name).rename(tmp_path / name)
        (store / name).symlink_to(tmp_path / name)
        refused(store, r"symlink|symbolic link")
        (store / name).unlink()
        (tmp_path / name).rename(store / name)
    (store / "data.mdb").rename(tmp_path / "data.mdb")
    os.link(tmp_path / "data.mdb", store / "data.mdb")
    refused(store, "another name")


def test_no_plain_files(store: Path, tmp_path: Path) -> None:
    for name in ("data.mdb", "lock.mdb", "cachecore.mark"):
        (store / name).rename(tmp_path / name)
        os.mkfifo(store / name, 0o600)
        with pytest.raises(TierError, match="no plain file"):
            MmapTier(store, max_bytes=BOUND)
        (store / name).unlink()
        (tmp_path / name).rename(store / name)
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file", "is no folder")
    refused(tmp_path / "file" / "below", "cannot be created")


def test_files_that_others_can_read(store: Path) -> None:
    for name in ("data.mdb", "lock.mdb", "cachecore.mark"):
        (store / name).chmod(0o640)
        refused(store, "must not be open to others: its mode is 640")
        (store / name).chmod(0o600)
    store.chmod(0o770)
    refused(store, "its mode is 770")


def test_files_of_another_user(store: Path) -> None:
    if os.geteuid() != 0:  # only root can give files away
        refused(Path("/usr"), "belongs to another user")
        return
    for path in (store / "data.mdb", store / "lock.mdb", store / "cachecore.mark", store):
        os.chown(path, 12345, -1)
        refused(store, "belongs to another user")
        os.chown(path, 0, -1)
    MmapTier(store, max_bytes=BOUND).close()


# --- the bound


def test_a_larger_bound(store: Path) -> None:
    tier = MmapTier(store, max_bytes=2 * BOUND)
    assert (store / "data.mdb").stat().st_size == 2 * BOUND
    assert tier.get_many([item.key for item in ITEMS]) == [item.data for item in ITEMS]
    with pytest.raises(TierError, match=f"open with max_bytes={2 * BOUND}, not {BOUND}"):
        MmapTier(store, max_bytes=BOUND)
    tier.close()


def test_a_smaller_bound(store: Path) -> None:
    tier = MmapTier(store, max_bytes=BOUND // 2)
    assert (store / "data.mdb").stat().st_size == BOUND // 2
    assert tier.get_many([item.key for item in ITEMS]) == [item.data for item in ITEMS]
    tier.set_many([Item(b"new %d" % at, bytes(9000)) for at in range(1000)])
    tier.close()
    refused(store, "more than max_bytes=1048576", BOUND // 4)
    MmapTier(store, max_bytes=BOUND // 2).close()


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"max_bytes": 1000}, ValueError, "max_bytes must be at least 1048576, not 1000"),
        ({"max_bytes": "much"}, ValueError, "max_bytes"),
        ({"max_bytes": BOUND, "timeout": 0}, ValueError, "timeout"),
        ({"max_bytes": BOUND, "name": ""}, TypeError, "name"),
    ],
)
def test_bad_settings(
    tmp_path: Path, settings: dict[str, object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        MmapTier(tmp_path / "store", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


# --- creation that was cut short, reboots


def test_a_creation_that_was_cut_short(store: Path, tmp_path: Path) -> None:
    """The mark is written last: without it, what is there was never used."""
    (store / "cachecore.mark").write_bytes(b"")
    (store / "data.mdb").write_bytes(b"half a page")
    tier = MmapTier(store, max_bytes=BOUND)
    assert tier.get_many([b"1"]) == [None]
    tier.set_many(ITEMS)
    tier.close()


def with_boot(store: Path, boot: bytes) -> None:
    line = (store / "cachecore.mark").read_bytes()
    (store / "cachecore.mark").write_bytes(line[:-37] + boot + b"\n")


def test_after_a_reboot(store: Path) -> None:
    with_boot(store, b"-" * 36)  # closed before it
    tier = MmapTier(store, max_bytes=BOUND)
    assert tier.get_many([b"1"]) == [ITEMS[1].data]
    tier.close()
    with_boot(store, b"0" * 36)  # open when the machine went down
    tier = MmapTier(store, max_bytes=BOUND)
    assert tier.get_many([b"1"]) == [None]
    assert tier.add(ITEMS[1])
    tier.close()


# --- locks


def hold(path: Path, byte: int) -> subprocess.Popen[bytes]:
    """A process that keeps a byte of a file locked."""
    program = (
        f"import fcntl, time; file = open({str(path)!r}, 'r+b')\n"
        f"fcntl.lockf(file, fcntl.LOCK_EX, 1, {byte}); print('held', flush=True); time.sleep(60)"
    )
    process = start(program)
    says(process, b"held")
    return process


@pytest.mark.parametrize("name", ["cachecore.mark", "lock.mdb"])
def test_locked_by_another_process(store: Path, name: str) -> None:
    holder = hold(store / name, 0)
    start = time.monotonic()
    with pytest.raises(TierTimeoutError, match="locked by another"):
        MmapTier(store, max_bytes=BOUND, timeout=0.1)
    assert time.monotonic() - start < 2
    end(holder)
    tier = MmapTier(store, max_bytes=BOUND)
    assert tier.get_many([b"1"]) == [ITEMS[1].data]
    tier.close()


def test_writers_wait_for_a_while_and_readers_do_not(store: Path) -> None:
    tier = MmapTier(store, max_bytes=BOUND, timeout=0.1)
    holder = hold(store / "cachecore.mark", 0)
    calls: list[Callable[[], object]] = [
        lambda: tier.set_many(ITEMS),
        lambda: tier.add(Item(b"new", b"1")),
        lambda: tier.delete_many([b"1"]),
        lambda: tier.demote_many(ITEMS[:1], [2]),
    ]
    for call in calls:
        start = time.monotonic()
        with pytest.raises(TierTimeoutError):
            call()
        assert time.monotonic() - start < 2
    assert tier.get_many([b"1", b"2"]) == [ITEMS[1].data, ITEMS[2].data]
    assert tier.add(ITEMS[1]) is False  # that it is there can be seen without
    assert len(list(tier.scan())) == len(ITEMS)
    end(holder)
    tier.set_many(ITEMS)
    tier.close()


def test_a_lock_is_free_again_after_each_call(store: Path) -> None:
    tier = MmapTier(store, max_bytes=BOUND)
    tier.set_many(ITEMS)
    with pytest.raises(TypeError):
        tier.set_many([Item("text", b"")])  # type: ignore[arg-type]
    program = (
        f"import fcntl; file = open({str(store / 'cachecore.mark')!r}, 'r+b')\n"
        f"fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    tier.close()
