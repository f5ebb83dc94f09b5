"""The server of the metrics port: what it answers, whom it refuses, what it does not let happen."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from cachecore import Cache
from cachecore.integrations.prometheus import CacheCollector
from cachecore.server import http as served
from cachecore.server.http import LONGEST_HEAD, MOST_CLIENTS, StatusServer
from cachecore.tiers.testing import eventually
from server.conftest import Serve
from tiers.children import exit_code, fork

CLIENT_PATIENCE = 30.0  # seconds; what takes so long does not end


class Response(NamedTuple):
    status: int
    headers: Any
    body: bytes


def response(data: bytes) -> Response:
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, data
    first, _, lines = head.partition(b"\r\n")
    version, status, _ = first.split(b" ", 2)
    assert version == b"HTTP/1.1"
    return Response(int(status), BytesParser().parsebytes(lines), body)


@contextmanager
def connected(server: StatusServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), CLIENT_PATIENCE) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def ask(server: StatusServer, data: bytes) -> Response:
    """What the server answers to bytes."""
    with connected(server) as client:
        client.sendall(data)
        return response(read_all(client))


def get(server: StatusServer, path: str, *lines: str, method: str = "GET") -> Response:
    head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *lines, "", ""]
    return ask(server, "\r\n".join(head).encode("latin-1"))


# --- what it answers


def test_metrics_as_text_and_as_openmetrics(serve: Serve) -> None:
    collector, cache = CacheCollector(None), Cache[str, int](10, name="c")
    collector.add(cache)
    server = serve(collector)
    plain = get(server, "/metrics")
    assert plain.status == 200
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(plain.body.decode())}
    assert {"cachecore_requests", "cachecore_entries", "process_open_fds"} <= names
    wanted = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    other = get(server, "/metrics", wanted)
    assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert {family.name for family in parse_openmetrics(other.body.decode())} == names


@pytest.mark.parametrize("accept", ["", "*/*", "x" * 4000, ";;,,==", "\xff", "text/html;q=x"])
def test_strange_wishes_get_text(serve: Serve, accept: str) -> None:
    answer = get(serve(), "/metrics", f"Accept: {accept}")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_registry_of_ones_own(serve: Serve) -> None:
    registry = CollectorRegistry()
    Gauge("mine", "What I have.", registry=registry).set(7)
    assert b"\nmine 7.0\n" in get(serve(registry=registry), "/metrics").body


def test_health(serve: Serve) -> None:
    wrong = [""]
    server = serve(health=lambda: wrong[0])
    assert get(server, "/healthz")[::2] == (200, b"ok\n")
    wrong[0] = "the upstream is down"
    assert get(server, "/healthz")[::2] == (503, b"the upstream is down\n")


def test_status_tells_what_the_caches_tell(serve: Serve) -> None:
    collector, cache = CacheCollector(None), Cache[str, int](10, name="c")
    collector.add(cache)
    cache["a"] = 1
    cache.get("a")
    cache.get("b")
    answer = get(serve(collector, title="here"), "/status.json")
    assert answer.headers["content-type"] == "application/json"
    document = json.loads(answer.body)
    (shown,) = document["caches"]
    assert document["title"] == "here"
    assert (shown["name"], shown["kind"]) == ("c", "Cache")
    assert shown["results"] == {"hit": 1, "miss": 1}
    assert shown["entries"] == 1
    assert shown["hottest"] == [{"key": "a", "frequency": cache.hottest(1)[0][1]}]


def test_history_grows_and_is_told_from_a_moment_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "INTERVAL", 0.01)
    collector, cache = CacheCollector(None), Cache[str, int](10, name="c")
    collector.add(cache)
    cache["a"] = 1
    server = serve(collector)

    def history(since: object) -> Any:
        return json.loads(get(server, f"/status.json?since={since}").body)["history"]

    eventually(lambda: len(history(0)) > 3)
    document = json.loads(get(server, "/status.json").body)
    times = [row[0] for row in document["history"]]
    assert times == sorted(times)
    assert document["history"][-1][1]["c"][document["columns"].index("entries")] == 1
    later = history(times[2])
    assert later[0][0] == times[3]
    assert history("inf") == []
    assert history("nan") == []


@pytest.mark.parametrize("since", ["x", "", "1;2", "--1", "0x1"])
def test_a_moment_that_is_no_number(serve: Serve, since: str) -> None:
    answer = get(serve(), f"/status.json?since={since}")
    expected = 200 if since == "" else 400  # as if there were no question
    assert answer.status == expected


def test_the_page_and_its_files(serve: Serve) -> None:
    server = serve()
    page = get(server, "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("page.js", "charts.js", "numbers.js"):
        assert get(server, f"/{name}").headers["content-type"] == "text/javascript; charset=utf-8"
    assert get(server, "/page.css").headers["content-type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/metrics", "/status.json", "/healthz", "/none"])
def test_head_is_the_same_without_a_body(serve: Serve, path: str) -> None:
    server = serve()
    with_body, without = get(server, path), get(server, path, method="HEAD")
    assert without.status == with_body.status
    assert without.body == b""
    if path not in ("/metrics", "/status.json"):  # which tell the time
        assert without.headers["content-length"] == str(len(with_body.body))


@pytest.mark.parametrize("path", ["/", "/metrics", "/status.json", "/healthz", "/none"])
def test_every_answer_is_whole_and_wary(serve: Serve, path: str) -> None:
    answer = get(serve(), path)
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.headers["connection"] == "close"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers


def test_a_client_of_the_standard_library(serve: Serve) -> None:
    server = serve()
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CLIENT_PATIENCE)
    for _ in range(3):  # it connects anew, because the server closes
        client.request("GET", "/healthz")
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"ok\n")
    client.close()


# --- whom it refuses


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9380", "localhost", "LOCALHOST:1", "localhost.", "[::1]", "[::1]:80",
     "10.1.2.3:9380", "metrics.internal", "Metrics.Internal:443"],
)  # fmt: skip
def test_hosts_that_are_ours(serve: Serve, host: str) -> None:
    server = serve(hosts=["metrics.internal"])
    assert ask(server, f"GET /status.json HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:9380", "",
     "localhost:x", "localhost:999999", "[::1", "::1", "127.0.0.1 evil", "user@localhost", "127.1",
     "0x7f.1", "localhost/", "\xff", "metrics.internal.", ".", "a" * 300],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/status.json", "/metrics", "/healthz", "/none"])
def test_other_hosts_get_nothing(serve: Serve, host: str, path: str) -> None:
    server = serve()
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")
    assert ask(server, request).status == 421


HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"OPTIONS / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"GET /../page.py HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"GET //metrics HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"GET /page.html HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1 x\r\n" + HOST + b"\r\n", 400),
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /\r\n" + HOST + b"\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"*1\r\n$4\r\nPING\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b" folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Space : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Bare: \n x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabcde", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 2 * LONGEST_HEAD + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 2 * LONGEST_HEAD, 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 2000 + b"\r\n", 431),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else str(value),
)  # fmt: skip
def test_requests_good_and_bad(serve: Serve, request_: bytes, status: int) -> None:
    answer = ask(serve(), request_)
    assert answer.status == status
    assert int(answer.headers["content-length"]) == len(answer.body)
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD"


def test_what_follows_a_request_is_not_answered(serve: Serve) -> None:
    request = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: keep-alive\r\n\r\n"
    server = serve()
    with connected(server) as client:
        client.sendall(request * 3)
        assert read_all(client).count(b"HTTP/1.1") == 1


def test_an_error_of_ours_is_told_and_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> str:
        raise RuntimeError("a secret")

    server = serve(health=fail)
    answer = get(server, "/healthz")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "a secret" in caplog.text
    assert get(server, "/").status == 200


def test_key_names_are_for_this_machine_only(serve: Serve) -> None:
    collector, cache = CacheCollector(None), Cache[str, int](10, name="c")
    collector.add(cache)
    cache["secret"] = 1
    for options, shown in [
        ({"host": "127.0.0.1"}, True), ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "keys": True}, True), ({"keys": False}, False),
    ]:  # fmt: skip
        body = get(serve(collector, **options), "/status.json").body
        assert (b"secret" in body) == shown
        assert (json.loads(body)["caches"][0]["hottest"] is None) == (not shown)


# --- what it does not let happen


def test_who_sends_nothing_or_slowly_is_dismissed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "TIME_TO_ASK", 0.1)
    server = serve()
    for begun in (b"", b"G", b"GET / HTTP/1.1\r\n" + HOST):
        assert ask(server, begun).status == 408
    with connected(server) as client:  # a byte now and then does not help
        end = time.monotonic() + CLIENT_PATIENCE
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < end:
                client.sendall(b"x")
                time.sleep(0.01)


def test_who_does_not_take_the_answer_is_dismissed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "TIME_TO_TAKE", 0.1)
    registry = CollectorRegistry()
    large = Gauge("large", "x" * 30_000_000, registry=registry)
    large.set(1)
    server = serve(registry=registry)
    with connected(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n")
        assert client.recv(10)
        eventually(lambda: not server._clients)  # its buffers are gone, though nobody has read
        try:
            taken = len(read_all(client))
        except ConnectionResetError:
            taken = 0
        assert taken < 30_000_000
    assert get(server, "/healthz").status == 200


def test_clients_are_bounded_and_those_who_leave_make_room(serve: Serve) -> None:
    server = serve()
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(MOST_CLIENTS)]
    eventually(lambda: len(server._clients) == MOST_CLIENTS)
    with connected(server) as one_more:
        assert response(read_all(one_more)).status == 503
    for client in clients:
        client.close()
    eventually(lambda: not server._clients)
    assert get(server, "/healthz").status == 200


def test_clients_that_break_off_leave_nothing(serve: Serve) -> None:
    server = serve()
    before = len(os.listdir("/proc/self/fd"))
    for at in range(300):
        with connected(server) as client:
            if at % 3:
                client.sendall(b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n"[: at % 5])
            if at % 2:  # a reset instead of an end
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: not server._clients)
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert get(server, "/healthz").status == 200


def test_many_at_once_are_all_answered(serve: Serve) -> None:
    collector, cache = CacheCollector(None), Cache[int, int](1000, name="c")
    collector.add(cache)
    server, statuses = serve(collector), list[int]()

    def work() -> None:
        for at in range(20):
            cache[at] = at
            statuses.append(get(server, ["/metrics", "/status.json", "/"][at % 3]).status)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 160


# --- begin and end


def test_a_port_that_is_taken(serve: Serve) -> None:
    server = serve()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {server.port}"):
        StatusServer(CacheCollector(None), port=server.port)


def test_hosts_is_not_one_name() -> None:
    with pytest.raises(TypeError, match="hosts must be an iterable of names"):
        StatusServer(CacheCollector(None), port=0, hosts="metrics.internal")


def test_ipv6() -> None:
    with StatusServer(CacheCollector(None), host="::1", port=0) as server:
        assert server.url == f"http://[::1]:{server.port}/"
        with socket.create_connection(("::1", server.port), CLIENT_PATIENCE) as client:
            client.sendall(f"GET / HTTP/1.1\r\nHost: [::1]:{server.port}\r\n\r\n".encode())
            assert response(read_all(client)).status == 200


def test_it_ends_amid_requests_and_can_begin_again() -> None:
    collector = CacheCollector(None)
    server = StatusServer(collector, port=0)
    server.start_thread()
    with connected(server) as waiting:
        waiting.sendall(b"GET /")
        eventually(lambda: bool(server._clients))
        server.stop_thread()
        assert waiting.recv(1) == b""
    server.stop_thread()  # nothing more happens
    with pytest.raises(ConnectionRefusedError), connected(server):
        pass
    with StatusServer(collector, port=server.port) as again:
        assert get(again, "/healthz").status == 200


def test_a_server_that_never_began_lets_go_of_its_port() -> None:
    server = StatusServer(CacheCollector(None), port=0)
    port = server.port
    server.stop_thread()
    with StatusServer(CacheCollector(None), port=port) as other:
        assert other.port == port


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_does_not_hold_the_port() -> None:
    with StatusServer(CacheCollector(None), port=0) as server:
        reading, writing = os.pipe()

        def wait() -> bool:
            os.close(writing)
            server.stop_thread()  # nothing of the parent's
            return os.read(reading, 1) == b""

        child = fork(wait)
        os.close(reading)
        assert get(server, "/healthz").status == 200
    with StatusServer(CacheCollector(None), port=server.port) as again:  # the child still lives
        assert get(again, "/healthz").status == 200
    os.close(writing)
    assert exit_code(child) == 0
