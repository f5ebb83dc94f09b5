"""Commands on hashes."""

from __future__ import annotations

import random
from itertools import chain

from cachecore._keyspace import KEEP, Hash, add_floats, glob, is_float
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.numbers import LEAST, MOST, NOT_FLOAT, cursor, integer
from cachecore.server.commands.registry import Table
from cachecore.server.commands.scan import read_options
from cachecore.server.commands.values import SYNTAX, change, hash_at, put, unchanged

TABLE = Table()
AT_ONCE = 512  # fields of a hash that HSCAN returns all together
PARTS = 16  # that HSCAN returns a larger hash in at most
MOST_PICKED = 1 << 24  # fields that HRANDFIELD returns, where one may come twice
NO_FIELDS = Hash()  # what is read where there is nothing; never changed


# --- writing --------------------------------------------------------------------------------------


@TABLE.command("hset", -4, flags="write denyoom fast", keys=(1, 1, 1))
def hset(client: Client, args: list[bytes]) -> int:
    """HSET key field value [field value ...]."""
    if len(args) % 2:
        name = args[0].decode().lower()
        raise ReplyError(f"ERR wrong number of arguments for '{name}' command")
    return change(client, args[1], hash_at(client, args[1]), args[2:])


@TABLE.command("hmset", -4, flags="write denyoom fast", keys=(1, 1, 1))
def hmset(client: Client, args: list[bytes]) -> str:
    """HMSET key field value [field value ...]."""
    hset(client, args)
    return "OK"


@TABLE.command("hsetnx", 4, flags="write denyoom fast", keys=(1, 1, 1))
def hsetnx(client: Client, args: list[bytes]) -> int:
    """HSETNX key field value."""
    found = hash_at(client, args[1])
    if found is not None and args[2] in found:
        return unchanged(client, 0)
    return change(client, args[1], found, [args[2], args[3]])


@TABLE.command("hdel", -3, flags="write fast", keys=(1, 1, 1))
def hdel(client: Client, args: list[bytes]) -> int:
    """HDEL key field [field ...]; a hash without fields is gone."""
    value = hash_at(client, args[1])
    if value is None:
        return 0
    count = sum([value.drop(field) is not None for field in args[2:]])
    if not value:
        client.cache.delete(client.prefix + args[1])
    elif count:
        put(client, args[1], value, KEEP)
    return count or unchanged(client, 0)


@TABLE.command("hincrby", 4, flags="write denyoom fast", keys=(1, 1, 1))
def hincrby(client: Client, args: list[bytes]) -> int:
    """HINCRBY key field increment."""
    step = integer(args[3])
    found = hash_at(client, args[1])
    old = (found or NO_FIELDS).get(args[2], b"0")
    number = integer(old, "ERR hash value is not an integer") + step
    if not LEAST <= number <= MOST:
        raise ReplyError("ERR increment or decrement would overflow")
    change(client, args[1], found, [args[2], b"%d" % number])
    return number


@TABLE.command("hincrbyfloat", 4, flags="write denyoom fast", keys=(1, 1, 1))
def hincrbyfloat(client: Client, args: list[bytes]) -> bytes:
    """HINCRBYFLOAT key field increment."""
    if not is_float(args[3]):
        raise ReplyError(NOT_FLOAT)
    if add_floats(b"0", args[3]) is None:
        raise ReplyError("ERR value is NaN or Infinity")
    found = hash_at(client, args[1])
    old = (found or NO_FIELDS).get(args[2], b"0")
    if not is_float(old):
        raise ReplyError("ERR hash value is not a float")
    new = add_floats(old, args[3])
    if new is None:
        raise ReplyError("ERR increment would produce NaN or Infinity")
    change(client, args[1], found, [args[2], new])
    return new


# --- reading --------------------------------------------------------------------------------------


@TABLE.command("hget", 3, flags="readonly fast", keys=(1, 1, 1))
def hget(client: Client, args: list[bytes]) -> bytes | None:
    """HGET key field."""
    return (hash_at(client, args[1]) or NO_FIELDS).get(args[2])


