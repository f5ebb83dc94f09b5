"""What others have put under our keys: a miss, counted by its reason, and nothing is executed."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from cachecore._envelope import REASONS
from cachecore.codecs import Pickle
from cachecore.tiers import ExistenceFilter, MmapTier
from servers import Server
from tiers.outages import redis_cache

SECRET = b"a secret of 16 bytes or more"
KEY = b"test:k"


class Bomb:
    """What it does when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# From our envelope, and that of another key, to what stands there.
POISON: dict[str, Callable[[bytes, bytes], bytes]] = {
    "nothing": lambda ours, other: b"",
    "text": lambda ours, other: b"hello",
    "zeros": lambda ours, other: bytes(200),
    "noise": lambda ours, other: os.urandom(300),
    "the magic only": lambda ours, other: ours[:4],
    "another layout": lambda ours, other: ours[:4] + b"\x07" + ours[5:],
    "another key's": lambda ours, other: other,
    "cut off in the head": lambda ours, other: ours[:40],
    "cut off in the key": lambda ours, other: ours[:66],
    "cut off at the end": lambda ours, other: ours[:-1],
    "more at the end": lambda ours, other: ours + b"x",
    "a flip in the length of the key": lambda ours, other: flip(ours, 63),
    "a flip in the number of tags": lambda ours, other: flip(ours, 7),
    "a flip in the codec": lambda ours, other: flip(ours, 16),
    "a flip in the expiry": lambda ours, other: flip(ours, 45),
    "a flip in the payload": lambda ours, other: flip(ours, len(ours) - 20),
    "a pickle": lambda ours, other: pickle.dumps("x"),
}


@pytest.fixture
def server(running: Server) -> Server:
    """Nothing here stops it."""
    return running


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("codec", [None, "array", "msgpack", Pickle(SECRET)], ids=str)
def test_poison(server: Server, poison: str, codec: Any) -> None:
    value = np.arange(50.0)

    def load(key: str) -> Any:
        return value if codec == "array" else value.tolist()

    with (
        redis_cache(server.port, loader=load, codec=codec) as calls,
        redis.Redis(port=server.port) as client,
    ):
        expected = load("k")
        calls.get_many(["k", "other"])
        ours, other = client.mget(KEY, b"test:other")
        client.set(KEY, POISON[poison](ours, other))
        loads = calls.cache.stats().loads
        assert np.array_equal(calls.fresh("k"), expected)
        assert calls.cache.stats().loads == loads + 1
        [(reason, count)] = calls.tier.refused.items()
        assert reason in REASONS
        assert count == 1
        assert np.array_equal(calls.fresh("k"), expected)  # it was put right
        assert calls.cache.stats().loads == loads + 1


def test_every_reason(server: Server, runner: asyncio.Runner | None, tmp_path: Path) -> None:
    """Each is a miss, counted by its name, and put right by the next load."""
    with (
        redis_cache(server.port, runner, loader=lambda key: [key]) as calls,
        redis_cache(server.port, codec="msgpack") as msgpack,
        redis_cache(server.port, codec=Pickle(SECRET)) as signed,
        redis_cache(server.port, codec=Pickle(b"another secret of somebody")) as forger,
        redis.Redis(port=server.port) as client,
    ):

        def missed(cache: Any, reason: str, times: int = 1) -> None:
            before = cache.tier.refused.get(reason, 0)
            cache.fresh("k")
            assert cache.tier.refused.get(reason, 0) == before + times

        assert calls.get("k") == ["k"]
        calls.get("other")
        client.set(KEY, b"foreign")
        missed(calls, "foreign")
        client.setrange(KEY, 30, b"xx")
        missed(calls, "damaged")
        client.set(KEY, client.get(b"test:other"))
        missed(calls, "other key")
        msgpack.set("k", "value")
        missed(calls, "other codec")
        calls.set("k", 1, ttl=0.05)
        expires_later = client.get(KEY)
        time.sleep(0.06)
        client.set(KEY, expires_later)
        missed(calls, "expired")
        kept = client.get(KEY)
        calls.invalidate("test")
        client.set(KEY, kept)
        missed(calls, "other generation")
        forger.set("k", Bomb(tmp_path / "executed"))
        missed(signed, "forged")
        assert not (tmp_path / "executed").exists()
        assert calls.fresh("k") == ["k"]


