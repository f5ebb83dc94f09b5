"""Commands on strings; the usual forms of the most used ones are executed in C (cc_commands.c)."""

from __future__ import annotations

from cachecore._keyspace import (
    KEEP,
    NEVER,
    OWN,
    add_floats,
    deadline_of,
    expire_at,
    fits,
    is_float,
)
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.numbers import NOT_FLOAT, deadline, integer
from cachecore.server.commands.registry import Table
from cachecore.server.commands.values import SYNTAX, TOO_LARGE, put, string_at, unchanged

TABLE = Table()
MOST_BYTES = 512 << 20  # of a string
TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
# The options that say when a key expires: milliseconds in their unit, whether they count from now.
UNITS = {b"ex": (1000, True), b"px": (1, True), b"exat": (1000, False), b"pxat": (1, False)}

TABLE.compiled("get", 2, flags="readonly fast", keys=(1, 1, 1))
TABLE.compiled("mget", -2, flags="readonly fast", keys=(1, -1, 1))
TABLE.compiled("strlen", 2, flags="readonly fast", keys=(1, 1, 1))
TABLE.compiled("incr", 2, flags="write denyoom fast", keys=(1, 1, 1))
TABLE.compiled("decr", 2, flags="write denyoom fast", keys=(1, 1, 1))
TABLE.compiled("incrby", 3, flags="write denyoom fast", keys=(1, 1, 1))
TABLE.compiled("decrby", 3, flags="write denyoom fast", keys=(1, 1, 1))


# --- setting --------------------------------------------------------------------------------------


@TABLE.command("set", -3, flags="write denyoom", keys=(1, 1, 1))
def set_(client: Client, args: list[bytes]) -> str | bytes | None:
    """SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]."""
    options, lifetime = _options(args, 3, {b"nx", b"xx", b"get", b"keepttl"})
    if lifetime is None:
        until = KEEP if b"keepttl" in options else OWN
    else:
        until = _until(client, lifetime, "set")
    old = string_at(client, args[1]) if b"get" in options else None
    if b"nx" in options or b"xx" in options:
        present = client.prefix + args[1] in client.cache
        if present == (b"nx" in options):
            return unchanged(client, old)
    put(client, args[1], args[2], until)
    return old if b"get" in options else "OK"


def _options(
    args: list[bytes], at: int, words: set[bytes]
) -> tuple[set[bytes], tuple[bytes, bytes] | None]:
    """The options from args[at] on, of `words`, and the lifetime as (option, number).

    What Redis calls a syntax error is one: two lifetimes (PERSIST and KEEPTTL are such), NX and XX.
    """
    found: set[bytes] = set()
    lifetime: tuple[bytes, bytes] | None = None
    while at < len(args):
        word = args[at].lower()
        at += 1
        if word in words:
            found.add(word)
        elif word in UNITS and at < len(args) and (lifetime is None or lifetime[0] == word):
            lifetime = word, args[at]
            at += 1
        else:
            raise ReplyError(SYNTAX)
    if {b"nx", b"xx"} <= found or (lifetime and found & {b"keepttl", b"persist"}):
        raise ReplyError(SYNTAX)
    return found, lifetime


def _until(client: Client, lifetime: tuple[bytes, bytes], command: str) -> int:
    unit, relative = UNITS[lifetime[0]]
    return deadline(client, lifetime[1], unit, relative=relative, command=command)


@TABLE.command("setex", 4, flags="write denyoom", keys=(1, 1, 1))
def setex(client: Client, args: list[bytes]) -> str:
    """SETEX key seconds value."""
    put(client, args[1], args[3], _until(client, (b"ex", args[2]), "setex"))
    return "OK"


@TABLE.command("psetex", 4, flags="write denyoom", keys=(1, 1, 1))
def psetex(client: Client, args: list[bytes]) -> str:
    """PSETEX key milliseconds value."""
    put(client, args[1], args[3], _until(client, (b"px", args[2]), "psetex"))
    return "OK"


@TABLE.command("setnx", 3, flags="write denyoom fast", keys=(1, 1, 1))
def setnx(client: Client, args: list[bytes]) -> int:
    """SETNX key value."""
    if client.prefix + args[1] in client.cache:
        return unchanged(client, 0)
    put(client, args[1], args[2])
    return 1


@TABLE.command("mset", -3, flags="write denyoom", keys=(1, -1, 2))
def mset(client: Client, args: list[bytes]) -> str:
    """MSET key value [key value ...]; what C leaves is an odd number of them."""
    raise ReplyError("ERR wrong number of arguments for 'mset' command")


