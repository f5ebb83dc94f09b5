"""Breaker: the contract, its states by a clock that the test moves, and a server that stops."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence

import pytest

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.breaker import Breaker
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import TierContract, eventually
from servers import memcached_server
from support import Clock


class TestContract(TierContract):
    @pytest.fixture
    def tier(self, inner: MemcachedTier) -> Breaker:
        return Breaker(inner)


class Moody(Tier):
    """A tier that does `act` when it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.act: Callable[[], object] = lambda: None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked += 1
        self.act()
        return [None for _ in keys]

    def set_many(self, items: Sequence[Item]) -> None:
        self.get_many([])

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.get_many(keys)


def fail(kind: type[BaseException] = TierError) -> Callable[[], object]:
    def act() -> None:
        raise kind("as the test wants it")

    return act


class Bench:
    """A breaker around a moody tier, with a clock."""

    def __init__(self) -> None:
        self.tier, self.clock = Moody(), Clock()
        self.breaker = Breaker(self.tier, failures=3, pause=1.0, most=4.0, timer=self.clock)

    def get(self) -> str:
        """How a call goes: "fine", "failed", or "refused" without asking."""
        asked = self.tier.asked
        try:
            self.breaker.get_many([b"a"])
        except TierError:
            return "failed" if self.tier.asked > asked else "refused"
        return "fine"

    def gets(self, count: int) -> list[str]:
        return [self.get() for _ in range(count)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def opened(bench: Bench) -> Bench:
    bench.tier.act = fail()
    assert bench.gets(3) == ["failed"] * 3
    return bench


def test_failures_in_a_row_open_it(bench: Bench) -> None:
    bench.tier.act = fail()
    assert bench.gets(2) == ["failed", "failed"]
    bench.tier.act = lambda: None
    assert bench.get() == "fine"  # which ends the row
    bench.tier.act = fail(TierTimeoutError)
    assert bench.breaker.state == "closed"
    assert bench.gets(5) == ["failed", "failed", "failed", "refused", "refused"]
    assert bench.breaker.state == "open"
    assert bench.breaker.stats() == {"opened": 1, "refused": 2, "probes": 0}


def test_a_probe_closes_it(opened: Bench) -> None:
    opened.tier.act = lambda: None
    opened.clock.advance(0.9)
    assert opened.get() == "refused"
    opened.clock.advance(0.5)
    assert opened.gets(3) == ["fine"] * 3
    assert opened.breaker.state == "closed"
    assert opened.breaker.stats() == {"opened": 1, "refused": 1, "probes": 1}


def test_pauses_double_up_to_a_bound(opened: Bench) -> None:
    for pause in (1.0, 2.0, 4.0, 4.0, 4.0):
        opened.clock.advance(pause * 0.99)
        assert opened.get() == "refused"
        opened.clock.advance(pause * 0.27)  # a quarter of a pause is left to chance
        assert opened.gets(2) == ["failed", "refused"]
    opened.clock.advance(5)
    opened.tier.act = lambda: None
    assert opened.get() == "fine"
    opened.tier.act = fail()
    assert opened.gets(4) == ["failed", "failed", "failed", "refused"]
    opened.clock.advance(1.25)  # the first pause again
    assert opened.get() == "failed"
    assert opened.breaker.stats()["opened"] == 2


def test_one_probe_at_a_time(opened: Bench) -> None:
    states: list[str] = []

    def act() -> None:
        states.extend([opened.breaker.state, *opened.gets(2)])

    opened.clock.advance(1.25)
    opened.tier.act = act
    assert opened.get() == "fine"
    assert states == ["half-open", "refused", "refused"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError, asyncio.CancelledError])
def test_a_probe_that_decides_nothing(opened: Bench, kind: type[BaseException]) -> None:
    opened.clock.advance(1.25)
    opened.tier.act = fail(kind)
    with pytest.raises(kind):
        opened.get()
    assert opened.breaker.state == "open"
    opened.tier.act = lambda: None
    assert opened.get() == "fine"  # at once


def test_other_exceptions_are_no_failures(bench: Bench) -> None:
    bench.tier.act = fail(ValueError)
    for _ in range(10):
        with pytest.raises(ValueError, match="as the test"):
            bench.get()
    assert bench.breaker.state == "closed"


