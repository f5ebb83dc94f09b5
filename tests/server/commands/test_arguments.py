"""As many arguments as a command may have: work that grows with their square would stop all."""

from __future__ import annotations

import pytest

from .wire import Error, Wire

MOST = 1_000_000  # arguments; the wire gives a reply a minute


@pytest.mark.parametrize("name", ["maxmemory", "proto-max-bulk-len"])
@pytest.mark.parametrize("value", ["0", "99999999999gb", "999999999999999999gb"])
def test_memory_beyond_what_can_be_counted(ours: Wire, name: str, value: str) -> None:
    """All of CONFIG SET or nothing, in words that say what is expected."""
    before = ours.call("CONFIG", "GET", "timeout")
    got = ours.call("CONFIG", "SET", "timeout", "77", name, value)
    assert isinstance(got, Error)
    assert "argument must be between" in got
    assert ours.call("CONFIG", "GET", "timeout") == before


def test_a_limit_that_falls_after_what_was_queued(ours: Wire) -> None:
    before = ours.call("CONFIG", "GET", "proto-max-bulk-len")[1]
    ours.call("MULTI")
    ours.call("CONFIG", "SET", "proto-max-bulk-len", "1mb")
    ours.call("SET", "k", bytes(2 << 20))
    ours.call("CONFIG", "SET", "proto-max-bulk-len", before)
    assert ours.call("EXEC") == ["OK"] * 3


@pytest.mark.parametrize(
    ("begin", "repeated", "reply"),
    [
        (["SCAN", "0"], ["COUNT", "1"], [b"0", []]),
        (["COPY", "none", "other"], ["REPLACE"], 0),
        (["MEMORY", "USAGE", "none"], ["SAMPLES", "1"], "$-1"),
        (["HELLO", "2"], ["SETNAME", ""], None),
    ],
)
def test_repeated_options(ours: Wire, begin: list[str], repeated: list[str], reply: object) -> None:
    args = begin + repeated * ((MOST - len(begin)) // len(repeated))
    got = ours.call(*args)
    assert not isinstance(got, Error)
    assert begin[0] == "HELLO" or got == reply
