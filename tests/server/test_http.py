"""The server of the metrics port: what it answers, whom it refuses, what it does not let happen."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from cachecore import Cache
from cachecore.integrations.prometheus import CacheCollector
from cachecore.server import http as served
from cachecore.server.http import LONGEST_HEAD
from cachecore.tiers.testing import eventually
from server.clients import CLIENT_PATIENCE, HOST, ask, connected, get, read_all
from server.conftest import Serve

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
    for name in re.findall(r'(?:href|src)="([\w.]+)"', page.body.decode()):
        assert get(server, f"/{name}").status == 200
    kinds = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        assert get(server, f"/{name}").headers["content-type"].startswith(kind)


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
        raise ConnectionError("a secret")

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
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"host": "127.0.0.1"}, True), ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "keys": True}, True), ({"keys": False}, False),
    ]  # fmt: skip
    for options, shown in cases:
        body = get(serve(collector, **options), "/status.json").body
        assert (b"secret" in body) == shown
        assert (json.loads(body)["caches"][0]["hottest"] is None) == (not shown)
