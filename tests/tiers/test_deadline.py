"""Deadline: the contract, tiers that hang, and how many threads they may take."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.breaker import Breaker
from cachecore.tiers.deadline import Deadline
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import TierContract, eventually
from servers import memcached_server
from tiers.children import in_child

DEADLINE = 0.1
SLACK = 0.9


class TestContract(TierContract):
    @pytest.fixture
    def tier(self, inner: MemcachedTier) -> Deadline:
        return Deadline(inner, 5)


def late(call: Callable[[], object]) -> None:
    begin = time.monotonic()
    with pytest.raises(TierTimeoutError):
        call()
    assert time.monotonic() - begin < DEADLINE + SLACK


def calls_of(tier: Tier) -> list[Callable[[], object]]:
    return [
        lambda: tier.get_many([b"a"]),
        lambda: tier.set_many([Item(b"a", b"1")]),
        lambda: tier.delete_many([b"a"]),
        lambda: tier.add(Item(b"a", b"1")),
        lambda: tier.demote_many([Item(b"a", b"1")], [1]),
        lambda: asyncio.run(tier.aget_many([b"a"])),
        lambda: asyncio.run(tier.aset_many([Item(b"a", b"1")])),
        lambda: asyncio.run(tier.adelete_many([b"a"])),
        lambda: asyncio.run(tier.aadd(Item(b"a", b"1"))),
    ]


def test_a_server_that_stops(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = memcached_server(tmp_path_factory.mktemp("stops"))
    patient = MemcachedTier(f"127.0.0.1:{server.port}", timeout=60)
    tier = Deadline(Breaker(patient, failures=100), DEADLINE, threads=20)
    tier.set_many([Item(b"a", b"1")])
    server.send(signal.SIGSTOP)
    calls = calls_of(tier)
    for call in calls:
        late(call)
    assert tier.stats()["late"] == tier.stats()["stuck"] == len(calls)
    server.send(signal.SIGCONT)
    eventually(lambda: tier.stats()["stuck"] == 0)
    tier.set_many([Item(b"a", b"2")])
    assert tier.get_many([b"a"]) == [b"2"]
    tier.close()
    server.kill()


class Hanging(Tier):
    """A tier that hangs until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = threading.Event()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.begun += 1
        self.go_on.wait(60)
        return [None for _ in keys]

    def scan(self, prefix: bytes = b"") -> Iterator[bytes]:
        for at in range(2500):
            yield b"%d" % at
        self.go_on.wait(60)

    def close(self) -> None:
        pass


def test_when_all_threads_hang_calls_fail_at_once() -> None:
    hanging = Hanging()
    tier = Deadline(hanging, DEADLINE, threads=2)
    late(lambda: tier.get_many([b"a"]))
    late(lambda: asyncio.run(tier.aget_many([b"a"])))
    begin = time.monotonic()
    for call in calls_of(tier):
        with pytest.raises(TierTimeoutError, match="all 2 threads hang"):
            call()
    assert time.monotonic() - begin < DEADLINE + SLACK
    assert hanging.begun == 2
    tier.close()  # not in one of those
    hanging.go_on.set()
    eventually(lambda: tier.stats()["stuck"] == 0)
    assert tier.get_many([b"a"]) == [None]


def test_what_was_not_begun_in_time_is_not_begun() -> None:
    hanging = Hanging()
    tier = Deadline(hanging, DEADLINE, threads=1)
    threads = [threading.Thread(target=late, args=(lambda: tier.get_many([b"a"]),)) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hanging.go_on.set()
    eventually(lambda: tier.stats()["stuck"] == 0)
    assert tier.get_many([b"b"]) == [None]
    assert hanging.begun == 2
    assert tier.stats()["late"] == 3


def test_a_scan() -> None:
    tier = Deadline(Hanging(), DEADLINE)
    keys = tier.scan()
    assert [next(keys) for _ in range(2000)] == [b"%d" % at for at in range(2000)]
    late(lambda: next(keys))


class OnTheLoop(Tier):
    """A tier with coroutines of its own."""

    cancelled = False

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return []

    async def aset_many(self, items: Sequence[Item]) -> None:
        raise TimeoutError("of its own")


def test_coroutines_are_cancelled() -> None:
    inner = OnTheLoop()
    tier = Deadline(inner, DEADLINE)
    late(lambda: asyncio.run(tier.aget_many([b"a"])))
    assert inner.cancelled
    assert tier.stats() == {"late": 1, "stuck": 0}
    with pytest.raises(TimeoutError, match="of its own"):
        asyncio.run(tier.aset_many([]))


def test_a_cancelled_call_is_given_up() -> None:
    async def use() -> None:
        task = asyncio.create_task(tier.aget_many([b"a"]))
        await asyncio.to_thread(eventually, lambda: hanging.begun == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    hanging = Hanging()
    tier = Deadline(hanging, 30)
    asyncio.run(use())
    assert tier.stats() == {"late": 0, "stuck": 1}
    hanging.go_on.set()
    eventually(lambda: tier.stats()["stuck"] == 0)


def test_exceptions_come_through() -> None:
    class Faulty(Tier):
        def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            error = TierError("half")
            error.values = [b"1", None]
            raise error

        def set_many(self, items: Sequence[Item]) -> None:
            raise TimeoutError("of its own")

    tier = Deadline(Faulty(), 5)
    with pytest.raises(TierError, match="half") as caught:
        tier.get_many([b"a", b"b"])
    assert caught.value.values == [b"1", None]
    with pytest.raises(TimeoutError, match="of its own"):
        tier.set_many([])


def test_threads_end_when_they_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachecore.tiers.workers.IDLE", 0.05)
    hanging = Hanging()
    hanging.go_on.set()
    hanging.name = "to end soon"
    tier = Deadline(hanging, 5)
    for _ in range(3):
        tier.get_many([b"a"])
        eventually(lambda: not any("to end soon" in each.name for each in threading.enumerate()))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    hanging = Hanging()
    tier = Deadline(hanging, DEADLINE, threads=1)
    late(lambda: tier.get_many([b"a"]))
    hanging.go_on.set()
    eventually(lambda: tier.stats()["stuck"] == 0)
    assert in_child(lambda: tier.get_many([b"a", b"b"]) == [None, None]) == 0


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    program = """
import asyncio, time
from cachecore.tiers.base import Tier
from cachecore.tiers.deadline import Deadline

class Hanging(Tier):
    def get_many(self, keys):
        time.sleep(600)

tier = Deadline(Hanging(), 0.05)
for call in (lambda: tier.get_many([b"a"]), lambda: asyncio.run(tier.aget_many([b"a"]))):
    try:
        call()
    except TimeoutError:
        print("late")
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "late\nlate\n"


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "1", True])
def test_bad_settings(seconds: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="seconds"):
        Deadline(Hanging(), seconds)
    with pytest.raises(ValueError, match="threads"):
        Deadline(Hanging(), 1, threads=0)
