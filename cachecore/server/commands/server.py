"""Commands about the server: COMMAND, TIME, SAVE, MEMORY, SLOWLOG, LATENCY, SHUTDOWN."""

from __future__ import annotations

import re
import time
from fnmatch import translate
from typing import Any

from cachecore import __version__
from cachecore._resp_client import Client, Command
from cachecore._resp_values import NOTHING, ReplyError
from cachecore.server.commands.info import human_size, resident_bytes
from cachecore.server.commands.registry import Table
from cachecore.server.commands.subcommands import Family

TABLE = Table()
COMMAND = "command"
LATENCY = Family(TABLE, "latency", flags="admin noscript loading stale")
MEMORY = Family(TABLE, "memory", flags="")
SLOWLOG = Family(TABLE, "slowlog", flags="admin loading stale")
NO_SNAPSHOT = "ERR no snapshot file is configured; set `snapshot` and restart the server"


# --- COMMAND, the only family that may be called alone


@TABLE.command(COMMAND, -1, flags="loading stale")
def command(client: Client, args: list[bytes]) -> Any:
    """COMMAND [COUNT | DOCS ... | GETKEYS ... | INFO ... | LIST ... | HELP]."""
    if len(args) == 1:
        return [_described(each) for each in client.engine.commands.values()]
    return _COMMANDS(client, args)


_COMMANDS = Family(Table(), COMMAND)  # it is registered above


@_COMMANDS.add("count", 2)
def count(client: Client, args: list[bytes]) -> int:
    """COUNT: Return the total number of commands in this server."""
    return len(client.engine.commands)


@_COMMANDS.add("info", -2)
def command_info(client: Client, args: list[bytes]) -> list[Any]:
    """INFO [<command-name> ...]: return details about commands, of all if none is named."""
    known = client.engine.commands
    names = [name.lower() for name in args[2:]] or list(known)
    return [_described(known[name]) if name in known else None for name in names]


@_COMMANDS.add("docs", -2)
def docs(client: Client, args: list[bytes]) -> dict[bytes, Any]:
    """DOCS [<command-name> ...]: return documentation, of all commands if none is named."""
    known = client.engine.commands
    names = [name.lower() for name in args[2:]] or list(known)
    return {
        name: {
            b"summary": _summary(known[name]),
            b"since": __version__.encode(),
            b"group": b"generic",
        }
        for name in names
        if name in known
    }


@_COMMANDS.add("list", -2)
def command_list(client: Client, args: list[bytes]) -> list[bytes]:
    """LIST [FILTERBY (ACLCAT <category> | PATTERN <pattern>)]: return the commands."""
    known = client.engine.commands
    if len(args) == 2:
        return list(known)
    if len(args) != 5 or args[2].lower() != b"filterby":
        raise ReplyError("ERR syntax error")
    by, value = args[3].lower(), args[4][:128].decode("utf-8", "replace").lower()
    if by == b"pattern":
        pattern = re.compile(translate(value))
        return [name for name in known if pattern.match(name.decode())]
    if by == b"aclcat":
        return [name for name, each in known.items() if f"@{value}" in _categories(each)]
    if by == b"module":
        return []
    raise ReplyError("ERR syntax error")


@_COMMANDS.add("getkeys", -4)
def getkeys(client: Client, args: list[bytes]) -> list[bytes]:
    """GETKEYS <full-command>: Return the keys from a full command."""
    found = client.engine.commands.get(args[2].lower())
    if found is None:
        raise ReplyError("ERR Invalid command specified")
    call = args[2:]
    if len(call) != found.arity if found.arity > 0 else len(call) < -found.arity:
        raise ReplyError("ERR Invalid number of arguments specified for command")
    keys = found.keys_of(call)
    if not keys and isinstance(found.handler, Family) and len(call) > 1:
        member = found.handler.members.get(call[1].lower())
        if member is not None and member.keys[0]:
            keys = call[member.keys[0] : member.keys[1] + 1 : member.keys[2]]
    if not keys:
        raise ReplyError("ERR The command has no key arguments")
    return keys


def _described(found: Command) -> list[Any]:
    first, last, step = found.keys
    members = found.handler.members if isinstance(found.handler, Family) else {}
    inner = [
        [found.name + b"|" + name, member.arity, set(), *member.keys, set(), [], [], []]
        for name, member in members.items()
    ]
    return [
        found.name,
        found.arity,
        set(found.flags),
        first,
        last,
        step,
        _categories(found),
        [],
        [],
        inner,
    ]


def _categories(found: Command) -> set[str]:
    flags = found.flags
    names = {"@read": "readonly", "@write": "write", "@admin": "admin", "@dangerous": "admin"}
    return {"@fast" if "fast" in flags else "@slow"} | {
        name for name, flag in names.items() if flag in flags
    }


def _summary(found: Command) -> bytes:
    text = found.handler.__doc__ if found.handler is not None else None
    return (text.split("\n")[0] if text else found.name.decode().upper()).encode()


# --- the server as a whole


