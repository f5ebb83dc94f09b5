"""What the server can do: a file for each family of commands, gathered here.

A file has a `Table` named TABLE, and its handlers are registered in it:

    @TABLE.command("getset", arity=3, flags="write denyoom fast", keys=(1, 1, 1))
    def getset(client: Client, args: list[bytes]) -> Reply: ...
"""

from __future__ import annotations

from importlib import import_module

from cachecore._resp_client import Command

FILES = [
    "acl",
    "clients",
    "config",
    "connection",
    "expiry",
    "hashes",
    "info",
    "keys",
    "objects",
    "scan",
    "server",
    "strings",
    "transactions",
]


def all_commands() -> dict[bytes, Command]:
    """A Command for everything that is registered, by name; each engine has its own counts."""
    tables = [import_module(f"{__name__}.{name}").TABLE for name in FILES]
    return {name: command for table in tables for name, command in table.commands().items()}
