"""`get`, `set`, `del` against a real Redis, and against peers that refuse, die, hang or lie."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.running import COMMAND, invoke, run
from servers import Server, ask, free_port, redis_server, tls_redis_server

ANY_BYTES = bytes(range(256)) * 40 + b"\r\n\0"


def test_set_get_del(redis: Server) -> None:
    at = ["--port", redis.port]
    assert (invoke("set", "k", "v", *at).output, invoke("get", "k", *at).output) == ("OK\n", "v\n")
    assert invoke("set", "k2", "", *at).output == "OK\n"
    assert invoke("get", "k2", *at).output == "\n"
    assert invoke("del", "k", "k2", "none", *at).output == "2\n"
    gone = invoke("get", "k", *at)
    assert (gone.exit_code, gone.stdout, gone.stderr) == (1, "", "Error: there is no key 'k'\n")


def test_any_bytes_in_keys_and_values(redis: Server, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(ANY_BYTES)
    key = os.fsdecode(b"\xff k\n")
    at = ["--port", redis.port]
    assert invoke("set", key, "--file", "in", *at).output == "OK\n"
    assert invoke("get", key, "--file", "out", *at).exit_code == 0
    assert (tmp_path / "out").read_bytes() == ANY_BYTES
    assert invoke("get", key, "--file", "-", *at).stdout_bytes == ANY_BYTES
    assert run("set", key, *at, stdin=ANY_BYTES[::-1]).stdout == b"OK\n"
    assert run("get", key, *at).stdout == ANY_BYTES[::-1] + b"\n"
    assert run("set", key, "--file", "-", *at, stdin=b"piped").stdout == b"OK\n"
    assert run("get", os.fsdecode(b"\xff k\n"), *at).stdout == b"piped\n"


def test_a_terminal_gets_no_control_characters(redis: Server) -> None:
    invoke("set", "bell", "a\x1b[31m\x07\u202eb\tc", "--port", redis.port)
    above, below = pty.openpty()
    command = [*COMMAND, "get", "bell", "--port", str(redis.port)]
    subprocess.run(command, stdout=below, check=True, timeout=60)
    assert os.read(above, 100) == b"a\\x1b[31m\\x07\\u202eb\tc\r\n"
    os.close(above)
    os.close(below)


def test_lifetimes_and_databases(redis: Server) -> None:
    at = ["--port", redis.port, "--db", 3]
    invoke("set", "k", "v", "--ttl", "2min", *at)
    assert ask(redis.port, "-n 3 ttl k") == "120\n"
    invoke("set", "short", "v", "--ttl", "1ns", *at)
    assert invoke("get", "k", "--url", f"redis://localhost:{redis.port}/3").output == "v\n"
    assert invoke("get", "k", "--port", redis.port).exit_code == 1
    assert "DB index is out of range" in invoke("get", "k", *at[:2], "--db", 999).stderr


def test_errors_of_the_server(redis: Server) -> None:
    ask(redis.port, "rpush list a")
    wrong = invoke("get", "list", "--port", redis.port)
    assert (wrong.exit_code, wrong.stderr[:19]) == (1, "Error: WRONGTYPE Op")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "k", "v", "--file", "x"], "VALUE and --file are two values"),
        (["set", "k", "--file", "none"], "--file none: No such file"),
        (["set", "k", "v", "--ttl", "0"], "--ttl must be greater than 0"),
        (["set", "k", "v", "--ttl", "soon"], "--ttl must be a duration"),
        (["get", "k", "--url", "http://x"], "--url must begin with redis://host"),
        (["get", "k", "--url", "redis://host:x"], "--url 'redis://host:x' is not of the form"),
        (["get", "k", "--url", "redis://:pw@host"], "--url must hold no password"),
        (["get", "k", "--url", "redis://host", "--port", "1"], "--url cannot go with"),
        (["get", "k", "--config", "none"], "No such file"),
        (["get"], "Missing argument 'KEY'"),
        (["del"], "Missing argument 'KEYS...'"),
        (["gte", "k"], "There is no command 'gte'. Is 'get' meant?"),
    ],
)
def test_wrong_use(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_values_that_cannot_be_written(redis: Server) -> None:
    invoke("set", "k", "v" * 100_000, "--port", redis.port)
    at = ["get", "k", "--port", str(redis.port)]
    assert "No such file" in invoke(*at, "--file", "none/out").stderr
    assert "No space left" in invoke(*at, "--file", "/dev/full").stderr
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, *at], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"cachecore: No space left on device\n")


def test_nobody_listens(tmp_path: Path) -> None:
    port = free_port()
    result = invoke("get", "k", "--port", port)
    assert result.exit_code == 3
    assert f"nobody listens at 127.0.0.1:{port}" in result.stderr
    assert invoke("set", "k", "v", "--url", f"unix://{tmp_path}/none.sock").exit_code == 3


@contextmanager
def peer(act: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that does something with its one connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                act(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "the connection was closed"),
        (b"$5\r\nab", "the connection was closed"),
        (b"$5", "not in Redis' protocol"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not in Redis' protocol"),
        (b"$x\r\n", "not in Redis' protocol"),
        (b"*1\r\n" * 20, "not in Redis' protocol"),
        (b"+" + b"a" * 200_000, "not in Redis' protocol"),
        (b"-ERR max number of clients reached\r\n", "max number of clients"),
    ],
)
def test_peers_that_answer_nonsense(answer: bytes, message: str) -> None:
    def act(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(answer)

    with peer(act) as port:
        result = invoke("get", "k", "--port", port)
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_peer_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachecore.cli.client.Client.__init__.__kwdefaults__", {"timeout": 0.05})
    with peer(lambda connection: connection.recv(100) and connection.recv(100)) as port:
        result = invoke("get", "k", "--port", port)
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: 127.0.0.1:{port} does not answer\n",
    )


def test_passwords_come_from_the_settings_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = redis_server(tmp_path / "redis", "--requirepass", "hush")
    try:
        at = ["--port", server.port]
        assert "NOAUTH" in invoke("get", "k", *at).stderr
        (tmp_path / "cachecore.toml").write_text('password = "hush"\n')
        (tmp_path / "cachecore.toml").chmod(0o600)
        assert invoke("set", "k", "v", *at).output == "OK\n"
        monkeypatch.setenv("CACHECORE_PASSWORD", "wrong")
        assert "WRONGPASS" in invoke("get", "k", *at).stderr
        monkeypatch.setenv("CACHECORE_PASSWORD", "hush")
        assert (
            invoke("get", "k", "--url", f"redis://default@localhost:{server.port}").output == "v\n"
        )
    finally:
        server.kill()


def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = redis_server(tmp_path / "redis", "--unixsocket", str(path))
    try:
        assert invoke("set", "k", "v", "--url", f"unix://{path}?db=2").output == "OK\n"
        (tmp_path / "cachecore.toml").write_text(f'bind = []\nunix_socket = "{path.name}"\n')
        assert invoke("get", "k", "--db", 2).output == "v\n"
    finally:
        server.kill()


def test_tls_is_spoken_with_the_server_of_the_settings_only(tmp_path: Path) -> None:
    server = tls_redis_server(tmp_path / "one")
    other = tls_redis_server(tmp_path / "other")
    try:
        (tmp_path / "x.toml").write_text('tls_cert = "one/cert.pem"\ntls_key = "one/key.pem"\n')
        at = ["--config", "x.toml", "--port"]
        assert invoke("set", "k", "v", *at, server.port).output == "OK\n"
        assert invoke("get", "k", *at, server.port).output == "v\n"
        wrong = invoke("get", "k", *at, other.port)
        assert wrong.exit_code == 1
        assert "does not show the certificate" in wrong.stderr
        assert "CERTIFICATE_VERIFY_FAILED" in (
            invoke("get", "k", "--url", f"rediss://localhost:{server.port}").stderr
        )
    finally:
        server.kill()
        other.kill()
