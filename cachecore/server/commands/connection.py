"""Commands about the connection itself: PING, ECHO, HELLO, AUTH, SELECT, RESET, QUIT."""

from __future__ import annotations

from typing import Any

from cachecore import __version__
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.access import NO_PASSWORD
from cachecore.server.commands.numbers import integer, small_integer
from cachecore.server.commands.registry import Table
from cachecore.server.commands.subcommands import wrong_number

TABLE = Table()
LONGEST_NAME = 1024  # bytes; it is kept, and shown to others
VERSION = "7.0.15"  # of Redis, whose commands and errors these are


@TABLE.command("ping", -1, flags="fast")
def ping(client: Client, args: list[bytes]) -> None:
    """PING [message]; what C leaves has too many."""
    raise wrong_number("ping")


@TABLE.command("echo", 2, flags="fast")
def echo(client: Client, args: list[bytes]) -> bytes:
    """ECHO message."""
    return args[1]


@TABLE.command("select", 2, flags="loading stale fast")
def select(client: Client, args: list[bytes]) -> str:
    """SELECT index."""
    database = small_integer(args[1])
    client.engine.server.keyspace.use(database)
    client.database = database
    return "OK"


@TABLE.command("auth", -2, flags="noscript loading stale fast no_auth", open=True)
def auth(client: Client, args: list[bytes]) -> str:
    """AUTH [username] password."""
    access = client.engine.server.access
    if len(args) > 3:
        raise ReplyError("ERR syntax error")
    if len(args) == 2 and access.default.nopass:
        raise ReplyError(NO_PASSWORD)
    access.authenticate(client, args[1] if len(args) == 3 else b"default", args[-1])
    return "OK"


@TABLE.command("hello", -1, flags="noscript loading stale fast no_auth", open=True)
def hello(client: Client, args: list[bytes]) -> dict[bytes, Any]:
    """HELLO [protover [AUTH username password] [SETNAME clientname]]."""
    protocol, name, user = hello_options(client, args)
    if user is not None:
        client.engine.server.access.authenticate(client, *user)
    if not client.may:
        raise ReplyError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the"
            " HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and"
            " select the RESP protocol version at the same time"
        )
    if name is not None:
        client.name = name
    client.protocol = protocol
    return {
        b"server": b"redis",
        b"version": VERSION.encode(),
        b"proto": protocol,
        b"id": client.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
        b"cachecore": __version__.encode(),
    }


@TABLE.command("reset", 1, flags="noscript loading stale fast no_auth", open=True, immediate=True)
def reset(client: Client, args: list[bytes]) -> str:
    """RESET: as if it had just connected."""
    client.queue, client.aborted = None, False
    client.unwatch()
    client.state.pop("watched", None)
    client.database, client.protocol, client.name = 0, 2, b""
    client.engine.server.access.begin(client)
    return "RESET"


@TABLE.command("quit", -1, flags="fast no_auth", open=True, immediate=True)
def quit_(client: Client, args: list[bytes]) -> str:
    """QUIT."""
    client.close("quit")
    return "OK"


def hello_options(
    client: Client, args: list[bytes]
) -> tuple[int, bytes | None, tuple[bytes, bytes] | None]:
    """The protocol, the connection's name and the user with password that HELLO asks for."""
    protocol, name, user = client.protocol, None, None
    if len(args) > 1:
        protocol = integer(args[1], "ERR Protocol version is not an integer or out of range")
        if protocol not in (2, 3):
            raise ReplyError("NOPROTO unsupported protocol version")
    rest = args[:1:-1]
    while rest:
        option = rest.pop()
        if option.lower() == b"auth" and len(rest) >= 2:
            user = rest.pop(), rest.pop()
        elif option.lower() == b"setname" and rest:
            name = checked_name(rest.pop())
        else:
            shown = option[:128].decode("utf-8", "backslashreplace")
            raise ReplyError(f"ERR Syntax error in HELLO option '{shown}'")
    return protocol, name, user


def checked_name(name: bytes) -> bytes:
    """A client's name, if it can be one."""
    if len(name) > LONGEST_NAME:
        raise ReplyError(f"ERR Client names are at most {LONGEST_NAME} bytes long.")
    if any(not 33 <= letter <= 126 for letter in name):
        raise ReplyError("ERR Client names cannot contain spaces, newlines or special characters.")
    return name
