"""The server as a process: real clients, many connections, no descriptors left, signals."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from cachecore.tiers.testing import eventually
from server.engines import array
from servers import Server

SERVING = Path(__file__).with_name("serving.py")
Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server on a loop, with limits; it is killed after the test."""
    started: list[Server] = []

    def start(loop: str = "uvloop", *limits: str, prefix: tuple[str, ...] = ()) -> Server:
        def command(port: int) -> list[str]:
            script = [sys.executable, str(SERVING), str(port), str(tmp_path / "socket")]
            return [*prefix, *script, loop, *limits]

        started.append(Server(command, tmp_path))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def received(client: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer when the other end closes."""
    data = b""
    while len(data) < size and (part := client.recv(size - len(data))):
        data += part
    return data


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works(start: Start, tmp_path: Path, loop: str, protocol: int) -> None:
    server = start(loop)
    places: list[dict[str, Any]] = [
        {"port": server.port},
        {"unix_socket_path": str(tmp_path / "socket")},
    ]
    for place in places:
        with redis.Redis(**place, protocol=protocol, socket_timeout=20) as client:
            assert client.ping()
            assert client.set("k", b"v" * 1_000_000)
            assert client.get("k") == b"v" * 1_000_000
            assert client.mget("k", "none") == [b"v" * 1_000_000, None]
            assert client.set("x", 1, ex=100, nx=True)
            assert client.incr("x") == 2
            assert 0 < client.pttl("x") <= 100_000
            assert client.exists("k", "x", "none") == 2
            assert client.delete("k", "x", "none") == 2
            with client.pipeline(transaction=False) as pipe:
                for i in range(2000):
                    pipe.set(f"k{i}", "v" * i).strlen(f"k{i}")
                replies = pipe.execute()
            assert replies == [reply for i in range(2000) for reply in (True, i)]
            with pytest.raises(redis.ResponseError, match="unknown command 'NOPE'"):
                client.execute_command("NOPE")


def test_redis_py_asyncio_works(start: Start) -> None:
    server = start()

    async def talk() -> None:
        async with redis.asyncio.Redis(port=server.port) as client:
            assert await client.set("k", "v")
            assert await asyncio.gather(*(client.get("k") for _ in range(100))) == [b"v"] * 100

    asyncio.run(talk())


def test_databases_are_apart(start: Start) -> None:
    server = start()
    for number in range(3):
        with redis.Redis(port=server.port, db=number) as client:
            assert client.get("k") is None
            client.set("k", number)
            assert client.get("k") == str(number).encode()


def test_a_thousand_connections_opened_and_dropped(start: Start) -> None:
    server = start()
    for _ in range(5):
        clients = [connected(server) for _ in range(200)]
        for at, client in enumerate(clients):
            if at % 3:
                client.sendall(array(b"SET", b"k%d" % at, b"v")[: 5 + at])
            client.close()
    with connected(server) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(100) == b"+PONG\r\n"
    assert server.process is not None
    folder = Path(f"/proc/{server.process.pid}/fd")
    eventually(lambda: len(list(folder.iterdir())) < 40)


def test_more_clients_than_allowed_are_refused(start: Start) -> None:
    server = start("uvloop", "maxclients=3")
    clients = [connected(server) for _ in range(2)]
    for client in clients:
        client.sendall(b"PING\r\n")
        assert client.recv(100) == b"+PONG\r\n"
    clients += [connected(server) for _ in range(2)]  # the fixture's own may not have left yet
    assert received(clients[-1], 100) == b"-ERR max number of clients reached\r\n"
    for client in clients:
        client.close()
    eventually(lambda: reply_of(server, b"PING\r\n") == b"+PONG\r\n")


def reply_of(server: Server, data: bytes) -> bytes:
    with connected(server) as client:
        client.sendall(data)
        return client.recv(100)


def test_out_of_descriptors_it_refuses_and_goes_on(start: Start) -> None:
    server = start("uvloop", prefix=("prlimit", "--nofile=64"))
    clients = [connected(server) for _ in range(120)]
    try:
        clients[0].sendall(b"PING\r\n")
        assert clients[0].recv(100) == b"+PONG\r\n"
        assert received(clients[-1], 100) == b"-ERR max number of clients reached\r\n"
    finally:
        for client in clients:
            client.close()
    eventually(lambda: reply_of(server, b"PING\r\n") == b"+PONG\r\n")


def test_unread_pipelines_take_bounded_memory(start: Start) -> None:
    server = start("uvloop", "max_unread=2000000", "max_buffered=20000000")
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status")
    clients = [connected(server) for _ in range(20)]
    clients[0].sendall(array(b"SET", b"k", b"x" * 8000))
    assert clients[0].recv(100) == b"+OK\r\n"
    command = array(b"GET", b"k") * 2000
    for client in clients:
        client.setblocking(False)
    for _ in range(200):
        for client in clients:
            try:
                client.send(command)
            except (BlockingIOError, ConnectionError):
                continue
    assert reply_of(server, b"PING\r\n") == b"+PONG\r\n"
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 200_000
    for client in clients:
        client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_all_answered(start: Start, tmp_path: Path, number: int) -> None:
    server = start()
    assert server.process is not None

    def write(name: int) -> int:
        with redis.Redis(port=server.port, retry=None) as client:  # type: ignore[arg-type]
            count = 0
            try:
                while client.incr(f"count{name}") == count + 1:
                    count += 1
            except redis.ConnectionError:
                return count
            return -1

    with ThreadPoolExecutor(4) as pool:
        counting = [pool.submit(write, name) for name in range(4)]
        eventually(lambda: reply_of(server, b"STRLEN count0\r\n") > b":2")
        server.send(signal.Signals(number))
        counts = [count.result() for count in counting]
    assert min(counts) >= 0 < max(counts)
    assert server.process.wait() == 0
    assert not (tmp_path / "socket").exists()


def test_the_unix_socket_is_its_owners(start: Start, tmp_path: Path) -> None:
    server = start()
    path = tmp_path / "socket"
    assert path.stat().st_mode & 0o777 == 0o600
    server.kill()
    assert path.exists()
    second = start()
    eventually(path.exists)
    second.kill()
    path.unlink(missing_ok=True)
    path.write_text("precious")
    run = [sys.executable, str(SERVING), "0", str(path), "uvloop"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert path.read_text() == "precious"
