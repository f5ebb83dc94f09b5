"""Commands on strings; most forms of them are executed in C."""

from __future__ import annotations

import math

from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.registry import Table

TABLE = Table()

TABLE.compiled("get", 2, flags="readonly fast", keys=(1, 1, 1))
TABLE.compiled("mget", -2, flags="readonly fast", keys=(1, -1, 1))
TABLE.compiled("strlen", 2, flags="readonly fast", keys=(1, 1, 1))
TABLE.compiled("exists", -2, flags="readonly fast", keys=(1, -1, 1))
TABLE.compiled("ttl", 2, flags="readonly fast", keys=(1, 1, 1))
TABLE.compiled("pttl", 2, flags="readonly fast", keys=(1, 1, 1))
TABLE.compiled("del", -2, flags="write", keys=(1, -1, 1))
TABLE.compiled("unlink", -2, flags="write fast", keys=(1, -1, 1))
TABLE.compiled("expire", -3, flags="write fast", keys=(1, 1, 1))
TABLE.compiled("pexpire", -3, flags="write fast", keys=(1, 1, 1))
TABLE.compiled("incr", 2, flags="write denyoom fast", keys=(1, 1, 1))
TABLE.compiled("decr", 2, flags="write denyoom fast", keys=(1, 1, 1))
TABLE.compiled("incrby", 3, flags="write denyoom fast", keys=(1, 1, 1))
TABLE.compiled("decrby", 3, flags="write denyoom fast", keys=(1, 1, 1))


def string_at(client: Client, key: bytes) -> bytes | None:
    """The string at a key, looked up; None: none. ReplyError for anything else there."""
    value = client.cache.get(client.prefix + key)
    if value is not None and not isinstance(value, bytes):
        raise ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")
    return value


@TABLE.command("mset", -3, flags="write denyoom", keys=(1, -1, 2))
def mset(client: Client, args: list[bytes]) -> str:
    """MSET key value [key value ...]; what C leaves is an odd number of them."""
    raise ReplyError("ERR wrong number of arguments for 'mset' command")


@TABLE.command("set", -3, flags="write denyoom", keys=(1, 1, 1))
def set_(client: Client, args: list[bytes]) -> str | bytes | None:
    """SET key value [NX | XX] [EX s | PX ms | KEEPTTL]; C does it with EX, PX or nothing."""
    key, value, options = client.prefix + args[1], args[2], [arg.lower() for arg in args[3:]]
    ttl, present = math.inf, client.cache.peek(key)
    while options:
        option = options.pop(0)
        if option in (b"ex", b"px") and options:
            ttl = seconds(options.pop(0), option == b"px")
        elif option == b"keepttl":
            ttl = (client.cache.get_ttl(key) if present is not None else None) or math.inf
        elif option not in (b"nx", b"xx"):
            raise ReplyError("ERR syntax error")
        elif (present is None) == (option == b"xx"):
            return None
    client.cache.set(key, value, ttl=ttl)
    return "OK"


def seconds(text: bytes, milliseconds: bool) -> float:
    """The seconds of EX or PX."""
    try:
        number = int(text)
    except ValueError:
        raise ReplyError("ERR value is not an integer or out of range") from None
    if number <= 0:
        raise ReplyError("ERR invalid expire time in 'set' command")
    return number / 1000 if milliseconds else number
