# Types of _writes.pyx; stubtest compares the two. What is missing is for Cython only.

from collections.abc import Iterable
from typing import Any

from typing_extensions import disjoint_base

from cachecore._load import Load
from cachecore._tiered import Tiered
from cachecore.tiers.base import Item

@disjoint_base
class TieredWrites(Tiered):
    item: type[Item]
    around: bool
    strict: bool
    writable: tuple[type, ...]
    def held(self, load: Load, keys: Iterable[Any]) -> list[Any]: ...
    def gone(self, load: Load, key: Any) -> None: ...
    def forget_keys(self, keys: Iterable[Any]) -> int: ...
    def note_leavers(self) -> None: ...
    def left(
        self, key: Any, value: Any, reason: str, frequency: int, soft: int, deadline: int
    ) -> None: ...
    def set(
        self, key: Any, value: Any, *, ttl: float | None = None, tags: Iterable[str] = ()
    ) -> None: ...
    def claim_writes(self, load: Load, keys: Iterable[Any]) -> list[Load]: ...
    def claim_write(self, load: Load, keys: Iterable[Any]) -> tuple[list[Any], list[Load]]: ...
