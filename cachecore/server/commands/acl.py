"""ACL: who is known, and reading the file of users anew."""

from __future__ import annotations

from typing import Any

from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.registry import Table
from cachecore.server.commands.subcommands import Family
from cachecore.server.settings import SettingsError
from cachecore.server.users import User

TABLE = Table()
ACL = Family(TABLE, "acl", flags="noscript loading stale")


@ACL.add("whoami", 2)
def whoami(client: Client, args: list[bytes]) -> bytes:
    """WHOAMI: Return the current connection username."""
    user: User = client.user
    return user.name.encode()


@ACL.add("users", 2, admin=True)
def users(client: Client, args: list[bytes]) -> list[bytes]:
    """USERS: List all the registered usernames."""
    return sorted(client.engine.server.access.users)


@ACL.add("list", 2, admin=True)
def list_(client: Client, args: list[bytes]) -> list[bytes]:
    """LIST: Show users details in config file format."""
    return [user.line().encode() for _, user in sorted(client.engine.server.access.users.items())]


@ACL.add("getuser", 3, admin=True)
def getuser(client: Client, args: list[bytes]) -> dict[bytes, Any] | None:
    """GETUSER <username>: Get the user's details."""
    user = client.engine.server.access.users.get(args[2])
    if user is None:
        return None
    flags = {b"on" if user.on else b"off"} | ({b"nopass"} if user.nopass else set())
    return {
        b"flags": flags,
        b"passwords": [digest.hex().encode() for digest in user.digests],
        b"commands": " ".join(user.rules()).encode(),
        b"keys": b"~*",
        b"channels": b"&*",
        b"selectors": [],
    }


@ACL.add("load", 2, admin=True)
def load(client: Client, args: list[bytes]) -> str:
    """LOAD: Reload users from the users_file, and disconnect those whose line has changed."""
    access = client.engine.server.access
    try:
        if not access.load():
            raise ReplyError("ERR this server has no users_file to load from")
    except SettingsError as error:
        raise ReplyError(f"ERR {error}") from None
    for each in list(client.engine.clients.values()):
        if each.user is not None and access.users.get(each.user.name.encode()) != each.user:
            each.close("killed", now=each is not client)
    return "OK"
