"""FeatureCache over a real Redis: what its hashes hold, who may read it, what if it is away."""

from __future__ import annotations

import asyncio
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from cachecore.errors import TierError
from cachecore.ml import Feature, FeatureCache
from cachecore.ml.feature_loads import Load
from cachecore.tiers import RedisTier
from ml.featured import BATCH, HANGS, NAMES, SCHEMA, Source, check, make, value
from servers import Server, redis_server
from support import Clock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = redis_server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture
def tier(server: Server, client: Any) -> Iterator[RedisTier]:
    tier = RedisTier(f"redis://127.0.0.1:{server.port}", timeout=2.0)
    yield tier
    tier.close()


@pytest.fixture
def now() -> Clock:
    """The wall clock, as Redis lets keys expire by it; it stands still until it is moved."""
    return Clock(time.time())


def fields_of(client: Any, entity: bytes) -> Any:
    [key] = client.keys(b"*:" + entity)
    return client.hgetall(key)


def test_another_process_finds_what_one_has_loaded(
    tier: RedisTier, source: Source, get: Any
) -> None:
    entities = ["a", b"a", 1, "1", -5, "\u00e9"]
    check(get(make(source, store=tier), entities), entities)
    source.told()
    cache = make(source, store=tier)
    check(get(cache, entities), entities)
    assert source.told() == []
    check(get(cache, ["a", "new"]), ["a", "new"])
    assert source.told() == [(["new"], NAMES)]
    assert cache.stats().features["age"] == (1, 7, 0, 6, 1, 0)


def test_only_what_neither_has_is_loaded(tier: RedisTier, source: Source, get: Any) -> None:
    make(source, store=tier).get_features(["a", "b"], ["age", "country"])
    make(source, store=tier).get_features(["b"], ["clicks"])
    cache = make(source, store=tier)
    cache.get_features(["a"], ["taste"])
    source.told()
    check(get(cache, ["a", "b"], ["age", "clicks"]), ["a", "b"], ["age", "clicks"])
    assert source.told() == [(["a"], ["clicks"])]


def test_the_hash(tier: RedisTier, client: Any, source: Source, now: Clock) -> None:
    cache = make(None, now, store=tier, namespace="users")
    cache.set_features(["a"], {"age": [7], "country": [b"NZ"]})
    [key] = client.keys()
    assert key.startswith(b"users:")
    assert key.endswith(b":sa")
    fields = client.hgetall(key)
    assert set(fields) == {b"age", b"country"}
    until, age = struct.unpack("<q4xB", fields[b"age"])
    assert (until, age) == (int(now.now * 1000) + 1000 * BATCH, 7)
    assert fields[b"country"][12:] == b"NZ"
    assert client.pttl(key) == -1  # a country is for ever


def test_a_key_lives_as_long_as_its_longest_feature(tier: RedisTier, client: Any) -> None:
    cache = FeatureCache([("a", "u1", "batch"), ("b", "u1", 5)], maxsize=9, store=tier)
    cache.set_features([1], {"a": [1]})
    cache.set_features([1], {"b": [1]})  # does not shorten a's
    [key] = client.keys()
    assert 1000 * (BATCH - 60) < client.pttl(key) <= 1000 * BATCH


def test_each_field_has_its_own_lifetime(
    tier: RedisTier, source: Source, now: Clock, get: Any
) -> None:
    make(source, now, store=tier).get_features(["a"])
    source.told()
    now.advance(9.5)
    cache = make(source, now, store=tier)
    check(get(cache, ["a"]), ["a"])
    assert source.told() == []
    now.advance(0.5)  # no fresh ten seconds for what was read
    source.version = 1
    check(get(cache, ["a"], ["clicks"]), ["a"], ["clicks"], version=1)
    now.advance(50)
    check(get(make(source, now, store=tier), ["a"], ["age"]), ["a"], ["age"])
    assert source.told() == [(["a"], ["clicks"])]


def test_another_schema_or_version_reads_nothing(tier: RedisTier, source: Source) -> None:
    make(source, store=tier).get_features(["a"])
    other = [*SCHEMA[:3], Feature("taste", ("f8", (4,)), 60)]
    more = [*SCHEMA, Feature("more", "u1")]
    for schema, options in (
        (SCHEMA, {"version": "2"}), (SCHEMA, {"namespace": "x"}), (other, {}), (more, {}),
    ):  # fmt: skip
        cache = FeatureCache(schema, maxsize=9, store=tier, **options)  # type: ignore[arg-type]
        assert not cache.get_features(["a"], mask=True)[1].any()
    turned = FeatureCache(SCHEMA[::-1], maxsize=9, store=tier)  # the order tells nothing
    assert turned.get_features(["a"], mask=True)[1].all()


