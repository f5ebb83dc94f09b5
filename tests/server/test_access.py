"""Who may come in: passwords and users, over real sockets; and how often one may guess."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachecore._resp_client import MAY_ALL, MAY_CONNECT, MAY_READ, MAY_WRITE
from cachecore.server.access import GUESSES, PERIOD, PROTECTED, Throttle
from cachecore.server.addresses import place_of
from cachecore.server.settings import SettingsError
from cachecore.server.users import digest_of, parse_user, read_users
from server.hosts import Host, Wire

WRONG = "WRONGPASS invalid username-password pair or user is disabled."
NOAUTH = "NOAUTH Authentication required."


def users_file(folder: Path, *lines: str) -> Path:
    path = folder / "users"
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Host]:
    """A server with a password, a user who reads, one who writes, one who is off."""
    digest = digest_of(b"see")
    path = users_file(
        tmp_path,
        "# who may come in",
        "",
        f"user reader on #{digest.hex()} ~* +@read",
        "user writer on >do #" + digest.hex() + " ~* &* +@read +@write",
        "user gone off >gone +@all",
        "user guest on nopass -@all +@read",
    )
    host = Host(tmp_path / "host", password="secret", users_file=str(path))
    yield host
    host.kill()


def test_a_password_is_needed_and_enough(locked: Host) -> None:
    with locked.wire() as wire:
        for words in (["PING"], ["GET", "k"], ["INFO"], ["MULTI"], ["CLIENT", "ID"]):
            assert wire.ask(*words) == NOAUTH
        assert wire.ask("AUTH", "wrong") == WRONG
        assert wire.ask("AUTH", "default", "wrong") == WRONG
        assert wire.ask("AUTH", "nobody", "secret") == WRONG
        assert wire.ask("AUTH", "a", "b", "c") == "ERR syntax error"
        assert wire.ask("GET", "k") == NOAUTH
        assert wire.ask("AUTH", "secret") == "OK"
        assert wire.ask("SET", "k", "v") == "OK"
        assert wire.ask("ACL", "WHOAMI") == b"default"
        assert wire.ask("AUTH", "wrong") == WRONG
        assert wire.ask("GET", "k") == b"v"  # who is in stays in
        assert wire.ask("RESET") == "RESET"
        assert wire.ask("GET", "k") == NOAUTH


def test_hello_authenticates(locked: Host) -> None:
    with locked.wire() as wire:
        assert str(wire.ask("HELLO", "3")).startswith("NOAUTH HELLO must be called with")
        assert wire.ask("HELLO", "3", "AUTH", "default", "nope") == WRONG
        assert wire.ask("HELLO", "3", "AUTH", "default", "secret")[b"proto"] == 3
        assert wire.ask("GET", "k") is None
    with locked.wire() as wire:  # a failed HELLO changes nothing
        wire.ask("AUTH", "secret")
        assert wire.ask("HELLO", "3", "AUTH", "default", "nope") == WRONG
        wire.say("GET", "k")
        assert wire._file.readline() == b"$-1\r\n"
        assert wire.ask("HELLO", "3", "SETNAME", "a b").startswith("ERR Client names")


def test_users_may_what_their_line_says(locked: Host) -> None:
    with locked.wire() as wire:
        assert wire.ask("AUTH", "reader", "see") == "OK"
        assert wire.ask("GET", "k") is None
        assert wire.ask("PING") == "PONG"
        for words in (["SET", "k", "v"], ["DEL", "k"], ["INCR", "k"], ["CONFIG", "GET", "*"]):
            name = words[0].lower()
            text = f"NOPERM this user has no permissions to run the '{name}' command"
            assert wire.ask(*words) == text
        refused = "NOPERM this user has no permissions to run the 'client|list' command"
        assert wire.ask("CLIENT", "LIST") == refused
        assert wire.ask("MULTI") == "OK"
        assert wire.ask("SET", "k", "v").startswith("NOPERM")
        assert wire.ask("EXEC").startswith("EXECABORT")
        for password in ("do", "see"):
            assert wire.ask("AUTH", "writer", password) == "OK"
        assert wire.ask("SET", "k", "v") == "OK"
        assert wire.ask("SHUTDOWN").startswith("NOPERM")
        assert wire.ask("AUTH", "gone", "gone") == WRONG
        assert wire.ask("AUTH", "guest", "whatever") == "OK"
        assert wire.ask("GET", "k") == b"v"
        assert wire.ask("SET", "k", "w").startswith("NOPERM")
        wire.ask("AUTH", "secret")
        assert wire.ask("ACL", "USERS") == [b"default", b"gone", b"guest", b"reader", b"writer"]
        assert b"secret" not in b"".join(wire.ask("ACL", "LIST"))
        assert wire.ask("ACL", "GETUSER", "nobody") is None
        assert wire.ask("CONFIG", "GET", "requirepass") == [b"requirepass", b""]


def test_the_file_is_read_anew(locked: Host) -> None:
    path = Path(locked.settings["users_file"])
    with locked.wire() as reader, locked.wire() as writer, locked.wire() as admin:
        reader.ask("AUTH", "reader", "see")
        writer.ask("AUTH", "writer", "do")
        admin.ask("AUTH", "secret")
        before = path.read_text()
        path.write_text(before + "\nuser oops on nonsense")
        text = admin.ask("ACL", "LOAD")
        assert text.startswith(f"ERR users_file: {path}:7: 'nonsense' is not known here")
        assert reader.ask("PING") == "PONG"
        path.write_text(before.replace("+@read +@write", "+@read"))
        assert admin.ask("ACL", "LOAD") == "OK"
        assert writer.rest() == b""  # what they may has changed
        assert reader.ask("PING") == "PONG"
        assert admin.ask("PING") == "PONG"


def test_strangers_can_say_little(locked: Host) -> None:
    for data in (
        b"*11\r\n",
        b"*1\r\n$16385\r\n",
        b"*2147483647\r\n",
        b"*1\r\n$536870912\r\n",
    ):
        with locked.wire() as wire:
            wire.send(data)
            assert wire.rest().startswith(b"-ERR Protocol error: unauthenticated ")
    with locked.wire() as wire:
        wire.ask("AUTH", "secret")
        assert wire.ask("ECHO", b"x" * 100_000) == b"x" * 100_000


def test_guesses_are_slowed_down(tmp_path: Path) -> None:
    host = Host(tmp_path, password="secret")
    try:
        for _ in range(2 * GUESSES):  # an old password over and over is one guess
            assert host.ask("AUTH", "old") == WRONG
        for at in range(GUESSES - 1):
            assert host.ask("AUTH", f"guess{at}") == WRONG
        assert host.ask("AUTH", "secret").startswith("ERR too many wrong passwords; try again in ")
        with host.wire() as wire:
            text = wire.ask("HELLO", "2", "AUTH", "default", "secret")
            assert text.startswith("ERR too many wrong passwords")
    finally:
        host.kill()


def test_guesses_are_forgotten() -> None:
    now = [100.0]
    throttle = Throttle(lambda: now[0])
    for at in range(GUESSES):
        assert throttle.wait("1.2.3.4") == 0
        throttle.failed("1.2.3.4", b"default", b"%d" % at)
        now[0] += 1
    assert throttle.wait("1.2.3.4") == PERIOD - GUESSES
    assert throttle.wait("1.2.3.5") == 0
    now[0] += PERIOD - GUESSES
    assert throttle.wait("1.2.3.4") == 0
    throttle.failed("1.2.3.4", b"default", b"another")
    assert throttle.wait("1.2.3.4") > 0


def test_places_are_bounded_and_of_ipv6_networks() -> None:
    from ipaddress import ip_address

    from cachecore.server import access

    throttle = Throttle()
    for at in range(access.MOST_PLACES + 10):
        throttle.failed(str(at), b"u", b"p")
    assert len(throttle._places) == access.MOST_PLACES
    assert place_of(ip_address("2001:db8::1")) == place_of(ip_address("2001:db8::ffff"))
    assert place_of(ip_address("2001:db8::1")) != place_of(ip_address("2001:db8:0:1::1"))
    assert place_of(None) == "unix"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("user", "must begin with"),
        ("default on", "must begin with"),
        ("user a on #1234", "'#...' is not known here"),
        ("user a on ~cache:*", "'~cache:*' is not known here"),
        ("user a on +get", "'+get' is not known here"),
        ("user a on +@string", "'+@string' is not known here"),
        ("user a\nuser a", "comes twice"),
    ],
)
def test_wrong_lines_are_refused(tmp_path: Path, line: str, what: str) -> None:
    path = users_file(tmp_path, line)
    with pytest.raises(SettingsError) as error:
        read_users(path)
    assert what in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = users_file(tmp_path, "user a on >b")
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_users(path)


@pytest.mark.parametrize(
    ("words", "may"),
    [
        ("", MAY_CONNECT),
        ("+@all", MAY_ALL),
        ("allcommands -@all +@read", MAY_CONNECT | MAY_READ),
        ("+@all -@admin", MAY_CONNECT | MAY_READ | MAY_WRITE),
        ("+@write", MAY_CONNECT | MAY_WRITE),
    ],
)
def test_rights(words: str, may: int) -> None:
    user = parse_user(f"user a on {words}".split())
    assert user.may == may
    assert parse_user(user.line().split()) == user  # what ACL LIST tells can be read again


def test_a_unix_socket_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    host = Host(tmp_path / "host", unix_socket=str(path))
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        with Wire(str(path), family=socket.AF_UNIX) as wire:
            assert wire.ask("PING") == "PONG"
            assert b"addr=" + str(path).encode() in wire.ask("CLIENT", "INFO")
        assert host.stop() == 0
        assert not path.exists()
    finally:
        host.kill()


def test_protected_mode(tmp_path: Path) -> None:
    """The default user has no password in a file of users: only this machine comes in."""
    path = users_file(tmp_path, "user default on nopass +@all", "user a on >b +@all")
    own = own_address()
    host = Host(tmp_path / "host", bind=["127.0.0.1", own], allow_remote=True, users_file=str(path))
    try:
        assert host.ask("PING") == "PONG"
        with Wire((own, host.port)) as wire:
            assert wire.rest() == f"-{PROTECTED}\r\n".encode()
    finally:
        host.kill()


def own_address() -> str:
    """An address of this machine that is not of its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent
        return str(probe.getsockname()[0])
