# Types of _resp_dispatch.pyx; stubtest compares the two.

from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Iterable
from logging import Logger
from typing import Any

from typing_extensions import disjoint_base

from cachecore._resp_client import Client, Command, Host, Pending

log: Logger

@disjoint_base
class Dispatcher(Host):
    commands: dict[bytes, Command]
    loop: AbstractEventLoop
    intercept: Callable[[Client, list[bytes]], Any] | None
    server: Any
    guarded: bool
    max_bulk: int
    max_buffered: int
    max_output: int
    @property
    def executed(self) -> int: ...
    @property
    def errors(self) -> dict[str, int]: ...
    @property
    def expiring(self) -> int: ...
    def calls(self) -> dict[bytes, int]: ...
    def latencies(self) -> tuple[list[int], float]: ...
    def may_be_queued(self, client: Client, command: Command, args: list[bytes]) -> None: ...
    def touch(self, keys: Iterable[bytes]) -> None: ...

async def finish(reply: Awaitable[Any], pending: Pending) -> None: ...
