"""The same commands to a real redis-server and to ours: the same replies, errors word for word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import servers
from server.hosts import Host, Wire

COMMANDS = [
    "PING", "PING a", "PING a b", "ECHO a", "ECHO", "SELECT 1", "SELECT a", "SELECT 99",
    "SELECT -1", "SELECT 01", "AUTH a", "AUTH default a", "AUTH a b c", "HELLO 4", "HELLO x",
    "HELLO 3 foo", "HELLO 2 SETNAME", "HELLO 2 AUTH a", "RESET", "CLIENT", "CLIENT foo",
    "CLIENT GETNAME", "CLIENT SETNAME me", "CLIENT GETNAME", "CLIENT SETNAME",
    "CLIENT SETNAME a\nb", "CLIENT KILL", "CLIENT KILL ID x", "CLIENT KILL ID 0",
    "CLIENT KILL ID 99999", "CLIENT KILL foo bar", "CLIENT KILL ADDR", "CLIENT KILL SKIPME maybe",
    "CLIENT KILL USER nobody", "CLIENT KILL TYPE nothing", "CLIENT KILL 1.2.3.4:5",
    "CLIENT LIST foo", "CLIENT LIST TYPE foo", "CLIENT LIST TYPE master", "CLIENT LIST ID x",
    "CLIENT LIST ID 99999", "CLIENT NO-EVICT on", "CLIENT NO-EVICT x", "CLIENT REPLY on",
    "CLIENT REPLY x", "CLIENT GETREDIR", "CLIENT TRACKINGINFO", "CLIENT TRACKING off",
    "CLIENT TRACKING x", "COMMAND foo", "COMMAND INFO nonsense", "COMMAND GETKEYS foo a",
    "COMMAND GETKEYS get", "COMMAND GETKEYS get k", "COMMAND GETKEYS mset a b c d",
    "COMMAND GETKEYS ping", "COMMAND GETKEYS get a b", "COMMAND LIST FILTERBY foo x",
    "COMMAND LIST FILTERBY", "COMMAND LIST FILTERBY PATTERN mge*", "COMMAND COUNT x", "CONFIG",
    "CONFIG foo", "CONFIG GET", "CONFIG GET nonsense", "CONFIG GET MAXCLIENTS", "CONFIG GET save",
    "CONFIG GET appendonly", "CONFIG SET", "CONFIG SET a", "CONFIG SET a b",
    "CONFIG SET maxmemory x", "CONFIG SET maxclients x", "CONFIG SET dir /tmp",
    "CONFIG SET dbfilename x", "CONFIG SET databases 3", "CONFIG SET timeout -1",
    "CONFIG SET timeout 5 timeout 6", "CONFIG SET timeout 7", "CONFIG GET timeout",
    "CONFIG SET timeout 9 dir /", "CONFIG GET timeout", "CONFIG SET timeout 0", "CONFIG RESETSTAT",
    "ACL", "ACL WHOAMI", "ACL LIST", "ACL USERS", "ACL GETUSER nobody", "ACL GETUSER default",
    "ACL foo", "LATENCY foo", "LATENCY LATEST", "LATENCY RESET", "SLOWLOG foo", "SLOWLOG LEN",
    "SLOWLOG RESET", "MEMORY foo", "SHUTDOWN foo", "SHUTDOWN SAVE NOSAVE", "SAVE x", "BGSAVE foo",
    "ROLE", "EXEC", "DISCARD", "WATCH", "UNWATCH", "MULTI x", "NONSENSE", "NONSENSE a b", "GET",
    "GET a b", "LASTSAVE x", "TIME x",
    # transactions
    "MULTI", "MULTI", "WATCH a", "SET a 1", "GET a", "NONSENSE", "EXEC",
    "MULTI", "SET a 1", "GET a b", "EXEC", "GET a",
    "MULTI", "SET a x", "INCR a", "SET b 2", "EXEC", "GET b",
    "MULTI", "PING", "ECHO x", "SELECT 2", "SET here 1", "EXEC", "GET here", "SELECT 0", "GET here",
    "MULTI", "SET a 2", "DISCARD", "GET a",
    "MULTI", "EXEC",
    "WATCH a", "SET a 3", "MULTI", "GET a", "EXEC",
    "WATCH a", "SET a 3", "UNWATCH", "MULTI", "GET a", "EXEC",
    "WATCH a", "MULTI", "UNWATCH", "GET a", "EXEC",
    "WATCH nothing", "MULTI", "GET a", "EXEC",
    "WATCH nothing", "SET nothing 1", "DEL nothing", "MULTI", "GET a", "EXEC",
    "MULTI", "RESET", "EXEC", "GET a",
    "MULTI", "AUTH default x", "EXEC",
    "MULTI", "HELLO 9", "CLIENT SETNAME c", "EXEC", "CLIENT GETNAME",
    "QUIT",
]  # fmt: skip

UNORDERED = {b"on", b"off", b"nopass", "readonly", "write", "fast", "denyoom"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, servers.Server]]:
    folder: Path = tmp_path_factory.mktemp("both")
    host, redis = Host(folder / "ours"), servers.redis_server(folder / "redis")
    yield host, redis
    host.kill()
    redis.kill()


@pytest.mark.parametrize("protocol", ["2", "3"])
def test_replies_are_those_of_redis(both: tuple[Host, servers.Server], protocol: str) -> None:
    host, redis = both
    differing = []
    with host.wire() as ours, Wire(("127.0.0.1", redis.port)) as theirs:
        for wire in (ours, theirs):
            wire.ask("FLUSHALL")
            wire.ask("HELLO", protocol)
        for command in COMMANDS:
            words = command.split(" ")
            replies = [plain(wire.ask(*words)) for wire in (ours, theirs)]
            if replies[0] != replies[1]:
                differing.append((command, *replies))
        assert ours.rest() == theirs.rest() == b""
    assert not differing, "\n".join(map(repr, differing))


def plain(reply: Any) -> Any:
    """Without an order where there is none."""
    if isinstance(reply, list) and all(each in UNORDERED for each in reply):
        return sorted(reply)
    return [plain(each) for each in reply] if isinstance(reply, list) else reply
