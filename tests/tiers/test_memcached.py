"""MemcachedTier on real servers: the contract, and what is its own of keys, values and servers."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pymemcache.client.base import Client

from cachecore.errors import TierError
from cachecore.tiers.base import Item
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import TierContract, eventually
from servers import Server, memcached_server


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("memcached")
    started = [memcached_server(folder / str(at)) for at in range(3)]
    yield started
    for server in started:
        server.kill()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Keeps the tests apart that share the servers."""
    return f"{getattr(request.cls, '__name__', '')}.{request.node.name}:"


@pytest.fixture
def tier(servers: list[Server], prefix: str) -> Iterator[MemcachedTier]:
    tier = MemcachedTier(f"127.0.0.1:{servers[0].port}", timeout=5, prefix=prefix)
    yield tier
    tier.close()


@pytest.fixture
def client(servers: list[Server], prefix: str) -> Iterator[Any]:
    """Another program's connection to the same server."""
    client = Client(("127.0.0.1", servers[0].port), key_prefix=prefix, default_noreply=False)
    yield client
    client.close()


class TestOneServer(TierContract):
    @pytest.fixture
    def tier(self, servers: list[Server], prefix: str) -> Iterator[MemcachedTier]:
        tier = MemcachedTier(f"127.0.0.1:{servers[0].port}", timeout=5, prefix=prefix)
        yield tier
        tier.close()


class TestThreeServers(TierContract):
    @pytest.fixture
    def tier(self, servers: list[Server], prefix: str) -> Iterator[MemcachedTier]:
        places = [("127.0.0.1", server.port) for server in servers]
        tier = MemcachedTier(places, timeout=5, prefix=prefix)
        yield tier
        tier.close()


# --- what is stored


def test_other_programs_share_it(tier: MemcachedTier, client: Any) -> None:
    tier.set_many([Item(b"ours", b"1"), Item(b"long", b"2", 3_600_000)])
    assert client.get_many(["ours", "long"]) == {"ours": b"1", "long": b"2"}
    client.set("theirs", b"3", flags=16)
    assert tier.get_many([b"theirs"]) == [b"3"]


def test_short_lifetimes_end_to_the_millisecond(tier: MemcachedTier, client: Any) -> None:
    tier.set_many([Item(b"a", b"1", 200)])
    begin = time.monotonic()
    eventually(lambda: tier.get_many([b"a"]) == [None])
    assert 0.1 < time.monotonic() - begin < 1
    assert client.get("a") == b"1"  # the server counts in seconds: it still has it
    assert tier.add(Item(b"a", b"2")) is True
    assert tier.add(Item(b"a", b"3")) is False
    assert tier.get_many([b"a"]) == [b"2"]


def test_no_lifetime_is_stretched(tier: MemcachedTier, servers: list[Server], prefix: str) -> None:
    """The server tells the seconds that are left: never more than were given, hardly fewer."""
    days = 24 * 3600
    lives = [60, 61, 3600, 29 * days, 30 * days, 31 * days, 3650 * days]
    tier.set_many([Item(b"%d" % life, b"", life * 1000) for life in lives])
    client = Client(("127.0.0.1", servers[0].port))
    for life in lives:
        answer = client.raw_command(b"mg %s%d t" % (prefix.encode(), life))
        assert life - 4 <= int(answer.removeprefix(b"HD t")) <= life
    client.close()


def test_keys_that_memcached_would_not_take(tier: MemcachedTier, client: Any) -> None:
    tier.set_many([Item(b"with space", b"1"), Item(b"plain", b"2")])
    assert client.get("plain") == b"2"
    looks_alike = tier._stored(b"with space").removeprefix(tier._prefix)
    assert client.get(looks_alike) == b"1"
    assert tier.get_many([looks_alike]) == [None]  # that one, as a key, is digested too
    assert tier.get_many([b"with space"]) == [b"1"]


