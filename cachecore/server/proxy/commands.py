"""What commands do to which keys, as the upstream's own COMMAND table says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cachecore._resp_client import MAY_ADMINISTER, MAY_CONNECT, MAY_READ, MAY_WRITE

# Commands that change no data, though their flags do not say so. What is neither here, nor
# read-only, nor a write whose keys are all known, may have written any key.
HARMLESS = frozenset(
    b"acl asking auth client command config discard echo hello info lastsave latency memory "
    b"monitor multi ping psubscribe publish punsubscribe quit readonly readwrite reset role select "
    b"slowlog spublish ssubscribe subscribe sunsubscribe time unsubscribe unwatch wait waitaof "
    b"watch".split()
)
# Writes that say as little as OK or a number, whatever is there, and do the same on any connection.
SHORT = frozenset(
    b"append decr decrby del expire expireat hdel hincrby hmset hset hsetnx incr incrby "
    b"lpush lpushx mset msetnx persist pexpire pexpireat pfadd psetex rpush rpushx sadd set setbit "
    b"setex setnx setrange srem unlink zadd zrem".split()
)
# What of it needs more than being let in.
HEARS = frozenset((b"subscribe", b"psubscribe", b"ssubscribe", b"client|tracking"))
SAYS = frozenset((b"publish", b"spublish"))
# After these a client speaks something else than command and reply.
TUNNELS = frozenset(
    b"subscribe psubscribe ssubscribe unsubscribe punsubscribe sunsubscribe monitor sync "
    b"psync".split()
)
TUNNELS_OF_CLIENT = frozenset((b"reply", b"tracking", b"caching"))
# What a client may begin with, and is answered here while the upstream is away.
BEGINNINGS = frozenset((b"hello", b"select", b"client", b"ping", b"echo", b"quit"))
WAITS = frozenset((b"wait", b"waitaof"))
# Writes that reach keys of other databases than the client's.
FAR = frozenset((b"copy", b"move", b"swapdb"))


class Command:
    """One line of the table.

    Attributes:
        blocking, write: what its flags say.
        known: whether its places of keys tell all that it writes.
        plain: whether it is no more than its flags and places of keys tell.
        short: whether it is one of SHORT.
        unsafe: whether it may have written keys that nothing tells.
        needs: what a client must be allowed to: a sum of MAY_...
    """

    __slots__ = ("_first", "_last", "_specs", "_step", "blocking", "known", "name", "needs",
                 "plain", "short", "unsafe", "write")  # fmt: skip

    def __init__(self, name: bytes, flags: set[bytes], keys: Sequence[int], specs: Any) -> None:
        self.name = name
        self._first, self._last, self._step = keys
        self._specs = [_search(spec) for spec in specs]
        self.blocking, self.write = b"blocking" in flags, b"write" in flags
        self.known = bool(self._first) and b"movablekeys" not in flags and name not in FAR
        family = name.partition(b"|")[0]
        reads, harmless = b"readonly" in flags, family in HARMLESS
        self.unsafe = not (reads or harmless or (self.write and self.known))
        self.plain = self.known and not harmless
        self.short = self.plain and self.write and name in SHORT
        self.needs = MAY_CONNECT | (
            MAY_ADMINISTER if b"admin" in flags
            else MAY_READ if reads or name in HEARS
            else 0 if name == b"exec" or (harmless and name not in SAYS)
            else MAY_WRITE
        )  # fmt: skip

    def keys(self, args: list[bytes]) -> list[bytes]:
        """The keys among the arguments, where `known`."""
        last = self._last
        return args[self._first : len(args) + last + 1 if last < 0 else last + 1 : self._step]

    def first_key(self, args: list[bytes]) -> bytes | None:
        """The first key; None: there is none, or nothing tells where."""
        if self._first:
            return args[self._first] if len(args) > self._first else None
        for begin, counted in self._specs:
            at = begin if isinstance(begin, int) else _behind(begin, args)
            if at and counted is not None:  # a number of keys stands there
                at = at + counted[1] if args[at + counted[0] : at + counted[0] + 1] != [b"0"] else 0
            if at and at < len(args):
                return args[at]
        return None


def _search(spec: dict[bytes, Any]) -> tuple[int | bytes, tuple[int, int] | None]:
    """Where keys begin: at a place or behind a word; if counted, places of the number and them."""
    begin, find = spec[b"begin_search"], spec[b"find_keys"]
    where = begin[b"spec"].get(b"index", begin[b"spec"].get(b"keyword", 0))
    counted = find[b"spec"]
    if find[b"type"] != b"keynum":
        return where, None
    return where, (counted[b"keynumidx"], counted[b"firstkey"])


def _behind(word: bytes, args: list[bytes]) -> int:
    upper = [arg.upper() for arg in args[1:]]
    return upper.index(word) + 2 if word in upper else 0


class Table:
    """The commands of an upstream; empty until it has told them.

    Args:
        reply: To COMMAND, in RESP3 or RESP2.
    """

    def __init__(self, reply: Sequence[Any] = ()) -> None:
        self._commands: dict[bytes, Command] = {}
        self._families: set[bytes] = set()
        for line in reply:
            self._add(line)

    def _add(self, line: Any) -> None:
        name = line[0].lower()
        specs = line[8] if len(line) > 8 and all(isinstance(one, dict) for one in line[8]) else ()
        self._commands[name] = Command(name, {*line[2]}, line[3:6], specs)
        for inner in line[9] if len(line) > 9 else ():
            self._families.add(name)
            self._add(inner)

    def __contains__(self, name: bytes) -> bool:
        return name in self._commands

    def find(self, name: bytes, args: list[bytes]) -> Command | None:
        """The command of a call, `name` in small letters; None: it is unknown."""
        if name in self._families and len(args) > 1:
            inner = self._commands.get(name + b"|" + args[1].lower())
            return inner or self._commands[name]
        return self._commands.get(name)


def refusal(name: bytes) -> str:
    """What a client is told that may not use a command."""
    text = name[:128].decode("utf-8", "backslashreplace")
    return f"NOPERM this user has no permissions to run the '{text}' command"
