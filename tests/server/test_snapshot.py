"""Snapshots: what comes back, what is refused, and what a kill or a full disk leaves."""

from __future__ import annotations

import math
import os
import random
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from sys import getsizeof
from typing import Any

import pytest

from cachecore import Cache
from cachecore._snapshot import pack
from cachecore.server import snapshot
from cachecore.server.snapshot import SnapshotError, Writer, load, slices
from server.hosts import Host


def new_cache(max_bytes: int = 64 << 20) -> Cache[bytes, Any]:
    return Cache(max_bytes=max_bytes, getsizeof=getsizeof)


def write(path: Path, cache: Cache[bytes, Any]) -> None:
    writer = Writer(path)
    for _, count, pieces in slices(cache):
        writer.add(count, pieces)
    writer.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "snapshot"


def test_everything_comes_back(path: Path) -> None:
    cache = new_cache()
    chance = random.Random(1)
    for at in range(3000):
        key = bytes([at % 3]) + chance.randbytes(chance.randrange(40))
        size = chance.choice([0, 1, 10, 1000, 70_000 if at < 100 else 5])
        ttl = chance.choice([math.inf, 100, 1e7])
        cache.set(key, chance.randbytes(size), ttl=ttl)
    cache.set(b"\0hash", {b"a": b"1", b"": b"x" * 1000, b"\xff\0": b""})
    cache.set(b"\0none", {})
    for _ in range(7):
        cache.get(b"\0hash")
    write(path, cache)
    assert path.stat().st_mode & 0o777 == 0o600
    found = new_cache()
    loaded = load(path, found)
    assert (loaded.entries, loaded.expired, loaded.left_out) == (len(cache), 0, 0)
    assert loaded.databases == {0, 1, 2}
    assert found == cache
    for key in cache:
        before, after = cache.get_ttl(key), found.get_ttl(key)
        assert (before is None) == (after is None)
        assert before is None or (after is not None and before - 5 < after <= before + 0.1)
    assert dict(found.hottest(1)) == dict(cache.hottest(1))
    found._check()
    assert os.listdir(path.parent) == ["snapshot"]


def test_an_empty_cache(path: Path) -> None:
    write(path, new_cache())
    assert load(path, new_cache()).entries == 0


def test_what_has_expired_does_not_come_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = new_cache()
    cache.set(b"\0short", b"1", ttl=60)
    cache.set(b"\0long", b"2", ttl=7200)
    write(path, cache)
    later = snapshot.now_ms() + 3_600_000  # the machine was off for an hour
    monkeypatch.setattr(snapshot, "now_ms", lambda: later)
    found = new_cache()
    loaded = load(path, found)
    assert (loaded.entries, loaded.expired) == (1, 1)
    assert list(found) == [b"\0long"]
    assert 3590 < (found.get_ttl(b"\0long") or 0) <= 3600


def test_the_hottest_come_back_where_there_is_less_room(path: Path) -> None:
    cache = new_cache()
    keys = [b"\0key:%04d" % at for at in range(1000)]
    for key in keys:
        cache.set(key, bytes(1000))
    hot = set(random.Random(2).sample(keys, 100))
    for key in hot:
        for _ in range(5):
            cache.get(key)
    write(path, cache)
    small = new_cache(300 * (1000 + getsizeof(keys[0]) + getsizeof(b"") + 64))
    loaded = load(path, small)
    assert hot <= set(small)
    assert len(small) == loaded.entries == 300
    assert loaded.left_out == 700
    assert small.stats().evictions == small.stats().rejections == 0


def test_a_walk_survives_changes(path: Path) -> None:
    """Entries that stay are in the snapshot, whatever comes and goes while it is written."""
    cache = new_cache()
    chance = random.Random(3)
    stay = {b"\0stay:%d" % at for at in range(1000)}
    for key in stay:
        cache.set(key, b"v" * 100)
    cursor, seen = 0, b""
    for _ in range(10_000):
        cursor, _, pieces = pack(cache, cursor, 5000, 0)
        seen += b"".join(pieces)
        for _ in range(20):
            cache.set(b"\0come:%d" % chance.randrange(3000), bytes(chance.randrange(500)))
            cache.delete(b"\0come:%d" % chance.randrange(3000))
        if not cursor:
            break
    assert cursor == 0
    assert all(key in seen for key in stay)


# --- what is refused


