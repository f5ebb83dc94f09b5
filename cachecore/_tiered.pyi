# Types of _tiered.pyx; stubtest compares the two. What is missing is for Cython only.

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final, TypeVar

from typing_extensions import disjoint_base

from cachecore._core import Cache
from cachecore._load import Latencies, Level, Load
from cachecore.codecs import Codec
from cachecore.tiers.loading import Loader

_T = TypeVar("_T")

NEVER: Final[int]
GENERATION_MS: Final[int]

@disjoint_base
class Tiered:
    l0: Cache[Any, Any]
    slow: int
    closed: bool
    distrusted: bool
    awaits: bool
    raw: bool
    flights: dict[Any, Load]
    levels: list[Level]
    absent: Cache[Any, bool] | None
    cooling: Cache[Any, bool]
    loader: Loader | None
    leaving: dict[Any, tuple[Any, int, int, int]]
    codec: Codec
    prefix: bytes
    timer: Callable[[], float] | None
    tag_epochs: dict[int, int]
    epoch: int
    lifetime: float
    jitter: float
    early: float
    revalidate_ms: int
    error_ms: int
    loads: int
    load_errors: int
    stale_revalidated: int
    stale_errors: int
    early_refreshes: int
    negative_hits: int
    overtaken: int
    refreshes_dropped: int
    demotions: int
    demotions_lost: int
    handing_down: bool
    replayed: int
    ledgers_overflowed: int
    invalidations: int
    distrusts: int
    lost: int
    @property
    def load_latencies(self) -> Latencies: ...
    def now_ms(self) -> int: ...
    def get(self, key: Any, default: Any = None) -> Any: ...
    def get_many(self, keys: Iterable[Any], default: Any = None) -> list[Any]: ...
    def missed_many(self, keys: Sequence[Any]) -> dict[Any, Any]: ...
    def here(self, key: Any) -> Any: ...
    def check_keys(self, keys: Iterable[Any]) -> None: ...
    def check_open(self) -> None: ...
    def check_caller(self) -> None: ...
    def look_many(self, keys: Iterable[Any], load: Load) -> tuple[dict[Any, Any], list[Any]]: ...
    def claim(
        self, load: Load, keys: Iterable[Any]
    ) -> tuple[list[Any], list[tuple[Any, Load]]]: ...
    def land(self, load: Load, keys: Iterable[Any]) -> None: ...
    def overtake(self, keys: Iterable[Any]) -> None: ...
    def fetch(
        self, keys: list[Any], load: Load
    ) -> Generator[tuple[int, Any, Any], Any, dict[Any, Any]]: ...
    def steps(self, load: Load, keys: list[Any]) -> Generator[tuple[int, Any, Any], Any]: ...
    def accept_late(self, load: Load, key: Any, data: bytes, now: int, level: Level) -> bool: ...
    def kept(
        self,
        load: Load,
        key: Any,
        value: Any,
        now: int,
        soft: int,
        hard: int,
        seconds: float,
        tags: tuple[tuple[int, int], ...] = ...,
    ) -> None: ...
    def lifetimes(self, now: int, ttl: float | None) -> tuple[int, int]: ...

def own_get(kind: type[_T]) -> type[_T]: ...
def run_sync(self: Tiered, steps: Generator[tuple[int, Any, Any], Any, Any]) -> Any: ...
def run_load(self: Tiered, load: Load, keys: list[Any]) -> None: ...
