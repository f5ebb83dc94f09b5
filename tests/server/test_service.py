"""The service as a process: real clients on either loop, signals, metrics, an upstream."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from cachecore.tiers.testing import eventually
from server.hosts import START, Host
from servers import redis_server

Serving = Callable[..., Host]
WITHOUT_UVLOOP = "sys.modules['uvloop'] = None"


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Starts servers that end with the test."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Host:
            host = Host(tmp_path / "host", **settings)
            stack.callback(host.kill)
            return host

        yield start


@pytest.mark.parametrize("before", ["", WITHOUT_UVLOOP], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works(serving: Serving, tmp_path: Path, before: str, protocol: int) -> None:
    path = str(tmp_path / "socket")
    host = serving(before=before, unix_socket=path)
    places: list[dict[str, Any]] = [{"port": host.port}, {"unix_socket_path": path}]
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


def test_redis_py_asyncio_works(serving: Serving) -> None:
    host = serving()

    async def talk() -> None:
        async with redis.asyncio.Redis(port=host.port) as client:
            assert await client.set("k", "v")
            assert await asyncio.gather(*(client.get("k") for _ in range(100))) == [b"v"] * 100

    asyncio.run(talk())


def test_databases_are_apart(serving: Serving) -> None:
    host = serving()
    for number in range(3):
        with redis.Redis(port=host.port, db=number) as client:
            assert client.get("k") is None
            client.set("k", number)
            assert client.get("k") == str(number).encode()
    assert host.info("keyspace") == {
        f"db{number}": "keys=1,expires=0,avg_ttl=0" for number in range(3)
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(serving: Serving, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "socket"
    host = serving(unix_socket=str(path), metrics_port=0)
    assert path.exists()
    with host.wire() as wire:
        assert wire.ask("PING") == "PONG"
        assert host.end(number) == 0
        assert wire.rest() == b""
    assert not path.exists()


def test_the_unix_socket_is_its_owners(serving: Serving, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    host = serving(unix_socket=str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    host.kill()
    assert path.exists()
    host.start()  # over what the dead one left
    host.kill()
    path.unlink()
    path.write_text("precious")
    command = [sys.executable, "-c", START.format(before=""), json.dumps(host.settings)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert path.read_text() == "precious"


# --- metrics ---


def page_of(host: Host) -> str:
    """Where its page is."""
    found = re.search(r"page are at (\S+)/", host.log())
    assert found is not None
    return found[1]


def metrics_of(host: Host) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of their labels, of the cache's name not."""
    with urlopen(page_of(host) + "/metrics", timeout=20) as reply:
        families = text_string_to_metric_families(reply.read().decode())
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels) if key != "cache")):
        sample.value for family in families for sample in family.samples
    }  # fmt: skip


def health_of(host: Host) -> tuple[int, str]:
    try:
        with urlopen(page_of(host) + "/healthz", timeout=20) as reply:
            return reply.status, reply.read().decode().strip()
    except HTTPError as error:
        return error.code, error.read().decode().strip()


def test_metrics_of_a_server(serving: Serving) -> None:
    host = serving(metrics_port=0, memory_limit="64MB")
    host.ask("SET", "k", "v")
    host.ask("GET", "k")
    host.ask("GET", "absent")
    found = metrics_of(host)
    assert found["cachecore_requests_total", "hit", "l0"] == 1
    assert found["cachecore_requests_total", "miss", "l0"] == 1
    assert found["cachecore_entries",] == 1
    assert found["cachecore_max_bytes",] == 64 << 20
    assert found["cachecore_server_commands_total", "get"] == 2
    assert found["cachecore_server_command_duration_seconds_count",] == 3
    assert 0 < found["cachecore_server_command_duration_seconds_sum",] < 3
    assert found["cachecore_server_bytes_total", "read"] > 50
    assert health_of(host)[0] == 200
    with urlopen(page_of(host) + "/status.json", timeout=20) as reply:
        (cache,) = json.load(reply)["caches"]
    assert (cache["name"], cache["kind"], cache["entries"]) == ("server", "RESP", 1)
    assert {each["key"] for each in cache["hottest"]} == {"k"}