def damaged(path: Path, tmp_path: Path) -> list[tuple[str, bytes]]:
    whole = path.read_bytes()
    head = snapshot._HEAD.size + 4
    found = [
        ("empty", b""),
        ("foreign", b"REDIS0011" + whole[9:]),
        ("text", b"cachecore snapshot\n"),
        ("longer", whole + b"\0"),
        ("twice", whole + whole),
        ("newer", newer(whole)),
        ("a part less", whole[:head] + whole[-20:]),
    ]
    found += [(f"cut at {at}", whole[:at]) for at in range(len(whole))]
    chance = random.Random(4)
    for _ in range(1000):
        at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        flipped = bytes([whole[at] ^ bit])
        found.append((f"bit {bit} at {at}", whole[:at] + flipped + whole[at + 1 :]))
    huge = struct.pack("<QI", 1 << 62, 0)
    found.append(("a part that says it is huge", whole[:head] + huge + whole[head + 12 :]))
    return found


def newer(whole: bytes) -> bytes:
    """The same of a layout that is not known yet, with a good checksum."""
    from zlib import crc32

    size = snapshot._HEAD.size
    head = bytearray(whole[:size])
    struct.pack_into("<I", head, len(snapshot.MAGIC), snapshot.LAYOUT + 1)
    return bytes(head) + struct.pack("<I", crc32(head)) + whole[size + 4 :]


def test_what_is_damaged_is_refused_and_changes_nothing(path: Path, tmp_path: Path) -> None:
    cache = new_cache()
    for at in range(20):
        cache.set(b"\0%d" % at, b"v" * at)
    cache.set(b"\0hash", {b"a": b"b"})
    write(path, cache)
    other = tmp_path / "other"
    for what, data in damaged(path, tmp_path):
        other.write_bytes(data)
        other.chmod(0o600)
        found = new_cache()
        try:
            load(other, found)
        except SnapshotError:
            assert len(found) == 0, what
        else:
            pytest.fail(what)


def test_entries_that_do_not_fit_together_are_refused(path: Path) -> None:
    """A part with a good checksum whose content nobody has packed."""
    for content in (
        b"x",
        b"\0" * 23,
        b"\2" + b"\0" * 22 + b"k",
        struct.pack("<BHIQq", 0, 1, 9, 9, 0),
    ):
        writer = Writer(path)
        writer.add(1, [content])
        writer.commit()
        with pytest.raises(SnapshotError, match="entries are damaged"):
            load(path, new_cache())


def test_files_of_others_are_refused(path: Path, tmp_path: Path) -> None:
    write(path, new_cache())
    path.chmod(0o620)
    with pytest.raises(SnapshotError, match="others may write to it"):
        load(path, new_cache())
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(SnapshotError, match="symlink"):
        load(link, new_cache())
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(SnapshotError, match="no plain file"):
        load(fifo, new_cache())
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none", new_cache())
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        with pytest.raises(SnapshotError, match="another user"):
            load(path, new_cache())


