"""RedisTier by way of sentinels: it goes where the master goes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers import Item, RedisTier
from cachecore.tiers.testing import eventually
from servers import Sentinels, ask


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Sentinels]:
    """A pair of the test's own, with three sentinels."""
    three = Sentinels(tmp_path, 3)
    yield three
    three.kill()


@pytest.fixture
def tier(three: Sentinels) -> Iterator[RedisTier]:
    hosts = ",".join(f"127.0.0.1:{each.port}" for each in three.sentinels)
    tier = RedisTier(f"redis+sentinel://{hosts}/cache", timeout=0.2)
    tier.set_many([Item(b"before", b"1")])
    yield tier
    tier.close()


def writes(tier: RedisTier) -> bool:
    try:
        tier.set_many([Item(b"after", b"2")])
    except TierError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_master_dies(three: Sentinels, tier: RedisTier, number: signal.Signals) -> None:
    with redis.Redis(port=three.master.port) as client:
        client.wait(1, 1000)  # the replica has it
    three.sentinels[0].kill()  # and the first of those who could tell
    three.master.send(number)
    begin = time.monotonic()
    kind = TierTimeoutError if number == signal.SIGSTOP else TierError
    with pytest.raises(kind):
        tier.set_many([Item(b"after", b"2")])
    assert time.monotonic() - begin < 1
    eventually(lambda: writes(tier))
    assert time.monotonic() - begin < 15  # most of it is how long sentinels take
    with redis.Redis(port=three.replica.port) as client:
        assert client.get("after") == b"2"
    assert tier.get_many([b"before", b"after"]) == [b"1", b"2"]
    assert asyncio.run(tier.aget_many([b"before", b"after"])) == [b"1", b"2"]
    if number == signal.SIGSTOP:  # it comes back, and takes itself for the master
        three.master.send(signal.SIGCONT)
        tier.set_many([Item(b"after", b"3")])
        with redis.Redis(port=three.replica.port) as client:
            assert client.get("after") == b"3"


def test_a_demoted_master_is_left_within_the_call(three: Sentinels, tier: RedisTier) -> None:
    new = three.replica.port
    with redis.Redis(port=three.sentinels[0].port) as client:
        client.execute_command("SENTINEL FAILOVER cache")
    eventually(lambda: "role:master" in ask(new, "info replication"))
    told = "sentinel get-master-addr-by-name cache"
    eventually(lambda: all(str(new) in ask(each.port, told) for each in three.sentinels))
    with redis.Redis(port=three.master.port) as client:
        client.replicaof("127.0.0.1", new)  # as sentinels would say in a while, more roughly
    assert tier.add(Item(b"after", b"2")) is True  # READONLY first
    assert tier.stats()["redirects"] == 1
    assert asyncio.run(tier.aadd(Item(b"after", b"3"))) is False
    with redis.Redis(port=new) as client:
        assert client.get("after") == b"2"


def test_no_sentinel_knows(sentinels: Sentinels) -> None:
    port = sentinels.sentinels[0].port
    for url, words in [
        (f"redis+sentinel://127.0.0.1:{port}/other", "do not name a master of 'other'"),
        ("redis+sentinel://127.0.0.1:1,127.0.0.1:2/cache", "refused"),
        (f"redis+sentinel://127.0.0.1:{sentinels.master.port}/cache", "unknown command"),
    ]:
        tier = RedisTier(url, timeout=1)
        with pytest.raises(TierError, match=words):
            tier.get_many([b"1"])
        with pytest.raises(TierError, match=words):
            list(tier.scan())
        tier.close()