@TABLE.command("msetnx", -3, flags="write denyoom", keys=(1, -1, 2))
def msetnx(client: Client, args: list[bytes]) -> int:
    """MSETNX key value [key value ...]: all of them or none."""
    if len(args) % 2 == 0:
        raise ReplyError("ERR wrong number of arguments for 'msetnx' command")
    pairs = list(zip(args[1::2], args[2::2], strict=True))
    if not all(fits(client.cache, client.prefix + name, value) for name, value in pairs):
        raise ReplyError(TOO_LARGE)
    if any(client.prefix + name in client.cache for name, _ in pairs):
        return unchanged(client, 0)
    for name, value in pairs:
        put(client, name, value)
    return 1


@TABLE.command("getset", 3, flags="write denyoom fast", keys=(1, 1, 1))
def getset(client: Client, args: list[bytes]) -> bytes | None:
    """GETSET key value."""
    old = string_at(client, args[1])
    put(client, args[1], args[2])
    return old


# --- getting --------------------------------------------------------------------------------------


@TABLE.command("getex", -2, flags="write fast", keys=(1, 1, 1))
def getex(client: Client, args: list[bytes]) -> bytes | None:
    """GETEX key [PERSIST | EX s | PX ms | EXAT s | PXAT ms]."""
    options, lifetime = _options(args, 2, {b"persist"})
    value = string_at(client, args[1])
    if value is None or not (options or lifetime):
        return unchanged(client, value)
    key = client.prefix + args[1]
    until = NEVER if lifetime is None else _until(client, lifetime, "getex")
    if until == NEVER == deadline_of(client.cache, key):
        return unchanged(client, value)
    expire_at(client.cache, key, until)
    return value


@TABLE.command("getdel", 2, flags="write fast", keys=(1, 1, 1))
def getdel(client: Client, args: list[bytes]) -> bytes | None:
    """GETDEL key."""
    value = string_at(client, args[1])
    client.cache.delete(client.prefix + args[1])
    return value


@TABLE.command("getrange", 4, flags="readonly", keys=(1, 1, 1))
def getrange(client: Client, args: list[bytes]) -> bytes:
    """GETRANGE key start end: both are in it; negative ones count from the end."""
    start, end = integer(args[2]), integer(args[3])
    value = string_at(client, args[1]) or b""
    if start < 0 and end < 0 and start > end:
        return b""
    if start < 0:
        start = max(start + len(value), 0)
    if end < 0:
        end = max(end + len(value), 0)
    return value[start : end + 1]


@TABLE.command("substr", 4, flags="readonly", keys=(1, 1, 1))
def substr(client: Client, args: list[bytes]) -> bytes:
    """SUBSTR key start end: GETRANGE by its old name."""
    return getrange(client, args)


# --- changing; what is there keeps its lifetime ---------------------------------------------------


@TABLE.command("append", 3, flags="write denyoom fast", keys=(1, 1, 1))
def append(client: Client, args: list[bytes]) -> int:
    """APPEND key value."""
    old = string_at(client, args[1]) or b""
    if len(old) + len(args[2]) > MOST_BYTES:
        raise ReplyError(TOO_LONG)
    put(client, args[1], old + args[2], KEEP)
    return len(old) + len(args[2])


@TABLE.command("setrange", 4, flags="write denyoom", keys=(1, 1, 1))
def setrange(client: Client, args: list[bytes]) -> int:
    """SETRANGE key offset value; what lies before it is filled up with zeros."""
    offset, value = integer(args[2]), args[3]
    if offset < 0:
        raise ReplyError("ERR offset is out of range")
    old = string_at(client, args[1]) or b""
    if not value:
        return len(old)
    end = offset + len(value)
    if end > MOST_BYTES:
        raise ReplyError(TOO_LONG)
    if end > (client.cache.max_bytes or MOST_BYTES):  # before there is memory taken for it
        raise ReplyError(TOO_LARGE)
    put(client, args[1], old[:offset].ljust(offset, b"\0") + value + old[end:], KEEP)
    return max(end, len(old))


@TABLE.command("incrbyfloat", 3, flags="write denyoom fast", keys=(1, 1, 1))
def incrbyfloat(client: Client, args: list[bytes]) -> bytes:
    """INCRBYFLOAT key increment."""
    old = string_at(client, args[1])
    old = b"0" if old is None else old
    if not is_float(old) or not is_float(args[2]):
        raise ReplyError(NOT_FLOAT)
    new = add_floats(old, args[2])
    if new is None:
        raise ReplyError("ERR increment would produce NaN or Infinity")
    put(client, args[1], new, KEEP)
    return new
