"""Commands that are families of others: CLIENT ID, CONFIG GET."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from cachecore._resp_client import MAY_ADMINISTER, Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.registry import Handler, Table

_H = TypeVar("_H", bound=Handler)


class Subcommand(NamedTuple):
    """One of a family."""

    handler: Handler
    arity: int
    """Number of arguments with both names; negative: at least so many."""
    admin: bool
    keys: tuple[int, int, int]


class Family:
    """A command whose first argument says which of its subcommands is meant.

    HELP is one of each; it prints their docstrings: USAGE: what it does.

    Args:
        table: where the command is registered.
        name: in small letters.
        flags: as of `Table.command`.
    """

    def __init__(self, table: Table, name: str, flags: str = "") -> None:
        self.name = name
        self.members: dict[bytes, Subcommand] = {}
        self.add("help", 2)(self._help)
        table.command(name, -2, flags=flags)(self)

    def add(
        self, name: str, arity: int, *, admin: bool = False, keys: tuple[int, int, int] = (0, 0, 0)
    ) -> Callable[[_H], _H]:
        """Register the decorated function as the handler of a subcommand, as a command's.

        Args:
            name: in small letters.
            arity: number of arguments with both names; negative: at least so many.
            admin: needs the right to administer.
            keys: as of `Table.command`.
        """

        def register(handler: _H) -> _H:
            self.members[name.encode()] = Subcommand(handler, arity, admin, keys)
            return handler

        return register

    def __call__(self, client: Client, args: list[bytes]) -> Any:
        """Execute one."""
        return self.check(client, args).handler(client, args)

    def check(self, client: Client, args: list[bytes]) -> Subcommand:
        """The one that is meant; ReplyError: there is none, or it may not be executed so."""
        name = args[1].lower()
        found = self.members.get(name)
        if found is None:
            shown = args[1][:128].decode("utf-8", "backslashreplace")
            raise ReplyError(f"ERR unknown subcommand '{shown}'. Try {self.name.upper()} HELP.")
        full = f"{self.name}|{name.decode()}"
        if found.admin and not client.may & MAY_ADMINISTER:
            raise ReplyError(f"NOPERM this user has no permissions to run the '{full}' command")
        arity = found.arity
        if len(args) != arity if arity > 0 else len(args) < -arity:
            raise wrong_number(full)
        return found

    def _help(self, client: Client, args: list[bytes]) -> list[str]:
        """HELP: Print this help."""
        lines = [f"{self.name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
        for member in self.members.values():
            usage, _, meaning = (member.handler.__doc__ or "").partition(": ")
            lines += [usage, f"    {' '.join(meaning.split())}"]
        return lines


def wrong_number(name: str) -> ReplyError:
    """The error for a wrong number of arguments."""
    return ReplyError(f"ERR wrong number of arguments for '{name}' command")
