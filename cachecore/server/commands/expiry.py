"""Commands on lifetimes: the EXPIRE and TTL families, PERSIST."""

from __future__ import annotations

from cachecore._keyspace import NEVER, deadline_of, expire_at, unix_time
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.numbers import FARTHEST, LEAST, MOST, integer, shown
from cachecore.server.commands.registry import Handler, Table
from cachecore.server.commands.values import unchanged

TABLE = Table()

TABLE.compiled("ttl", 2, flags="readonly fast", keys=(1, 1, 1))
TABLE.compiled("pttl", 2, flags="readonly fast", keys=(1, 1, 1))


def _expire(command: str, unit: int, *, relative: bool) -> Handler:
    """The handler of a command that gives a key a deadline; `unit`: milliseconds in one."""

    def handler(client: Client, args: list[bytes]) -> int:
        conditions = _conditions(args[3:])
        when = integer(args[2]) * unit
        start = unix_time(client.cache) if relative else 0
        if not LEAST <= when <= MOST - start:
            raise ReplyError(f"ERR invalid expire time in '{command}' command")
        when = min(when + start, FARTHEST)
        key = client.prefix + args[1]
        if conditions:
            present = deadline_of(client.cache, key)
            if present is None or not _allow(conditions, when, present):
                return unchanged(client, 0)
        return int(expire_at(client.cache, key, when))

    handler.__doc__ = f"{command.upper()} key time [NX | XX | GT | LT]."
    return TABLE.command(command, -3, flags="write fast", keys=(1, 1, 1))(handler)


def _conditions(words: list[bytes]) -> set[bytes]:
    found = {word.lower() for word in words}
    for word in words:
        if word.lower() not in (b"nx", b"xx", b"gt", b"lt"):
            raise ReplyError(f"ERR Unsupported option {shown(word)}")
    if b"nx" in found and len(found) > 1:
        raise ReplyError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if found >= {b"gt", b"lt"}:
        raise ReplyError("ERR GT and LT options at the same time are not compatible")
    return found


def _allow(conditions: set[bytes], when: int, present: int) -> bool:
    """Whether a deadline may replace the present one."""
    return not (
        (b"nx" in conditions and present != NEVER)
        or (b"xx" in conditions and present == NEVER)
        or (b"gt" in conditions and when <= present)
        or (b"lt" in conditions and when >= present)
    )


expire = _expire("expire", 1000, relative=True)
pexpire = _expire("pexpire", 1, relative=True)
expireat = _expire("expireat", 1000, relative=False)
pexpireat = _expire("pexpireat", 1, relative=False)


@TABLE.command("expiretime", 2, flags="readonly fast", keys=(1, 1, 1))
def expiretime(client: Client, args: list[bytes]) -> int:
    """EXPIRETIME key."""
    found = pexpiretime(client, args)
    return found if found < 0 else (found + 500) // 1000


@TABLE.command("pexpiretime", 2, flags="readonly fast", keys=(1, 1, 1))
def pexpiretime(client: Client, args: list[bytes]) -> int:
    """PEXPIRETIME key."""
    found = deadline_of(client.cache, client.prefix + args[1])
    return -2 if found is None else -1 if found == NEVER else found


@TABLE.command("persist", 2, flags="write fast", keys=(1, 1, 1))
def persist(client: Client, args: list[bytes]) -> int:
    """PERSIST key."""
    key = client.prefix + args[1]
    if deadline_of(client.cache, key) in (None, NEVER):
        return unchanged(client, 0)
    return int(expire_at(client.cache, key, NEVER))
