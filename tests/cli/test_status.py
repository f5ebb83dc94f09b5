"""`cachecore status` of real servers: once, again and again, as JSON, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import threading

import pytest

from cachecore.cli.health import read
from cli.running import COMMAND, invoke
from servers import Server, ask, free_port


def test_once(redis: Server) -> None:
    ask(redis.port, "set k v")
    ask(redis.port, "config set maxmemory 100mb")
    ask(redis.port, "get k")
    text = invoke("status", "--port", redis.port).output
    assert f"at 127.0.0.1:{redis.port}, process {redis.process.pid if redis.process else 0}" in text
    for label in ("server", "up for", "keys", "memory", "hit ratio", "commands", "clients"):
        assert f"\n{label}" in f"\n{text}"
    assert " of 100 MB (" in text
    assert "\x1b" not in text


def test_as_json(redis: Server) -> None:
    ask(redis.port, "set k v")
    before = json.loads(invoke("status", "--json", "--port", redis.port).output)
    ask(redis.port, "get k")
    after = json.loads(invoke("status", "--json", "--port", redis.port).output)
    assert after["running"] is True
    assert after["address"] == f"127.0.0.1:{redis.port}"
    assert (after["hits"], after["misses"]) == (before["hits"] + 1, before["misses"])
    assert after["keys"] >= 1
    assert after["memory"] > 0
    assert after["info"]["redis_version"] == after["version"]


def test_again_and_again(redis: Server) -> None:
    at = ["--watch", "--times", 3, "--interval", "10ms", "--port", redis.port]
    lines = invoke("status", *at).output.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("keys=") and " commands_per_second=" in line for line in lines)
    looks = [json.loads(line) for line in invoke("status", "--json", *at).output.splitlines()]
    assert [look["rates"] is None for look in looks] == [True, False, False]
    assert all(look["rates"]["commands"] > 0 for look in looks[1:])


def test_on_a_terminal_it_is_redrawn_until_ctrl_c(redis: Server) -> None:
    above, below = pty.openpty()
    code = (  # what a shell runs in the background ignores the signal
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cachecore.cli.main import main; sys.exit(main())"
    )
    command = [COMMAND[0], "-c", code, "status", "--watch", "--interval", "20ms"]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    seen = b""
    with subprocess.Popen(
        [*command, "--port", str(redis.port)], stdout=below, stderr=below, env=environ
    ) as process:
        os.close(below)
        while b"a second\r\n" not in seen or seen.count(b"hit ratio ") < 4:
            seen += os.read(above, 4096)
        process.send_signal(signal.SIGINT)
        rest = threading.Thread(target=drain, args=(above,))
        rest.start()
        assert process.wait(60) == 0
    rest.join()
    os.close(above)
    assert b"\x1b[" in seen
    assert b"Traceback" not in seen


def drain(file: int) -> None:
    """Read until the other side has gone."""
    try:
        while os.read(file, 4096):
            pass
    except OSError:
        pass


def test_nobody_there() -> None:
    port = free_port()
    result = invoke("status", "--port", port)
    assert (result.exit_code, result.stdout) == (3, "")
    result = invoke("status", "--json", "--port", port)
    assert result.exit_code == 3
    assert json.loads(result.stdout) == {"running": False, "address": f"127.0.0.1:{port}"}


def test_wrong_use() -> None:
    assert invoke("status", "--interval", "soon").exit_code == 2


VALKEY = b"""# Server\r
redis_version:7.2.4\r
valkey_version:8.0.1\r
db0:keys=3,x=1\r
db11:keys=4\r
dbx:keys=9\r
used_memory:many\r
noise\r
"""


@pytest.mark.parametrize(
    ("text", "keys", "name"), [(b"", 0, "server"), (VALKEY, 7, "valkey"), (None, 0, "server")]
)
def test_what_servers_tell(text: bytes | None, keys: int, name: str) -> None:
    health = read(text, None)
    assert (health.keys, health.name, health.memory, health.hit_ratio) == (keys, name, 0, None)
    assert read(text, health).rates is not None
