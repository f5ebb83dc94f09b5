"""What is known of clients, whatever they have sent."""

from __future__ import annotations

import pytest

from .wire import Error, Ours, Wire


@pytest.mark.parametrize("name", [b"", b" ", b"\r\n", b"a b", b"\xff", b"x\nid=1 addr=forged"])
def test_a_name_of_a_command_is_one_word(server: Ours, ours: Wire, name: bytes) -> None:
    with Wire(server.port) as odd:
        assert isinstance(odd.call(name), Error)
        lines = ours.call("CLIENT", "LIST").decode().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert [field.partition("=")[0] for field in line.split(" ")].count("cmd") == 1
        assert all("=" in field for field in line.split(" "))
