"""Write-behind: what is set or deleted waits in memory, and a thread does it on the tier."""

from __future__ import annotations

import time
from asyncio import to_thread
from collections.abc import Sequence
from typing import Any

from cachecore._backlog import Backlog, Operation
from cachecore.errors import TierError, TierTimeoutError
from cachecore.settings import deadline, positive_int, size_in_bytes
from cachecore.tiers.base import Item, Tier, Wrapper
from cachecore.tiers.breaker import guarded
from cachecore.tiers.parts import aget_rest, get_rest
from cachecore.tiers.writer import Writer, data_of

POLICIES = ("drop_oldest", "drop_newest", "block")


class WriteBehind(Wrapper):
    """A tier whose writes and deletions return at once and are done by a thread, in batches.

    Args:
        tier: What is written to; behind a `Breaker`, which it is given if it has none and may hang.
        max_items: How many operations may wait.
        max_bytes: How many bytes their keys and data may have together, as an int or "64MB".
        delay: Seconds that the first of a batch waits for others.
        batch: How many operations the tier is given at a time.
        overflow: What happens when there is no room. "drop_oldest": what has waited longest is
            dropped; nobody hears of it but `stats()`. "drop_newest": what comes is not taken, which
            is a `TierError`. "block": the call waits for room, then it is a `TierTimeoutError`.
        block_timeout: Seconds that such a call waits at most.
        close_timeout: Seconds that `close` and the end of the interpreter wait for the tier.
        name: In place of the tier's.

    Of several operations on a key the last one is done. Reads see what waits as if it had been
    done, and so does `add`; it goes to the tier itself, after a deletion of its key that waited. So
    does `demote_many`. What fails is tried again, ever less often, while there is room. An item
    whose lifetime ends meanwhile is deleted. `delete_many` counts the items that waited: what the
    tier has is not known yet.

    `Item.data` may be a function that returns the bytes, with an attribute `nbytes`, about how many
    they will be. It is called by the thread, and by reads meanwhile. If it raises, the item is lost
    and deleted, and `sys.unraisablehook` hears of it.

    `close` tries to have everything done; what is not is lost, which is a `RuntimeWarning`. So does
    the end of the interpreter. In the child of a fork nothing waits: its parent does it.

    `stats()` adds `waiting` operations and their `waiting_bytes`, those `written`, batches that
    `failed`, operations `lost` and their `lost_bytes`. Thread safe; a call of a few items takes
    less than a microsecond.
    """

    def __init__(
        self,
        tier: Tier,
        *,
        max_items: int = 10_000,
        max_bytes: int | str = "64MB",
        delay: float = 0.05,
        batch: int = 500,
        overflow: str = "drop_oldest",
        block_timeout: float = 1.0,
        close_timeout: float = 5.0,
        name: str | None = None,
    ) -> None:
        super().__init__(guarded(tier) if isinstance(tier, Tier) else tier)
        if overflow not in POLICIES:
            raise ValueError(f"overflow must be one of {', '.join(POLICIES)}, not {overflow!r}")
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"name must be text, not {name!r}")
        self.name, self.lazy = name or tier.name, True
        self._max_bytes = size_in_bytes(max_bytes, "max_bytes")
        items = positive_int(max_items, "max_items")
        self.backlog = Backlog(items, self._max_bytes, overflow == "drop_oldest")
        self._blocks = overflow == "block"
        self._block_timeout = deadline(block_timeout, "block_timeout")
        self._writer = Writer(
            self.tier,
            self.backlog,
            self.name,
            delay=deadline(delay, "delay"),
            batch=positive_int(batch, "batch"),
            close_timeout=deadline(close_timeout, "close_timeout"),
        )

    # --- what waits

    def set_many(self, items: Sequence[Item]) -> None:
        taken = self.backlog.put(items)
        if taken >= 0:
            self._attend(items, taken)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        deletions, known = self._deletions(keys)
        taken = self.backlog.put(deletions)
        if taken >= 0:
            self._attend(deletions, taken)
        return known

    async def aset_many(self, items: Sequence[Item]) -> None:
        await self._aput(items)

    async def adelete_many(self, keys: Sequence[bytes]) -> int:
        deletions, known = self._deletions(keys)
        await self._aput(deletions)
        return known

    async def _aput(self, items: Sequence[Any]) -> None:
        taken = self.backlog.put(items)
        if self._blocks and 0 <= taken < len(items):
            await to_thread(self._attend, items, taken)
        elif taken >= 0:
            self._attend(items, taken)

    def _deletions(self, keys: Sequence[bytes]) -> tuple[list[tuple[bytes, None, None]], int]:
        """Deletions of the keys, and how many of these have an item that waits."""
        waiting = self.backlog.look(keys) or ()
        known = {key for key, one in zip(keys, waiting, strict=False) if one and one.is_item}
        return [(key, None, None) for key in keys], len(known)

    def _attend(self, items: Sequence[Any], taken: int) -> None:
        """See to it that somebody works, and that there is room for the items not taken yet."""
        backlog, writer = self.backlog, self._writer
        if writer.closed:
            raise TierError(f"{self.name} is closed")
        if backlog.idle:
            writer.start()
        lost, end = 0, time.monotonic() + self._block_timeout
        while 0 <= taken < len(items):
            key, data, _ = items[taken]
            size = len(key) + _size_of(data)
            left = end - time.monotonic()
            if self._blocks and size <= self._max_bytes and left > 0 and not writer.closed:
                with writer.room:
                    before, taken = taken, backlog.put(items, taken)
                    if taken == before:
                        writer.room.wait(left)
            else:
                lost += 1
                backlog.lost += 1
                backlog.lost_bytes += size
                taken = backlog.put(items, taken + 1)
            if backlog.idle:
                writer.start()
        if lost:
            kind = TierTimeoutError if self._blocks else TierError
            raise kind(f"{self.name}: no room for {lost} of {len(items)} operations")

    # --- reads, and what goes to the tier itself

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        waiting = self.backlog.look(keys)
        if waiting is None:
            return self.tier.get_many(keys)
        values, places = self._read(waiting)
        return get_rest(self.tier, keys, values, places)

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        waiting = self.backlog.look(keys)
        if waiting is None:
            return await self.tier.aget_many(keys)
        values, places = self._read(waiting)
        return await aget_rest(self.tier, keys, values, places)

    def _read(self, waiting: Sequence[Operation | None]) -> tuple[list[bytes | None], list[int]]:
        """The values of operations, and the places where there is none."""
        values: list[bytes | None] = [None] * len(waiting)
        for at, operation in enumerate(waiting):
            if operation is not None:
                values[at] = data_of(operation)
        return values, [at for at, operation in enumerate(waiting) if operation is None]

    def add(self, item: Item) -> bool:
        if self.backlog.look([item[0]]) is None:
            return self.tier.add(item)
        self._writer.here()
        with self._writer.writing:  # what was being done has been done
            for operation in self.backlog.look([item[0]]) or ():
                if operation is not None:
                    if operation.is_item:
                        return False
                    self.tier.delete_many([item[0]])
                    self.backlog.done([(item[0], operation)])
            return self.tier.add(item)

    async def aadd(self, item: Item) -> bool:
        if self.backlog.look([item[0]]) is None:
            return await self.tier.aadd(item)
        return await to_thread(self.add, item)

    def demote_many(self, items: Sequence[Item], frequencies: Sequence[int]) -> None:
        self._writer.here()
        with self._writer.writing:
            keys = [item[0] for item in items]
            waiting = self.backlog.look(keys) or ()
            self.tier.demote_many(items, frequencies)
            older = zip(keys, waiting, strict=False)
            self.backlog.done([(key, one) for key, one in older if one is not None])

    def stats(self) -> dict[str, int]:
        backlog = self.backlog
        return {
            **self.tier.stats(),
            "waiting": len(backlog),
            "waiting_bytes": backlog.size,
            "written": self._writer.written,
            "failed": self._writer.failed,
            "lost": backlog.lost,
            "lost_bytes": backlog.lost_bytes,
        }

    def flush(self, timeout: float | None = None) -> None:
        """Do now, in this thread, what waits now.

        `TierError` when the tier fails, `TierTimeoutError` when `timeout` seconds are over; the
        rest goes on waiting then. A call of the tier's is not cut short.
        """
        self._writer.flush(None if timeout is None else deadline(timeout, "timeout"))

    def close(self) -> None:
        try:
            self._writer.finish()
        finally:
            self.tier.close()

    async def aclose(self) -> None:
        try:
            await to_thread(self._writer.finish)
        finally:
            await self.tier.aclose()


def _size_of(data: Any) -> int:
    if data is None:
        return 0
    return len(data) if isinstance(data, bytes) else int(data.nbytes)
