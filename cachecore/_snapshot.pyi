# Types of _snapshot.pyx; stubtest compares the two.

from array import array
from collections.abc import Callable
from typing import Any

from cachecore._core import Cache

NEVER: int
FREQUENCIES: int

def pack(
    cache: Cache[bytes, Any], cursor: int, most_bytes: int, unix_ms: int
) -> tuple[int, int, list[bytes | bytearray]]: ...
def weigh(part: bytes | bytearray | memoryview, bytes_of: array[float]) -> int: ...
def unpack(
    cache: Cache[bytes, Any],
    part: bytes | bytearray | memoryview,
    unix_ms: int,
    least: int,
    room: float,
    hash_of: Callable[[list[tuple[bytes, bytes]]], Any],
) -> tuple[int, int, float, set[int]]: ...
