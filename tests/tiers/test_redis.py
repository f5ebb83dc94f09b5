"""RedisTier on each kind of Redis that it speaks to, and how it is told which."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis
from redis.sentinel import Sentinel

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers import Item, RedisTier
from cachecore.tiers.testing import TierContract, eventually
from servers import Cluster, Sentinels, Server, redis_server, tls_redis_server
from tiers.listeners import emptied
from tiers.proxy import Proxy

SLOW = 5.0  # seconds that calls may take where time is not what is tested


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    acl = ["--user", "reader", "on", ">secret", "~*", "+@all", "-@dangerous"]
    server = redis_server(folder / "one", "--unixsocket", str(folder / "one.sock"), *acl)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def tls_server(folder: Path) -> Iterator[Server]:
    server = tls_redis_server(folder / "tls", "--requirepass", "secret")
    yield server
    server.kill()


class TestOneServer(TierContract):
    @pytest.fixture
    def tier(self, server: Server) -> Iterator[RedisTier]:
        emptied(server)
        with_prefix = RedisTier(f"redis://127.0.0.1:{server.port}/0", prefix="p:*[", timeout=SLOW)
        yield with_prefix
        with_prefix.close()


class TestUnixSocketAndUser(TierContract):
    @pytest.fixture
    def tier(self, server: Server, folder: Path) -> Iterator[RedisTier]:
        emptied(server)
        tier = RedisTier(f"unix://reader:secret@{folder}/one.sock?db=3", timeout=SLOW)
        yield tier
        assert "secret" not in repr(tier)
        tier.close()


class TestTls(TierContract):
    @pytest.fixture
    def tier(self, tls_server: Server, folder: Path) -> Iterator[RedisTier]:
        certificate = str(folder / "tls" / "cert.pem")
        emptied(tls_server, ssl=True, ssl_ca_certs=certificate, password="secret")
        url = f"rediss://:secret@localhost:{tls_server.port}?ssl_ca_certs={certificate}"
        tier = RedisTier(url, timeout=SLOW)
        yield tier
        tier.close()


class TestSentinel(TierContract):
    @pytest.fixture
    def tier(self, sentinels: Sentinels) -> Iterator[RedisTier]:
        emptied(sentinels.master)
        hosts = f"127.0.0.1:1,127.0.0.1:{sentinels.sentinels[0].port}"  # nobody is at the first
        tier = RedisTier(f"redis+sentinel://{hosts}/cache/1", timeout=SLOW)
        yield tier
        tier.close()


class TestCluster(TierContract):
    @pytest.fixture
    def tier(self, cluster: Cluster) -> Iterator[RedisTier]:
        hosts = f"127.0.0.1:1,127.0.0.1:{cluster.nodes[0].port}"
        tier = RedisTier(f"redis+cluster://{hosts}", timeout=SLOW)
        yield tier
        tier.close()


def test_tls_is_timed_and_verified(tls_server: Server, folder: Path) -> None:
    trusted = f"ssl_ca_certs={folder}/tls/cert.pem"
    with Proxy(tls_server.port) as proxy:
        url = f"rediss://:secret@127.0.0.1:{proxy.port}"
        tier = RedisTier(f"{url}?{trusted}", timeout=0.2)
        for misbehave in (proxy.stall, lambda: proxy.dribble(0.01), lambda: proxy.dribble(0.01)):
            misbehave()
            begin = time.monotonic()
            with pytest.raises(TierTimeoutError):  # the handshake; then the reply
                tier.get_many([b"a"])
            with pytest.raises(TierTimeoutError):
                asyncio.run(tier.aget_many([b"a"]))
            assert time.monotonic() - begin < 1.5
            proxy.pass_on()
            eventually(lambda: answers(tier))
        proxy.reset(after=100)
        with pytest.raises(TierError, match=r"reset|EOF|closed"):
            tier.get_many([b"a" * 1000] * 1000)
        tier.close()
        proxy.pass_on()
        for options, words in [("", "certificate"), (f"?{trusted}&ssl_min_version=99", "version")]:
            with pytest.raises((TierError, ValueError), match=words):
                RedisTier(url + options, timeout=SLOW).get_many([b"a"])
        assert answers(RedisTier(url, timeout=SLOW, ssl_cert_reqs="none"))


def answers(tier: RedisTier) -> bool:
    try:
        return tier.get_many([b"none"]) == [None]
    except TierError:
        return False


def test_without_redis_py() -> None:
    code = """if True:
        import sys
        import cachecore.tiers
        assert "redis" not in sys.modules and "ssl" not in sys.modules
        sys.modules["redis"] = None
        try:
            cachecore.tiers.RedisTier
        except ImportError as error:
            assert 'pip install "cachecore-ml[redis]"' in str(error)
        else:
            raise AssertionError
    """
    subprocess.run([sys.executable, "-c", code], check=True)


# --- where it is


def test_clients_lend_their_settings(
    server: Server, tls_server: Server, sentinels: Sentinels, cluster: Cluster, folder: Path
) -> None:
    emptied(server)
    certificate = str(folder / "tls" / "cert.pem")
    tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": certificate, "password": "secret"}
    sentinel = Sentinel([("127.0.0.1", sentinels.sentinels[0].port)])
    clients = [
        redis.Redis(port=server.port, username="reader", password="secret", db=2,
                    decode_responses=True),
        redis.Redis(unix_socket_path=str(folder / "one.sock")),
        redis.Redis(port=tls_server.port, **tls),
        AsyncRedis(port=tls_server.port, **tls),
        sentinel.master_for("cache"),
        redis.RedisCluster("127.0.0.1", cluster.nodes[1].port),
    ]  # fmt: skip
    for client in clients:
        tier = RedisTier(client, timeout=SLOW, prefix=b"lent:")
        tier.set_many([Item(b"a", b"1")])
        assert tier.get_many([b"a", b"b"]) == [b"1", None]
        assert "secret" not in repr(tier)
        if not isinstance(client, AsyncRedis):
            assert client.get("lent:a") in {"1", b"1"}
            client.close()
        tier.close()
    with redis.Redis(port=server.port, db=2) as client:
        assert client.get("lent:a") == b"1"
    with pytest.raises(ValueError, match="master"):
        RedisTier(sentinel.slave_for("cache"))


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost", "localhost:6379", "redis://", "redis://:pa/ss@host:port", "redis://a:0x",
        "redis://:hush@a:99999", "redis://a/x", "redis://a,b", "redis+sentinel://a:1",
        "redis+cluster://a/2", "redis://a?timeout=3", "redis://a?nonsense=1", "redis://a?db=x",
        "rediss://a?ssl_cert_reqs=hush", "rediss://a?ssl_ca_certs=/nowhere", "redis://:hush#?@a",
    ],
)  # fmt: skip
def test_bad_urls(url: str) -> None:
    with pytest.raises(ValueError, match=r"url_or_client|ssl|db") as caught:
        RedisTier(url)
    assert "pa/ss" not in str(caught.value)
    assert ":hush" not in str(caught.value)


def test_bad_arguments() -> None:
    bad: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"url_or_client": 7}, TypeError),
        ({"url_or_client": redis.Redis(), "ssl_ca_certs": "x"}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"prefix": 7}, TypeError),
        ({"max_connections": 0}, ValueError),
        ({"name": ""}, TypeError),
        ({"retries": 3}, TypeError),
    ]
    for arguments, error in bad:
        with pytest.raises(error):
            RedisTier(**{"url_or_client": "redis://localhost", **arguments})


# --- what else it does


@pytest.fixture(params=["one server", "cluster"])
def either(request: pytest.FixtureRequest, server: Server, cluster: Cluster) -> Iterator[RedisTier]:
    """A tier whose keys begin with "p:", which others use as well."""
    emptied(server)
    one = request.param == "one server"
    where = f"//127.0.0.1:{server.port}" if one else f"+cluster://127.0.0.1:{cluster.nodes[2].port}"
    url = f"redis:{where}" if one else f"redis{where}"
    other = RedisTier(url, timeout=SLOW)
    other.set_many([Item(b"%d" % at, b"foreign") for at in range(20)])
    tier = RedisTier(url, prefix="p:", timeout=SLOW)
    yield tier
    tier.close()
    assert other.get_many([b"%d" % at for at in range(20)]) == [b"foreign"] * 20
    other.close()


def test_prefix(either: RedisTier) -> None:
    keys = [b"%d" % at for at in range(10)]
    assert either.get_many(keys) == [None] * 10
    either.set_many([Item(key, b"mine") for key in keys])
    assert sorted(either.scan()) == keys
    assert either.delete_many([*keys, b"11"]) == 10


def test_fields(either: RedisTier) -> None:
    users = [b"u%d" % at for at in range(30)]
    either.set_fields({user: {b"age": user + b"a", b"\0": b""} for user in users}, 60_000)
    either.set_fields({b"u0": {b"name": b"Zoe"}, b"u1": {}})
    got = either.get_fields([*users, b"none"], [b"age", b"name", b"\0"])
    assert got[0] == [b"u0a", b"Zoe", b""]
    assert got[1:] == [[user + b"a", None, b""] for user in users[1:]] + [[None] * 3]
    assert either.delete_fields([b"u0", b"u1", b"none"], [b"name", b"age"]) == 3
    assert either.get_fields([b"u0"], [b"age", b"name", b"\0"]) == [[None, None, b""]]
    assert either.get_fields([b"u0"], []) == [[]]
    assert either.get_fields([], [b"age"]) == []
    either.set_fields({})

    async def use() -> None:
        await either.aset_fields({b"u0": {b"age": b"7"}}, 50)
        assert await either.aget_fields([b"u0", b"u2"], [b"age"]) == [[b"7"], [b"u2a"]]
        assert await either.adelete_fields([b"u2"], [b"age"]) == 1
        while await either.aget_fields([b"u0"], [b"age"]) != [[None]]:
            await asyncio.sleep(0.02)

    asyncio.run(use())


def test_other_kinds_of_values(either: RedisTier) -> None:
    either.set_fields({b"hash": {b"a": b"1"}})
    either.set_many([Item(b"text", b"1")])
    assert either.get_many([b"hash", b"text"]) == [None, b"1"]
    assert either.get_many([b"hash"]) == [None]
    assert either.get_fields([b"text", b"hash"], [b"a"]) == [[None], [b"1"]]
    with pytest.raises(TierError, match="WRONGTYPE"):
        either.set_fields({b"text": {b"a": b"1"}})
    with pytest.raises(TierError, match="WRONGTYPE"):
        either.delete_fields([b"text"], [b"a"])
    either.set_many([Item(b"hash", b"now text")])
    assert either.get_many([b"hash"]) == [b"now text"]
    assert either.stats()["refusals"] == 2


def test_a_node_of_a_cluster_is_not_one_server(cluster: Cluster) -> None:
    tier = RedisTier(f"redis://127.0.0.1:{cluster.nodes[0].port}", timeout=SLOW)
    with pytest.raises(TierError, match="CROSSSLOT"):
        tier.get_many([b"a", b"b"])
    with pytest.raises(TierError, match="MOVED"):
        [tier.get_many([b"%d" % at]) for at in range(100)]
    tier.close()


def test_what_is_sent_is_what_was_meant(server: Server) -> None:
    tier = RedisTier(f"redis://127.0.0.1:{server.port}", prefix=b"\xff", timeout=SLOW)
    tier.set_many([Item(b"\0", pickle.dumps([1, 2]), 90_000)])
    with redis.Redis(port=server.port) as client:
        assert client.get(b"\xff\0") == pickle.dumps([1, 2])
        assert 80_000 < client.pttl(b"\xff\0") <= 90_000
        assert tier.add(Item(b"\0", b"x")) is False
        assert client.delete(b"\xff\0") == 1
        assert tier.add(Item(b"\0", b"x", 90_000)) is True
        assert 80_000 < client.pttl(b"\xff\0") <= 90_000
    assert tier.stats()["made"] == tier.stats()["open"] == 1
    tier.close()
    assert tier.stats()["open"] == 0
