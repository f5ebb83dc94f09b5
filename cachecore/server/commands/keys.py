"""Commands on keys of any kind: DEL, TYPE, RENAME, COPY, MOVE, FLUSHALL and the like."""

from __future__ import annotations

from cachecore._keyspace import Hash, deadline_of, fits, store
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.numbers import small_integer
from cachecore.server.commands.registry import Table
from cachecore.server.commands.scan import names_in
from cachecore.server.commands.values import SYNTAX, TOO_LARGE, unchanged

TABLE = Table()

TABLE.compiled("exists", -2, flags="readonly fast", keys=(1, -1, 1))
TABLE.compiled("del", -2, flags="write", keys=(1, -1, 1))
TABLE.compiled("unlink", -2, flags="write fast", keys=(1, -1, 1))


@TABLE.command("type", 2, flags="readonly fast", keys=(1, 1, 1))
def type_(client: Client, args: list[bytes]) -> str:
    """TYPE key."""
    value = client.cache.peek(client.prefix + args[1])
    return "none" if value is None else "string" if isinstance(value, bytes) else "hash"


@TABLE.command("touch", -2, flags="readonly fast", keys=(1, -1, 1))
def touch(client: Client, args: list[bytes]) -> int:
    """TOUCH key [key ...]: a look-up of each."""
    found = client.cache.get_many([client.prefix + name for name in args[1:]])
    return sum([value is not None for value in found])


# --- keys under other names -----------------------------------------------------------------------


def _carry(client: Client, source: bytes, target: bytes, *, keep: bool = False) -> None:
    """Bring what is at a key, with its lifetime, to another, in place of what is there.

    Both are whole keys, with their database. `keep`: it stays at the source, too.
    """
    cache = client.cache
    deadline, value = deadline_of(cache, source), cache.peek(source)
    if value is None or deadline is None:  # it has expired just now
        return
    if not fits(cache, target, value):
        raise ReplyError(TOO_LARGE)
    if not keep:
        cache.delete(source)  # first, lest both together push other keys out
    elif isinstance(value, Hash):
        value = Hash(value.items())
    store(cache, target, value, deadline)


@TABLE.command("rename", 3, flags="write", keys=(1, 2, 1))
def rename(client: Client, args: list[bytes]) -> str:
    """RENAME key name."""
    _rename(client, args, over=True)
    return "OK"


@TABLE.command("renamenx", 3, flags="write fast", keys=(1, 2, 1))
def renamenx(client: Client, args: list[bytes]) -> int:
    """RENAMENX key name."""
    return 1 if _rename(client, args, over=False) else unchanged(client, 0)


def _rename(client: Client, args: list[bytes], *, over: bool) -> bool:
    source, target = client.prefix + args[1], client.prefix + args[2]
    if source not in client.cache:
        raise ReplyError("ERR no such key")
    if not over and target in client.cache:
        return False
    if source != target:
        _carry(client, source, target)
    return True


@TABLE.command("copy", -3, flags="write denyoom", keys=(1, 2, 1))
def copy(client: Client, args: list[bytes]) -> int:
    """COPY source target [DB number] [REPLACE]."""
    options, prefix, replace = args[:2:-1], client.prefix, False
    while options:
        option = options.pop().lower()
        if option == b"replace":
            replace = True
        elif option == b"db" and options:
            prefix = _database(client, options.pop())
        else:
            raise ReplyError(SYNTAX)
    source, target = client.prefix + args[1], prefix + args[2]
    if source == target:
        raise ReplyError("ERR source and destination objects are the same")
    if source not in client.cache or (target in client.cache and not replace):
        return unchanged(client, 0)
    _carry(client, source, target, keep=True)
    client.engine.touch([target])
    return unchanged(client, 1)  # the source, that is


@TABLE.command("move", 3, flags="write fast", keys=(1, 1, 1))
def move(client: Client, args: list[bytes]) -> int:
    """MOVE key database."""
    source, target = client.prefix + args[1], _database(client, args[2]) + args[1]
    if source == target:
        raise ReplyError("ERR source and destination objects are the same")
    if source not in client.cache or target in client.cache:
        return unchanged(client, 0)
    _carry(client, source, target)
    client.engine.touch([target])
    return 1


def _database(client: Client, text: bytes) -> bytes:
    """What keys of a database begin with, by its number in an argument."""
    prefix: bytes = client.engine.server.keyspace.use(small_integer(text))
    return prefix


# --- whole databases ------------------------------------------------------------------------------


def _check_flush(args: list[bytes]) -> None:
    if len(args) > 2 or (len(args) == 2 and args[1].lower() not in (b"sync", b"async")):
        raise ReplyError(SYNTAX)


@TABLE.command("flushdb", -1, flags="write")
def flushdb(client: Client, args: list[bytes]) -> str:
    """FLUSHDB [ASYNC | SYNC]: both are the same here."""
    _check_flush(args)
    names = names_in(client.cache, client.database)
    if len(names) == len(client.cache):
        client.cache.clear()
    else:
        client.cache.delete_many([client.prefix + name for name in names])
    return "OK"


@TABLE.command("flushall", -1, flags="write")
def flushall(client: Client, args: list[bytes]) -> str:
    """FLUSHALL [ASYNC | SYNC]: both are the same here."""
    _check_flush(args)
    client.cache.clear()
    return "OK"


@TABLE.command("swapdb", 3, flags="write fast")
def swapdb(client: Client, args: list[bytes]) -> str:
    """SWAPDB number number. O(entries), unlike Redis': the number is a part of each key."""
    numbers = (
        small_integer(args[1], "ERR invalid first DB index"),
        small_integer(args[2], "ERR invalid second DB index"),
    )
    one, other = map(client.engine.server.keyspace.use, numbers)
    cache = client.cache
    moved: list[tuple[bytes, bytes | Hash | None, int | None]] = []
    left: list[bytes] = []
    for here, there in [(one, other), (other, one)] if one != other else []:
        for key in [here + name for name in names_in(cache, here[0])]:
            moved.append((there + key[1:], cache.peek(key), deadline_of(cache, key)))
            left.append(key)
    cache.delete_many(left)
    for key, value, deadline in moved:
        if value is not None and deadline is not None:  # else it has expired meanwhile
            store(cache, key, value, deadline)
    return "OK"
