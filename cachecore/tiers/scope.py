"""Request scope: what a block of code has looked up stays what it was until its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cachecore.tiers.generations import Calls
from cachecore.tiers.warming import Warming

# By the id of a cache: what the block that this code is in has looked up.
_blocks: ContextVar[dict[int, dict[Any, Any]] | None] = ContextVar(
    "cachecore_request", default=None
)


class Scoped(Warming):
    """The part of a cache with tiers that remembers look-ups for the length of a request."""

    __slots__ = ()

    @contextmanager
    def request(self) -> Iterator[None]:
        """What is looked up in the block, in this thread or task, is remembered for the block.

        A key looked up twice has the same value both times, whatever happens to it meanwhile. A
        write or an invalidation by the block itself is seen by it. A
        block within the block, and tasks begun in it, share what it remembers. Hits in it are not
        plain C.
        """
        blocks = _blocks.get() or {}
        if id(self) in blocks:
            yield
            return
        token = _blocks.set({**blocks, id(self): {}})
        self.slow += 1
        try:
            yield
        finally:
            self.slow -= 1
            _blocks.reset(token)

    def scope(self) -> dict[Any, Any] | None:
        """What the block that we are in remembers; None: we are in none."""
        blocks = _blocks.get()
        return None if blocks is None else blocks.get(id(self))

    def seen(self, keys: Iterable[Any] | None, steps: Calls) -> Calls:
        """The steps of a write; then the block looks its keys up anew, or all if they are None."""
        scope = self.scope()
        return steps if scope is None else _forgetting(scope, keys, steps)

    def missed_many(self, keys: Sequence[Any]) -> dict[Any, Any]:
        scope = self.scope()
        if scope is None:
            return super().missed_many(keys)
        rest = [key for key in dict.fromkeys(keys) if key not in scope]
        if rest:
            scope.update(super().missed_many(rest))
        return {key: scope[key] for key in keys}


def _forgetting(scope: dict[Any, Any], keys: Iterable[Any] | None, steps: Calls) -> Calls:
    try:
        return (yield from steps)
    finally:
        for key in list(scope) if keys is None else keys:
            scope.pop(key, None)
