"""No proxy serves an older value once it has been told of the newer one, whatever happens between.

Writers count up on the upstream, each on keys of its own; readers on two proxies note what they
got and when. Two things are checked of the histories. Of two reads through one proxy of which the
second began when the first had ended, the second is not older. And no read is older than what had
been acknowledged before a barrier: an EVAL through the proxy, which returns when its tracking
connection has delivered all that came before.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

import pytest
import redis

from cachecore.tiers.testing import eventually
from server.proxy.conftest import Start
from server.proxy.proxies import ProxyProcess, client, trackers
from servers import Server

SECONDS = float(os.environ.get("COHERENCE_SECONDS", "4"))
KEYS = [f"key:{at}" for at in range(12)]
PAIR = ["pair:0", "pair:1"]  # always written together
FAILURES = (redis.RedisError, OSError)


class Read(NamedTuple):
    began: float
    ended: float
    key: str
    value: int


class Floor(NamedTuple):
    """From a moment on, no read of a proxy is below these."""

    since: float
    least: dict[str, int]


def older_reads(reads: list[Read], floors: list[Floor]) -> list[str]:
    """What is wrong with the history of one proxy."""
    faults = []
    by_key = defaultdict(list)
    for read in reads:
        by_key[read.key].append(read)
    for key, history in by_key.items():
        ended = sorted(history, key=lambda read: read.ended)
        rules = sorted((floor.since, floor.least.get(key, 0)) for floor in floors)
        newest = least = at = next_rule = 0
        for read in sorted(history, key=lambda read: read.began):
            while ended[at].ended < read.began:
                newest = max(newest, ended[at].value)
                at += 1
            while next_rule < len(rules) and rules[next_rule][0] < read.began:
                least = max(least, rules[next_rule][1])
                next_rule += 1
            if read.value < newest:
                faults.append(f"{key} was {newest}, later {read.value}")
            if read.value < least:
                faults.append(f"{key} was {read.value} after {least} had been delivered")
    return faults


def test_checker_notices_what_is_older() -> None:
    fine = [Read(0, 1, "k", 1), Read(0.5, 2, "k", 2), Read(1.5, 3, "k", 1)]
    assert not older_reads(fine, [Floor(1.4, {"k": 1})])
    assert older_reads([*fine, Read(2.5, 3, "k", 1)], [])
    assert older_reads(fine, [Floor(1.4, {"k": 2})])


class Histories:
    """Threads that write and read until told to stop, and what they saw."""

    def __init__(self, upstream: int, proxies: list[ProxyProcess], pause: float = 0.001) -> None:
        self.upstream, self.proxies, self.pause = upstream, proxies, pause
        self.acked: dict[str, int] = dict.fromkeys(KEYS, 0)
        self.reads: list[list[Read]] = [[] for _ in proxies]
        self.floors: list[list[Floor]] = [[] for _ in proxies]
        self.own_faults: list[str] = []
        self.own_reads = self.failures = 0
        self.stopped = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        jobs = [partial(self.write, KEYS[::2]), partial(self.write, KEYS[1::2])]
        for at in range(len(self.proxies)):
            each = (self.read, self.read_many, self.bar, self.read_own, self.keep_filling)
            jobs += [partial(job, at) for job in each]
        threads = [threading.Thread(target=job) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join()

    def each(self, port: int, step: Callable[[redis.Redis], None]) -> None:
        """Repeat a step on a connection; after a failure on a new one."""
        while not self.stopped.is_set():
            with client(port) as some:
                try:
                    while not self.stopped.is_set():
                        step(some)
                except FAILURES:
                    self.failures += 1
                    time.sleep(0.01)

    def write(self, keys: list[str]) -> None:
        numbers = dict.fromkeys(keys, 0)

        def step(some: redis.Redis) -> None:
            key = random.choice(keys)
            numbers[key] += (
                1  # a write that failed may have been done: its number is not used again
            )
            if random.random() < 0.3:
                some.set(key, numbers[key], px=60_000)
            else:
                some.set(key, numbers[key])
            self.acked[key] = numbers[key]
            if key == KEYS[0]:
                some.mset(dict.fromkeys(PAIR, numbers[key]))
            time.sleep(self.pause)

        self.each(self.upstream, step)

    def read(self, at: int) -> None:
        def step(some: redis.Redis) -> None:
            key, began = random.choice(KEYS), time.monotonic()
            if random.random() < 0.1:  # behind a command that is forwarded a read is so too
                pipe = some.pipeline(transaction=False)
                pipe.ping()
                pipe.get(key)
                value = int(pipe.execute()[1] or 0)
            else:
                value = int(some.get(key) or 0)
            self.reads[at].append(Read(began, time.monotonic(), key, value))

        self.each(self.proxies[at].port, step)

    def read_many(self, at: int) -> None:
        def step(some: redis.Redis) -> None:
            keys, began = random.sample(KEYS, 3), time.monotonic()
            values = some.mget(keys)
            ended = time.monotonic()
            for key, value in zip(keys, values, strict=True):
                self.reads[at].append(Read(began, ended, key, int(value or 0)))
            some.get(random.choice(PAIR))
            if len({*some.mget(PAIR)}) > 1:
                self.own_faults.append("values of two moments in one reply")

        self.each(self.proxies[at].port, step)

    def keep_filling(self, at: int) -> None:
        """Ask for what others write through the same proxy, so that it is always being fetched."""

        def step(some: redis.Redis) -> None:
            some.get(f"own:{at}")

        self.each(self.proxies[at].port, step)

    def bar(self, at: int) -> None:
        def step(some: redis.Redis) -> None:
            acked = dict(self.acked)
            some.eval("return 1", 0)
            self.floors[at].append(Floor(time.monotonic(), acked))
            time.sleep(random.uniform(0, 0.3))  # it drops what is doubtful: leave time for others

        self.each(self.proxies[at].port, step)

    def read_own(self, at: int) -> None:
        """Through one proxy, on two connections: what was written is what is read."""
        key, number, sure = f"own:{at}", 0, 0
        script = "return redis.call('set', KEYS[1], ARGV[1])"

        def in_transaction(some: redis.Redis, value: int) -> None:
            pipe = some.pipeline()
            pipe.set(key, value)
            pipe.execute()

        def in_pipeline(some: redis.Redis, value: int) -> None:
            pipe = some.pipeline(transaction=False)
            pipe.set(key, value)
            pipe.get(key)
            pipe.execute()

        ways: list[Callable[[redis.Redis, int], object]] = [
            lambda some, value: some.set(key, value),
            lambda some, value: some.eval(script, 1, key, value),
            in_transaction,
            in_pipeline,
        ]
        port = self.proxies[at].port

        def step(some: redis.Redis) -> None:
            nonlocal number, sure
            number += 1
            sure = 0
            random.choice(ways)(some, number)
            sure = number
            with client(port) as other:
                for reader in (some, other, some):
                    self.own_reads += 1
                    if (found := int(reader.get(key) or 0)) != sure:
                        self.own_faults.append(f"{key}: {found} instead of {sure}")

        self.each(port, step)

    def counts(self) -> dict[str, int]:
        return {
            "reads": sum(map(len, self.reads)),
            "reads of own writes": self.own_reads,
            "barriers": sum(map(len, self.floors)),
            "writes": sum(self.acked.values()),
            "failures": self.failures,
        }

    def check(self) -> None:
        for reads, floors in zip(self.reads, self.floors, strict=True):
            assert older_reads(reads, floors) == []
        assert sum(map(len, self.reads)) > 100
        assert sum(map(len, self.floors)) > 3
        assert self.own_faults == []
        assert self.own_reads > 20


def calm(upstream: Server) -> None:
    time.sleep(0.3)


def kill_tracking(upstream: Server) -> None:
    with client(upstream.port) as some:
        for number in trackers(some):
            with suppress(redis.ResponseError):  # gone by itself
                some.client_kill_filter(_id=number)
    time.sleep(random.uniform(0, 0.2))


def stop_and_continue(upstream: Server) -> None:
    upstream.send(signal.SIGSTOP)
    time.sleep(random.choice([0.05, 0.2, 1.0]))
    upstream.send(signal.SIGCONT)
    time.sleep(0.3)


def restart(upstream: Server) -> None:
    upstream.kill()
    time.sleep(random.choice([0.0, 0.4]))
    upstream.start()
    time.sleep(0.6)


def flush_others(upstream: Server) -> None:
    with client(upstream.port, db=5) as some:
        some.flushdb()
    time.sleep(0.05)


TROUBLES = {
    "calm": [calm],
    "killed": [kill_tracking],
    "stopped": [stop_and_continue],
    "restarted": [restart],
    "all": [kill_tracking, stop_and_continue, restart, flush_others],
}


def test_what_is_delivered_late_is_not_older(upstream: Server) -> None:
    """Everything on tracking connections comes 30 ms late, so that fills overlap with writes."""
    with late_tracking(upstream.port, 0.03) as port:
        proxies = [ProxyProcess(f"redis://127.0.0.1:{port}") for _ in range(2)]
        try:
            histories = Histories(upstream.port, proxies, pause=0.02)
            with histories.running():
                time.sleep(SECONDS)
            histories.check()
        finally:
            for proxy in proxies:
                proxy.close()


def test_what_was_seen_upstream_is_not_followed_by_what_was_before(
    upstream: Server, start: Start
) -> None:
    """A read that was forwarded knows more than the tracking connection has told yet."""
    with late_tracking(upstream.port, 0.3) as port, client(upstream.port) as behind:
        proxy = start(f"redis://127.0.0.1:{port}")
        with proxy.client() as some:
            behind.set("k", "old")
            assert [some.get("k"), some.get("k")] == [b"old", b"old"]
            behind.set("k", "new")
            pipe = some.pipeline(transaction=False)
            pipe.ping()
            pipe.get("k")
            assert pipe.execute() == [True, b"new"]
            assert some.get("k") == b"new"


def test_what_was_fetched_before_a_write_is_not_kept(upstream: Server, start: Start) -> None:
    """The reply to a fill, and long after it the invalidation, come when the write is done."""
    with late_tracking(upstream.port, 0.3) as port, client(upstream.port) as behind:
        proxy = start(f"redis://127.0.0.1:{port}")
        with proxy.client() as some, proxy.client() as other:
            behind.set("k", "old")
            other.ping()
            got: list[object] = []
            reader = threading.Thread(target=lambda: got.append(some.get("k")))
            reader.start()
            eventually(lambda: hits(behind))
            other.set("k", "new")
            reader.join()
            assert got in ([b"old"], [b"new"])
            assert [one.get("k") for one in (some, other)] == [b"new", b"new"]


def hits(some: redis.Redis) -> bool:
    """Whether a key has been read."""
    return int(some.info("stats")["keyspace_hits"]) > 0


@contextmanager
def late_tracking(target: int, delay: float) -> Iterator[int]:
    """A way to a server on which replies are late once tracking has been turned on."""
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", target))
                tracks = threading.Event()
                ends.extend((near, far))
                threading.Thread(target=forth, args=(near, far, tracks)).start()
                threading.Thread(target=back, args=(near, far, tracks)).start()

    def forth(near: socket.socket, far: socket.socket, tracks: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if b"TRACKING" in data:
                    tracks.set()
                far.sendall(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)

    def back(near: socket.socket, far: socket.socket, tracks: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if tracks.is_set():
                    time.sleep(delay)
                near.sendall(data)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        for end in (listener, *ends):
            end.close()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_nothing_older_is_served(trouble: str, upstream: Server) -> None:
    url = f"redis://127.0.0.1:{upstream.port}"
    proxies = [ProxyProcess(url, upstream_timeout=0.4) for _ in range(2)]
    try:
        histories = Histories(upstream.port, proxies)
        end = time.monotonic() + SECONDS
        with histories.running():
            while time.monotonic() < end:
                random.choice(TROUBLES[trouble])(upstream)
        histories.check()
        facts = [proxy.info() for proxy in proxies]
        print(trouble, histories.counts(), facts)
        assert all(one["fills"] > 0 and one["invalidations"] > 0 for one in facts)
    finally:
        for proxy in proxies:
            proxy.close()
