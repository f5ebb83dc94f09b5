"""The fault proxy does what its modes say."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tiers.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that repeats what it hears."""

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1000):
                    connection.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def say(client: socket.socket, text: bytes) -> bytes:
    """What comes back, until as much has come as was said."""
    client.sendall(text)
    heard = b""
    while len(heard) < len(text) and (piece := client.recv(1000)):
        heard += piece
    return heard


def test_modes(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        assert say(client, b"hello") == b"hello"
        proxy.stall()
        client.sendall(b"later")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(5)
        proxy.pass_on()
        assert client.recv(5) == b"later"
        proxy.dribble(0.02)
        begin = time.monotonic()
        assert say(client, b"slow") == b"slow"
        assert time.monotonic() - begin >= 0.08
        proxy.delay(0.1)
        begin = time.monotonic()
        assert say(client, b"late") == b"late"
        assert time.monotonic() - begin >= 0.1
        proxy.cut(after=3)
        assert say(client, b"abcdef") == b"abc"
    with Proxy(echo) as proxy, connect(proxy) as client:
        proxy.reset(after=3)
        assert say(client, b"abc") == b"abc"
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_at_once(echo: int) -> None:
    with Proxy(echo) as proxy:
        with connect(proxy) as client:
            assert say(client, b"hello") == b"hello"
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with pytest.raises(ConnectionResetError), connect(proxy) as client:
            client.recv(1)
        proxy.cut()
        with connect(proxy) as client:
            assert client.recv(1) == b""
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.pass_on()
        with connect(proxy) as client:
            assert say(client, b"hello") == b"hello"
        assert proxy.accepted == 4
