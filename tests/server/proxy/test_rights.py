"""Who may do what through a proxy: users of its own, or the upstream's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachecore import __version__
from cachecore.tiers.testing import eventually
from server.hosts import Host, Wire
from server.proxy.proxies import client
from servers import Server, redis_server

NOAUTH = "NOAUTH Authentication required."


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = redis_server(tmp_path_factory.mktemp("upstream"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, upstream: Server) -> Iterator[Host]:
    """A proxy with a password, a user who reads and one who writes, too."""
    folder = tmp_path_factory.mktemp("proxy")
    path = folder / "users"
    path.write_text("user reader on >see ~* +@read\nuser writer on >do ~* +@read +@write\n")
    path.chmod(0o600)
    host = Host(
        folder,
        password="secret",
        users_file=str(path),
        upstream=f"redis://127.0.0.1:{upstream.port}",
    )
    yield host
    host.kill()


def test_who_has_not_said_who_gets_nothing(locked: Host, upstream: Server) -> None:
    with client(upstream.port) as behind, locked.wire() as wire:
        behind.set("k", "v")
        assert locked_get(locked) == b"v"  # it is cached
        for words in ("PING", "GET k", "SET k 1", "MULTI", "SUBSCRIBE a", "HELLO 3", "CLIENT ID",
                      "CLIENT TRACKING ON", "MONITOR", "INFO", "INFO cachecore"):  # fmt: skip
            assert wire.ask(*words.split()).startswith("NOAUTH"), words
        assert wire.ask("AUTH", "wrong").startswith("WRONGPASS")
        assert wire.ask("RESET") == "RESET"
        assert wire.ask("GET", "k") == NOAUTH
        assert behind.get("k") == b"v"
        assert wire.ask("QUIT") == "OK"
        assert wire.rest() == b""


def locked_get(locked: Host) -> object:
    with locked.wire() as wire:
        assert wire.ask("AUTH", "secret") == "OK"
        return [wire.ask("GET", "k") for _ in range(2)][1]


def test_our_users_are_served_from_the_cache(locked: Host, upstream: Server) -> None:
    """The upstream, which knows none of them, is not told of them."""
    with client(upstream.port) as behind, locked.wire() as wire:
        behind.set("k", "v")
        assert wire.ask("AUTH", "reader", "see") == "OK"
        before = facts(wire)
        assert [wire.ask("GET", "k") for _ in range(3)] == [b"v"] * 3
        after = facts(wire)
        assert after["fills"] - before["fills"] <= 1
        assert after["forwarded"] == before["forwarded"]
        hello = wire.ask("HELLO", "3", "AUTH", "writer", "do", "SETNAME", "me")
        assert hello[b"proto"] == 3
        assert wire.ask("SET", "k", "w") == "OK"
        assert wire.ask("HELLO", "2", "AUTH", "writer", "wrong").startswith("WRONGPASS")
        assert wire.ask("CLIENT", "GETNAME") == b"me"
        assert "auth" not in " ".join(map(str, behind.info("commandstats")))


def facts(wire: Wire) -> dict[str, int]:
    """What is counted of the upstream."""
    lines = wire.ask("INFO", "cachecore").decode().splitlines()
    pairs = (line.partition(":") for line in lines if line)
    return {name: int(value) for name, _, value in pairs if value.isdecimal()}


@pytest.mark.parametrize(
    "lines",
    [
        "SET k 1", "DEL k", "GETDEL k", "INCR n", "FLUSHALL", "PUBLISH a b", "EVAL return 0",
        "NOSUCH k", "CONFIG SET maxmemory 1", "MONITOR", "COPY k l", "SWAPDB 0 1",
        "MULTI; SET k 1; EXEC", "SORT k STORE l", "SCRIPT FLUSH", "SHUTDOWN", "DEBUG SLEEP 0",
        "CLIENT KILL TYPE normal", "HELLO 3; SUBSCRIBE a; SET k 1", "SUBSCRIBE a; SET k 1",
        "CLIENT TRACKING ON; SET k 1", "CLIENT REPLY OFF; SET k 1", "RESET; SET k 1",
        "SELECT 1; SET k 1", "WATCH k; SET k 1", "AUTH default; SET k 1",
    ],
)  # fmt: skip
def test_who_reads_cannot_write(lines: str, locked: Host, upstream: Server) -> None:
    """Neither at once, nor in a transaction, a script, or behind what is passed on unseen."""
    with client(upstream.port) as behind, locked.wire() as wire:
        behind.set("k", "v")
        wire.ask("AUTH", "reader", "see")
        wire.send("".join(f"{line}\r\n" for line in [*lines.split("; "), "ECHO end"]).encode())
        said = until_end(wire)
        assert b"-NOPERM" in said or b"-NOAUTH" in said, said
        assert behind.get("k") == b"v"
        assert behind.dbsize() == 1
        assert behind.config_get("maxmemory") == {"maxmemory": "0"}


def until_end(wire: Wire) -> bytes:
    """All until the reply to ECHO end, or the connection's end."""
    said = b""
    while not said.endswith(b"end\r\n") and NOAUTH.encode() not in said[-60:]:
        part = wire.socket.recv(1 << 16)
        if not part:
            break
        said += part
    return said