def test_a_probe_that_never_returns(opened: Bench) -> None:
    opened.clock.advance(1.25)
    hangs, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        go_on.wait(10)
        raise TierError("too late")

    opened.tier.act = hang
    thread = threading.Thread(target=opened.get)
    thread.start()
    hangs.wait(10)
    assert opened.gets(2) == ["refused", "refused"]
    opened.clock.advance(2.1)
    opened.tier.act = lambda: None
    assert opened.get() == "fine"
    go_on.set()
    thread.join()
    assert opened.breaker.state == "closed"


def test_late_answers_change_nothing(bench: Bench) -> None:
    def open_it() -> None:
        bench.tier.act = fail()
        bench.gets(3)

    bench.tier.act = open_it  # while this call is under way
    assert bench.get() == "fine"
    assert bench.breaker.state == "open"


def test_a_part_of_an_answer_in_time_is_no_failure(bench: Bench) -> None:
    def part(kind: type[TierError]) -> Callable[[], object]:
        def act() -> None:
            error = kind("one of the servers is down")
            error.values = [b"1"]
            raise error

        return act

    bench.tier.act = part(TierError)
    assert bench.gets(10) == ["failed"] * 10
    bench.tier.act = part(TierTimeoutError)
    assert bench.gets(4) == ["failed", "failed", "failed", "refused"]


def test_all_calls_share_the_state(bench: Bench) -> None:
    bench.tier.act = fail()
    for _ in range(2):
        with pytest.raises(TierError, match="as the test"):
            asyncio.run(bench.breaker.aget_many([b"a"]))
    assert bench.get() == "failed"
    calls: list[Callable[[], object]] = [
        lambda: bench.breaker.set_many([Item(b"a", b"1")]),
        lambda: bench.breaker.delete_many([b"a"]),
        lambda: bench.breaker.add(Item(b"a", b"1")),
        lambda: bench.breaker.demote_many([Item(b"a", b"1")], [1]),
        lambda: asyncio.run(bench.breaker.aget_many([b"a"])),
        lambda: asyncio.run(bench.breaker.aset_many([Item(b"a", b"1")])),
        lambda: asyncio.run(bench.breaker.adelete_many([b"a"])),
        lambda: asyncio.run(bench.breaker.aadd(Item(b"a", b"1"))),
    ]
    for call in calls:
        with pytest.raises(TierError, match="is not asked"):
            call()
    assert bench.tier.asked == 3


def test_a_cancelled_probe_is_released(opened: Bench) -> None:
    async def hang(keys: Sequence[bytes]) -> list[bytes | None]:
        await asyncio.sleep(60)
        return []

    async def probe() -> None:
        task = asyncio.create_task(opened.breaker.aget_many([b"a"]))
        await asyncio.sleep(0)
        assert opened.breaker.state == "half-open"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    opened.clock.advance(1.25)
    opened.tier.aget_many = hang  # type: ignore[method-assign]
    asyncio.run(probe())
    opened.tier.act = lambda: None
    assert opened.get() == "fine"


def test_a_server_that_stops(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = memcached_server(tmp_path_factory.mktemp("stops"))
    tier = Breaker(MemcachedTier(f"127.0.0.1:{server.port}", timeout=0.05), failures=2, pause=0.1)
    tier.set_many([Item(b"a", b"1")])
    server.send(signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(TierTimeoutError):
            tier.get_many([b"a"])
    with pytest.raises(TierError, match="is not asked"):
        tier.get_many([b"a"])
    server.send(signal.SIGCONT)

    def answers() -> bool:
        try:
            return tier.get_many([b"a"]) == [b"1"]
        except TierError:
            return False

    eventually(answers)
    assert tier.state == "closed"
    tier.close()
    server.kill()


def test_bad_settings() -> None:
    with pytest.raises(TypeError, match="tier must be a Tier"):
        Breaker(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="failures"):
        Breaker(Moody(), failures=0)
    with pytest.raises(ValueError, match="pause"):
        Breaker(Moody(), pause=0)
    with pytest.raises(ValueError, match="most must be at least pause"):
        Breaker(Moody(), pause=2, most=1)
    with pytest.raises(TypeError, match="timer"):
        Breaker(Moody(), timer=5)  # type: ignore[arg-type]
