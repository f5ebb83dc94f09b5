"""Bytes of a file flipped at random: a miss or a clear error; with checksums never a wrong row.

Each round runs in a process of its own, which must neither die nor hang.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import VectorCache
from support import LONG
from vectors.helpers import DIM, Child, Start, rows_for, whole

IDS = np.arange(60)
HEADER = 4096
SHAPES: dict[str, dict[str, Any]] = {
    "checked": {"checksums": True},
    "unchecked": {},
    "expiring": {"checksums": True, "ttl": 1000},
}


def open_table(path: Path, settings: dict[str, Any]) -> VectorCache:
    return VectorCache(DIM, capacity=50, path=path, **settings)


def flip(path: Path, rng: random.Random, used: list[int], count: int) -> None:
    """Change bytes, mostly such as are not zero: those are in use."""
    with path.open("r+b") as file:
        for _ in range(count):
            at = rng.choice(used) if rng.random() < 0.8 else rng.randrange(path.stat().st_size)
            file.seek(at)
            old = file.read(1)[0]
            file.seek(at)
            new = rng.choice([old ^ 1 << rng.randrange(8), 0, 0xFF, rng.randrange(256)])
            file.write(bytes([new]))


def check(table: VectorCache, checked: bool) -> None:
    rows, found = table.gather(IDS)
    assert not rows[~found].any()
    if checked:
        assert whole(rows[found], IDS[found]).all()
    for id in (0, 59):
        view = table.view(id)
        assert view is None or not checked or whole(view[None], [id]).all()


def use(table: VectorCache, checked: bool) -> None:
    """Everything, and nothing but misses and rows that were put."""
    check(table, checked)
    table.find(IDS)
    assert len(table) >= 0
    table.stats()
    table.put(IDS[:30], rows_for(IDS[:30], 5))
    check(table, checked)
    table.delete(IDS[10:20])
    check(table, checked)
    for serial in range(6, 9):
        table.put(IDS, rows_for(IDS, serial))
        rows, found = table.gather(IDS)  # what was put since is right in any case
        assert found.any()
        np.testing.assert_array_equal(rows[found], rows_for(IDS[found], serial))
    table.clear()
    assert not table.gather(IDS)[1].any()
    table.put(IDS[:40], rows_for(IDS[:40], 9))
    np.testing.assert_array_equal(table.gather(IDS[:40])[0], rows_for(IDS[:40], 9))


@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_flipped_in_a_closed_file(shm: Path, start: Start, shape: str) -> None:
    settings, path = SHAPES[shape], shm / "t"
    with open_table(path, settings) as table:
        for serial in range(3):
            table.put(IDS, rows_for(IDS, serial))
    sound = path.read_bytes()
    used = [at for at, byte in enumerate(sound) if byte]
    refused = 0

    def rounds(first: int, count: int) -> Any:
        def run(child: Child) -> None:
            for number in range(first, first + count):
                print("round", number, flush=True)
                path.write_bytes(sound)
                rng = random.Random(number)
                flip(path, rng, used, rng.choice([1, 1, 2, 10, 100]))
                try:
                    table = open_table(path, settings)
                except (ValueError, OSError):
                    child.tell(b"r")
                    continue
                use(table, "checksums" in settings)
                table.close()
                child.tell(b"u")

        return run

    size = 4000 if LONG else 100
    for first in range(0, 3 * size, size):
        child = start(rounds(first, size))
        refused += sum(child.hear() == b"r" for _ in range(size))
        assert child.end() == 0
    assert 0 < refused < 2 * size


def test_all_of_it_random(shm: Path, start: Start) -> None:
    """The header and the table's own words are right, and nothing else is."""

    def run(child: Child) -> None:
        path = shm / "t"
        open_table(path, SHAPES["checked"]).close()
        sound = path.read_bytes()
        for seed in range(300 if LONG else 30):
            noise = np.random.default_rng(seed).integers(0, 256, len(sound), np.uint8).tobytes()
            path.write_bytes(sound[: HEADER + 64] + noise[HEADER + 64 :])
            table = open_table(path, SHAPES["checked"])
            use(table, True)
            table.close()

    assert start(run).end() == 0


def test_rows_flipped_while_the_file_is_open(shm: Path, start: Start) -> None:
    """Readers find misses, count them, and go on."""

    def run(child: Child) -> None:
        path, rng = shm / "t", random.Random(1)
        for _ in range(400 if LONG else 40):
            table = open_table(path, SHAPES["checked"])
            table.put(IDS, rows_for(IDS))
            before = path.read_bytes()
            used = [at for at, byte in enumerate(before) if byte and at >= HEADER + 1024]
            for _ in range(20):
                flip(path, rng, used, 1)
                check(table, True)
            table.find(IDS)
            table.stats()
            assert len(table) >= 0
            table.close()
            path.unlink()

    assert start(run).end() == 0


def test_damage_is_counted_and_healed(shm: Path) -> None:
    path = shm / "t"
    table = open_table(path, SHAPES["checked"])
    ids = IDS[:40]
    table.put(ids, rows_for(ids, 3))
    content = path.read_bytes()
    at = content.index(rows_for([7], 3).tobytes())
    with path.open("r+b") as file:
        file.seek(at + 20)
        file.write(b"\xff")
    rows, found = table.gather(ids)
    assert found.sum() == 39
    assert not rows[7].any()
    assert table.view(7) is None
    stats = table.stats()
    assert (stats.damaged, stats.misses) == (2, 2)
    table.put([7], rows_for([7], 4))
    np.testing.assert_array_equal(table.gather([7])[0], rows_for([7], 4))
    assert table.stats().damaged == 2
