"""Requests as they come over a socket: cut anywhere they are the same; hostile ones end it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engines import Recorder, array, talk

commands = st.lists(
    st.lists(st.binary(max_size=40), min_size=1, max_size=5), min_size=1, max_size=6
)


def recorded(data: bytes, cuts: list[int], **options: int) -> tuple[list[list[bytes]], bytes]:
    """The commands in `data`, sent in pieces, and what the engine says."""
    recorder = Recorder(**options)
    try:
        edges = [0, *sorted(cuts), len(data)]
        said = [recorder.ask(data[a:b]) for a, b in pairwise(edges) if a < b]
        return recorder.commands, b"".join(said)
    finally:
        recorder.close()


@settings(max_examples=150, deadline=None)
@given(commands, st.data())
def test_commands_are_the_same_however_they_are_cut(
    sent: list[list[bytes]], data: st.DataObject
) -> None:
    stream = b"".join(array(*args) for args in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert recorded(stream, cuts) == (sent, b"")


STREAMS = [
    array(b"SET", b"key", b"value") + array(b"GET", b"key"),
    b"PING\r\n" + array(b"ECHO", b"x" * 70),
    b'set "a b" \'c\\\'d\' "\\x41\\n\\"" e\r\n\r\n  \r\nPING\r\n',
    b"*0\r\n*-1\r\n*-5\r\n" + array(b"PING") + b"\r\n",
    array(b""),
    array(b"a", b"", b"b"),
]


@pytest.mark.parametrize("stream", STREAMS)
def test_every_cut_in_two_gives_the_same(stream: bytes) -> None:
    whole = recorded(stream, [])
    assert whole[0]
    assert whole[1] == b""
    for at in range(1, len(stream)):
        assert recorded(stream, [at]) == whole
    assert recorded(stream, list(range(len(stream)))) == whole


@pytest.mark.parametrize(
    ("line", "args"),
    [
        (b"GET k", [b"GET", b"k"]),
        (b"  GET \t k  ", [b"GET", b"k"]),
        (b'SET k ""', [b"SET", b"k", b""]),
        (b'SET k "a\\x00\\xfF\\r\\n\\t\\b\\a\\\\\\q"', [b"SET", b"k", b"a\0\xff\r\n\t\b\a\\q"]),
        (b"SET k 'a\\'b\\n'", [b"SET", b"k", b"a'b\\n"]),
        (b'SET k a"b c"', [b"SET", b"k", b"ab c"]),
        (b'SET k "\\xg1"', [b"SET", b"k", b"xg1"]),
    ],
)
def test_words_of_a_line_are_unquoted(line: bytes, args: list[bytes]) -> None:
    assert recorded(line + b"\r\n", []) == ([args], b"")


ERRORS = [
    (b"*1\r\n:5\r\n", b"expected '$', got ':'"),
    (b"*1\r\n$-1\r\n", b"invalid bulk length"),
    (b"*1\r\n$-999\r\n", b"invalid bulk length"),
    (b"*1\r\n$999999999999\r\n", b"invalid bulk length"),
    (b"*1\r\n$536870913\r\n", b"invalid bulk length"),
    (b"*1\r\n$18446744073709551617\r\n", b"invalid bulk length"),
    (b"*1\r\n$99999999999999999999999\r\n", b"invalid bulk length"),
    (b"*1\r\n$0x10\r\n", b"invalid bulk length"),
    (b"*1\r\n$01\r\nx\r\n", b"invalid bulk length"),
    (b"*1\r\n$+1\r\nx\r\n", b"invalid bulk length"),
    (b"*1\r\n$ 1\r\nx\r\n", b"invalid bulk length"),
    (b"*1\r\n$\r\n", b"invalid bulk length"),
    (b"*1\r\n$--1\r\n", b"invalid bulk length"),
    (b"*2147483648\r\n", b"invalid multibulk length"),
    (b"*1048577\r\n", b"invalid multibulk length"),
    (b"*99999999999999999999\r\n", b"invalid multibulk length"),
    (b"*x\r\n", b"invalid multibulk length"),
    (b"*\r\n", b"invalid multibulk length"),
    (b"*1 \r\n", b"invalid multibulk length"),
    (b"*1\n$4\nPING\n", b"invalid multibulk length"),
    (b"*1\r$4\r\nPING\r\n", b"expected CRLF"),
    (b"*1\r\n$4\n\nPING\r\n", b"invalid bulk length"),
    (b"*1\r\n$4\r\nPINGxx", b"expected CRLF"),
    (b"*1\r\n$4\r\nPING\n\n", b"expected CRLF"),
    (b"*1\r\n$3\r\nPING\r\n", b"expected CRLF"),
    (b"*1\r\n$5\r\nPING\r\n\r\n", b"expected CRLF"),
    (b"*2\r\n*1\r\n$4\r\nPING\r\n", b"expected '$', got '*'"),
    (b"*1\r\n+PING\r\n", b"expected '$', got '+'"),
    (b"PING\n", b"expected CRLF"),
    (b"\n", b"expected CRLF"),
    (b"\r\nPING\n", b"expected CRLF"),
    (b'GET "k\r\n', b"unbalanced quotes in request"),
    (b'GET "k"x\r\n', b"unbalanced quotes in request"),
    (b"GET 'k\\'\r\n", b"unbalanced quotes in request"),
    (b"x" * 65536, b"too big inline request"),
    (b"\0" * 65536, b"too big inline request"),
]


@pytest.mark.parametrize(("data", "fault"), ERRORS, ids=lambda value: repr(value[:40]))
def test_what_breaks_the_protocol_ends_the_connection(data: bytes, fault: bytes) -> None:
    with talk() as each:
        assert each.ask(data) == b"-ERR Protocol error: " + fault + b"\r\n"
        assert each.client.closed == "protocol"
        assert each.engine.clients == {}
        assert each.engine.buffered_bytes == 0


@pytest.mark.parametrize(("data", "fault"), ERRORS, ids=lambda value: repr(value[:40]))
def test_so_it_does_in_pieces_and_after_good_commands(data: bytes, fault: bytes) -> None:
    cuts = list(range(0, len(data), max(1, len(data) // 40)))
    prefix = array(b"ECHO", b"x")
    commands, said = recorded(prefix + data, [len(prefix) + cut for cut in cuts])
    assert commands == [[b"ECHO", b"x"]]
    assert said == b"-ERR Protocol error: " + fault + b"\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost:6380\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        b"post anything\r\n",
        b"PUT /key HTTP/1.0\r\n",
        b"Host: localhost\r\n",
        b"\r\nHOST: localhost\r\n",
    ],
)
def test_whoever_speaks_http_is_cut_off(data: bytes) -> None:
    with talk() as each:
        assert each.ask(data + array(b"SET", b"k", b"v")) == b""
        assert each.client.closed == "http"
        assert len(each.engine.cache) == 0


def test_a_key_may_look_like_http() -> None:
    with talk() as each:
        assert each.ask(array(b"GET", b"/", b"HTTP/1.1")).startswith(b"-ERR wrong number of arg")
        assert each.ask(array(b"SET", b"Host:", b"POST") + b"GET Host:\r\n") == (
            b"+OK\r\n$4\r\nPOST\r\n"
        )


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (array(*[b"x"] * 11), b"unauthenticated multibulk length"),
        (array(b"AUTH", b"x" * 16385), b"unauthenticated bulk length"),
        (b"*1\r\n$16385\r\n", b"unauthenticated bulk length"),
    ],
)
def test_strangers_have_little_room(data: bytes, fault: bytes) -> None:
    with talk() as each:
        each.client.may = 0
        assert each.ask(array(b"GET", b"k")) == b"-NOAUTH Authentication required.\r\n"
        most = array(b"SET", *[b"x" * 16384] * 9)
        assert each.ask(most) == b"-NOAUTH Authentication required.\r\n"
        assert each.ask(data) == b"-ERR Protocol error: " + fault + b"\r\n"
        assert each.client.closed == "protocol"


def test_limits_hold_to_the_byte() -> None:
    limits = {"max_args": 3, "max_bulk": 10, "max_command": 60}
    assert recorded(array(b"SET", b"k", b"x" * 10), [], **limits)[1] == b""
    assert b"multibulk length" in recorded(b"*4\r\n", [], **limits)[1]
    assert b"bulk length" in recorded(array(b"SET", b"k", b"x" * 11), [], **limits)[1]
    assert b"too big" in recorded(array(*[b"x" * 10] * 3), [], max_command=40)[1]
    assert b"multibulk length" in recorded(b"a b c d\r\n", [], **limits)[1]


def test_a_length_takes_no_memory_before_its_bytes_come() -> None:
    with talk() as each:
        for claim in (b"*1048576\r\n", b"$536870912\r\n"):
            each.ask(claim)
            assert 0 < each.engine.buffered_bytes <= 16 * 1024
        each.ask(b"x" * 100_000)
        assert each.engine.buffered_bytes <= 256 * 1024


def test_a_value_that_arrives_in_small_pieces_costs_linear_time() -> None:
    value = bytes(range(256)) * 4096
    whole = array(b"SET", b"k", value)
    with talk() as each:
        said = b"".join(each.ask(whole[at : at + 5000]) for at in range(0, len(whole), 5000))
        assert said == b"+OK\r\n"
        assert each.engine.cache[b"\0k"] == value
        assert each.engine.buffered_bytes == 0
