"""Clients whose bytes come through an asyncio transport, as those of TLS do."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from sys import getsizeof
from typing import Any

import pytest

from cachecore import Cache
from cachecore._resp import Engine
from cachecore._resp_client import Client
from cachecore.server.commands import all_commands
from server.engines import array


class Passing(asyncio.BufferedProtocol):
    """Passes everything on to a client."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.client: Client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.client = self.engine.attach(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.client.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.client.buffer_updated(nbytes)

    def eof_received(self) -> bool:
        return self.client.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.client.connection_lost()

    def pause_writing(self) -> None:
        self.client.pause_writing()

    def resume_writing(self) -> None:
        self.client.resume_writing()


@pytest.fixture(params=["plain", "tls"])
def contexts(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any]:
    """What a server and its clients encrypt with: nothing, or a certificate of its own."""
    if request.param == "plain":
        return None, None
    new = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout".split()
    command = [*new, str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    client = ssl.create_default_context(cafile=str(tmp_path / "certificate"))
    client.check_hostname = False
    return server, client


async def talk(contexts: tuple[Any, Any], conversation: Any, **options: Any) -> None:
    loop = asyncio.get_running_loop()
    cache: Cache[bytes, Any] = Cache(max_bytes="64MB", getsizeof=getsizeof)
    engine = Engine(cache, all_commands(), loop, **options)
    made: list[Passing] = []

    def make() -> Passing:
        made.append(Passing(engine))
        return made[-1]

    listener = await loop.create_server(make, "127.0.0.1", 0, ssl=contexts[0])
    port = listener.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=contexts[1])
    async with asyncio.timeout(20):
        await conversation(engine, reader, writer, made)
    writer.close()
    listener.close()
    engine.close()


def test_commands_are_answered_in_any_pieces(contexts: tuple[Any, Any]) -> None:
    async def conversation(
        engine: Engine,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        made: list[Passing],
    ) -> None:
        data = array(b"SET", b"k", b"x" * 300_000) + array(b"GET", b"k")
        for at in range(0, len(data), 50_001):
            writer.write(data[at : at + 50_001])
            await writer.drain()
        assert await reader.readexactly(5) == b"+OK\r\n"
        assert await reader.readexactly(300_011) == b"$300000\r\n" + b"x" * 300_000 + b"\r\n"
        writer.write(b"PING\r\nQUIT\r\nPING\r\n")
        assert await reader.read() == b"+PONG\r\n+OK\r\n"
        assert made[0].client.closed == "quit"
        assert engine.buffered_bytes == 0

    asyncio.run(talk(contexts, conversation))


def test_who_does_not_read_is_not_read_from(contexts: tuple[Any, Any]) -> None:
    async def conversation(
        engine: Engine,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        made: list[Passing],
    ) -> None:
        engine.cache[b"\0k"] = b"x" * 1_000_000
        writer.write(b"PING\r\n")
        assert await reader.readexactly(7) == b"+PONG\r\n"
        commands = 20_000
        writer.write((array(b"ECHO", b"y" * 1000) + array(b"GET", b"k")) * commands)
        client = made[0].client
        while client.unread_bytes < 100_000:
            await asyncio.sleep(0.001)
        for _ in range(200):
            await asyncio.sleep(0.001)
            assert client.unread_bytes < 1_000_000
            assert engine.buffered_bytes < 4_000_000
        writer.transport.abort()
        while client.closed is None:
            await asyncio.sleep(0.001)

    asyncio.run(talk(contexts, conversation, max_unread=300_000, max_output=300_000))