def test_invalidate_and_set(tier: RedisTier, source: Source) -> None:
    one = make(source, store=tier)
    one.get_features(["a", "b"])
    one.invalidate(["a"], ["age"])
    one.set_features(["b"], {"age": [99]})
    other = make(None, store=tier)
    rows, found = other.get_features(["a", "b"], mask=True)
    assert found.tolist() == [[True, False, True, True], [True] * 4]
    assert rows["age"].tolist() == [0, 99]
    one.invalidate(["a", "b"])
    assert not make(None, store=tier).get_features(["a", "b"], mask=True)[1].any()


def test_damage_is_a_miss(tier: RedisTier, client: Any, source: Source) -> None:
    make(source, store=tier).get_features(["a", "b"])
    source.told()
    [key] = client.keys("*:sa")
    age = client.hget(key, "age")
    client.hset(key, "age", age[:8] + b"kind" + age[12:])
    client.hset(key, "clicks", b"short")
    client.hset(key, "taste", b"")
    [other] = client.keys("*:sb")
    client.delete(other)
    client.set(other, "no hash")
    cache = make(source, store=tier)
    check(cache.get_features(["a"]), ["a"])
    assert source.told() == [(["a"], NAMES[1:])]
    assert cache.stats().store_damaged == 3
    check(cache.get_features(["b"]), ["b"])


def test_an_expiry_in_the_far_future_is_none(tier: RedisTier, client: Any, now: Clock) -> None:
    cache = make(None, now, store=tier)
    cache.set_features(["a"], {"clicks": [5]})
    [key] = client.keys()
    cell = client.hget(key, "clicks")
    client.hset(key, "clicks", struct.pack("<q", 2**63 - 1) + cell[8:])
    cache = make(None, now, store=tier)
    assert cache.get_features(["a"], ["clicks"])["clicks"] == 5
    now.advance(10)
    client.flushall()
    assert cache.get_features(["a"], ["clicks"])["clicks"] == -1


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)


def test_a_stopped_server_is_a_miss_and_asked_no_more(
    tmp_path: Path, source: Source, get: Any
) -> None:
    server = redis_server(tmp_path)
    tier = RedisTier(f"redis://127.0.0.1:{server.port}", timeout=0.05)
    cache = make(source, store=tier, negative_ttl=100)
    source.absent = {(8, "age")}
    with stopped(server):
        for entity in range(9):
            check(get(cache, [entity], ["clicks"]), [entity], ["clicks"])
        assert tier.stats()["timeouts"] == 5
        assert cache.stats().store_errors == 18  # each was asked, and given what was loaded
        with pytest.raises(TierError, match="kept failing"):
            cache.set_features([3], {"age": [33]})
        with pytest.raises(TierError):
            cache.invalidate([4], ["clicks"])
        assert get(cache, [3], ["age"])["age"] == 33  # done here all the same
        source.told()
        get(cache, [3, 4], ["clicks"])
        assert source.told() == [([4], ["clicks"])]
    tier.close()
    server.kill()


def test_absence_is_not_remembered_if_the_store_is_away(tmp_path: Path) -> None:
    server = redis_server(tmp_path)
    tier = RedisTier(f"redis://127.0.0.1:{server.port}", timeout=0.05)
    cache = make(None, store=tier, negative_ttl=100)
    with stopped(server):
        assert not cache.get_features(["a"], mask=True)[1].any()
    make(None, store=tier).set_features(["a"], {"age": [5]})
    assert cache.get_features(["a"])["age"] == 5
    tier.close()
    server.kill()


@pytest.mark.parametrize("what", ["set", "invalidate"])
def test_what_was_loaded_before_a_write_does_not_stay_in_the_store(
    tier: RedisTier, source: Source, what: str
) -> None:
    began, go = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        assert go.wait(HANGS)

    source.after = wait
    cache = make(source, store=tier)
    thread = threading.Thread(target=cache.get_features, args=(["a", "b"],), daemon=True)
    thread.start()
    assert began.wait(HANGS)  # it has read version 0
    if what == "set":
        cache.set_features(["a"], {name: [value("a", name, 1)] for name in NAMES})
    else:
        cache.invalidate(["a"])
    go.set()
    thread.join(HANGS)
    found = make(None, store=tier).get_features(["a", "b"], mask=True)
    assert found[1].tolist() == [[what == "set"] * 4, [True] * 4]
    if what == "set":
        check(found[0][:1], ["a"], version=1)


class Slow(RedisTier):
    """Calls `during` between a write's decision and its end."""

    during: Callable[[], object] = staticmethod(lambda: None)

    def set_fields(self, items: Any, lifetime: int | None = None) -> None:
        self.during()
        super().set_fields(items, lifetime)

    def delete_fields(self, keys: Any, fields: Any) -> int:
        self.during()
        return super().delete_fields(keys, fields)


