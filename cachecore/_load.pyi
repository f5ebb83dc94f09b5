# Types of _load.pyx; stubtest compares the two. What is missing is for Cython only.

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from typing import Any, Final, final

from cachecore._backlog import Backlog
from cachecore.tiers.base import Tier
from cachecore.tiers.ledger import Ledger

GET: Final = 0
SET: Final = 1
DELETE: Final = 2
ADD: Final = 3
DEMOTE: Final = 4
LOAD: Final = 5
SLEEP: Final = 6
RUN: Final = 7
WAIT: Final = 8

@final
class Load:
    values: dict[Any, Any]
    errors: dict[Any, Exception] | None
    failure: BaseException | None
    refresh: dict[Any, int] | None
    known: dict[Any, int] | None
    fallback: dict[Any, Any] | None
    doubtful: Any
    writing: bool
    write: bool
    ended: bool
    waiters: list[Callable[[], object]] | None
    loop: AbstractEventLoop | None
    keys: list[Any]
    parent: Load | None
    waits: list[Load] | None
    sealed: dict[Any, Any]
    voided: set[Any] | None
    thread: int
    @property
    def era(self) -> int: ...
    @property
    def lost(self) -> bool: ...
    def await_end(self, wake: Callable[[], object]) -> bool: ...
    def remember(self, key: Any, value: Any) -> None: ...
    def end_with(self, error: BaseException, keys: Iterable[Any]) -> None: ...
    def error(self) -> Exception | None: ...

@final
class Tagged:
    @property
    def value(self) -> Any: ...
    @property
    def tags(self) -> tuple[int, ...]: ...
    @property
    def soft(self) -> int: ...

@final
class Failed:
    def __init__(self, error: Exception) -> None: ...
    @property
    def error(self) -> Exception: ...

@final
class Latencies:
    @property
    def seconds(self) -> float: ...
    def add(self, seconds: float) -> None: ...
    def histogram(self) -> list[int]: ...

@final
class Level:
    @property
    def tier(self) -> Tier: ...
    ledger: Ledger | None
    exclusive: bool
    backlog: Backlog | None
    generation: int
    generation_read: int
    generation_key: bytes
    tags: dict[int, tuple[int, int]]
    hits: int
    misses: int
    errors: int
    timeouts: int
    writes: int
    deletes: int
    bytes_read: int
    bytes_written: int
    refused: dict[str, int]
    def __init__(self, tier: Tier, prefix: bytes, exclusive: bool) -> None: ...
    def failed(self, error: BaseException) -> None: ...
    @property
    def latencies(self) -> Latencies: ...
    def settle(self) -> bool: ...

def claim(
    flights: dict[Any, Load], load: Load, keys: Iterable[Any]
) -> tuple[list[Any], list[tuple[Any, Load]]]: ...
def land(flights: dict[Any, Load], load: Load, keys: Iterable[Any]) -> None: ...
