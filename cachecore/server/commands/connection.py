"""Commands about the connection itself: PING, ECHO, HELLO, SELECT, QUIT."""

from __future__ import annotations

from typing import Any

from cachecore import __version__
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.registry import Table

TABLE = Table()
DATABASES = 16

TABLE.compiled("ping", -1, flags="fast")


@TABLE.command("echo", 2, flags="fast")
def echo(client: Client, args: list[bytes]) -> bytes:
    """ECHO message."""
    return args[1]


@TABLE.command("select", 2, flags="loading stale fast")
def select(client: Client, args: list[bytes]) -> str:
    """SELECT index."""
    try:
        database = int(args[1])
    except ValueError:
        raise ReplyError("ERR value is not an integer or out of range") from None
    if not 0 <= database < DATABASES:
        raise ReplyError("ERR DB index is out of range")
    client.database = database
    return "OK"


@TABLE.command("hello", -1, flags="noscript loading stale fast no_auth", open=True, immediate=True)
def hello(client: Client, args: list[bytes]) -> dict[bytes, Any]:
    """HELLO [protover [AUTH user password] [SETNAME name]]."""
    if len(args) > 1:
        if args[1] not in (b"2", b"3"):
            raise ReplyError("NOPROTO unsupported protocol version")
        client.protocol = int(args[1])
    return {
        b"server": b"redis",
        b"version": b"7.0.15",
        b"proto": client.protocol,
        b"id": client.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
        b"cachecore": __version__.encode(),
    }


@TABLE.command("quit", -1, flags="fast no_auth", open=True, immediate=True)
def quit_(client: Client, args: list[bytes]) -> str:
    """QUIT."""
    client.close("quit")
    return "OK"
