"""CLIENT: what is known of the connections, and what can be done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.addresses import ends_of, shown
from cachecore.server.commands.connection import LONGEST_NAME, checked_name
from cachecore.server.commands.numbers import integer
from cachecore.server.commands.registry import Table
from cachecore.server.commands.subcommands import Family

TABLE = Table()
CLIENT = Family(TABLE, "client", flags="noscript loading stale")
TYPES = {b"normal", b"master", b"replica", b"slave", b"pubsub"}  # ours are all normal


def _others(client: Client) -> Iterable[Client]:
    """All clients, in the order in which they came."""
    return list(client.engine.clients.values())


def line_of(client: Client) -> str:
    """A client as CLIENT LIST shows it."""
    peer, own = ends_of(client)
    engine, state = client.engine, client.state
    flags = "".join(
        letter
        for letter, is_so in (
            ("x", client.queue is not None),
            ("d", client.touched),
            ("U", not isinstance(peer, tuple)),
        )
        if is_so
    )
    fields = {
        "id": client.id,
        "addr": shown(peer or own),
        "laddr": shown(own),
        "fd": client.fileno,
        "name": client.name.decode(),
        "age": (engine.now - client.created) // 1000,
        "idle": (engine.now - client.received_at) // 1000,
        "flags": flags or "N",
        "db": client.database,
        "sub": 0,
        "psub": 0,
        "ssub": 0,
        "multi": -1 if client.queue is None else len(client.queue),
        "qbuf": client.unread_bytes,
        "qbuf-free": 0,
        "argv-mem": 0,
        "multi-mem": sum(map(len, client.queue or ())),
        "rbs": 0,
        "rbp": 0,
        "obl": 0,
        "oll": 0,
        "omem": client.unsent_bytes,
        "tot-mem": client.unread_bytes + client.unsent_bytes,
        "events": "r",
        "cmd": _word(client.last_command),
        "user": client.user.name if client.user is not None else "(none)",
        "redir": -1,
        "resp": client.protocol,
        "lib-name": state.get("lib-name", b"").decode(),
        "lib-ver": state.get("lib-ver", b"").decode(),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _word(name: bytes) -> str:
    """What a client called a command, which may be anything, as one word."""
    return "".join(name.decode("utf-8", "backslashreplace").split()) or "NULL"


@CLIENT.add("id", 2)
def client_id(client: Client, args: list[bytes]) -> int:
    """ID: Return the ID of the current connection."""
    return client.id


@CLIENT.add("getname", 2)
def getname(client: Client, args: list[bytes]) -> bytes | None:
    """GETNAME: Return the name of the current connection."""
    return client.name or None


@CLIENT.add("setname", 3)
def setname(client: Client, args: list[bytes]) -> str:
    """SETNAME <name>: Assign the name <name> to the current connection."""
    client.name = checked_name(args[2])
    return "OK"


@CLIENT.add("setinfo", 4)
def setinfo(client: Client, args: list[bytes]) -> str:
    """SETINFO <option> <value>: Set the library's name or version (LIB-NAME, LIB-VER)."""
    option = args[2].lower()
    if option not in (b"lib-name", b"lib-ver"):
        name = args[2][:128].decode("utf-8", "backslashreplace")
        raise ReplyError(f"ERR Unrecognized option '{name}'")
    if len(args[3]) > LONGEST_NAME or any(not 33 <= letter <= 126 for letter in args[3]):
        name = option.decode()
        raise ReplyError(f"ERR {name} cannot contain spaces, newlines or special characters.")
    client.state[option.decode()] = args[3]
    return "OK"


@CLIENT.add("info", 2)
def info(client: Client, args: list[bytes]) -> bytes:
    """INFO: Return information about the current client connection."""
    return f"{line_of(client)}\n".encode()


@CLIENT.add("list", -2, admin=True)
def list_(client: Client, args: list[bytes]) -> bytes:
    """LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB) | ID <id> [<id> ...]]: Tell of connections."""
    found = _others(client)
    option = args[2].lower() if len(args) > 3 else b""
    if option == b"type" and len(args) == 4:
        if args[3].lower() not in TYPES:
            raise ReplyError(f"ERR Unknown client type '{args[3].decode('utf-8', 'replace')}'")
        found = found if args[3].lower() == b"normal" else ()
    elif option == b"id":
        known = client.engine.clients
        try:
            wanted = [integer(arg) for arg in args[3:]]
        except ReplyError:
            raise ReplyError("ERR Invalid client ID") from None
        found = [known[number] for number in wanted if number in known]
    elif len(args) > 2:
        raise ReplyError("ERR syntax error")
    return "".join(f"{line_of(each)}\n" for each in found).encode()