@pytest.mark.parametrize("codec", [None, "array", "msgpack", Pickle(SECRET)], ids=str)
def test_a_bomb(server: Server, codec: Any, tmp_path: Path) -> None:
    """A pickle that would execute something, in whatever its sender can make it look like."""
    bomb = Bomb(tmp_path / "executed")
    raw = pickle.dumps(bomb)
    with (
        redis_cache(server.port, codec=codec) as calls,
        redis_cache(server.port, codec=Pickle(b"another secret of somebody")) as forger,
        redis.Redis(port=server.port) as client,
    ):
        forger.set("k", bomb)
        envelope: bytes = client.get(KEY)
        objects = np.array([bomb], dtype=object)
        at = len(envelope) - 32 - len(raw)
        for data in (raw, envelope, envelope[:at] + raw, objects.dumps(), b"\x93NUMPY" + raw):
            client.set(KEY, data)
            assert calls.fresh("k") is None
        assert sum(calls.tier.refused.values()) == 5
        assert not (tmp_path / "executed").exists()


def test_pickle_without_a_secret_is_for_nobody_elses_tiers(server: Server) -> None:
    with (
        pytest.raises(ValueError, match="others can write"),
        redis_cache(server.port, codec="pickle"),
    ):
        pass


def test_another_type_under_the_key(server: Server, runner: asyncio.Runner | None) -> None:
    with (
        redis_cache(server.port, runner, loader=lambda key: key) as calls,
        redis.Redis(port=server.port) as client,
    ):
        client.lpush("test:k", "a list")
        client.hset("test:\0generation", "a", "hash")
        assert calls.get("k") == "k"
        assert calls.get_many(["k", "l"]) == ["k", "l"]


def test_a_flip_in_the_mapped_file(tmp_path: Path, server: Server) -> None:
    """A flip in the data is a miss, and the tier below still has it."""
    mmap = MmapTier(tmp_path / "mmap", max_bytes="4MB")
    value = os.urandom(3000)
    with redis_cache(server.port, above=[mmap], loader=lambda key: value) as calls:
        calls.get("k")
        mmap.close()
        for path in (tmp_path / "mmap").iterdir():
            data = bytearray(path.read_bytes())
            if (at := data.find(value[:100])) >= 0:
                break
        data[at + 50] ^= 1
        path.write_bytes(data)
    mmap = MmapTier(tmp_path / "mmap", max_bytes="4MB")
    with redis_cache(server.port, above=[mmap], loader=lambda key: b"anew") as calls:
        assert calls.get("k") == value
        above, below = calls.cache.stats().tiers
        assert above.refused == {"damaged": 1}
        assert (above.hits, below.hits) == (0, 1)
        assert calls.fresh("k") == value
        assert calls.cache.stats().tiers[0].hits == 1  # it was put right


# --- what is not there


def test_many_absent_keys(server: Server) -> None:
    """What is remembered of them is bounded."""
    with redis_cache(server.port, negative_ttl=60, loader_many=lambda keys: {}) as calls:
        cache, count, step = calls.cache, 120_000, 500
        for at in range(0, count, step):
            cache.get_many([f"absent {each}" for each in range(at, at + step)])
        assert cache.stats().loads == count
        assert cache.flights == {}
        assert cache.absent is not None
        assert 50_000 < len(cache.absent) <= 100_000
        assert len(cache.l0) == 0
        assert cache.get(f"absent {count - 1}") is None
        assert cache.stats().loads == count
        assert cache.stats().negative_hits == 1
        assert calls.tier.own["open"] == 1


def test_absent_keys_that_are_known_to_be(server: Server) -> None:
    from cachecore import TieredCache
    from cachecore.tiers import RedisTier

    tier = ExistenceFilter(RedisTier(f"redis://127.0.0.1:{server.port}"), expected=10_000)
    with TieredCache(100, tiers=[tier], loader=lambda key: f"loaded {key}") as cache:
        cache.set("there", 1)
        asked = cache.stats().tiers[0].own["spared"]
        cache.l0.clear()
        assert cache.get("there") == 1
        for at in range(1000):
            assert cache.get(f"absent {at}") == f"loaded absent {at}"
        assert cache.stats().tiers[0].own["spared"] > asked + 950
        cache.l0.clear()
        assert cache.get("absent 7") == "loaded absent 7"  # from the tier: it was set meanwhile
        assert cache.stats().loads == 1000
