"""Clients that send what no client should: answered or closed, in bounded memory."""

from __future__ import annotations

import random
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.hosts import Host, command

ROOM = 32 << 20  # bytes by which the process may grow over all cases of this file
BAD = rb"-ERR Protocol error: [^\r\n]+\r\n"
COUNT = rb"-ERR Protocol error: invalid multibulk length\r\n"
BULK = rb"-ERR Protocol error: invalid bulk length\r\n"
TYPE = rb"-ERR Protocol error: expected '\$', got '[^\r\n]+'\r\n"
UNKNOWN = rb"-ERR unknown command [^\r\n]+\r\n"
PONG = rb"\+PONG\r\n"
PING = command("PING")
NOTHING = rb""

HUGE = [b"2147483648", b"4294967296", b"9223372036854775807", b"9223372036854775808"]
HUGE += [b"18446744073709551616", b"999999999999", b"9" * 30]
HELLO_OF_TLS = bytes.fromhex("16030100c8010000c40303") + bytes(200)


Case = tuple[str, bytes, bytes]  # a name, what is sent, what the replies look like, to the end


def counts_and_lengths() -> Iterator[Case]:
    for number in [*HUGE, b"1048577", b"abc", b"", b" 1", b"1 ", b"+1", b"1x", b"0x1", b"1.0"]:
        yield f"count {number!r}", b"*%b\r\n" % number, COUNT
    for number in [b"0", b"-1"]:
        yield f"count {number!r}", b"*%b\r\n" % number + PING, PONG
    for number in [b"-2147483648", b"-9223372036854775808", b"-" + b"9" * 30]:
        yield f"count {number!r}", b"*%b\r\n" % number + PING, rb"(" + PONG + rb"|" + COUNT + rb")"
    for number in [*HUGE, b"536870913", b"-1", b"-2", b"-9223372036854775808", b"abc", b"", b" 3"]:
        yield f"length {number!r}", b"*2\r\n$3\r\nGET\r\n$%b\r\n" % number, BULK
    for number in [b"3x", b"3 ", b"+3", b"0x3"]:
        yield f"length {number!r}", b"*1\r\n$%b\r\nGET\r\n" % number, BULK


def ends_of_lines() -> Iterator[Case]:
    for name, data in {
        "after a count": b"*1\n$4\r\nPING\r\n",
        "after a length": b"*1\r\n$4\nPING\r\n",
        "after an argument": b"*1\r\n$4\r\nPING\nX",
        "CR only": b"*1\r$4\rPING\r",
        "CR and more": b"*1\r\n$4\r\nPING\rX",
        "longer than said": b"*1\r\n$4\r\nPINGPING\r\n",
        "LF LF": b"*1\n\n$4\n\nPING\n\n",
        "CR CR LF": b"*1\r\r\n$4\r\nPING\r\n",
    }.items():
        yield f"line end {name}", data, BAD
    yield "inline with a bare LF", b"PING\n", BAD


def other_types() -> Iterator[Case]:
    for data in (
        b"*1\r\n",
        b":1\r\n",
        b"+PING\r\n",
        b"-ERR\r\n",
        b"_\r\n",
        b"%1\r\n",
        b"!4\r\nPING\r\n",
    ):
        yield f"an argument {data!r}", b"*1\r\n" + data, TYPE
    yield "nested arrays", b"*1\r\n" * 100_000, TYPE
    yield "nested arrays of many", b"*1048576\r\n" * 1000, TYPE
    for data in (
        b"$4\r\nPING\r\n",
        b"+PING\r\n",
        b":1\r\n",
        b"%1\r\n",
        b"~1\r\n",
        b"_\r\n",
        b"#t\r\n",
    ):
        yield (
            f"replies as requests {data!r}",
            data,
            rb"(" + UNKNOWN + rb"|" + BAD + rb"|" + PONG + rb")+",
        )


def inline_commands() -> Iterator[Case]:
    yield "inline", b"PING\r\nPING hello\r\n", rb"\+PONG\r\n\$5\r\nhello\r\n"
    yield "inline quotes", b'ECHO "a\\r\\n\\x00b"\r\n', rb"\$5\r\na\r\n\x00b\r\n"
    yield (
        "inline open quotes",
        b'ECHO "abc\r\n',
        rb"-ERR Protocol error: unbalanced quotes[^\r\n]*\r\n",
    )
    yield (
        "inline text after quotes",
        b'ECHO "abc"def\r\n',
        rb"-ERR Protocol error: unbalanced [^\r\n]*\r\n",
    )
    yield (
        "inline without an end",
        b"A" * 70_000,
        rb"-ERR Protocol error: too big inline request\r\n",
    )
    yield "inline spaces", b" " * 70_000, rb"-ERR Protocol error: too big inline request\r\n"
    yield "inline of many words", b"a " * 30_000 + b"\r\n", UNKNOWN
    yield "inline empty lines", b"\r\n" * 50_000 + b"PING\r\n", PONG
    yield "inline zeros", b"\0" * 1000 + b"\r\n" + PING, PONG


