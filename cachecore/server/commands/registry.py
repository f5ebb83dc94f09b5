"""How a command is registered: its handler, its arity, what it is like, where its keys are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cachecore._resp_client import Client, Command

Handler = Callable[[Client, list[bytes]], Any]
_H = TypeVar("_H", bound=Handler)


class Table:
    """The commands of one file."""

    def __init__(self) -> None:
        self._specs: dict[bytes, tuple[int, Handler | None, dict[str, Any]]] = {}

    def command(
        self,
        name: str,
        arity: int,
        *,
        flags: str = "",
        keys: tuple[int, int, int] = (0, 0, 0),
        open: bool = False,
        immediate: bool = False,
    ) -> Callable[[_H], _H]:
        """Register the decorated function as the handler of a command.

        Args:
            name: in small letters.
            arity: number of arguments with the name; negative: at least so many.
            flags: words as COMMAND tells them; "write", "readonly" or "admin" say what it needs.
            keys: places of the first and last key among the arguments, and the step; a last one
                below 0 counts from the end.
            open: may be used before authentication.
            immediate: is executed, not queued, after MULTI.
        """

        def register(handler: _H) -> _H:
            self._add(name, arity, handler, flags, keys, open=open, immediate=immediate)
            return handler

        return register

    def compiled(
        self, name: str, arity: int, *, flags: str = "", keys: tuple[int, int, int] = (0, 0, 0)
    ) -> None:
        """Register a command all forms of which are executed in C (cc_commands.c)."""
        self._add(name, arity, None, flags, keys)

    def _add(
        self,
        name: str,
        arity: int,
        handler: Handler | None,
        flags: str,
        keys: tuple[int, int, int],
        **options: bool,
    ) -> None:
        key = name.encode()
        if key in self._specs:
            raise ValueError(f"command {name!r} is registered twice")
        self._specs[key] = (arity, handler, {"flags": flags.split(), "keys": keys, **options})

    def commands(self) -> dict[bytes, Command]:
        """Command objects for all of them, by name."""
        return {
            name: Command(name, arity, handler, **options)
            for name, (arity, handler, options) in self._specs.items()
        }