def test_a_write_while_what_was_loaded_is_handed_down(
    server: Server, client: Any, source: Source
) -> None:
    tier = Slow(f"redis://127.0.0.1:{server.port}", timeout=2.0)
    cache = make(source, store=tier)

    def write() -> None:
        tier.during = lambda: None
        cache.set_features(["a"], {"age": [77]})

    tier.during = write
    cache.get_features(["a", "b"])
    other = make(None, store=tier)
    rows, found = other.get_features(["a", "b"], mask=True)
    assert not found[0, 1] or rows["age"][0] == 77
    assert found[1].all()
    assert cache.get_features(["a"])["age"] == 77
    tier.close()


def test_what_was_read_from_the_store_while_it_was_told_to_forget(
    server: Server, client: Any, source: Source
) -> None:
    tier = Slow(f"redis://127.0.0.1:{server.port}", timeout=2.0)
    make(source, store=tier).get_features(["a"])
    cache = make(source, store=tier)
    steps = cache._shelf.loading(Load(["a"]), range(4))
    read: list[Any] = []

    def look() -> None:  # somebody begins to load, and finds what is about to go
        tier.during = lambda: None
        name, *args = next(steps)
        read.append(getattr(tier, name)(*args))

    tier.during = look
    source.version = 1
    cache.invalidate(["a"])
    with pytest.raises(StopIteration):
        steps.send(read[0])
    check(cache.get_features(["a"]), ["a"], version=1)
    tier.close()


def test_a_write_that_the_store_did_not_take_is_seen_in_its_block(tmp_path: Path) -> None:
    server = redis_server(tmp_path)
    server.kill()
    tier = RedisTier(f"redis://127.0.0.1:{server.port}", timeout=0.05)
    cache = make(None, store=tier)
    with cache.request():
        cache.get_features(["a"])
        with pytest.raises(TierError):
            cache.set_features(["a"], {"age": [7]})
        assert cache.get_features(["a"])["age"] == 7
        with pytest.raises(TierError):
            cache.invalidate(["a"])
        assert cache.get_features(["a"])["age"] == 0
    tier.close()


def test_a_write_that_is_interrupted_leaves_nothing_old(server: Server, client: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    tier = Slow(f"redis://127.0.0.1:{server.port}", timeout=2.0)
    cache = make(None, store=tier)
    cache.set_features(["a"], {"age": [1], "clicks": [1]})
    tier.during = interrupt
    with pytest.raises(KeyboardInterrupt):
        cache.set_features(["a"], {"age": [2]})
    with pytest.raises(KeyboardInterrupt):
        cache.invalidate(["a"], ["clicks"])
    client.flushdb()
    assert cache.get_features(["a"], ["age", "clicks"]).tolist() == [(2, -1)]
    tier.close()


def test_any_text_is_an_entity(tier: RedisTier, source: Source) -> None:
    names = ["\ud800", "\U00010000", "\ud800\udc00", ""]
    check(make(source, store=tier).get_features(names, ["country"]), names, ["country"])
    assert source.told() == [(names, ["country"])]
    make(source, store=tier).get_features(names, ["country"])
    assert source.told() == []


def test_writes_of_tasks(tier: RedisTier) -> None:
    async def run() -> Any:
        one, other = make(None, store=tier), make(None, store=tier)
        await one.aset_features(["a", "b"], {"age": [1, 2]})
        before = await other.aget_features(["a", "b"], ["age"])
        await one.ainvalidate(["a"])
        third = make(None, store=tier)
        return before["age"].tolist(), (await third.aget_features(["a", "b"]))["age"].tolist()

    assert asyncio.run(run()) == ([1, 2], [0, 2])


def test_values_of_every_kind_come_back_as_they_were(tier: RedisTier) -> None:
    import ml_dtypes

    kinds: list[Any] = ["?", "i1", "u8", "f2", "f8", "c8", "S3", "U2", "V5", "M8[s]", "m8[ms]"]
    kinds += [ml_dtypes.bfloat16, ("f4", (3, 2)), ("S2", (2,)), ">i4"]
    schema = [(f"f{at}", kind) for at, kind in enumerate(kinds)]
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for name, kind in schema:
        dtype = np.dtype(kind)
        base, shape = dtype.base, (4, *dtype.shape)
        if base.kind in "US":
            columns[name] = np.full(shape, "xy", base)
        else:
            size = base.itemsize * int(np.prod(shape))
            data = random.integers(0, 2 if base.kind == "b" else 100, size, dtype=np.uint8)
            columns[name] = np.frombuffer(data.tobytes(), base).reshape(shape)
    FeatureCache(schema, maxsize=9, store=tier).set_features(range(4), columns)
    cache = FeatureCache(schema, maxsize=9, store=tier)
    for _ in range(2):
        rows, found = cache.get_features([0, 1, 2, 3], mask=True)
        assert found.all()
        for name, kind in schema:
            assert rows[name].dtype == np.dtype(kind).base
            assert rows[name].tobytes() == columns[name].tobytes()


def test_the_store_stays_open(tier: RedisTier, client: Any) -> None:
    make(None, store=tier).set_features(["a"], {"age": [1]})
    assert struct.unpack("<q4xB", fields_of(client, b"sa")[b"age"])[1] == 1
