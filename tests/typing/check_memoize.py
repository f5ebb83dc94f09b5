"""What a type checker must conclude about memoize; mypy reads this file, nobody runs it."""

from __future__ import annotations

from collections.abc import Coroutine, Hashable
from typing import Any, assert_type

from cachecore import Cache, memoize


@memoize
def length(text: str, *, factor: int = 1) -> int:
    return len(text) * factor


@memoize(maxsize=1000, max_bytes="1GB", ttl=0.5, typed=True)
async def fetch(key: str) -> bytes:
    return key.encode()


class Model:
    @memoize(100, key=lambda self, text: text)
    def embed(self, text: str) -> list[float]:
        return [len(text)]

    @memoize
    async def aembed(self, text: str) -> list[float]:
        return [len(text)]

    @staticmethod
    @memoize
    def version(name: str) -> int:
        return len(name)


def functions() -> None:
    assert_type(length("a", factor=2), int)
    length(1)  # type: ignore[arg-type]
    length("a", factors=2)  # type: ignore[call-arg]
    assert_type(length.cache, Cache[Hashable, int])
    assert_type(length.cache_info().hits, int)
    assert_type(length.cache_key("a"), Hashable)
    assert_type(length.cache_invalidate("a", factor=2), bool)
    length.cache_invalidate(1)  # type: ignore[arg-type]
    assert_type(memoize(len, ttl=3)("abc"), int)
    memoize("4GB")  # type: ignore[call-overload]
    memoize(10, "4GB")  # type: ignore[call-overload]


async def coroutine_functions() -> None:
    call = fetch("a")
    assert_type(await assert_type(call, Coroutine[Any, Any, bytes]), bytes)
    assert_type(await fetch("a"), bytes)
    assert_type(fetch.cache, Cache[Hashable, bytes])
    await fetch(1)  # type: ignore[arg-type]


async def methods(model: Model) -> None:
    assert_type(model.embed("a"), list[float])
    assert_type(await model.aembed("a"), list[float])
    model.embed(1)  # type: ignore[arg-type]
    assert_type(model.embed.cache, Cache[Hashable, list[float]])
    assert_type(Model.embed(model, "a"), list[float])
    assert_type(Model.embed.cache_invalidate(model, "a"), bool)
    assert_type(Model.version("a"), int)