@TABLE.command("hmget", -3, flags="readonly fast", keys=(1, 1, 1))
def hmget(client: Client, args: list[bytes]) -> list[bytes | None]:
    """HMGET key field [field ...]."""
    value = hash_at(client, args[1]) or NO_FIELDS
    return list(map(value.get, args[2:]))


@TABLE.command("hgetall", 2, flags="readonly", keys=(1, 1, 1))
def hgetall(client: Client, args: list[bytes]) -> Hash:
    """HGETALL key."""
    return hash_at(client, args[1]) or NO_FIELDS


@TABLE.command("hkeys", 2, flags="readonly", keys=(1, 1, 1))
def hkeys(client: Client, args: list[bytes]) -> list[bytes]:
    """HKEYS key."""
    return list(hash_at(client, args[1]) or ())


@TABLE.command("hvals", 2, flags="readonly", keys=(1, 1, 1))
def hvals(client: Client, args: list[bytes]) -> list[bytes]:
    """HVALS key."""
    return list((hash_at(client, args[1]) or NO_FIELDS).values())


@TABLE.command("hexists", 3, flags="readonly fast", keys=(1, 1, 1))
def hexists(client: Client, args: list[bytes]) -> int:
    """HEXISTS key field."""
    return int(args[2] in (hash_at(client, args[1]) or NO_FIELDS))


@TABLE.command("hlen", 2, flags="readonly fast", keys=(1, 1, 1))
def hlen(client: Client, args: list[bytes]) -> int:
    """HLEN key."""
    return len(hash_at(client, args[1]) or ())


@TABLE.command("hstrlen", 3, flags="readonly fast", keys=(1, 1, 1))
def hstrlen(client: Client, args: list[bytes]) -> int:
    """HSTRLEN key field."""
    return len((hash_at(client, args[1]) or NO_FIELDS).get(args[2], b""))


# --- parts of a hash ------------------------------------------------------------------------------


@TABLE.command("hrandfield", -2, flags="readonly", keys=(1, 1, 1))
def hrandfield(client: Client, args: list[bytes]) -> bytes | list[bytes] | list[list[bytes]] | None:
    """HRANDFIELD key [count [WITHVALUES]]: different fields, or, below 0, any."""
    count = integer(args[2], least=-MOST) if len(args) > 2 else None
    if len(args) > 4 or (len(args) == 4 and args[3].lower() != b"withvalues"):
        raise ReplyError(SYNTAX)
    value = hash_at(client, args[1])
    if count is None:
        return random.choice(list(value)) if value else None
    if count < -MOST_PICKED or (len(args) == 4 and count > MOST // 2):
        raise ReplyError("ERR value is out of range")
    if not value:
        return []
    if count >= len(value):
        fields = list(value)
    else:
        pick = random.sample if count >= 0 else random.choices
        fields = pick(list(value), k=abs(count))
    if len(args) < 4:
        return fields
    pairs = [[field, value[field]] for field in fields]
    return pairs if client.protocol >= 3 else list(chain.from_iterable(pairs))


@TABLE.command("hscan", -3, flags="readonly", keys=(1, 1, 1))
def hscan(client: Client, args: list[bytes]) -> list[bytes | list[bytes]]:
    """HSCAN key cursor [MATCH pattern] [COUNT count].

    A large hash is returned in parts, each the fields whose hashes lie in a part of all possible
    ones. So a cursor is a hash, which field comes when depends on the field alone, and what is
    there all the time is returned once.
    """
    start = cursor(args[2])
    value = hash_at(client, args[1])
    if value is None:
        return [b"0", []]
    options = read_options(args[3:])
    fields, end = list(value), 0
    if len(value) > AT_ONCE:
        at_once = max(options.most, AT_ONCE, len(value) // PARTS)
        end = min(start + (at_once << 32) // len(value), 1 << 32)
        fields = [field for field in fields if start <= hash(field) & 0xFFFFFFFF < end]
    pairs = [
        (field, value[field])
        for field in fields
        if options.pattern is None or glob(options.pattern, field)
    ]
    return [b"%d" % (end & 0xFFFFFFFF), list(chain.from_iterable(pairs))]
