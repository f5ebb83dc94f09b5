"""`cachecore warm`: values, commands and access logs into a real Redis."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import pytest

from cachecore.cli.client import encode
from cli.running import invoke, run
from servers import Server, ask

BINARY = bytes(range(256)) * 3


@pytest.fixture(autouse=True)
def empty(redis: Server) -> None:
    ask(redis.port, "flushall")


def values(path: Path, *records: object) -> str:
    path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    return str(path)


def test_values(redis: Server, tmp_path: Path) -> None:
    path = values(
        tmp_path / "v.jsonl",
        {"key": "text", "value": "a\r\nb"},
        {"key": "binary", "value_base64": base64.b64encode(BINARY).decode()},
        {"key": 17, "value": {"a": [1]}, "ttl": 100},
        {"key": "short", "value": "", "ttl": "90s"},
    )
    at = ["--port", redis.port]
    assert invoke("warm", path, "--ttl", "1h", *at).output == "sent 4 commands: 4 were done\n"
    assert invoke("get", "text", *at).stdout_bytes == b"a\r\nb\n"
    assert invoke("get", "binary", "--file", "-", *at).stdout_bytes == BINARY
    assert json.loads(invoke("get", "17", *at).output) == {"a": [1]}
    assert [ask(redis.port, f"ttl {key}") for key in ("text", "17", "short")] == [
        "3600\n", "100\n", "90\n",
    ]  # fmt: skip


def test_many_values_packed_and_piped(redis: Server) -> None:
    lines = "\n".join(json.dumps({"key": f"k{n}", "value": "v" * (n % 300)}) for n in range(20_000))
    done = run("warm", "-", "--port", redis.port, stdin=gzip.compress(lines.encode()))
    assert done.stdout == b"sent 20,000 commands: 20,000 were done\n"
    assert done.stderr == b""
    assert ask(redis.port, "dbsize") == "20000\n"
    assert ask(redis.port, "strlen k19999") == "199\n"


def test_commands(redis: Server, tmp_path: Path) -> None:
    commands = [
        encode(b"SET", b"a", BINARY), encode(b"RPUSH", b"l", b"1", b"2"),
        encode(b"INCR", b"l"), encode(b"NOTHING"), encode(b"SET", b"big", b"x" * 300_000),
    ]  # fmt: skip
    (tmp_path / "c").write_bytes(b"".join(commands))
    result = invoke("warm", tmp_path / "c", "--port", redis.port)
    assert (result.exit_code, result.stdout) == (1, "sent 5 commands: 3 were done\n")
    assert "2 were refused, the first with: WRONGTYPE" in result.stderr
    assert ask(redis.port, "strlen big") == "300000\n"
    assert invoke("get", "a", "--file", "-", "--port", redis.port).stdout_bytes == BINARY


def test_access_logs_are_asked_for(redis: Server, tmp_path: Path) -> None:
    ask(redis.port, "mset a 1 b 2")
    ask(redis.port, "config resetstat")
    (tmp_path / "log.csv").write_text("key,size\na,1\nb,2\na,1\nc,3\n")
    result = invoke("warm", tmp_path / "log.csv", "--port", redis.port)
    assert result.output == "asked for 4 keys: 3 have a value\n"
    assert "keyspace_hits:3\nkeyspace_misses:1\n" in ask(redis.port, "info stats")
    (tmp_path / "plain").write_text("a\nb\n")
    assert invoke("warm", "plain", "--port", redis.port).output.startswith("asked for 2 keys: 2")
    (tmp_path / "log.jsonl").write_text('{"key": "a", "size": 3}\n')
    assert invoke("warm", "log.jsonl", "--port", redis.port).output.startswith(
        "asked for 1 keys: 1"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"key": "a", "value": 1}\n{"key": "b"}\n', "file:2: no 'value' or 'value_base64'"),
        (b'{"key": "a", "value": 1}\n\n[1]\n', "file:3: not a JSON object"),
        (b'{"key": "a", "value": 1}\n{"key"\n', "file:2: "),
        (b'{"key": true, "value": 1}\n', "file:1: no 'key' that is text"),
        (b'{"key": "a", "value_base64": "%"}\n', "file:1: "),
        (b'{"key": "a", "value_base64": 7}\n', "file:1: "),
        (b'{"key": "a", "value": 1, "ttl": -1}\n', "file:1: ttl must be greater than 0"),
        (b'{"key": "a", "value": "\xff"}\n', "file:1: not UTF-8"),
        (b"*0\r\n", "byte 0: not a command"),
        (b"*2\r\n$3\r\nGET\r\n", "byte 13: not a command"),
        (b"*1\r\n$4\r\nPIN", "byte 4: not a command"),
        (b"*1\r\n$4\r\nPINGxx", "byte 12: not a command"),
        (b"*1\r\n$999999999999\r\n", "byte 4: not a command"),
        (b"*9999999999\r\n", "byte 0: not a command"),
        (b"*1\n$4\r\nPING\r\n", "byte 0: not a command"),
        (b"*1\r\n$4\r\nPING\r\n\r\n", "byte 14: not a command"),
        (b"", "file: empty"),
        (b"\n\n", "file: nothing in it"),
    ],
)
def test_files_that_are_wrong(redis: Server, tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(data)
    result = invoke("warm", "file", "--port", redis.port)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_wrong_use(redis: Server, tmp_path: Path) -> None:
    at = ["--port", redis.port]
    assert "No such file" in invoke("warm", "none", *at).stderr
    path = values(tmp_path / "v", {"key": "a", "value": 1})
    assert "--ttl must be" in invoke("warm", path, "--ttl", "x", *at).stderr
    assert invoke("warm", path, "--port", 1).exit_code == 3
