"""RedisTier's connections: who may use them, who must not any more, and when they end."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers import Item, RedisTier
from cachecore.tiers.testing import eventually
from servers import Server
from tiers.children import in_child
from tiers.listeners import url_of
from tiers.proxy import Proxy

SLOW = 5.0


@pytest.fixture
def server(running: Server) -> Server:
    """In which a thousand numbers stand for themselves."""
    filler = RedisTier(url_of(running), timeout=SLOW)
    filler.set_many([Item(b"%d" % at, b"%d" % at) for at in range(1000)])
    filler.close()
    return running


def test_cancelled_in_flight(server: Server) -> None:
    tier = RedisTier(url_of(server), timeout=SLOW, max_connections=8)
    chance = random.Random(3)

    async def ask(at: int) -> None:
        keys = [b"%d" % at, b"%d" % (at // 2)][: 1 + at % 2]
        assert await tier.aget_many(keys) == keys

    async def use() -> int:
        cancelled = 0
        for _ in range(100):
            tasks = [asyncio.create_task(ask(chance.randrange(1000))) for _ in range(16)]
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
            assert ends[1::2] == [None] * 8
            cancelled += sum(end is not None for end in ends)
        return cancelled

    assert asyncio.run(use()) > 100
    assert tier.stats()["dropped"] > 10
    assert tier.stats()["open"] == 0  # the loop has ended
    tier.close()


def test_interrupted(proxy: Proxy) -> None:
    tier = RedisTier(url_of(proxy), timeout=SLOW)
    assert tier.get_many([b"1"]) == [b"1"]
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(3):
            proxy.stall()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                tier.get_many([b"1", b"2"])
            assert tier.stats()["open"] == 0
            proxy.pass_on()
            assert tier.get_many([b"3"]) == [b"3"]
    finally:
        signal.signal(signal.SIGALRM, before)
    tier.close()


def test_who_finds_none_free_waits(proxy: Proxy) -> None:
    tier = RedisTier(url_of(proxy), timeout=1.0, max_connections=2)
    keys = [b"%d" % at for at in range(1000)]

    def get(key: bytes) -> bool:
        return tier.get_many([key]) == [key]

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(get, keys))
        assert tier.stats()["made"] <= 2

        def fails(key: bytes) -> float:
            begin = time.monotonic()
            with pytest.raises(TierTimeoutError):
                tier.get_many([key])
            return time.monotonic() - begin

        proxy.stall()
        assert max(pool.map(fails, keys[:12])) < 3
        proxy.pass_on()
        assert all(pool.map(get, keys))

    async def use() -> None:
        for _ in range(20):
            found = await asyncio.gather(*[tier.aget_many([key]) for key in keys[:50]])
            assert found == [[key] for key in keys[:50]]
        assert tier.stats()["open"] <= 4
        proxy.stall()
        ends = await asyncio.gather(
            *[tier.aget_many([key]) for key in keys[:12]], return_exceptions=True
        )
        assert {type(end) for end in ends} == {TierTimeoutError}
        proxy.pass_on()
        assert await tier.aget_many([b"7"]) == [b"7"]

    asyncio.run(use())
    tier.close()


def test_close_ends_calls(proxy: Proxy) -> None:
    tier = RedisTier(url_of(proxy), timeout=60)
    assert tier.get_many([b"1"]) == [b"1"]
    proxy.stall()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(tier.get_many, [b"1"]) for _ in range(3)]
        calls.append(pool.submit(lambda: asyncio.run(tier.aget_many([b"1"]))))
        eventually(lambda: tier.stats()["open"] == 4)
        tier.close()
        assert {type(call.exception(10)) for call in calls} == {TierError}
    assert tier.stats()["open"] == 0
    with pytest.raises(TierError, match="closed"):
        tier.get_many([b"1"])
    with pytest.raises(TierError, match="closed"):
        asyncio.run(tier.aget_many([b"1"]))


def test_loops_that_end_in_any_way(server: Server) -> None:
    tier = RedisTier(url_of(server), timeout=SLOW)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(tier.aget_many([b"5"])) == [b"5"]
        forgotten = loop.create_task(tier.aget_many([b"6"]))
        loop.run_until_complete(asyncio.sleep(0))
        forgotten.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert tier.get_many([b"7"]) == [b"7"]
        del loop, forgotten
    gc.collect()
    assert tier.stats()["open"] == 1
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(tier.aget_many([b"5"])) == [b"5"]
    loop.close()
    tier.close()  # also what belongs to a loop that has ended
    assert tier.stats()["open"] == 0


def test_a_child_has_its_own(server: Server) -> None:
    tier = RedisTier(url_of(server), timeout=SLOW)
    stop = threading.Event()
    wrong: list[Any] = []

    def work() -> None:
        at = 0
        while not stop.is_set():
            at = (at + 1) % 1000
            if (found := tier.get_many([b"%d" % at])) != [b"%d" % at]:
                wrong.append(found)

    def child() -> bool:
        keys = [b"%d" % at for at in range(500, 600)]
        open_at_first = tier.stats()["open"]
        found = [tier.get_many([key]) for key in keys]
        right = found == [[key] for key in keys] and open_at_first == 0
        right = right and asyncio.run(tier.aget_many(keys)) == keys
        tier.close()
        return right

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    statuses = [in_child(child) for _ in range(10)]
    stop.set()
    for thread in threads:
        thread.join()
    assert (statuses, wrong) == ([0] * 10, [])
    assert tier.stats()["errors"] == tier.stats()["dropped"] == 0
    tier.close()


def test_names_that_nobody_resolves(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = RedisTier(f"redis://localhost:{server.port}", timeout=SLOW)
    assert tier.get_many([b"1"]) == [b"1"]
    tier.close()
    with pytest.raises(TierError):
        RedisTier("redis://no-such-host.invalid", timeout=SLOW).get_many([b"1"])
    resolve, slow, asked = socket.getaddrinfo, threading.Event(), []

    def slowly(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "slow.test":
            if options.get("flags"):
                raise socket.gaierror
            asked.append(host)
            slow.wait(20)
            host = "127.0.0.1"
        return resolve(host, *arguments, **options)

    # A name server that takes seconds; it cannot be had for real without being root.
    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    tier = RedisTier(f"redis://slow.test:{server.port}", timeout=0.1)
    begin = time.monotonic()
    for _ in range(3):
        with pytest.raises(TierTimeoutError):
            tier.get_many([b"1"])
        with pytest.raises(TierTimeoutError):
            asyncio.run(tier.aget_many([b"1"]))
    assert time.monotonic() - begin < 3
    assert asked == ["slow.test"]  # one thread waits for all of them
    slow.set()
    while tier.stats()["made"] == 0:
        try:
            assert tier.get_many([b"1"]) == [b"1"]
        except TierTimeoutError:
            continue
    tier.close()


def test_the_last_used_is_used_first(server: Server) -> None:
    tier = RedisTier(url_of(server), timeout=SLOW)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            assert list(pool.map(tier.get_many, [[b"%d" % at] for at in range(8)]))
    made = tier.stats()["made"]
    for _ in range(100):
        tier.get_many([b"1"])
    assert tier.stats()["made"] == made == tier.stats()["open"]
    tier.close()
