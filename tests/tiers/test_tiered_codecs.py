"""TieredCache with each codec: what is in the tier, what comes back, what is refused."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from cachecore.codecs import Codec, Pickle
from support import Clock
from tiers.caches import LONG, Counting, Make, Open, call, refused

SECRET = b"sixteen bytes at least"


@dataclasses.dataclass
class Record:
    name: str
    rows: list[int]


# --- raw


def test_raw_is_what_other_programs_write(
    make: Make, redis_tier: Counting, redis_url: str, mode: str
) -> None:
    import redis

    cache = make(tiers=[redis_tier], codec="raw", namespace="ns")
    with redis.Redis.from_url(redis_url) as client:
        client.set("ns:theirs", b"\0value")
        assert call(mode, cache.get, "theirs") == b"\0value"
        call(mode, cache.set, "ours", b"bytes")
        assert client.get("ns:ours") == b"bytes"
        assert sorted(client.keys()) == [b"ns:ours", b"ns:theirs"]
    assert refused(cache) == {}


@pytest.mark.parametrize("value", ["text", 1, None, bytearray(b"x"), np.zeros(2), [b"x"]])
def test_raw_takes_bytes_only(make: Make, store: Counting, mode: str, value: Any) -> None:
    cache = make(tiers=[store], codec="raw", loader=lambda key: value)
    with pytest.raises(TypeError, match="must be bytes"):
        call(mode, cache.set, "key", value)
    with pytest.raises(TypeError, match="must be bytes"):
        call(mode, cache.get, "key")
    assert len(cache.l0) == 0


def test_raw_has_the_caches_own_lifetime(
    make: Make, store_at: Open, clock: Clock, mode: str
) -> None:
    first, second = store_at("first"), store_at("second")
    settings: dict[str, Any] = {"codec": "raw", "ttl": LONG, "timer": clock}
    make(tiers=[second], **settings).set("key", b"value")
    cache = make(tiers=[first, second], **settings)
    clock.advance(LONG - 1)
    assert call(mode, cache.get, "key") == b"value"
    assert cache.l0.get_ttl("key") == pytest.approx(LONG)
    assert first.tier.get_many([b"key"]) == [b"value"], "it did not climb"
    assert [tier.errors for tier in cache.stats().tiers] == [0, 0]
    cache.l0.clear()
    second.told()
    assert call(mode, cache.get_many, ["key", "none"]) == [b"value", None]
    assert second.told() == [("get", [b"none"])]


def test_raw_is_loaded_and_written(make: Make, store_at: Open, mode: str) -> None:
    tiers = [store_at("first"), store_at("second")]
    cache = make(tiers=tiers, codec="raw", loader=lambda key: key.encode())
    assert call(mode, cache.get_many, ["a", "b"]) == [b"a", b"b"]
    for tier in tiers:
        assert tier.tier.get_many([b"a", b"b"]) == [b"a", b"b"]
    assert call(mode, cache.delete_many, ["a", "b"]) == 2


def test_raw_has_no_generations(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], codec="raw", namespace="ns")
    cache.set("key", b"value")
    for name in ("ns", "tag"):
        with pytest.raises(ValueError, match="raw"):
            call(mode, cache.invalidate, name)
    with pytest.raises(ValueError, match="raw"):
        call(mode, cache.set, "key", b"other", tags=["tag"])
    assert cache.get("key") == b"value"
    assert list(store.tier.scan()) == [b"ns:key"]


def test_raw_demotion(make: Make, store: Counting) -> None:
    cache = make(20, tiers=[store], codec="raw", exclusive=True)
    cache.set("hot", b"value")
    for _ in range(5):
        cache.get("hot")
    for at in range(2000):
        cache.l0[at] = b"x"
        for _ in range(20):
            cache.l0.get(at)
        if "hot" not in cache.l0:
            break
    assert cache.get("hot") == b"value"


# --- the others


def test_arrays_only(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], codec="array", loader=lambda key: np.full(3, key))
    assert call(mode, cache.get, 7).tolist() == [7, 7, 7]
    cache.l0.clear()
    found = call(mode, cache.get, 7)
    assert found.tolist() == [7, 7, 7]
    assert not found.flags.writeable
    with pytest.raises(TypeError):
        call(mode, cache.set, "key", "text")


def test_msgpack(make: Make, store: Counting, mode: str) -> None:
    value = {"a": [1, 2.5, None, True, "é", b"\0"], "b": {"c": []}}
    cache = make(tiers=[store], codec="msgpack")
    call(mode, cache.set, "key", value)
    cache.l0.clear()
    assert call(mode, cache.get, "key") == value
    with pytest.raises(TypeError):
        call(mode, cache.set, "key", object())
    assert cache.get("key") == value


PICKLED: list[Any] = [(1, 2), {1, 2}, {1: (2,)}, Decimal("1.5"), Record("a", [1]), np.arange(3)]


def test_pickle_is_for_private_tiers(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], codec="pickle")
    for at, value in enumerate(PICKLED):
        call(mode, cache.set, at, value)
    cache.l0.clear()
    for at, value in enumerate(PICKLED[:-1]):
        assert call(mode, cache.get, at) == value
    assert call(mode, cache.get, len(PICKLED) - 1).tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="pickled"):
        call(mode, cache.set, "key", lambda: None)


def test_pickle_is_refused_where_others_can_write(make: Make, redis_tier: Counting) -> None:
    with pytest.raises(ValueError, match="pickle"):
        make(tiers=[redis_tier], codec="pickle")


def test_signed_pickle(make: Make, redis_tier: Counting, mode: str) -> None:
    cache = make(tiers=[redis_tier], codec=Pickle(SECRET), namespace="ns")
    value = Record("a", [1, 2])
    call(mode, cache.set, "key", value)
    cache.l0.clear()
    assert call(mode, cache.get, "key") == value
    for other in (Pickle(b"another secret of some length"), "msgpack", None):
        stranger = make(tiers=[redis_tier], codec=other, namespace="ns")
        assert call(mode, stranger.get, "key") is None
        assert sum(refused(stranger).values()) == 1
    data = redis_tier.tier.get_many([b"ns:key"])[0]
    assert data is not None
    elsewhere = make(tiers=[redis_tier], codec=Pickle(SECRET), namespace="ns2")
    from cachecore.tiers.base import Item

    elsewhere.get("key")
    redis_tier.tier.set_many([Item(b"ns2:key", data)])
    assert call(mode, elsewhere.get, "key") is None, "an envelope of another namespace was taken"


class Upper(Codec):
    """A codec of one's own."""

    name = "upper"

    def encode(self, value: Any) -> bytes:
        if type(value) is not str:
            raise TypeError("value must be a str")
        return value.upper().encode()

    def decode(self, data: Any) -> str:
        return bytes(data).decode()


def test_a_codec_of_ones_own(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], codec=Upper())
    call(mode, cache.set, "key", "value")
    assert call(mode, cache.get, "key") == "value"
    cache.l0.clear()
    assert call(mode, cache.get, "key") == "VALUE"
    with pytest.raises(TypeError, match="must be a str"):
        call(mode, cache.set, "key", 5)


class Failing(Upper):
    name = "failing"

    def encode(self, value: Any) -> bytes:
        raise KeyError("a codec may raise anything")


def test_a_codec_that_fails(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], codec=Failing(), loader=str.upper)
    with pytest.raises(KeyError):
        call(mode, cache.set, "key", "value")
    with pytest.raises(TypeError, match="cannot be written"):
        call(mode, cache.get, "key")
    assert len(cache.l0) == 0
    assert cache.stats().tiers[0].errors == 0


def test_values_of_another_codec_are_misses(make: Make, store: Counting, mode: str) -> None:
    make(tiers=[store]).set("key", "value")
    cache = make(tiers=[store], codec="msgpack", loader=lambda key: "loaded")
    assert call(mode, cache.get, "key") == "loaded"
    assert refused(cache) == {"other codec": 1}
