"""The contract of a tier: batches of bytes in and out, with lifetimes, sync and async.

A tier keeps bytes under keys of bytes for as long as it likes, at most for their lifetime. What
the bytes mean is not its business (codecs.py), nor is what to do when it fails (TieredCache).
`cachecore.tiers.testing.TierContract` is the suite that every tier must pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from cachecore.errors import TierError

T = TypeVar("T")


class Item(NamedTuple):
    """What is set under a key."""

    key: bytes
    data: bytes
    lifetime: int | None = None
    """Milliseconds, at least 1; None: for ever."""


class Tier:
    """A place that keeps bytes. Subclasses supply the five methods that raise here.

    Every method may be called from any thread. Each raises `TierError`, never an exception of the
    engine's, when it could not do what it was asked, within the tier's deadline if it has one;
    `TierTimeoutError` when time ran out. Keys are 1 byte to any number of them, any bytes: a tier
    whose engine is stricter keeps longer or stranger ones under a digest. An empty batch does
    nothing. Of one key twice in a batch of items, the last wins.

    The asynchronous twins run the others in a thread; or at once, where `quick` says that they
    take microseconds. Tiers with an asynchronous client override them.
    """

    name: str = "tier"
    """For people and metrics."""

    shared: bool = True
    """Whether others, who may not be trusted, can write to it."""

    quick: bool = False
    """Whether calls take microseconds, so that an event loop can wait for them."""

    lazy: bool = False
    """Whether `Item.data` may be a function instead that returns the bytes when they are needed.

    It may be called more than once and from any thread. Its attribute `nbytes` says about how many
    bytes it will return, for bounds.
    """

    # --- what a tier must do

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is kept under each key, aligned with `keys`; None: nothing, or it has expired.

        A `TierError` may carry what was read before or beside the failure as its `values`.
        """
        raise NotImplementedError

    def set_many(self, items: Sequence[Item]) -> None:
        """Keep the items, in place of what was there. It may forget them at any time.

        After an error some may be kept and others not.
        """
        raise NotImplementedError

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """Forget what is kept under the keys; how many there were, as far as the engine tells."""
        raise NotImplementedError

    def add(self, item: Item) -> bool:
        """Keep an item if nothing is kept under its key; whether it is. Atomic among all users."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of connections and files.

        Calls after it raise `TierError`, but another close, which does nothing.
        """
        raise NotImplementedError

    # --- what a tier may do better

    def scan(self, prefix: bytes = b"") -> Iterator[bytes]:
        """The keys that begin with `prefix`, but for those kept under a digest.

        All that stay during the scan, maybe some twice.
        """
        raise TierError(f"{self.name} cannot list its keys")

    def demote_many(self, items: Sequence[Item], frequencies: Sequence[int]) -> None:
        """Keep what left a faster tier, where it was asked for that often.

        Tiers with a policy of their own take the frequencies over, and need not write what they
        hold already.
        """
        self.set_many(items)

    def stats(self) -> dict[str, int]:
        """What the tier counted itself, by name."""
        return {}

    # --- the asynchronous twins

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return await self._run(self.get_many, keys)

    async def aset_many(self, items: Sequence[Item]) -> None:
        await self._run(self.set_many, items)

    async def adelete_many(self, keys: Sequence[bytes]) -> int:
        return await self._run(self.delete_many, keys)

    async def aadd(self, item: Item) -> bool:
        return await self._run(self.add, item)

    async def aclose(self) -> None:
        """The same as `close`, from a coroutine."""
        await self._run(self.close)

    async def _run(self, method: Callable[..., T], *args: Any) -> T:
        if self.quick:
            return method(*args)
        from asyncio import to_thread

        return await to_thread(method, *args)


class Wrapper(Tier):
    """A tier around a tier, to which it leaves whatever it does not override."""

    def __init__(self, tier: Tier) -> None:
        if not isinstance(tier, Tier):
            raise TypeError(f"tier must be a Tier, not {type(tier).__name__}")
        self.tier = tier
        self.name, self.shared, self.quick = tier.name, tier.shared, tier.quick
        self.lazy = tier.lazy

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.tier.get_many(keys)

    def set_many(self, items: Sequence[Item]) -> None:
        self.tier.set_many(items)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        return self.tier.delete_many(keys)

    def add(self, item: Item) -> bool:
        return self.tier.add(item)

    def close(self) -> None:
        self.tier.close()

    def scan(self, prefix: bytes = b"") -> Iterator[bytes]:
        return self.tier.scan(prefix)

    def demote_many(self, items: Sequence[Item], frequencies: Sequence[int]) -> None:
        self.tier.demote_many(items, frequencies)

    def stats(self) -> dict[str, int]:
        return self.tier.stats()

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return await self.tier.aget_many(keys)

    async def aset_many(self, items: Sequence[Item]) -> None:
        await self.tier.aset_many(items)

    async def adelete_many(self, keys: Sequence[bytes]) -> int:
        return await self.tier.adelete_many(keys)

    async def aadd(self, item: Item) -> bool:
        return await self.tier.aadd(item)

    async def aclose(self) -> None:
        await self.tier.aclose()
