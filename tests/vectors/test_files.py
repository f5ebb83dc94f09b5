"""Files: made whole or not at all, opened by their owner only, for what they were made."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import VectorCache
from support import LONG
from vectors.helpers import DIM, Child, MakeTable, Start, check_counts, rows_for, works

IDS = np.arange(100)
BOOT = Path("/proc/sys/kernel/random/boot_id")


def open_table(path: Path, **settings: Any) -> VectorCache:
    return VectorCache(**{"dim": DIM, "capacity": 200, "path": path, **settings})


def make_file(path: Path, **settings: Any) -> None:
    with open_table(path, **settings) as table:
        table.put(IDS, rows_for(IDS))


def check_file(path: Path, **settings: Any) -> None:
    with open_table(path, **settings) as table:
        np.testing.assert_array_equal(table.gather(IDS)[0], rows_for(IDS))
        check_counts(table)
        works(table)


@pytest.mark.parametrize("where", ["shm", "tmp_path"])
@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_rows_stay_in_a_file(request: Any, where: str, kind: Callable[[Path], Any]) -> None:
    path = request.getfixturevalue(where) / "täble"
    make_file(kind(path))
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_blocks * 512 >= status.st_size  # there, not promised
    check_file(kind(path))
    assert [entry.name for entry in path.parent.iterdir()] == ["täble"]


def test_a_relative_path_and_another_umask(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shm)
    before = os.umask(0)
    try:
        make_file(Path("t"))
        assert stat.S_IMODE(Path("t").stat().st_mode) == 0o600
        os.umask(0o777)
        make_file(Path("u"))
    finally:
        os.umask(before)
    check_file(Path("t"))
    check_file(Path("u"))


def test_two_handles_of_one_process(make: MakeTable, shm: Path) -> None:
    first, second = (make(DIM, capacity=200, path=shm / "t") for _ in range(2))
    first.put(IDS, rows_for(IDS))
    np.testing.assert_array_equal(second.gather(IDS)[0], rows_for(IDS))
    second.put(IDS, rows_for(IDS, 1))
    np.testing.assert_array_equal(first.gather(IDS)[0], rows_for(IDS, 1))
    first.close()
    assert second.stats().hits == 200
    works(second)


def test_a_file_that_is_removed_is_made_anew(shm: Path) -> None:
    old = open_table(shm / "t")
    old.put(IDS, rows_for(IDS))
    (shm / "t").unlink()
    new = open_table(shm / "t")
    assert len(new) == 0
    works(new)
    works(old)


# --- refused ---


def link(path: Path) -> None:
    make_file(path.with_name("target"))
    path.symlink_to("target")


def cut(path: Path, size: int) -> None:
    make_file(path)
    os.truncate(path, size)


def change(path: Path, at: int, data: bytes) -> None:
    make_file(path)
    write_at(path, at, data)


def write_at(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def give_away(path: Path) -> None:
    make_file(path)
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path, 12345, -1)


REFUSED: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "readable by others": (lambda p: (make_file(p), p.chmod(0o644)), PermissionError, "no other"),
    "of a group": (lambda p: (make_file(p), p.chmod(0o660)), PermissionError, "no other"),
    "somebody else's": (give_away, PermissionError, "same user"),
    "symbolic link": (link, ValueError, "symbolic"),
    "dangling link": (lambda p: p.symlink_to("nowhere"), ValueError, "symbolic"),
    "directory": (lambda p: p.mkdir(), ValueError, "regular"),
    "fifo": (lambda p: os.mkfifo(p, 0o600), ValueError, "regular"),
    "empty": (lambda p: p.touch(0o600), ValueError, "not a table"),
    "text": (lambda p: (p.touch(0o600), p.write_text("hello" * 9999)), ValueError, "not a table"),
    "cut short": (lambda p: cut(p, 20_000), ValueError, "damaged"),
    "longer": (lambda p: cut(p, 10**6), ValueError, "damaged"),
    "another magic": (lambda p: change(p, 0, b"x"), ValueError, "not a table"),
    "another layout": (lambda p: change(p, 8, b"\xff\0\0\0"), ValueError, "another version"),
    "another byte order": (lambda p: change(p, 12, b"\1\2\3\4"), ValueError, "byte order"),
    "another size": (lambda p: change(p, 16, b"\1"), ValueError, "damaged"),
    "another geometry": (lambda p: change(p, 24, b"\1"), ValueError, "damaged"),
    "another secret": (lambda p: change(p, 4096, b"\1\2\3\4\5\6\7\1"), ValueError, "damaged"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_and_left_alone(shm: Path, kind: str) -> None:
    make_it, error, words = REFUSED[kind]
    path = shm / "t"
    make_it(path)
    before = path.lstat()
    content = path.read_bytes() if path.is_file() else b""
    with pytest.raises(error, match=rf"(?s)\bt'.*{words}|{words}.*\bt'"):
        open_table(path)
    after = path.lstat()
    assert (after.st_mode, after.st_size, after.st_ino) == (
        before.st_mode,
        before.st_size,
        before.st_ino,
    )
    assert content == (path.read_bytes() if path.is_file() else b"")


OTHERS: dict[str, dict[str, Any]] = {
    "capacity=101": {"capacity": 101},
    "float32 17": {"dim": 17},
    "int32 16": {"dtype": "int32"},
    "float64 8": {"dim": 8, "dtype": "float64"},
    "ttl=5": {"ttl": 5},
    "codec='int8'": {"codec": "int8"},
    "checksums=True": {"checksums": True},
    "fields ": {"dim": None, "dtype": [("first", "f4", 8), ("second", "f4", 8)]},
}


@pytest.mark.parametrize("words", OTHERS)
def test_made_for_something_else(shm: Path, words: str) -> None:
    make_file(shm / "t")
    with open_table(shm / "t") as table:
        with pytest.raises(ValueError, match=rf"made for.*float32 16.*not for.*{words}"):
            open_table(shm / "t", **OTHERS[words])
        works(table)
    with pytest.raises(ValueError, match="made for"):
        open_table(shm / "t", **OTHERS[words])
    check_file(shm / "t")


def test_fields_of_other_names_or_places_are_something_else(shm: Path) -> None:
    kinds: list[Any] = [
        [("a", "i4")],
        [("a", "i4"), ("b", "i4")],
        [("b", "i4"), ("a", "i4")],
        [("a", "i4"), ("c", "i4")],
        [("a", "i4", (1,)), ("b", "i4")],
        {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]},
    ]
    for number, kind in enumerate(kinds):
        for other in kinds:
            path = shm / str(number)
            VectorCache(None, kind, capacity=1, path=path).close()
            if other is not kind:
                with pytest.raises(ValueError, match="made for"):
                    VectorCache(None, other, capacity=1, path=path)


def test_no_such_folder_and_no_permission(shm: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_table(shm / "no" / "t")
    (shm / "file").touch()
    with pytest.raises(NotADirectoryError):
        open_table(shm / "file" / "t")
    if os.geteuid() != 0:
        shm.chmod(0o500)
        with pytest.raises(PermissionError):
            open_table(shm / "t")
        shm.chmod(0o700)


# --- no room ---


@pytest.fixture
def small(shm: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = shm / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("nothing may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small: Path) -> None:
    make_file(small / "fits")
    with pytest.raises(OSError, match="No space left"):
        open_table(small / "t", capacity=20_000)
    assert [entry.name for entry in small.iterdir()] == ["fits"]
    open_table(small / "t").close()


def test_more_than_there_is(shm: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        open_table(shm / "t", dim=1 << 20, capacity=shutil.disk_usage(shm).free >> 22)
    assert list(shm.iterdir()) == []


def test_the_limit_of_a_files_size(shm: Path, start: Start) -> None:
    def limited(child: Child) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with pytest.raises(OSError, match="File too large"):
            open_table(shm / "t")

    assert start(limited).end() == 0
    assert list(shm.iterdir()) == []


# --- at once, and later ---


@pytest.mark.parametrize("repeat", range(20 if LONG else 3))
def test_several_make_it_at_once(shm: Path, start: Start, repeat: int) -> None:
    def race(child: Child) -> None:
        child.tell()
        child.hear()
        table = open_table(shm / "t")
        mine = np.arange(child.number * 10, child.number * 10 + 10)
        table.put(mine, rows_for(mine))
        child.tell()
        child.hear()
        assert table.find(range(80)).all()

    children = [start(race) for _ in range(8)]
    for _ in range(2):
        for child in children:
            child.hear()
        for child in children:
            child.tell()
    assert [child.end() for child in children] == [0] * 8
    assert [entry.name for entry in shm.iterdir()] == ["t"]


def reboot(path: Path) -> None:
    """Make the file look as if another boot of the machine had opened it last."""
    boot = BOOT.read_bytes()[:36]
    at = path.read_bytes()[:8192].index(boot)
    write_at(path, at, b"z" * 36)


ENDS: dict[str, Callable[[Child, VectorCache], object]] = {
    "closed": lambda child, table: table.close(),
    "killed": lambda child, table: os.kill(os.getpid(), signal.SIGKILL),
    "left open": lambda child, table: os._exit(0),
}


@pytest.mark.parametrize("checksums", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_a_reboot(shm: Path, start: Start, end: str, checksums: bool) -> None:
    """Rows that may not have reached the disk are gone, unless checksums tell which they are."""

    def use(child: Child) -> None:
        table = open_table(shm / "t", checksums=checksums)
        table.put(IDS, rows_for(IDS))
        ENDS[end](child, table)

    start(use).end()
    reboot(shm / "t")
    table = open_table(shm / "t", checksums=checksums)
    stay = checksums or end == "closed"
    assert table.find(IDS).sum() == (100 if stay else 0)
    works(table)
    table.close()
    reboot(shm / "t")
    with open_table(shm / "t", checksums=checksums) as table:
        assert table.find(IDS).sum() == (100 if stay else 0)
    if BOOT.exists():
        assert BOOT.read_bytes()[:36] in (shm / "t").read_bytes()[:8192]


def test_what_a_fork_closes_last_is_closed(shm: Path, start: Start) -> None:
    table = open_table(shm / "t")

    def use(child: Child) -> None:
        table.put(IDS, rows_for(IDS))
        child.tell()
        child.hear()
        table.close()

    child = start(use)
    child.hear()
    table.close()
    child.tell()
    assert child.end() == 0
    reboot(shm / "t")
    check_file(shm / "t")


def test_one_that_was_closed_and_used_again_is_not_closed(shm: Path, start: Start) -> None:
    make_file(shm / "t")

    def use(child: Child) -> None:
        table = open_table(shm / "t")
        table.put([1], rows_for([1]))
        os._exit(0)

    start(use).end()
    reboot(shm / "t")
    assert len(open_table(shm / "t")) == 0