def test_a_symlink_at_its_place_is_replaced_not_followed(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path.symlink_to(victim)
    write(path, new_cache())
    assert victim.read_text() == "mine"
    assert not path.is_symlink()


# --- kills and full disks


def write_until(path: Path, generation: int, wanted: int) -> None:
    """Write a snapshot; be killed at the wanted step: before or after a call to the system."""
    cache = new_cache()
    for at in range(2000):
        cache.set(b"\0%d" % at, b"%d" % generation * 300)
    steps = iter(range(1, 1 << 30))

    def step() -> None:
        if next(steps) == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    def stepping(call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **options: Any) -> Any:
            step()
            result = call(*args, **options)
            step()
            return result

        return stepped

    put = stepping(Writer._put)

    def put_in_halves(self: Writer, *pieces: bytes) -> None:
        for piece in pieces:
            put(self, piece[: len(piece) // 2])
            put(self, piece[len(piece) // 2 :])

    snapshot.SLICE = 200_000
    Writer._put = put_in_halves  # type: ignore[method-assign, assignment]
    for name in ("open", "fsync", "rename"):
        setattr(os, name, stepping(getattr(os, name)))
    write(path, cache)


def test_a_kill_at_any_step_leaves_the_old_one_or_the_new_one(path: Path) -> None:
    """Children are really killed, each one step later than the one before, until one ends."""

    def run(generation: int, step: int) -> int:
        child = os.fork()
        if child == 0:
            try:
                write_until(path, generation, step)
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(child, 0)[1]

    assert run(1, 0) == 0
    generation, kills, ended = 1, 0, signal.SIGKILL.value
    while ended:
        ended = run(generation + 1, kills + 1)
        assert ended in (0, signal.SIGKILL)
        cache = new_cache()
        assert load(path, cache).entries == 2000
        (found,) = set(cache.values())
        assert found in (b"%d" % generation * 300, b"%d" % (generation + 1) * 300)
        generation += found != b"%d" % generation * 300
        kills += ended == signal.SIGKILL
        assert len(os.listdir(path.parent)) <= 2  # leftovers do not pile up
    assert kills > 20
    assert generation > 2  # some were killed after the new one was in its place


def test_a_server_that_is_killed_while_it_saves(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    host = Host(tmp_path / "host", snapshot=str(path), memory_limit=1 << 30)
    chance = random.Random(5)
    try:
        for round_ in range(4):
            with host.wire() as wire:
                value = b"%d" % round_ * 5000
                for at in range(2000):
                    wire.say("SET", f"key{at}", value)
                for _ in range(2000):
                    assert wire.read() == "OK"
                assert wire.ask("SAVE") == "OK"
                wire.say("BGSAVE")
                time.sleep(chance.random() * 0.03)
                host.kill()
            host.start()
            assert host.info("persistence")["rdb_last_load_keys_loaded"] == "2000"
            assert host.ask("GET", "key7") == value
        assert host.stop() == 0
        assert sorted(os.listdir(tmp_path)) == ["host", "snapshot"]
    finally:
        host.kill()


def test_a_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    """The process may write files of 1 MB only, which is where a disk would be full."""
    path = tmp_path / "snapshot"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    host = Host(tmp_path / "host", before=limit, snapshot=str(path))
    try:
        assert host.ask("SET", "old", "1") == "OK"
        assert host.ask("SAVE") == "OK"
        before = path.read_bytes()
        for at in range(5):
            assert host.ask("SET", f"large{at}", b"x" * 400_000) == "OK"
        assert host.ask("SAVE").startswith("ERR the snapshot was not written: ")
        info = host.info("persistence")
        assert info["rdb_last_bgsave_status"] == "err"
        assert info["rdb_bgsave_in_progress"] == "0"
        assert host.ask("GET", "old") == b"1"
        assert path.read_bytes() == before
        assert sorted(os.listdir(tmp_path)) == ["host", "snapshot"]
        assert host.stop() == 0
        assert path.read_bytes() == before
    finally:
        host.kill()


# --- of a server


def test_a_restarted_server_is_warm(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    host = Host(tmp_path / "host", snapshot=str(path))
    try:
        assert host.ask("SET", "a", "1") == "OK"
        assert host.ask("SET", "b", "2", "EX", "1000") == "OK"
        with host.wire() as wire:
            wire.ask("SELECT", "3")
            wire.ask("SET", "c", "3")
        assert host.stop() == 0
        host.start()
        assert host.ask("GET", "a") == b"1"
        assert 990 < host.ask("TTL", "b") <= 1000
        info = host.info()
        assert info["db0"].startswith("keys=2,")
        assert info["db3"].startswith("keys=1,")
        assert info["rdb_last_load_keys_loaded"] == "3"
        path.unlink()
        with host.wire() as wire:
            wire.say("SHUTDOWN", "NOSAVE")
            assert wire.rest() == b""
        assert host.process is not None
        assert host.process.wait(20) == 0
        assert not path.exists()
        path.write_text("something else")
        path.chmod(0o600)
        host.start()
        assert "is not used: it is no snapshot of cachecore; a cold start" in host.log()
        assert host.ask("GET", "a") is None
    finally:
        host.kill()


def test_saving_on_a_schedule(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    host = Host(tmp_path / "host", snapshot=str(path), snapshot_interval=0.05)
    try:
        host.ask("SET", "a", "1")
        end = time.monotonic() + 20
        while int(host.info("persistence")["rdb_saves"]) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        host.kill()
        assert load(path, new_cache()).entries == 1
    finally:
        host.kill()


def test_without_a_snapshot_saving_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path)
    try:
        for words in (["SAVE"], ["BGSAVE"]):
            assert host.ask(*words).startswith("ERR no snapshot file is configured")
        assert host.stop() == 0
    finally:
        host.kill()
