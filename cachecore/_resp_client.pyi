# Types of _resp_client.pyx; stubtest compares the two.

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from typing_extensions import disjoint_base

from cachecore._core import Cache
from cachecore._resp import Engine

MAY_CONNECT: Final[int]
MAY_READ: Final[int]
MAY_WRITE: Final[int]
MAY_ADMINISTER: Final[int]
MAY_ALL: Final[int]

@disjoint_base
class Host:
    cache: Cache[bytes, Any]

@disjoint_base
class Command:
    name: bytes
    arity: int
    needs: int
    flags: frozenset[str]
    keys: tuple[int, int, int]
    handler: Callable[[Client, list[bytes]], Any] | None
    immediate: bool
    check: Callable[[Client, list[bytes]], Any] | None
    calls: int
    failed: int
    rejected: int
    def __init__(
        self,
        name: bytes,
        arity: int,
        handler: Callable[[Client, list[bytes]], Any] | None = None,
        *,
        flags: Iterable[str] = (),
        keys: tuple[int, int, int] = (0, 0, 0),
        open: bool = False,
        immediate: bool = False,
    ) -> None: ...
    def keys_of(self, args: list[bytes]) -> list[bytes]: ...

@disjoint_base
class Pending:
    client: Client
    def resolve(self, reply: Any) -> None: ...
    def resolve_raw(self, reply: bytes) -> None: ...

@disjoint_base
class Client:
    engine: Engine
    transport: Any
    id: int
    closed: str | None
    prefix: bytes
    last_command: bytes
    created: int
    received_at: int
    part_since: int
    sent_at: int
    bytes_in: int
    bytes_out: int
    user: Any
    name: bytes
    aborted: bool
    touched: bool
    patient: bool
    unchanged: bool
    starved: bool
    private: bool
    watching: set[bytes] | None
    state: dict[str, Any]
    database: int
    protocol: int
    may: int
    queue: list[bytes] | None
    @property
    def cache(self) -> Cache[bytes, Any]: ...
    @property
    def fileno(self) -> int: ...
    @property
    def unsent_bytes(self) -> int: ...
    @property
    def unread_bytes(self) -> int: ...
    @property
    def waiting_replies(self) -> bool: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    def raw(self) -> bytes: ...
    def defer(self) -> Pending: ...
    def write(self, data: bytes) -> None: ...
    def push(self, value: Any) -> None: ...
    def begin_array(self, count: int) -> None: ...
    def put(self, value: Any) -> None: ...
    def execute(self, raw: bytes) -> None: ...
    def watch(self, keys: Iterable[bytes]) -> None: ...
    def unwatch(self) -> None: ...
    def close(self, reason: str = "closed", *, now: bool = False) -> None: ...
    def get_buffer(self, hint: int) -> memoryview: ...
    def buffer_updated(self, size: int) -> None: ...
    def eof_received(self) -> Literal[True]: ...
    def connection_lost(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

def counted_bytes(client: Client) -> int: ...
