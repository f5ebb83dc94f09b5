"""One facade over the caches a Python user might pick instead: how each is made, read and written.

A peer is described by the expressions its user would write (`c` is the cache, `k` a key), because
the benchmarks compile them into loops: a wrapper method would be measured instead of the peer. All
in-memory peers run with their defaults.
"""

from __future__ import annotations

import functools
import pkgutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from workloads import KeyKind

DISKCACHE_ENTRY_BYTES = (
    125  # file size per short str entry, measured; diskcache bounds bytes, not entries
)


@dataclass(frozen=True)
class Peer:
    """A cache and the expressions to use it; None where it has no such operation."""

    name: str
    package: str  # distribution name, "" for the standard library
    make: Callable[[int], Any]  # maxsize -> empty cache
    hit: str = "c[k]"
    get: str | None = "c.get(k)"
    absent: str | None = "c.get(k) is None"
    write: str = "c[k] = {v}"
    bounded: bool = True  # evicts one entry for each new one at capacity
    in_memory: bool = True
    keys: KeyKind = "str"

    @property
    def label(self) -> str:
        """Name and version."""
        try:
            return f"{self.name} {version(self.package)}" if self.package else self.name
        except PackageNotFoundError:  # cachecore built in place
            return self.name

    @property
    def mixed(self) -> str | None:
        """A get and, on a miss, a set; None for what cannot be bounded by entries."""
        if not self.bounded or not self.in_memory:
            return None
        if self.absent is None:  # a decorated function does both itself
            return self.hit
        return f"if {self.absent}: {self.set}; m += 1"

    @property
    def set(self) -> str:
        """Store the key as its own value."""
        return self.write.format(v="k")

    def filled(self, maxsize: int, keys: Sequence[Any], values: Sequence[Any] | None = None) -> Any:
        """Return a cache given these entries in order; without values a key is its own value."""
        c = self.make(maxsize)
        namespace: dict[str, Any] = {}
        exec(f"def fill(c, pairs):\n    for k, v in pairs: {self.write.format(v='v')}", namespace)
        namespace["fill"](c, zip(keys, keys if values is None else values, strict=True))
        return c


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cachecore-bench-")


def _folder() -> str:
    return tempfile.mkdtemp(dir=_scratch().name)


def _named(path: str, **options: Any) -> Callable[[int], Any]:
    """Name a class to import when a cache is made: theine's import starts a thread."""
    return lambda maxsize: pkgutil.resolve_name(path)(maxsize, **options)


def _diskcache(maxsize: int) -> Any:
    cache_type = pkgutil.resolve_name("diskcache:Cache")
    return cache_type(_folder(), size_limit=maxsize * DISKCACHE_ENTRY_BYTES)


def _lmdb(maxsize: int) -> Any:
    """Return one long write transaction: a commit per operation would cost far more."""
    import lmdb

    env = lmdb.open(_folder(), map_size=max(64 << 20, maxsize * 1024), sync=False)
    return env.begin(write=True)


_lru_cache = Peer(
    "lru_cache",
    "",
    # a built-in function: a miss costs the cache's own work and little more
    lambda maxsize: functools.lru_cache(maxsize=maxsize)(len),
    hit="c(k)",
    get=None,
    absent=None,
    write="c(k)",
)
_moka = Peer("moka-py", "moka-py", _named("moka_py:Moka"), hit="c.get(k)", write="c.set(k, {v})")
_theine = replace(
    _moka, name="theine", package="theine", make=_named("theine:Cache"), absent="not c.get(k)[1]"
)
_disk = Peer("diskcache", "diskcache", _diskcache, in_memory=False)
_mapped = Peer(
    "lmdb",
    "lmdb",
    _lmdb,
    hit="c.get(k)",
    write="c.put(k, {v})",
    bounded=False,
    in_memory=False,
    keys="bytes",
)

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("cachecore", "cachecore-ml", _named("cachecore:Cache")),
        Peer("dict", "", lambda maxsize: {}, bounded=False),
        _lru_cache,
        Peer("cachebox LRU", "cachebox", _named("cachebox:LRUCache")),
        Peer("cachebox LFU", "cachebox", _named("cachebox:LFUCache")),
        Peer("lru-dict", "lru-dict", _named("lru:LRU")),
        Peer("cachetools LRU", "cachetools", _named("cachetools:LRUCache")),
        Peer("cachetools LFU", "cachetools", _named("cachetools:LFUCache")),
        Peer("cachetools TTL", "cachetools", _named("cachetools:TTLCache", ttl=3600)),
        _moka,
        _theine,
        _disk,
        _mapped,
    )
}