def test_who_reads_can_in_transactions_too(locked: Host, upstream: Server) -> None:
    """But what is refused within one fails all of it, as in Redis."""
    with client(upstream.port) as behind, locked.wire() as wire:
        behind.set("k", "v")
        wire.ask("AUTH", "reader", "see")
        wire.send(
            b"MULTI\r\nGET k\r\nEXEC\r\nMULTI\r\nGET k\r\nSET k 1\r\nGET k\r\nEXEC\r\nGET k\r\n"
        )
        assert [wire.read() for _ in range(3)] == ["OK", "QUEUED", [b"v"]]
        said = [wire.read().split(" ")[0] for _ in range(5)]
        assert said == ["OK", "QUEUED", "NOPERM", "QUEUED", "EXECABORT"]
        assert wire.read() == b"v"


def test_who_writes_can(locked: Host, upstream: Server) -> None:
    with client(upstream.port) as behind, locked.wire() as wire:
        wire.ask("AUTH", "writer", "do")
        wire.send(
            b"MULTI\r\nSET k 1\r\nGET k\r\nEXEC\r\nEVAL \"return redis.call('incr','k')\" 0\r\n"
        )
        assert [wire.read() for _ in range(5)] == ["OK", "QUEUED", "QUEUED", ["OK", b"1"], 2]
        assert wire.ask("SUBSCRIBE", "a") == [b"subscribe", b"a", 1]
        assert behind.publish("a", "x") == 1
        assert wire.read() == [b"message", b"a", b"x"]
        assert wire.ask("UNSUBSCRIBE") == [b"unsubscribe", b"a", 0]
        assert wire.ask("SET", "k", "3") == "OK"
        assert wire.ask("CONFIG", "SET", "maxmemory", "1").startswith("NOPERM")


def test_without_users_of_its_own_they_are_the_upstreams(tmp_path: Path, upstream: Server) -> None:
    with client(upstream.port) as behind:
        behind.config_set("requirepass", "secret")  # from here on
    host = Host(tmp_path / "host", upstream=f"redis://:secret@127.0.0.1:{upstream.port}")
    try:
        with client(upstream.port, password="secret") as behind, host.wire() as wire:
            behind.set("k", "v")
            behind.acl_setuser(
                "one", enabled=True, passwords=["+p"], keys=["x*"], categories=["+@all"]
            )
            assert wire.ask("GET", "k") == b"v"  # as the proxy's own user
            assert wire.ask("AUTH", "one", "bad").startswith("WRONGPASS")
            assert wire.ask("AUTH", "one", "p") == "OK"
            assert wire.ask("GET", "k").startswith("NOPERM")
            assert wire.ask("RESET") == "RESET"
            assert wire.ask("GET", "k") == b"v"
            assert wire.ask("SET", "k", "w") == "OK"
            eventually(lambda: wire.ask("GET", "k") == b"w")
    finally:
        host.kill()


def test_our_users_come_in_while_the_upstream_is_away(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", password="secret", upstream="redis://127.0.0.1:1")
    try:
        with host.wire() as wire:
            assert wire.ask("HELLO", "3", "AUTH", "default", "secret")[b"proto"] == 3
            assert wire.ask("HELLO", "2", "AUTH", "default", "wrong").startswith("WRONGPASS")
            assert wire.ask("HELLO", "2", "AUTH", "default", "secret")[-2:] == [
                b"cachecore",
                __version__.encode(),
            ]
            assert "unavailable" in wire.ask("GET", "k")
    finally:
        host.kill()