@CLIENT.add("kill", -3, admin=True)
def kill(client: Client, args: list[bytes]) -> str | int:
    """KILL <ip:port> | <option> <value> [<option> <value> ...]: kill connections.

    Options are ADDR <ip:port>|<unixsocket>:0, LADDR <ip:port>, ID <client-id>, USER <username>,
    TYPE NORMAL|MASTER|REPLICA|PUBSUB, SKIPME YES|NO.
    """
    if len(args) == 3:
        found = [each for each in _others(client) if _is_at(each, 0, args[2])]
        if not found:
            raise ReplyError("ERR No such client")
        _kill(found[:1], client)
        return "OK"
    if len(args) % 2:
        raise ReplyError("ERR syntax error")
    tests: list[Callable[[Client], bool]] = []
    skip_me = True
    for option, value in zip(args[2::2], args[3::2], strict=True):
        if option.lower() == b"skipme":
            if value.lower() not in (b"yes", b"no"):
                raise ReplyError("ERR syntax error")
            skip_me = value.lower() == b"yes"
        else:
            tests.append(_test(client, option.lower(), value))
    found = [
        each
        for each in _others(client)
        if all(test(each) for test in tests) and not (skip_me and each is client)
    ]
    _kill(found, client)
    return len(found)


def _test(client: Client, option: bytes, value: bytes) -> Callable[[Client], bool]:
    """What tells whether a client is meant by an option of CLIENT KILL."""
    text = value.decode("utf-8", "backslashreplace")
    if option == b"id":
        try:
            number = integer(value)
        except ReplyError:
            number = 0
        if number < 1:
            raise ReplyError("ERR client-id should be greater than 0")
        return lambda each: each.id == number
    if option == b"user":
        user = client.engine.server.access.users.get(value)
        if user is None:
            raise ReplyError(f"ERR No such user '{text}'")
        return lambda each: each.user is not None and each.user.name == user.name
    if option == b"type":
        if value.lower() not in TYPES:
            raise ReplyError(f"ERR Unknown client type '{text}'")
        is_normal = value.lower() == b"normal"
        return lambda each: is_normal
    if option in (b"addr", b"laddr"):
        return lambda each: _is_at(each, option == b"laddr", value)
    raise ReplyError("ERR syntax error")


def _is_at(client: Client, own: bool | int, place: bytes) -> bool:
    return shown(ends_of(client)[bool(own)]).encode() == place


def _kill(clients: Iterable[Client], by: Client) -> None:
    for each in clients:
        each.close("killed", now=each is not by)


@CLIENT.add("no-evict", 3)
def no_evict(client: Client, args: list[bytes]) -> str:
    """NO-EVICT (ON|OFF): protect this connection from eviction; none is evicted here."""
    return _on_or_off(args[2])


@CLIENT.add("reply", 3)
def reply(client: Client, args: list[bytes]) -> str:
    """REPLY ON: Whether replies are sent; they always are."""
    if args[2].lower() in (b"off", b"skip"):
        raise ReplyError("ERR CLIENT REPLY OFF and SKIP are not supported by this server")
    if args[2].lower() != b"on":
        raise ReplyError("ERR syntax error")
    return "OK"


@CLIENT.add("tracking", -3)
def tracking(client: Client, args: list[bytes]) -> str:
    """TRACKING (ON|OFF): Invalidation of what clients keep; this server offers none."""
    if args[2].lower() == b"on":
        raise ReplyError("ERR CLIENT TRACKING is not supported by this server")
    return _on_or_off(args[2])


@CLIENT.add("trackinginfo", 2)
def trackinginfo(client: Client, args: list[bytes]) -> dict[bytes, Any]:
    """TRACKINGINFO: Report tracking status for the current connection."""
    return {b"flags": {b"off"}, b"redirect": -1, b"prefixes": []}


@CLIENT.add("getredir", 2)
def getredir(client: Client, args: list[bytes]) -> int:
    """GETREDIR: Return the client ID we are redirecting to when tracking is enabled."""
    return -1


def _on_or_off(value: bytes) -> str:
    if value.lower() not in (b"on", b"off"):
        raise ReplyError("ERR syntax error")
    return "OK"