def other_protocols() -> Iterator[Case]:
    for method in (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"CONNECT"):
        request = b"%b / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n" % method
        yield f"HTTP {method!r}", request, NOTHING
    yield "HTTP 0.9 with Host", b"POST /\r\nHost: x\r\nSET stolen 1\r\n", rb"(-ERR[^\r\n]+\r\n)?"
    yield "TLS", HELLO_OF_TLS, rb"(" + BAD + rb")?"
    yield "SSH", b"SSH-2.0-OpenSSH_9.2\r\n", UNKNOWN
    yield "SMTP", b"EHLO x\r\n", UNKNOWN
    yield "memcached", b"get k\r\n", rb"\$-1\r\n"
    yield "memcached, binary", bytes.fromhex("800000010000000000000001") + bytes(13), NOTHING
    yield "PROXY", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nPING\r\n", UNKNOWN + PONG


def commands() -> Iterator[Case]:
    yield "no name", b"*1\r\n$0\r\n\r\n" + PING, UNKNOWN + PONG
    yield "a long name", command(b"x" * 1_000_000), rb"-ERR unknown command 'x{128}'[^\r\n]*\r\n"
    yield "a name of line ends", command(b"a\r\nb\r\n"), UNKNOWN
    yield "arguments of line ends", command("nope", "\r\n+OK\r\n"), UNKNOWN
    yield "many arguments", command("nope", *[b""] * 200_000), UNKNOWN
    yield "an empty key", command("GET", ""), rb"\$-1\r\n"
    yield "a key of zeros", command("GET", bytes(100_000)), rb"\$-1\r\n"
    yield "an error in the middle", PING + b"*1\r\n$x\r\n" + PING, PONG + BULK
    yield "replies after QUIT", command("QUIT") + PING, rb"\+OK\r\n"
    yield "a pipeline and a half", PING * 3 + PING[:7], PONG * 3


def ends_in_the_middle() -> Iterator[Case]:
    for at in range(1, len(PING)):
        yield f"an end after {at}", PING[:at], NOTHING
    yield "nothing", b"", NOTHING
    yield (
        "a gigabyte that does not come",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500000000\r\nabc",
        NOTHING,
    )
    yield "a million arguments that do not come", b"*1000000\r\n$1\r\na\r\n", NOTHING


CASES = [
    *counts_and_lengths(),
    *ends_of_lines(),
    *other_types(),
    *inline_commands(),
    *other_protocols(),
    *commands(),
    *ends_in_the_middle(),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    host = Host(folder, memory_limit=64 << 20)
    before = host.memory()
    yield host
    alive = host.process is not None and host.process.poll() is None
    grown = host.memory("VmHWM") - before if alive else 0
    host.kill()
    assert alive
    assert grown < ROOM
    assert "Traceback" not in host.log()


def test_there_are_a_hundred() -> None:
    assert len(CASES) >= 100
    assert len({name for name, _, _ in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("data", "expected"), [each[1:] for each in CASES], ids=[c[0] for c in CASES]
)
def test_hostile_bytes(host: Host, data: bytes, expected: bytes) -> None:
    with host.wire() as wire:
        try:
            wire.send(data)
            wire.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has closed already
        got = wire.rest()
    assert re.fullmatch(expected, got, re.DOTALL), got[:200]
    with host.wire() as wire:
        assert wire.ask("PING") == "PONG"
        assert wire.ask("EXISTS", "stolen") == 0


def test_byte_by_byte(host: Host) -> None:
    """What comes in pieces is answered as what comes at once."""
    data = PING + command("ECHO", "a b") + b"PING x\r\n" + command("nope", "a") + b"*1\r\n$-7\r\n"
    with host.wire() as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            wire.send(bytes([byte]))
        got = wire.rest()
    with host.wire() as wire:
        wire.send(data)
        assert wire.rest() == got
    assert re.fullmatch(rb"\+PONG\r\n\$3\r\na b\r\n\$1\r\nx\r\n" + UNKNOWN + BULK, got)


def test_random_bytes(host: Host) -> None:
    chance = random.Random(7)
    words = [b"*", b"$", b"\r\n", b"1", b"-1", b"3", b"GET", b"a", b"\0", b'"', b"\xff", b" ", PING]
    for _ in range(300):
        with host.wire() as wire:
            try:
                wire.send(b"".join(chance.choices(words, k=chance.randrange(200))))
                wire.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            wire.rest()
    assert host.ask("PING") == "PONG"


def test_resets(host: Host) -> None:
    """Connections that are reset while replies are under way."""
    for at in range(200):
        with host.wire() as wire:
            wire.send(PING * 1000 + PING[: at % 14])
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert host.ask("PING") == "PONG"


def test_half_closed(host: Host) -> None:
    """Who sends no more still gets all replies, in order."""
    host.ask("SET", "large", b"x" * 100_000)
    with host.wire() as wire:
        wire.send(b"".join(command("ECHO", str(at)) + command("GET", "large") for at in range(300)))
        wire.socket.shutdown(socket.SHUT_WR)
        for at in range(300):
            assert wire.read() == b"%d" % at
            assert wire.read() == b"x" * 100_000
        assert wire.rest() == b""
