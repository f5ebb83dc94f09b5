"""The loader of a cache: the function or coroutine function that knows every value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cachecore._load import Failed, Load
from cachecore.sentinel import MISSING
from cachecore.settings import awaits
from cachecore.tiers.waiting import inside


def aligned(values: Any, keys: Sequence[Any]) -> list[Any]:
    """What `loader_many` returned, as a list aligned with the keys; MISSING where it has none."""
    if isinstance(values, Mapping):
        return [values.get(key, MISSING) for key in keys]
    kind = type(values)
    if issubclass(kind, (str, bytes)) or not (
        hasattr(kind, "__len__") and hasattr(kind, "__getitem__")
    ):
        raise TypeError(
            f"loader_many must return a list of values or a mapping by key, not {kind.__name__}"
        )
    if len(values) != len(keys):
        raise ValueError(f"loader_many returned {len(values)} values for {len(keys)} keys")
    return list(values)


class Loader:
    """One of `loader` and `loader_many`, called with many keys."""

    def __init__(
        self,
        one: Callable[[Any], Any] | None,
        many: Callable[[list[Any]], Any] | None,
        timeout: float | None,
    ) -> None:
        for name, function in (("loader", one), ("loader_many", many)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable, not {type(function).__name__}")
        if one is not None and many is not None:
            raise ValueError("loader and loader_many do not go together: one loads the values")
        self._one, self._many, self._timeout = one, many, timeout
        function = one if many is None else many
        self.awaits = awaits(function)

    def run(self, load: Load, keys: list[Any]) -> list[Any]:
        """The values of keys, MISSING or Failed in place of those that there are not.

        An exception of `loader_many` is raised; of `loader`, it stands in the key's place.
        """
        if self._timeout is None:
            return self._call(load, keys)
        from concurrent.futures import Future
        from contextvars import copy_context
        from threading import Thread

        outcome: Future[list[Any]] = Future()

        def compute() -> None:
            try:
                outcome.set_result(self._call(load, keys))
            except BaseException as error:
                outcome.set_exception(error)

        context = copy_context()
        Thread(target=context.run, args=(compute,), name="cachecore-load", daemon=True).start()
        try:
            return outcome.result(self._timeout)
        except TimeoutError:
            if outcome.done():
                raise
            raise self._late(keys) from None

    def _late(self, keys: list[Any]) -> TimeoutError:
        return TimeoutError(f"loading {len(keys)} keys took more than {self._timeout} s")

    def _call(self, load: Load, keys: list[Any]) -> list[Any]:
        with inside(load):
            if self._many is not None:
                return aligned(self._refuse_coroutine(self._many(list(keys))), keys)
            values: list[Any] = []
            for key in keys:
                try:
                    assert self._one is not None
                    values.append(self._refuse_coroutine(self._one(key)))
                except Exception as error:
                    values.append(Failed(error))
            return values

    def _refuse_coroutine(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError("the loader returned a coroutine: make it a coroutine function")
        return value

    async def arun(self, load: Load, keys: list[Any]) -> list[Any]:
        """The same in a task; a function is called in a thread."""
        import asyncio

        if not self.awaits:
            return await asyncio.to_thread(self.run, load, keys)
        try:
            with inside(load):
                async with asyncio.timeout(self._timeout) as limit:
                    if self._many is not None:
                        return aligned(await self._many(list(keys)), keys)
                    values = await asyncio.gather(*map(self._await_one, keys))
                    return list(values)
        except TimeoutError:
            if limit.expired():
                raise self._late(keys) from None
            raise

    async def _await_one(self, key: Any) -> Any:
        try:
            assert self._one is not None
            return await self._one(key)
        except Exception as error:
            return Failed(error)