@TABLE.command("time", 1, flags="loading stale fast")
def time_(client: Client, args: list[bytes]) -> list[bytes]:
    """TIME."""
    now = time.time_ns() // 1000
    return [b"%d" % (now // 1_000_000), b"%d" % (now % 1_000_000)]


@TABLE.command("role", 1, flags="noscript loading stale fast")
def role(client: Client, args: list[bytes]) -> list[Any]:
    """ROLE."""
    return [b"master", 0, []]


@TABLE.command("debug", -2, flags="admin noscript loading stale")
def debug(client: Client, args: list[bytes]) -> None:
    """DEBUG: it is off, and nothing turns it on."""
    raise ReplyError("ERR DEBUG command not allowed. This server has none of its subcommands.")


@TABLE.command("lastsave", 1, flags="loading stale fast")
def lastsave(client: Client, args: list[bytes]) -> int:
    """LASTSAVE."""
    server = client.engine.server
    return int(server.saver.saved_at if server.saver is not None else server.started)


@TABLE.command("save", 1, flags="admin noscript")
async def save(client: Client, args: list[bytes]) -> str:
    """SAVE: write the snapshot; others are served meanwhile."""
    saver = client.engine.server.saver
    if saver is None:
        raise ReplyError(NO_SNAPSHOT)
    if saver.taking is not None:
        raise ReplyError("ERR Background save already in progress")
    try:
        await saver.save()
    except OSError as error:
        raise ReplyError(f"ERR the snapshot was not written: {error.strerror}") from None
    return "OK"


@TABLE.command("bgsave", -1, flags="admin noscript")
def bgsave(client: Client, args: list[bytes]) -> str:
    """BGSAVE [SCHEDULE]."""
    saver = client.engine.server.saver
    if len(args) > 2 or (len(args) == 2 and args[1].lower() != b"schedule"):
        raise ReplyError("ERR syntax error")
    if saver is None:
        raise ReplyError(NO_SNAPSHOT)
    if saver.taking is not None:
        raise ReplyError("ERR Background save already in progress")
    saver.begin()
    return "Background saving started"


@TABLE.command("shutdown", -1, flags="admin noscript loading stale")
def shutdown(client: Client, args: list[bytes]) -> Any:
    """SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE]."""
    options = {arg.lower() for arg in args[1:]}
    if options - {b"nosave", b"save", b"now", b"force"} or {b"nosave", b"save"} <= options:
        raise ReplyError("ERR syntax error")
    client.engine.server.ask_to_stop(save=b"nosave" not in options)
    return NOTHING


# --- MEMORY, SLOWLOG, LATENCY: what tools ask for


@MEMORY.add("doctor", 2)
def memory_doctor(client: Client, args: list[bytes]) -> bytes:
    """DOCTOR: Return a summary of memory."""
    server = client.engine.server
    held, most = server.cache.stats().bytes, server.cache.max_bytes
    return (
        f"Keys and values take {human_size(held)} of the {human_size(most)} they may,"
        f" buffers of clients {human_size(server.engine.buffered_bytes)},"
        f" the process {human_size(resident_bytes())} of RAM.\n"
    ).encode()


@MEMORY.add("stats", 2)
def memory_stats(client: Client, args: list[bytes]) -> dict[bytes, Any]:
    """STATS: Return information about the memory usage of the server."""
    server = client.engine.server
    stats = server.cache.stats()
    buffers = server.engine.buffered_bytes
    total = stats.bytes + buffers
    return {
        b"total.allocated": total,
        b"clients.normal": buffers,
        b"overhead.total": buffers,
        b"keys.count": stats.entries,
        b"keys.bytes-per-key": stats.bytes // max(stats.entries, 1),
        b"dataset.bytes": stats.bytes,
        b"dataset.percentage": 100 * stats.bytes / max(total, 1),
        b"fragmentation": resident_bytes() / max(total, 1),
    }


@SLOWLOG.add("get", -2)
def slowlog_get(client: Client, args: list[bytes]) -> list[Any]:
    """GET [<count>]: Return entries of the slow log; this server keeps none."""
    return []


@SLOWLOG.add("len", 2)
def slowlog_len(client: Client, args: list[bytes]) -> int:
    """LEN: Return the length of the slow log; it is empty."""
    return 0


@SLOWLOG.add("reset", 2)
def slowlog_reset(client: Client, args: list[bytes]) -> str:
    """RESET: Reset the slow log."""
    return "OK"


@LATENCY.add("latest", 2)
def latency_latest(client: Client, args: list[bytes]) -> list[Any]:
    """LATEST: Return the latest latency samples for all events; this server takes none."""
    return []


@LATENCY.add("history", 3)
def latency_history(client: Client, args: list[bytes]) -> list[Any]:
    """HISTORY <event>: Return time-latency samples for the <event>; there are none."""
    return []


@LATENCY.add("histogram", -2)
def latency_histogram(client: Client, args: list[bytes]) -> dict[bytes, Any]:
    """HISTOGRAM [<command> ...]: Return the latencies of commands; they are not measured."""
    return {}


@LATENCY.add("reset", -2)
def latency_reset(client: Client, args: list[bytes]) -> int:
    """RESET [<event> ...]: Reset latency data; returns how many events there were."""
    return 0