def test_values_too_large_are_refused(tier: MemcachedTier) -> None:
    tier.set_many([Item(b"b", b"old")])
    large = b"x" * 2_000_000
    tier.set_many([Item(b"a", b"1"), Item(b"b", large), Item(b"c", b"3")])
    assert tier.get_many([b"a", b"b", b"c"]) == [b"1", None, b"3"]
    assert tier.add(Item(b"d", large)) is False
    assert tier.get_many([b"d"]) == [None]
    assert tier.stats()["refused"] == 2
    assert tier.stats()["errors"] == 0


def test_large_batches_of_large_values(tier: MemcachedTier) -> None:
    items = [Item(b"%d" % at, os.urandom(100_000)) for at in range(100)]
    tier.set_many(items)
    assert tier.get_many([item.key for item in items]) == [item.data for item in items]


def test_the_server_is_full(tmp_path: Path) -> None:
    server = memcached_server(tmp_path, "-M", "-m", "2")
    tier = MemcachedTier(f"127.0.0.1:{server.port}", timeout=5)
    tier.set_many([Item(b"a", b"1")])
    with pytest.raises(TierError, match="out of memory"):
        tier.set_many([Item(b"%d" % at, b"x" * 500_000) for at in range(100)])
    assert tier.get_many([b"a"]) == [b"1"]  # it says no, but it is there
    tier.close()
    server.kill()


# --- where it is stored


def test_keys_spread_and_stay(servers: list[Server]) -> None:
    hosts = [f"10.0.0.{at}:11211" for at in range(5)]
    tier, fewer = MemcachedTier(hosts), MemcachedTier(hosts[1:])
    keys = [b"key:%d" % at for at in range(10_000)]
    places = [tier._server_of(key).name for key in keys]
    counts = [places.count(f"memcached: {host}") for host in hosts]
    assert all(1800 < count < 2200 for count in counts), counts
    for key, place in zip(keys, places, strict=True):
        if not place.endswith(hosts[0]):
            assert fewer._server_of(key).name == place


def test_servers_by_name(servers: list[Server], prefix: str) -> None:
    with closing(MemcachedTier(f"localhost:{servers[0].port}", timeout=5, prefix=prefix)) as tier:
        tier.set_many([Item(b"a", b"1")])
        assert tier.get_many([b"a"]) == [b"1"]
    with closing(MemcachedTier("no-such-host.invalid", timeout=1)) as tier:
        begin = time.monotonic()
        with pytest.raises(TierError, match="no-such-host"):
            tier.get_many([b"a"])
        assert time.monotonic() - begin < 3


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = ["memcached", "-s", str(path), *(["-u", "root"] if os.getuid() == 0 else [])]
    server = subprocess.Popen(command)
    try:
        with closing(MemcachedTier(str(path), timeout=5)) as tier:
            eventually(lambda: listens(path))
            tier.set_many([Item(b"a", b"1")])
            assert tier.get_many([b"a"]) == [b"1"]
    finally:
        server.kill()
        server.wait()


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"servers": []}, "servers must be at least one"),
        ({"servers": ["a:1", ("a", 1)]}, "servers must be .* each another"),
        ({"servers": "a:b"}, "servers must be"),
        ({"servers": [5]}, "servers must be"),
        ({"servers": ("a", 0)}, "servers must be"),
        ({"servers": ":11211"}, "servers must be"),
        ({"servers": "a:1", "timeout": 0}, "timeout must be"),
        ({"servers": "a:1", "timeout": float("inf")}, "timeout must be"),
        ({"servers": "a:1", "prefix": "a b"}, "prefix must be"),
        ({"servers": "a:1", "prefix": "x" * 181}, "prefix must be"),
        ({"servers": "a:1", "name": ""}, "name must be"),
    ],
)
def test_bad_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemcachedTier(**arguments)


def test_bad_items_change_nothing(tier: MemcachedTier) -> None:
    bad: Any = [Item(b"a", b"1"), ("b", "2", None)]
    with pytest.raises(TypeError):
        tier.set_many(bad)
    assert tier.get_many([b"a"]) == [None]
