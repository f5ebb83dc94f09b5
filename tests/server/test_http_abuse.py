"""The server of the metrics port among slow, many and rude clients; how it begins and ends."""

from __future__ import annotations

import os
import resource
import socket
import threading

import pytest
from prometheus_client import CollectorRegistry, Gauge

from cachecore import Cache
from cachecore.integrations.prometheus import CacheCollector
from cachecore.server import http as served
from cachecore.server.http import MOST_CLIENTS, StatusServer
from cachecore.tiers.testing import eventually
from server.clients import (
    CLIENT_PATIENCE,
    HOST,
    ask,
    connected,
    get,
    is_cut_off,
    read_all,
    response,
)
from server.conftest import Serve
from tiers.children import exit_code, fork

# --- what it does not let happen


def test_who_sends_nothing_or_slowly_is_dismissed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "TIME_TO_ASK", 0.1)
    server = serve()
    for begun in (b"", b"G", b"GET / HTTP/1.1\r\n" + HOST):
        assert ask(server, begun).status == 408
    with connected(server) as client:  # a byte now and then does not help
        eventually(lambda: is_cut_off(client))


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
    for at in range(150):
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


def test_without_descriptors_it_waits_and_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "PAUSE", 0.02)
    server = serve()
    assert get(server, "/healthz").status == 200  # what is needed for an answer is there
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
    try:
        client.connect(("127.0.0.1", server.port))
        client.settimeout(CLIENT_PATIENCE)
        client.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        eventually(lambda: server._pause)
        assert not server._clients
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert response(read_all(client)).status == 200
    client.close()


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
