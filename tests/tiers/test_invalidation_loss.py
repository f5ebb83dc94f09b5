"""Invalidation by Redis: a connection that is lost is noticed in time, and comes back."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.sentinel import Sentinel

from cachecore.tiers.listening import STOPPED
from cachecore.tiers.testing import eventually
from servers import Sentinels, Server, free_port, redis_server
from tiers.listeners import KINDS, SLACK, Told, change, client_of, listening, source_of, url_of
from tiers.proxy import Proxy

HEARTBEAT = 0.25
LOST = 2 * HEARTBEAT + SLACK  # seconds until the sink knows


Act = Callable[[Server, Proxy], object]
FAULTS: dict[str, tuple[Act, Act]] = {
    "stopped": (lambda s, p: s.send(signal.SIGSTOP), lambda s, p: s.send(signal.SIGCONT)),
    "stalled": (lambda s, p: p.stall(), lambda s, p: p.pass_on()),
    "reset": (lambda s, p: p.reset(), lambda s, p: p.pass_on()),
    "reset in a message": (lambda s, p: p.reset(3), lambda s, p: p.pass_on()),
    "cut": (lambda s, p: p.cut(), lambda s, p: p.pass_on()),
    "refused": (lambda s, p: p.refuse(), lambda s, p: p.pass_on()),
    "dribbling": (lambda s, p: p.dribble(HEARTBEAT / 2), lambda s, p: p.pass_on()),
    "late": (lambda s, p: p.delay(3 * HEARTBEAT), lambda s, p: p.pass_on()),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_noticed(kind: str, fault: str, server: Server, proxy: Proxy) -> None:
    begin, end = FAULTS[fault]
    source = source_of(kind, url_of(proxy), heartbeat=HEARTBEAT)
    with listening(source) as told:
        begun = time.monotonic()
        begin(server, proxy)
        told.wait("distrust")
        assert told.times[-1] - begun < LOST
        assert not source.connected
        if fault != "stopped":
            change(kind, client_of(server), b"missed")
        time.sleep(0.2)
        assert told.calls[3:] == ["distrust"]
        end(server, proxy)
        told.wait("trust")
        if kind != "streams":
            assert told.calls[3:] == ["distrust", "forget_all", "trust"]
        elif fault != "stopped":
            assert told.calls[3:] == ["distrust", "forget", "trust"]
            told.wait_for(b"missed")
        told.keys.clear()
        change(kind, client_of(server), b"heard")
        told.wait_for(b"heard")
        stats = source.stats()
        assert (stats["losses"], stats["reconnects"], stats["errors"]) == (1, 1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_was_killed(kind: str, server: Server) -> None:
    source = source_of(kind, url_of(server), heartbeat=HEARTBEAT)
    with listening(source) as told:
        change(kind, client_of(server), b"before")
        told.wait_for(b"before")
        begun = time.monotonic()
        server.kill()
        told.wait("distrust")
        assert told.times[-1] - begun < SLACK
        eventually(lambda: source.stats()["failures"] >= 3)
        server.start()
        told.wait("distrust", "forget_all", "trust")  # the stream is gone as well
        change(kind, client_of(server), b"after")
        told.wait_for(b"after")


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_the_server_closes_again_and_again(kind: str, server: Server) -> None:
    source = source_of(kind, url_of(server), heartbeat=HEARTBEAT)
    client = client_of(server)
    with listening(source) as told:
        for turn in range(1, 6):
            client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
            eventually(lambda: told.calls.count("distrust") == turn + 1)  # noqa: B023
            told.wait("trust")
            assert source.stats()["reconnects"] == turn
        change(kind, client, b"heard")
        told.wait_for(b"heard")
        again = ["distrust", "trust"] if kind == "streams" else ["distrust", "forget_all", "trust"]
        assert told.calls == ["distrust", "forget_all", "trust", *again * 5, "forget"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_comes_later(kind: str, tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis")
    server.kill()
    source, told = source_of(kind, url_of(server)), Told()
    try:
        source.start(told)
        eventually(lambda: source.stats()["failures"] >= 2)
        assert told.calls == ["distrust"]
        assert source.stats()["losses"] == 0
        server.start()
        told.wait("distrust", "forget_all", "trust")
        assert source.stats()["reconnects"] == 0
    finally:
        source.stop()
        server.kill()


# --- who is not let in


@pytest.mark.parametrize("user", [":wrong-one@", "someone:wrong-one@"])
def test_a_wrong_password(user: str, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(server)
    client.config_set("requirepass", "right-one")
    source, told = source_of("tracking", url_of(server, user)), Told()
    with caplog.at_level(logging.INFO, "cachecore"):
        source.start(told)
        eventually(lambda: source.stats()["failures"] >= 3)
        source.stop()
    assert told.calls == ["distrust"]
    assert len(caplog.records) == 1
    assert "AuthenticationError" in caplog.text
    assert "wrong-one" not in caplog.text
    with listening(source_of("tracking", url_of(server, ":right-one@"))) as told:
        change("tracking", client, b"k")
        told.wait_for(b"k")


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_who_may_not(kind: str, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(server)
    client.execute_command("ACL", "SETUSER", "guest", "on", ">secret", "+hello", "+ping")
    source, told = source_of(kind, url_of(server, "guest:secret@")), Told()
    with caplog.at_level(logging.INFO, "cachecore"):
        source.start(told)
        eventually(lambda: source.stats()["failures"] >= 3)
        assert told.calls == ["distrust"]
        assert ["NOPERM" in record.message for record in caplog.records] == [True]
        assert "secret" not in caplog.text
        client.execute_command("ACL", "SETUSER", "guest", "+@all", "allkeys", "allchannels")
        told.wait("distrust", "forget_all", "trust")
        source.stop()
    assert caplog.records[-1].levelno == logging.INFO


# --- failover


def test_a_failover(tmp_path: Path) -> None:
    pair = Sentinels(tmp_path)
    try:
        at = [("127.0.0.1", pair.sentinels[0].port)]
        found = Sentinel(at, socket_timeout=1).master_for(pair.service)
        with listening(source_of("tracking", found, heartbeat=HEARTBEAT)) as told:
            change("tracking", client_of(pair.master), b"before")
            told.wait_for(b"before")
            pair.master.kill()
            told.wait("distrust")
            eventually(lambda: client_of(pair.replica).role()[0] in ("master", b"master"))
            told.wait("distrust", "forget_all", "trust")
            change("tracking", client_of(pair.replica), b"after")
            told.wait_for(b"after")
    finally:
        pair.kill()


# --- stopping in every state


def quick_stop(source: Any) -> None:
    """Stop it; it must not take long, and leave no thread."""
    begun = time.monotonic()
    source.stop()
    source.stop()
    assert time.monotonic() - begun < STOPPED + SLACK
    assert not source.connected
    eventually(
        lambda: "cachecore-invalidation" not in {each.name for each in threading.enumerate()}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_stop_while_it_listens(kind: str, server: Server) -> None:
    source = source_of(kind, url_of(server), heartbeat=30)
    with listening(source) as told:
        quick_stop(source)
        assert told.calls == ["distrust", "forget_all", "trust", "distrust"]


@pytest.mark.parametrize("kind", KINDS)
def test_stop_while_the_server_hangs(kind: str, server: Server) -> None:
    source = source_of(kind, url_of(server), heartbeat=30)
    with listening(source):
        server.send(signal.SIGSTOP)
        quick_stop(source)
    told = Told()
    source.start(told)  # which is not answered either
    time.sleep(0.2)
    quick_stop(source)
    assert told.calls == ["distrust"]


@pytest.mark.parametrize("kind", KINDS)
def test_stop_while_it_waits_to_try_again(kind: str) -> None:
    source, told = source_of(kind, f"redis://127.0.0.1:{free_port()}"), Told()
    source.start(told)
    eventually(lambda: source.stats()["failures"] >= 4)
    quick_stop(source)
    assert told.calls == ["distrust"]


@pytest.mark.parametrize("kind", KINDS)
def test_stop_while_it_connects(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, contextlib.ExitStack() as full:
        for _ in range(4):  # until its queue is full, and it answers nobody
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        source, told = source_of(kind, f"redis://127.0.0.1:{deaf.getsockname()[1]}"), Told()
        source.start(told)
        time.sleep(0.1)
        quick_stop(source)
        assert told.calls == ["distrust"]
        assert source.stats()["failures"] == 0


def test_stop_while_the_sink_is_busy(server: Server) -> None:
    source, go_on = source_of("tracking", url_of(server)), threading.Event()
    with listening(source) as told:
        told.act = lambda call: call == "forget" and go_on.wait(10)
        change("tracking", client_of(server), b"1", b"2")
        told.wait("forget")
        begun = time.monotonic()
        source.stop()
        assert time.monotonic() - begun < STOPPED + SLACK
        go_on.set()
        told.wait("trust", "forget", "distrust")


def test_stop_by_the_sink_itself(server: Server) -> None:
    source = source_of("tracking", url_of(server))
    with listening(source) as told:
        told.act = lambda call: call == "forget" and source.stop()
        change("tracking", client_of(server), b"1")
        told.wait("trust", "forget", "distrust")
        quick_stop(source)


def test_a_slow_sink(server: Server) -> None:
    source = source_of("tracking", url_of(server), heartbeat=HEARTBEAT)
    with listening(source) as told:
        told.act = lambda call: told.keys == [b"1"] and time.sleep(1.5 * HEARTBEAT)
        change("tracking", client_of(server), b"1", b"2")
        told.wait_for(b"1", b"2")
        assert source.stats()["losses"] == 0
        told.act = lambda call: call == "forget" and time.sleep(1.5 * HEARTBEAT)
        change("tracking", client_of(server), *(b"%d" % at for at in range(20)))
        told.wait("distrust", "forget_all", "trust")  # it did not keep up
