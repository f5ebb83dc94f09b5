"""What the tests of invalidation share: a sink that writes down what it is told, and sources."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from cachecore.tiers.invalidation import PubSub, Streams, Tracking
from cachecore.tiers.listening import Listener
from cachecore.tiers.testing import eventually
from servers import Server
from tiers.proxy import Proxy

KINDS = ["tracking", "pubsub", "streams"]
SLACK = 1.0  # seconds that a busy machine may add to a deadline


class Told:
    """A sink: what it was told, in order, by which threads and when."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.keys: list[bytes] = []
        self.threads: set[threading.Thread] = set()
        self.times: list[float] = []
        self.act: Callable[[str], object] = lambda call: None  # what it does besides

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.times.append(time.monotonic())
        if call != "distrust":
            self.threads.add(threading.current_thread())
        self.act(call)

    def forget(self, keys: Sequence[bytes]) -> None:
        self.keys += keys
        self._note("forget")

    def forget_all(self) -> None:
        self._note("forget_all")

    def distrust(self) -> None:
        self._note("distrust")

    def trust(self) -> None:
        self._note("trust")

    def wait(self, *calls: str) -> None:
        """Until these were the last calls."""
        eventually(lambda: tuple(self.calls[-len(calls) :]) == calls)

    def wait_for(self, *keys: bytes) -> None:
        """Until it was told of exactly these keys, in this order, since the last time."""
        eventually(lambda: len(self.keys) >= len(keys))
        told, self.keys = self.keys, []
        assert told == list(keys)


def client_of(server: Server, **settings: Any) -> Any:
    return redis.Redis(port=server.port, **settings)


def emptied(server: Server, **settings: Any) -> None:
    with client_of(server, **settings) as client:
        client.flushall()


def url_of(where: Server | Proxy, user: str = "") -> str:
    return f"redis://{user}127.0.0.1:{where.port}"


def source_of(kind: str, where: Any, **settings: Any) -> Listener:
    """A source of that kind, of keys that begin with "a:" if it can choose."""
    if kind == "tracking":
        return Tracking(where, prefix="a:", **settings)
    if kind == "pubsub":
        return PubSub(where, "changes", **settings)
    return Streams(where, "changes", **settings)


def change(kind: str, client: Any, *keys: bytes) -> None:
    """Do what lets sources of that kind tell of these keys, one by one."""
    for key in keys:
        if kind == "tracking":
            client.set(b"a:" + key, "new")
        elif kind == "pubsub":
            client.publish("changes", key)
        else:
            client.xadd("changes", {"key": key})


@contextmanager
def listening(source: Listener, told: Told | None = None) -> Iterator[Told]:
    """What a source tells from the moment on when it is trusted."""
    told = told or Told()
    source.start(told)
    try:
        told.wait("trust")
        yield told
    finally:
        source.stop()
