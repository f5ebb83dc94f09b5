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
    found: dict[bytes, Command] = {}
    for file in FILES:
        commands = import_module(f"{__name__}.{file}").TABLE.commands()
        if twice := found.keys() & commands.keys():
            raise ValueError(f"{file} registers {sorted(twice)}, which another file does too")
        found |= commands
    return found
