# Types of _resp.pyx; stubtest compares the two.

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from logging import Logger
from typing import Any

from typing_extensions import disjoint_base

from cachecore._core import Cache
from cachecore._resp_client import Client, Command
from cachecore._resp_dispatch import Dispatcher

O_CLOEXEC: int
O_RDONLY: int
MAY_ALL: int
log: Logger

@disjoint_base
class Engine(Dispatcher):
    clients: dict[int, Client]
    closes: dict[str, int]
    now: int
    accepted: int
    refused: int
    bytes_in: int
    bytes_out: int
    greet: Callable[[Client], object] | None
    on_close: Callable[[Client], object] | None
    on_end: Callable[[Client], object] | None
    on_room: Callable[[Client], object] | None
    max_clients: int
    idle_timeout: float
    command_timeout: float
    output_timeout: float
    max_unread: int
    def __init__(
        self,
        cache: Cache[bytes, Any],
        commands: Mapping[bytes, Command],
        loop: AbstractEventLoop,
        *,
        max_clients: int = 10_000,
        max_args: int = ...,
        max_bulk: int = ...,
        max_command: int = ...,
        max_output: int = ...,
        max_unread: int = ...,
        max_buffered: int = ...,
        idle_timeout: float = 0,
        command_timeout: float = 60,
        output_timeout: float = 60,
        proxy: bool = False,
        point: int = ...,
    ) -> None: ...
    def fileno(self) -> int: ...
    def listen(self, fd: int) -> None: ...
    def unlisten(self, fd: int) -> None: ...
    def adopt(self, fd: int) -> Client: ...
    def attach(self, transport: Any) -> Client: ...
    def drain(self) -> None: ...
    def flush_noted(self) -> None: ...
    def sweep(self) -> None: ...
    def close_idle(self) -> int: ...
    def close(self) -> None: ...
    @property
    def buffered_bytes(self) -> int: ...
