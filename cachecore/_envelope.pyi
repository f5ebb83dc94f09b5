# Types of _envelope.pyx; stubtest compares the two.

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias, final

from cachecore._payload import Codec

_Reason: TypeAlias = Literal[
    "foreign",
    "damaged",
    "other key",
    "other codec",
    "other generation",
    "expired",
    "forged",
    "undecodable",
]
FOREIGN: Final = "foreign"
DAMAGED: Final = "damaged"
OTHER_KEY: Final = "other key"
OTHER_CODEC: Final = "other codec"
OTHER_GENERATION: Final = "other generation"
EXPIRED: Final = "expired"
FORGED: Final = "forged"
UNDECODABLE: Final = "undecodable"
REASONS: Final[tuple[_Reason, ...]]
NEVER: Final[int]

@final
class Sealed:
    value: Any
    written: int
    soft: int
    hard: int
    load: float
    tags: tuple[tuple[int, int], ...]

@final
class Later:
    nbytes: int
    def __call__(self, /, *args: Any, **kwargs: Any) -> bytes: ...

def wire_key(prefix: bytes, key: Any) -> bytes: ...
def wire_keys(prefix: bytes, keys: Iterable[Any]) -> list[bytes]: ...
def seal(
    key: Any,
    value: Any,
    codec: Codec,
    *,
    written: int,
    soft: int,
    hard: int,
    load: float,
    generation: int,
    tags: Iterable[tuple[int, int]] = (),
    namespace: bytes = b"",
) -> bytes: ...
def unseal(
    data: object, key: Any, codec: Codec, now: int, generation: int, namespace: bytes = b""
) -> Sealed | _Reason: ...
def inspect(data: object, codec: Codec, namespace: bytes = b"") -> tuple[Any, Sealed] | None: ...
def peek_written(data: object) -> int | None: ...
