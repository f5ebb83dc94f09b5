"""`cachecore bench`: what it sends, what it counts, and servers that refuse, die or lie."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore._bench import Load, bucket_bounds
from cachecore.tiers.testing import eventually
from cli.running import invoke
from servers import Server, ask, free_port, redis_server


def bench(*arguments: object) -> dict[str, Any]:
    result = invoke("bench", "--json", "--requests", 5000, "--keys", 500, *arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert isinstance(report, dict)
    return report


@pytest.mark.parametrize("pipeline", [1, 7])
@pytest.mark.parametrize("clients", [1, 20])
def test_every_request_is_answered_and_counted(redis: Server, clients: int, pipeline: int) -> None:
    ask(redis.port, "flushall")
    ask(redis.port, "config resetstat")
    report = bench("--port", redis.port, "--clients", clients, "--pipeline", pipeline)
    assert (report["requests"], report["errors"], report["connections_lost"]) == (5000, 0, 0)
    assert report["hit_ratio"] == 1
    gets = sum(count for _, count in report["latency_us"]["get"]["histogram"])
    sets = sum(count for _, count in report["latency_us"]["set"]["histogram"])
    assert gets + sets == 5000
    assert 4300 < gets < 4700
    stats = ask(redis.port, "info commandstats")
    assert f"cmdstat_get:calls={gets}," in stats
    assert f"cmdstat_set:calls={sets + 500}," in stats  # all keys were set before
    assert ask(redis.port, "dbsize") == "500\n"
    assert ask(redis.port, "strlen cachecore-bench:000000000499") == "64\n"
    latency = report["latency_us"]["get"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]


def test_sizes_and_shares(redis: Server) -> None:
    ask(redis.port, "flushall")
    at = ["--port", redis.port, "--prefix", "p:"]
    report = bench(*at, "--size", "10-100000", "--ratio", "0:1", "--distribution", "uniform")
    assert report["hit_ratio"] is None
    assert "get" not in report["latency_us"]
    lengths = [int(ask(redis.port, f"strlen p:{key:012}")) for key in range(0, 500, 10)]
    assert 10 <= min(lengths) < 100 < 10_000 < max(lengths) <= 100_000
    ask(redis.port, "flushall")
    report = bench(*at, "--no-fill", "--ratio", "1:0")
    assert report["hit_ratio"] == 0
    assert ask(redis.port, "dbsize") == "0\n"


def test_the_report(redis: Server) -> None:
    text = invoke("bench", "--seconds", "0.3", "--keys", 100, "--port", redis.port).output
    assert f"127.0.0.1:{redis.port}: 50 clients, pipeline 1, 100 keys (zipf 0.99)" in text
    for words in ("requests a second", "of the GETs are hits", "p99.9", "\nGET ", "\nSET ", "█"):
        assert words in text
    assert "This client was busy for" in text
    assert "\x1b" not in text


def test_in_process() -> None:
    report = bench("--in-process")
    assert (report["requests"], report["hit_ratio"]) == (5000, 1)
    small = bench("--in-process", "--memory-limit", "20KB")
    assert 0 < small["hit_ratio"] < 1
    text = invoke("bench", "--in-process", "--seconds", "0.1", "--keys", 10).output
    assert "mean of 100 operations" in text


def test_skew() -> None:
    hits = [
        bench("--in-process", "--memory-limit", "20KB", "--exponent", exponent)["hit_ratio"]
        for exponent in (0, 0.8, 1.5)
    ]
    assert hits == sorted(hits)
    assert hits[0] + 0.2 < hits[2]


def test_an_overwhelmed_server_is_reported(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis", "--maxmemory", "1mb")
    try:
        result = invoke("bench", "--requests", 1000, "--port", server.port)
        assert result.exit_code == 1
        assert "answers each request with: OOM command not allowed" in result.stderr
        report = bench("--port", server.port, "--no-fill")
        assert 300 < report["errors"] < 700  # the SETs
        assert report["first_error"].startswith("OOM")
        text = invoke("bench", "--requests", 1000, "--no-fill", "--port", server.port).output
        assert "errors: OOM command not allowed" in text
    finally:
        server.kill()


def test_a_server_that_dies(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis")

    def kill_under_load() -> None:
        eventually(lambda: re.search(r"keyspace_hits:[1-9]", ask(server.port, "info stats")))
        server.kill()

    killer = threading.Thread(target=kill_under_load)
    killer.start()
    result = invoke("bench", "--json", "--seconds", 60, "--keys", 100, "--port", server.port)
    killer.join()
    report = json.loads(result.stdout)
    assert report["connections_lost"] == 50
    assert report["requests"] > 0
    assert report["seconds"] < 30


@pytest.mark.parametrize(
    "answer", [b"*1\r\n", b"+OK\r\n+more\r\n", b"$3\nabc\r\n", b"x" * 5000 + b"\r\n"]
)
def test_a_server_that_lies(answer: bytes) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ours = stack.enter_context(socket.create_connection(listener.getsockname()))
        theirs = stack.enter_context(listener.accept()[0])
        ours.setblocking(False)
        load = loaded([ours.fileno()], 10)
        assert load.run(0.001)
        theirs.sendall(answer)
        while load.run(0.1):
            pass
    assert load.lost == 1
    assert load.answered <= 1


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_replies_in_pieces(chunk: int) -> None:
    value = b"a\r\n$" * 30
    answers = b"$-1\r\n_\r\n" + b"$%d\r\n%b\r\n" % (len(value), value) + b"-ERR no\r\n$0\r\n\r\n"
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ours = stack.enter_context(socket.create_connection(listener.getsockname()))
        theirs = stack.enter_context(listener.accept()[0])
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours.setblocking(False)
        load = loaded([ours.fileno()], 5, pipeline=5)
        load.run(0.001)
        for at in range(0, len(answers), chunk):
            theirs.sendall(answers[at : at + chunk])
            load.run(0.0)
        while load.run(0.1):
            pass
    assert (load.hits, load.misses, load.errors, load.lost) == (2, 2, 1, 0)
    assert load.first_error == b"ERR no"
    assert load.counts.sum() == load.answered == 5


def loaded(fds: list[int], limit: int, pipeline: int = 1) -> Load:
    """GETs of ten keys."""
    keys, gets = np.arange(10), np.ones(10, np.uint8)
    return Load(fds, keys, gets, np.full(10, 5, np.int32), b"k", pipeline=pipeline, limit=limit)


def test_a_load_checks_what_it_is_given() -> None:
    keys, gets, sizes = np.arange(3), np.ones(3, np.uint8), np.ones(3, np.int32)
    wrong: list[tuple[Any, ...]] = [
        ([], keys, gets, sizes),
        ([0], keys[:0], gets[:0], sizes),
        ([0], keys, gets[:2], sizes),
        ([0], keys, gets, sizes[:2]),
        ([0], keys - 1, gets, sizes),
        ([0], keys, gets, -sizes),
    ]
    for given in wrong:
        with pytest.raises(ValueError, match="must"):
            Load(given[0], given[1], given[2], given[3], b"", pipeline=1)
    with pytest.raises(ValueError, match="must"):
        Load([0], keys, gets, sizes, b"", pipeline=0)
    with pytest.raises(OSError, match="epoll_ctl"):
        Load([10_000_000], keys, gets, sizes, b"", pipeline=1)


def test_buckets_are_narrow() -> None:
    bounds = bucket_bounds()
    assert (np.diff(bounds) > 0).all()
    assert (np.diff(bounds)[256:] / bounds[256:-1] <= 1 / 128).all()


def test_nobody_there_and_wrong_use(tmp_path: Path) -> None:
    assert invoke("bench", "--port", free_port()).exit_code == 3
    for arguments in (
        ["--ratio", "9"], ["--ratio", "0:0"], ["--size", "0"], ["--size", "9-3"],
        ["--size", "1GB"], ["--seconds", "0"], ["--memory-limit", "x"],
    ):  # fmt: skip
        result = invoke("bench", *arguments)
        assert result.exit_code == 2, arguments
        assert arguments[0] in result.stderr
    (tmp_path / "x.toml").write_text('tls_cert = "c"\ntls_key = "k"\n')
    assert "cannot speak TLS" in invoke("bench", "--config", "x.toml").stderr
