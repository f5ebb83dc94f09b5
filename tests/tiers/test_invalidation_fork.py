"""Invalidation by Redis in processes that fork: the child listens, and is a sender, of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cachecore.tiers.invalidation import PubSub
from cachecore.tiers.testing import eventually
from servers import Server, redis_server
from tiers.children import exit_code, fork
from tiers.listeners import KINDS, Told, change, client_of, listening, source_of, url_of


@contextmanager
def child(*steps: Callable[[], object]) -> Iterator[None]:
    """A child that takes the first step at once, the second with the block; it must not fail."""
    ready, go = os.pipe(), os.pipe()

    def work() -> bool:
        steps[0]()
        os.write(ready[1], b"!")
        os.read(go[0], 1)
        steps[1]()
        return True

    pid = fork(work)
    os.close(ready[1])
    assert os.read(ready[0], 1) == b"!"
    os.write(go[1], b"!")
    yield
    assert exit_code(pid) == 0
    for end in (ready[0], *go):
        os.close(end)


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_listens_for_itself(kind: str, running: Server, client: Any) -> None:
    source = source_of(kind, url_of(running), heartbeat=0.2)

    def listen() -> None:
        assert told.calls[3] == "distrust"
        told.wait("trust")

    def hear() -> None:
        told.wait_for(b"both")
        assert source.connected
        assert len(told.threads) == 2
        source.stop()

    with listening(source) as told:
        with child(listen, hear):
            change(kind, client, b"both")
            told.wait_for(b"both")
        change(kind, client, b"after")  # the child's end did not touch this connection
        told.wait_for(b"after")
        time.sleep(0.5)
        assert told.calls.count("distrust") == 1


@pytest.mark.parametrize("started", [True, False])
def test_parent_and_child_are_two_senders(started: bool, running: Server) -> None:
    source, told = PubSub(url_of(running), "changes"), Told()
    if started:
        source.start(told)
    with child(lambda: None if started else source.start(told), lambda: told.wait_for(b"k")):
        eventually(lambda: client_of(running).pubsub_numsub("changes")[0][1] == 1 + started)
        source.publish([b"k"])
    source.stop()


def test_a_fork_by_the_sink(running: Server, client: Any) -> None:
    source, told = PubSub(url_of(running), "changes"), Told()
    pids: list[int] = []

    def work() -> bool:
        told.act = lambda call: None
        told.wait("forget", "distrust", "forget_all", "trust")
        time.sleep(0.5)
        told.wait("forget", "distrust", "forget_all", "trust")
        return True

    def act(call: str) -> None:
        if call == "forget" and not pids:
            pids.append(fork(work))

    told.act = act
    with listening(source, told):
        client.publish("changes", "k")
        told.wait_for(b"k")
        eventually(lambda: pids)
        assert exit_code(pids[0]) == 0
        client.publish("changes", "k")
        told.wait_for(b"k")


def test_fork_while_there_is_no_server(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis")
    server.kill()
    source, told = source_of("pubsub", url_of(server)), Told()
    source.start(told)
    eventually(lambda: source.stats()["failures"] >= 1)

    def work() -> bool:
        assert told.calls == ["distrust", "distrust"]
        told.wait("distrust", "forget_all", "trust")
        return True

    pid = fork(work)
    server.start()
    try:
        assert exit_code(pid) == 0
        told.wait("distrust", "forget_all", "trust")
    finally:
        source.stop()
        server.kill()
