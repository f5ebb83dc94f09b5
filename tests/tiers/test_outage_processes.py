"""Several processes that miss one key: by a lease one of them loads it, whatever becomes of it."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess
from typing import Any

import redis

from cachecore import TieredCache
from cachecore.tiers import Policy, RedisTier
from cachecore.tiers.testing import eventually
from servers import Server, free_port

FORK = multiprocessing.get_context("fork")


def ask(port: int, counter: int, lease: float, how: str, answers: Any) -> None:
    """What one of many processes does."""

    def load(key: str) -> str:
        turn = client.incr("loads")
        if turn == 1:
            client.set("leader", os.getpid())
        if how == "hangs" and turn == 1:
            time.sleep(60)
        if how == "raises" and turn == 1:
            raise OSError("the source is down")
        time.sleep(0.2)
        return "value"

    client = redis.Redis(port=counter)
    cache = TieredCache(
        10, tiers=[RedisTier(f"redis://127.0.0.1:{port}", timeout=1)], loader=load, namespace="a",
        policy=Policy(lease=lease),
    )  # fmt: skip
    client.incr("ready")
    while not client.get("go"):
        time.sleep(0.001)
    try:
        answer = cache.get("k")
    except OSError as error:
        answer = str(error)
    answers.put(answer if cache.flights == {} else cache.flights)


class Crowd:
    """Processes that ask for the same key at once."""

    def __init__(self, count: int, port: int, counter: int, lease: float, how: str = "") -> None:
        self._answers: Any = FORK.SimpleQueue()
        words = (port, counter, lease, how, self._answers)
        self.client = redis.Redis(port=counter)
        self.processes: list[BaseProcess] = [
            FORK.Process(target=ask, args=words, daemon=True) for _ in range(count)
        ]
        for process in self.processes:
            process.start()
        eventually(lambda: int(self.client.get("ready") or 0) == count)
        self.client.set("go", 1)

    def answers(self) -> list[str]:
        """What those said that live."""
        for process in self.processes:
            process.join(20)
            assert process.exitcode == 0
        return [self._answers.get() for _ in self.processes]

    @property
    def loads(self) -> Any:
        return int(self.client.get("loads") or 0)

    @property
    def leader(self) -> Any:
        """The process id of the one that loaded first."""
        return int(self.client.get("leader") or 0)


def test_one_loads(server: Server) -> None:
    crowd = Crowd(8, server.port, server.port, 5.0)
    assert crowd.answers() == ["value"] * 8
    assert crowd.loads == 1
    assert not crowd.client.exists("a:k\0lease")


def test_the_leader_is_killed(server: Server) -> None:
    """Another takes over when the lease has ended, and only one."""
    crowd = Crowd(5, server.port, server.port, 0.6, "hangs")
    eventually(lambda: crowd.loads == 1)
    time.sleep(0.2)
    assert crowd.loads == 1
    [leader] = (each for each in crowd.processes if each.pid == crowd.leader)
    leader.kill()
    crowd.processes.remove(leader)
    assert crowd.answers() == ["value"] * 4
    assert crowd.loads == 2
    leader.join()


def test_the_leaders_loader_raises(server: Server) -> None:
    """Its own process is told; another one takes over at once."""
    begin = time.monotonic()
    crowd = Crowd(5, server.port, server.port, 30.0, "raises")
    assert sorted(crowd.answers()) == ["the source is down", *["value"] * 4]
    assert crowd.loads == 2
    assert time.monotonic() - begin < 20


def test_a_lease_that_has_run_out_is_anothers(server: Server) -> None:
    """Who loads for longer than it has the lease leaves that of the next alone."""
    client = redis.Redis(port=server.port)

    def load(key: str) -> str:
        eventually(lambda: not client.exists("a:k\0lease"))
        client.set("a:k\0lease", "another's", px=60_000)
        return "value"

    with TieredCache(
        10, tiers=[RedisTier(f"redis://127.0.0.1:{server.port}")], loader=load, namespace="a",
        policy=Policy(lease=0.1),
    ) as cache:  # fmt: skip
        assert cache.get("k") == "value"
        assert client.get("a:k\0lease") == b"another's"


def test_without_redis_each_loads(server: Server) -> None:
    crowd = Crowd(4, free_port(), server.port, 5.0)
    assert crowd.answers() == ["value"] * 4
    assert crowd.loads == 4
