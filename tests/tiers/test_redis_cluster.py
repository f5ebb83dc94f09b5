"""RedisTier on a Cluster: a node that is away takes its own keys only, and slots may move."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers import Item, RedisTier
from cachecore.tiers.redis_route import slot_of
from cachecore.tiers.testing import eventually
from servers import Cluster, ask

KEYS = [b"key %d" % at for at in range(200)]
DEADLINE = 0.3


@pytest.fixture
def tier(cluster: Cluster) -> Iterator[RedisTier]:
    tier = RedisTier(f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}", timeout=DEADLINE)
    eventually(lambda: works(tier))
    yield tier
    eventually(lambda: works(tier))
    tier.close()


def works(tier: RedisTier) -> bool:
    try:
        tier.set_many([Item(key, key) for key in KEYS])
        return tier.get_many(KEYS) == KEYS
    except TierError:
        return False


def owned(cluster: Cluster, node: int) -> list[bytes]:
    """Those of the keys that a node has."""
    with redis.Redis(port=cluster.nodes[node].port) as client:
        mine = set(client.keys())
    return [key for key in KEYS if key in mine]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("node", [0, 1])
def test_a_node_is_away(cluster: Cluster, tier: RedisTier, how: signal.Signals, node: int) -> None:
    away = set(owned(cluster, node))
    assert 30 < len(away) < 120
    others = [None if key in away else key for key in KEYS]
    if how == signal.SIGKILL:
        cluster.nodes[node].kill()
    else:
        cluster.nodes[node].send(how)

    async def aget() -> None:
        await tier.aget_many(KEYS)

    for turn in range(4):
        begin = time.monotonic()
        with pytest.raises(TierError) as caught:
            asyncio.run(aget()) if turn % 2 else tier.get_many(KEYS)
        assert time.monotonic() - begin < DEADLINE + 0.7
        assert caught.value.values == others
        if how == signal.SIGSTOP and turn < 2:
            assert isinstance(caught.value, TierTimeoutError)
    reachable = [key for key in KEYS if key not in away]
    assert tier.get_many(reachable) == reachable
    tier.set_many([Item(key, key) for key in reachable])
    # A tier that begins now finds the others, too.
    seeds = ",".join(f"127.0.0.1:{each.port}" for each in cluster.nodes)
    fresh = RedisTier(f"redis+cluster://{seeds}", timeout=1)
    assert fresh.get_many(reachable) == reachable
    fresh.close()
    if how == signal.SIGKILL:
        cluster.nodes[node].start()
    else:
        cluster.nodes[node].send(signal.SIGCONT)


def test_slots_move_during_use(cluster: Cluster, tier: RedisTier) -> None:
    clients = [redis.Redis(port=node.port) for node in cluster.nodes]
    names = [ask(node.port, "cluster myid").strip() for node in cluster.nodes]
    keys = [b"{moves}%d" % at for at in range(40)]
    slot = slot_of(keys[0])
    tier.set_many([Item(key, key) for key in keys])
    [source] = [at for at, client in enumerate(clients) if holds(client, slot)]
    target = (source + 1) % 3
    clients[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[source])
    clients[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[target])
    move(clients[source], cluster.nodes[target].port, keys[::2])

    redirects = tier.stats()["redirects"]
    assert tier.get_many([*keys, *KEYS]) == [*keys, *KEYS]
    assert asyncio.run(tier.aget_many(keys)) == keys
    assert tier.stats()["redirects"] == redirects + 40
    assert tier.add(Item(keys[0], b"x")) is False
    assert tier.add(Item(b"{moves}new", b"x")) is True  # is made where it will be
    assert clients[target].execute_command("CLUSTER COUNTKEYSINSLOT", slot) == 21
    tier.set_many([Item(key, b"2") for key in keys] + [Item(keys[0], b"3")])
    assert tier.get_many(keys) == [b"3"] + [b"2"] * 39
    assert tier.delete_many([*keys[:3], b"{moves}new", b"{moves}none"]) == 4
    tier.set_fields({b"{moves}hash": {b"a": b"1"}}, 60_000)
    assert tier.get_fields([b"{moves}hash"], [b"a"]) == [[b"1"]]

    move(clients[source], cluster.nodes[target].port, keys[3::2])
    for client in (clients[target], clients[source], *clients):
        client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[target])
    redirects = tier.stats()["redirects"]
    assert tier.get_many(keys[3:]) == [b"2"] * 37  # MOVED
    assert tier.stats()["redirects"] == redirects + 37
    assert asyncio.run(tier.aget_many(keys[3:])) == [b"2"] * 37
    assert tier.stats()["redirects"] == redirects + 37
    assert tier.delete_many([*keys, b"{moves}hash"]) == 38
    for client in clients:
        client.close()


def holds(client: redis.Redis, slot: int) -> bool:
    return bool(client.execute_command("CLUSTER COUNTKEYSINSLOT", slot))


def move(client: redis.Redis, port: int, keys: list[bytes]) -> None:
    client.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)


def test_slots(cluster: Cluster) -> None:
    for key in (b"a", b"{b}c", b"{}d", b"e{f", b"g{h}i}", b"}{", b"\0\xff", b"{{x}}"):
        with redis.Redis(port=cluster.nodes[0].port) as client:
            assert client.cluster("KEYSLOT", key) == slot_of(key)


def test_few_connections_for_many_threads(cluster: Cluster) -> None:
    url = f"redis+cluster://127.0.0.1:{cluster.nodes[1].port}"
    tier = RedisTier(url, timeout=5, max_connections=1)
    eventually(lambda: works(tier))
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda _: tier.get_many(KEYS) == KEYS, range(60)))
    assert tier.stats()["timeouts"] == 0
    tier.close()