def test_metrics_of_a_proxy(serving: Serving, tmp_path: Path) -> None:
    redis = redis_server(tmp_path)
    url = f"redis://127.0.0.1:{redis.port}"
    host = serving(metrics_port=0, upstream=url, upstream_timeout=0.5, max_stale=60)
    with host.wire() as wire:
        assert wire.ask("SET", "k", "v") == "OK"
        while metrics_of(host).get(("cachecore_requests_total", "hit", "l0"), 0) < 2:
            assert wire.ask("GET", "k") == b"v"
        assert wire.ask("GET", "absent") is None
        found = metrics_of(host)
        assert found["cachecore_requests_total", "hit", "upstream"] >= 1
        assert found["cachecore_requests_total", "miss", "upstream"] == 1
        assert found["cachecore_tier_duration_seconds_count", "upstream"] >= 2
        assert found["cachecore_breaker_state", "closed", "upstream"] == 1
        assert found["cachecore_events_total", "forwarded", "upstream"] >= 1
        assert health_of(host)[0] == 200
        assert host.info("server")["process_id"] != str(host.pid)  # it is the upstream's
        redis.kill()
        eventually(lambda: metrics_of(host)["cachecore_breaker_state", "open", "upstream"] == 1)
        info = host.info("cachecore")
        assert (info["process_id"], info["upstream_status"]) == (str(host.pid), "down")
        assert info["db0"].startswith("keys=1,")
        assert info["maxmemory"] == info["cache_max_bytes"] > "0"
        assert wire.ask("GET", "k") == b"v"
        assert metrics_of(host)["cachecore_stale_served_total", "upstream"] >= 1
        code, text = health_of(host)
        assert (code, text) == (503, f"upstream redis://127.0.0.1:{redis.port} cannot be reached")


# --- lifetimes ---


def test_what_is_set_without_a_lifetime_has_the_default(serving: Serving) -> None:
    host = serving(default_ttl=1000)
    with host.wire() as wire:
        for command in [
            "SET a v", "SET b v XX", "SET b v NX", "SETNX c v", "GETSET d v", "APPEND e v",
            "MSET f v", "MSETNX g v", "INCR h", "INCRBYFLOAT i 1.5", "SETRANGE j 3 v", "HSET k f v",
            "HINCRBY l f 1", "SET m v KEEPTTL",
        ]:  # fmt: skip
            wire.ask(*command.split())
        lifetimes = {name: wire.ask("TTL", name) for name in "abcdefghijklm"}
        assert set(lifetimes.values()) <= {999, 1000}, lifetimes
        assert wire.ask("PERSIST", "a") == 1
        wire.ask("APPEND", "a", "w")  # and keeps the one that it has
        assert wire.ask("TTL", "a") == -1
        wire.ask("SET", "a", "v", "EX", "5")
        wire.ask("COPY", "a", "z")
        assert wire.ask("TTL", "a") == wire.ask("TTL", "z") == 5
        assert wire.ask("GETEX", "a", "PERSIST") == b"v"
        assert wire.ask("TTL", "a") == -1


def test_a_default_lifetime_bounds_what_an_upstream_keeps_for_ever(
    serving: Serving, tmp_path: Path
) -> None:
    redis = redis_server(tmp_path)
    host = serving(default_ttl=0.2, metrics_port=0, upstream=f"redis://127.0.0.1:{redis.port}")
    with host.wire() as wire:
        wire.ask("SET", "k", "v")
        wire.ask("GET", "k")
        eventually(lambda: metrics_of(host)["cachecore_entries",] == 1)
        eventually(lambda: metrics_of(host)["cachecore_entries",] == 0)
        assert wire.ask("GET", "k") == b"v"
    redis.kill()


def test_what_has_expired_goes_by_itself(serving: Serving) -> None:
    host = serving()
    with host.wire() as wire:
        for at in range(50_000):
            wire.say("SET", str(at), "v", "PX", str(1 + at % 300))
        assert [wire.read() for _ in range(50_000)] == ["OK"] * 50_000
        wire.ask("SET", "k", "v")
    eventually(lambda: host.info("stats")["expired_keys"] == "50000")
    assert host.ask("DBSIZE") == 1


@pytest.mark.parametrize("name", ["port", "metrics_port"])
def test_a_port_that_is_taken(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = json.dumps({"port": 0, name: other.getsockname()[1]})
        command = [sys.executable, "-c", START.format(before=""), settings]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"OSError: [Errno 98]" in done.stderr
