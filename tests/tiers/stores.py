"""What the tests of the memory-mapped tier share: stores, and other processes that use them.

Those processes import this file: it needs nothing but the package.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cachecore.tiers import Item, MmapTier

BOUND = 4 << 20


def closed_store(folder: Path, items: Sequence[Item], bound: int = BOUND) -> Path:
    """A store with items, which nobody has open."""
    tier = MmapTier(folder, max_bytes=bound)
    tier.set_many(items)
    tier.close()
    return folder


def value(key: bytes, turn: int) -> bytes:
    """What may be under a key: it tells the key and the turn all over."""
    word = b"%s=%d;" % (key, turn)
    return word * (1 + turn % 997)


def is_value(key: bytes, data: bytes) -> bool:
    word = data[: data.index(b";") + 1]
    turn = int(word[len(key) + 1 : -1])
    return word.startswith(key + b"=") and data == value(key, turn)


def start(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A process that runs a Python program, and imports what we do."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def says(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Wait until it has said that."""
    assert process.stdout is not None
    assert process.stdout.readline() == line + b"\n"


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill it; it is gone when this returns."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
