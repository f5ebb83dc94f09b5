"""As many arguments as a command may have: work that grows with their square would stop all."""

from __future__ import annotations

import pytest

from .wire import Error, Ours, Wire

MOST = 1_000_000  # arguments; the wire gives a reply a minute


@pytest.mark.parametrize(
    ("begin", "repeated", "reply"),
    [
        (["SCAN", "0"], ["COUNT", "1"], [b"0", []]),
        (["COPY", "none", "other"], ["REPLACE"], 0),
        (["MEMORY", "USAGE", "none"], ["SAMPLES", "1"], None),
        (["HELLO", "2"], ["SETNAME", ""], None),
    ],
)
def test_repeated_options(
    ours: Wire, begin: list[str], repeated: list[str], reply: object
) -> None:
    args = begin + repeated * ((MOST - len(begin)) // len(repeated))
    got = ours.call(*args)
    assert not isinstance(got, Error)
    assert begin[0] == "HELLO" or got == reply
