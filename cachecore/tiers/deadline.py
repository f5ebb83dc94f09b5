"""A deadline for tiers that keep none themselves: no call takes longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from cachecore.errors import TierTimeoutError
from cachecore.settings import deadline, positive_int
from cachecore.tiers.base import Item, Tier, Wrapper
from cachecore.tiers.workers import Workers

SCANNED = 1000  # keys of a scan that are found within one deadline


class Deadline(Wrapper):
    """A tier that answers within so many seconds, or raises `TierTimeoutError`.

    Args:
        tier: What to ask.
        seconds: The time for a call; of `scan`, for every 1,000 keys.
        threads: How many calls may hang at a time. While so many do, calls fail at once.

    The wrapped tier is asked in threads, which costs some 30 us a call, and what does not end in
    time goes on there, unheard. Only methods that are coroutines of the wrapped tier itself run on
    the event loop and are cancelled. `stats()` adds `late`, the calls that took too long or were
    not begun, and `stuck`, how many threads hang just now.
    """

    def __init__(self, tier: Tier, seconds: float, *, threads: int = 8) -> None:
        super().__init__(tier)
        self._seconds = deadline(seconds, "seconds")
        self._workers = Workers(positive_int(threads, "threads"), f"{self.name}: deadline")
        self._late = 0
        self.quick = False
        self._asked = tier
        while isinstance(self._asked, Wrapper):
            self._asked = self._asked.tier

    def _within(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._workers.run(self._seconds, call, *args)
        except TierTimeoutError:
            self._late += 1
            raise

    async def _awithin(self, name: str, argument: Any) -> Any:
        workers, future = self._workers, None
        try:
            # The base class would run it in a thread of the event loop's, which then could not end.
            if getattr(type(self._asked), f"a{name}") is getattr(Tier, f"a{name}"):
                future = workers.submit(getattr(self.tier, name), argument)
                answer = asyncio.wrap_future(future)
            else:
                answer = getattr(self.tier, f"a{name}")(argument)
            async with asyncio.timeout(self._seconds) as limit:
                return await answer
        except TierTimeoutError:
            self._late += 1
            raise
        except TimeoutError:
            if not limit.expired():
                raise
            self._late += 1
            message = f"{self.name}: no answer in {self._seconds} seconds"
            raise TierTimeoutError(message) from None
        finally:
            if future is not None and not future.done():
                workers.give_up(future)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        answer: list[bytes | None] = self._within(self.tier.get_many, keys)
        return answer

    def set_many(self, items: Sequence[Item]) -> None:
        self._within(self.tier.set_many, items)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        return int(self._within(self.tier.delete_many, keys))

    def add(self, item: Item) -> bool:
        return bool(self._within(self.tier.add, item))

    def demote_many(self, items: Sequence[Item], frequencies: Sequence[int]) -> None:
        self._within(self.tier.demote_many, items, frequencies)

    def scan(self, prefix: bytes = b"") -> Iterator[bytes]:
        keys = self._within(self.tier.scan, prefix)
        while some := self._within(list, islice(keys, SCANNED)):
            yield from some

    def close(self) -> None:
        Workers(1, self.name).run(self._seconds, self.tier.close)  # also when all others hang

    def stats(self) -> dict[str, int]:
        return {**self.tier.stats(), "late": self._late, "stuck": self._workers.stuck}

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        answer: list[bytes | None] = await self._awithin("get_many", keys)
        return answer

    async def aset_many(self, items: Sequence[Item]) -> None:
        await self._awithin("set_many", items)

    async def adelete_many(self, keys: Sequence[bytes]) -> int:
        return int(await self._awithin("delete_many", keys))

    async def aadd(self, item: Item) -> bool:
        return bool(await self._awithin("add", item))

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)
