"""CONFIG: what is set, under the names that Redis gives to it, and the little that may be changed.

Nothing that names a file, an address or a password can be changed while the server runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from typing import Any, NamedTuple

from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.info import POLICY
from cachecore.server.commands.registry import Table
from cachecore.server.commands.subcommands import Family, wrong_number
from cachecore.server.service import Server
from cachecore.server.settings import MOST_COMMAND

TABLE = Table()
CONFIG = Family(TABLE, "config", flags="admin noscript loading stale")
UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3}
UNITS["gb"] = 1024**3
LEAST_MEMORY, MOST_MEMORY = 1 << 20, 1 << 62


class Parameter(NamedTuple):
    """One of CONFIG's."""

    get: Callable[[Server], Any]
    read: Callable[[str], Any] | None = None
    """Makes a value of a text, or raises ValueError; None: it cannot be changed."""
    set: Callable[[Server, Any], None] = lambda server, value: None
    kind: str = "immutable"
    """Why it cannot be changed."""


def _memory(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        match = re.fullmatch(r"(\d{1,18})([kmg]?b?)", text.lower())
        if match is None:
            raise ValueError("argument must be a memory value")
        size = int(match[1]) * UNITS[match[2]]
        if not LEAST_MEMORY <= size <= most:
            raise ValueError(f"argument must be between {LEAST_MEMORY} and {most} inclusive")
        return size

    return read


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,18}", text):
            raise ValueError("argument couldn't be parsed into an integer")
        if not least <= int(text) <= most:
            raise ValueError(f"argument must be between {least} and {most} inclusive")
        return int(text)

    return read


def _only(value: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() != value:
            raise ValueError(f"argument(s) must be one of the following: {value}")
        return value

    return read


def _resize(server: Server, size: int) -> None:
    server.cache.resize(max_bytes=size)


def _set_of_engine(name: str) -> Callable[[Server, Any], None]:
    return lambda server, value: setattr(server.engine, name, value)


def _save_points(server: Server) -> str:
    interval = server.settings.snapshot_interval
    return f"{interval:.0f} 1" if interval else ""


def _snapshot(part: Callable[[Any], Any]) -> Callable[[Server], str]:
    return lambda server: str(part(server.settings.snapshot)) if server.settings.snapshot else ""


PARAMETERS = {
    "maxmemory": Parameter(lambda server: server.cache.max_bytes, _memory(MOST_MEMORY), _resize),
    "maxmemory-policy": Parameter(lambda server: POLICY, _only(POLICY)),
    "maxclients": Parameter(
        lambda server: server.engine.max_clients,
        _whole(1, 1_000_000),
        _set_of_engine("max_clients"),
    ),
    "timeout": Parameter(
        lambda server: f"{server.engine.idle_timeout:.0f}",
        _whole(0, 2**31 - 1),
        _set_of_engine("idle_timeout"),
    ),
    "databases": Parameter(lambda server: server.settings.databases),
    "port": Parameter(lambda server: 0 if server.encrypted else server.port),
    "tls-port": Parameter(lambda server: server.port if server.encrypted else 0),
    "bind": Parameter(lambda server: " ".join(server.settings.bind), kind="protected"),
    "tcp-backlog": Parameter(lambda server: server.settings.backlog),
    "unixsocket": Parameter(lambda server: server.settings.unix_socket or "", kind="protected"),
    "unixsocketperm": Parameter(lambda server: "600", kind="protected"),
    "protected-mode": Parameter(lambda server: "yes", kind="protected"),
    "requirepass": Parameter(lambda server: "", kind="protected"),
    "proto-max-bulk-len": Parameter(
        lambda server: server.engine.max_bulk, _memory(MOST_COMMAND), _set_of_engine("max_bulk")
    ),
    "save": Parameter(_save_points),
    "appendonly": Parameter(lambda server: "no", _only("no")),
    "dir": Parameter(_snapshot(lambda path: path.parent), kind="protected"),
    "dbfilename": Parameter(_snapshot(lambda path: path.name), kind="protected"),
    "logfile": Parameter(lambda server: server.settings.log_file or "", kind="protected"),
    "loglevel": Parameter(lambda server: server.settings.log_level),
    "slowlog-log-slower-than": Parameter(lambda server: -1),
    "slowlog-max-len": Parameter(lambda server: 0),
    "latency-monitor-threshold": Parameter(lambda server: 0),
    "notify-keyspace-events": Parameter(lambda server: "", _only("")),
    "cluster-enabled": Parameter(lambda server: "no"),
}


@CONFIG.add("get", -3)
def get(client: Client, args: list[bytes]) -> dict[bytes, bytes]:
    """GET <pattern> [<pattern> ...]: return parameters by glob-like patterns."""
    found: dict[bytes, bytes] = {}
    for arg in args[2:]:
        text = arg[:128].decode("utf-8", "replace")
        pattern = re.compile(translate(text.lower()))
        for name, parameter in PARAMETERS.items():
            if pattern.match(name):
                shown = text if name == text.lower() else name
                found[shown.encode()] = str(parameter.get(client.engine.server)).encode()
    return found


@CONFIG.add("set", -4)
def set_(client: Client, args: list[bytes]) -> str:
    """SET <directive> <value> [...]: set maxmemory, maxclients, timeout; all or none."""
    if len(args) % 2:
        raise wrong_number("config|set")
    values: dict[str, Any] = {}
    for given, value in zip(args[2::2], args[3::2], strict=True):
        shown = given[:128].decode("utf-8", "backslashreplace")
        name = shown.lower()
        parameter = PARAMETERS.get(name)
        if parameter is None:
            raise ReplyError(
                f"ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"
            )
        if parameter.read is None:
            raise _failed(name, f"can't set {parameter.kind} config")
        if name in values:
            raise _failed(name, "duplicate parameter")
        try:
            values[name] = parameter.read(value[:128].decode("utf-8", "replace"))
        except ValueError as error:
            raise _failed(name, str(error)) from None
    for name, value in values.items():
        PARAMETERS[name].set(client.engine.server, value)
    return "OK"


@CONFIG.add("resetstat", 2)
def resetstat(client: Client, args: list[bytes]) -> str:
    """RESETSTAT: Reset statistics reported by the INFO command."""
    client.engine.server.reset_counts()
    return "OK"


def _failed(name: str, why: str) -> ReplyError:
    return ReplyError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
