"""TieredCache: a cache in the process's own memory that falls through to tiers and a loader."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import numpy as np

from cachecore._core import Cache
from cachecore._load import Level, Load
from cachecore._tiered import own_get, run_load, run_sync
from cachecore.codecs import ArrayCodec, DefaultCodec, Raw, codec_of
from cachecore.sentinel import MISSING
from cachecore.settings import seconds, sequence_of
from cachecore.tiers import tasks, threads
from cachecore.tiers.background import Background
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.breaker import guarded
from cachecore.tiers.loading import Loader
from cachecore.tiers.policy import Policy, check_arguments
from cachecore.tiers.scope import Scoped
from cachecore.tiers.stats import TieredStats, collect
from cachecore.tiers.waiting import inside
from cachecore.tiers.write_behind import WriteBehind

_log = logging.getLogger("cachecore")
_caches: weakref.WeakSet[TieredCache] = weakref.WeakSet()
_ABSENT = 100_000  # keys known to have no value, at most
_COOLING = 10_000  # keys whose refresh has failed of late, at most
_WRITABLE = {DefaultCodec: (bytes, np.ndarray), ArrayCodec: (np.ndarray,), Raw: (bytes,)}
MOST_TAGS = 65_535  # of one value, that an envelope has place for
_FLUSH = 5.0  # seconds that close() may take to hand down and to make up for what was missed


@own_get
class TieredCache(Scoped):
    """A cache that asks tiers, in their order, and then the loader for what it does not hold.

    Args:
        maxsize, max_bytes: bounds of what this process holds, as for `Cache`; one is required, here
            or in the policy.
        tiers: from the fastest to the slowest, each a `Tier`. They are closed with the cache. One
            that is not `quick` is put behind a `Breaker` if it has none.
        loader: called as loader(key) for a value that no tier has; MISSING: there is none.
        loader_many: called as loader_many(keys) for many at once, instead of `loader`; returns a
            list aligned with the keys, or a mapping. Either may be a coroutine function, and then
            only the asynchronous methods load.
        codec: how values become bytes for tiers: None, "raw", "array", "msgpack", "pickle", or a
            `Codec`.
        namespace: what distinguishes this cache's keys in the tiers.
        policy: lifetimes, bounds and codec in one; the arguments here take precedence.
        ttl, ttl_jitter, negative_ttl, early_refresh: fields of `Policy`.
        stale_ttl: both `stale_while_revalidate` and `stale_if_error`.
        write: "through": set() writes to every tier; "around": only to the last one, and what is
            here and in the others is forgotten.
        strict: a write or deletion that a tier did not take raises TierError. By default the key is
            not read from that tier until it was made up for, in the background: what is owed is.
        exclusive: the first tier keeps only what this process has no room for.
        invalidation: sources of invalidations (`Tracking`, `PubSub`, `Streams`); they are started,
            and stopped with the cache.
        keys_file: where close() writes the hottest keys, for `warm()` after a restart.
        on_event: called as on_event(event, keys, seconds) after "load" (how many, how long).
        timer: a function that returns Unix seconds, for tests; it must not go backwards.

    Keys are str, bytes or int, and `1`, `"1"` and `b"1"` are three. Values are what the codec can
    write down; without tiers, any. All methods may be called from any thread, and the asynchronous
    ones from any event loop. Of all who ask for a key at a time, threads and tasks, one asks
    the tiers and the loader.

    Reads never raise for a tier: its failure is counted, and a miss.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """

    __slots__ = ("_on_event", "policy", "refreshes", "tiers")

    def __init__(
        self,
        maxsize: int | None = None,
        *,
        max_bytes: int | str | None = None,
        tiers: Iterable[Tier] = (),
        loader: Callable[[Any], Any] | None = None,
        loader_many: Callable[[list[Any]], Any] | None = None,
        codec: Any = None,
        namespace: str = "",
        policy: Policy | None = None,
        ttl: float | None = None,
        ttl_jitter: float | None = None,
        negative_ttl: float | None = None,
        stale_ttl: float | None = None,
        early_refresh: float | None = None,
        write: str = "through",
        strict: bool = False,
        exclusive: bool = False,
        invalidation: Iterable[Any] = (),
        keys_file: str | os.PathLike[str] | None = None,
        on_event: Callable[[str, int, float], object] | None = None,
        timer: Callable[[], float] | None = None,
    ) -> None:
        tiers = list(tiers)
        if policy is not None and not isinstance(policy, Policy):
            raise TypeError(f"policy must be a Policy, not {type(policy).__name__}")
        given = {
            "maxsize": maxsize, "max_bytes": max_bytes, "codec": codec, "ttl": ttl,
            "ttl_jitter": ttl_jitter, "negative_ttl": negative_ttl, "early_refresh": early_refresh,
            "stale_while_revalidate": stale_ttl, "stale_if_error": stale_ttl,
        }  # fmt: skip
        policy = dataclasses.replace(
            policy or Policy(),
            **{name: value for name, value in given.items() if value is not None},
        )
        check_arguments(tiers, namespace, write, exclusive, on_event)
        self.loader = None
        if loader is not None or loader_many is not None:
            self.loader = Loader(loader, loader_many, policy.load_timeout)
            self.awaits = self.loader.awaits
        self.l0 = Cache(
            policy.maxsize, max_bytes=policy.max_bytes, name=namespace or None, timer=timer
        )
        if policy.negative_ttl is not None:
            self.absent = Cache(_ABSENT, ttl=policy.negative_ttl, timer=timer)
        self.cooling = Cache(_COOLING, ttl=policy.retry, timer=timer)
        self.codec = codec_of(policy.codec)
        self.raw = not self.codec.enveloped
        self.writable = _WRITABLE.get(type(self.codec), ())
        if self.codec.private and any(tier.shared for tier in tiers):
            raise ValueError(f"codec {self.codec.name!r} is not for tiers that others can write to")
        self.policy, self.namespace, self.timer = policy, namespace, timer
        self.prefix = namespace.encode() + b":" if namespace else b""
        self.lifetime = math.inf if policy.ttl is None else policy.ttl
        self.jitter, self.early = policy.ttl_jitter, policy.early_refresh
        self.revalidate_ms = round(policy.stale_while_revalidate * 1000)
        self.error_ms = round(policy.stale_if_error * 1000)
        self.lease, self.around, self.strict = policy.lease, write == "around", strict
        self.item = Item
        self.keys_file, self._on_event = keys_file, on_event
        self.tiers = tuple(guarded(tier) for tier in tiers)
        self.levels = [
            Level(tier, self.prefix, exclusive and at == 0) for at, tier in enumerate(self.tiers)
        ]
        for level in self.levels:
            if type(level.tier) is WriteBehind:
                level.backlog = level.tier.backlog
        self.background, self.refreshes = Background(), Background()
        if self.tiers and (exclusive or not self.tiers[0].shared):
            self.note_leavers()
        self.sources = list(invalidation)
        self.slow = 0
        _caches.add(self)
        self.listen()

    # --- look-ups: `get` and `get_many` are inherited

    async def aget(self, key: Any, default: Any = None) -> Any:
        """The same as `get`, in a task; a loader that is no coroutine function runs in a thread."""
        value = self.here(key)
        if value is MISSING:
            value = (await self._amissed([key]))[key]
        return default if value is MISSING else value

    async def aget_many(self, keys: Iterable[Any], default: Any = None) -> list[Any]:
        """The same as `get_many`, in a task."""
        keys = sequence_of(keys)
        values = [self.here(key) for key in keys]
        missing = [at for at, value in enumerate(values) if value is MISSING]
        if missing:
            found = await self._amissed([keys[at] for at in missing])
            for at in missing:
                value = found[keys[at]]
                values[at] = default if value is MISSING else value
        return values

    async def _amissed(self, keys: Sequence[Any]) -> dict[Any, Any]:
        self.check_open()
        scope = self.scope()
        if scope is not None:
            keys = [key for key in dict.fromkeys(keys) if key not in scope]
        load = Load()
        found, rest = self.look_many(keys, load)
        if rest:
            found.update(await tasks.run(self, self.fetch(rest, load)))
        if load.refresh:
            self.refresh_later(load.refresh)
        if scope is not None:
            scope.update(found)
            return scope
        return found

    # --- writes: `set` is inherited

    def set_many(
        self,
        items: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
        *,
        ttl: float | None = None,
        tags: Iterable[str] = (),
    ) -> None:
        """Set every pair of a mapping, or of an iterable of (key, value): one call of each tier."""
        run_sync(self, self._setting(dict(items), ttl, tags))

    async def aset(
        self, key: Any, value: Any, *, ttl: float | None = None, tags: Iterable[str] = ()
    ) -> None:
        """The same as `set`, in a task."""
        await tasks.run(self, self._setting({key: value}, ttl, tags, tasks.own()))

    async def aset_many(
        self,
        items: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
        *,
        ttl: float | None = None,
        tags: Iterable[str] = (),
    ) -> None:
        """The same as `set_many`, in a task."""
        await tasks.run(self, self._setting(dict(items), ttl, tags, tasks.own()))

    def _setting(
        self,
        values: dict[Any, Any],
        ttl: float | None,
        tags: Iterable[str],
        load: Load | None = None,
    ) -> Any:
        self.check_open()
        self.check_keys(values)
        if any(value is MISSING for value in values.values()):
            raise TypeError("value must not be MISSING, which means that there is none")
        if isinstance(tags, str):
            raise TypeError("tags must be an iterable of str, not one str")
        tags = list(tags)
        if tags and self.raw:
            raise ValueError("tags do not go with codec='raw', which has no place for them")
        if len(tags) > MOST_TAGS:
            raise ValueError(f"tags must be at most {MOST_TAGS}, not {len(tags)}")
        ttl = None if ttl is None else seconds(ttl, "ttl")
        return self.seen(values, self.set_steps(values, ttl, tags, load or Load()))

    def delete(self, key: Any) -> bool:
        """Delete a key here and in the tiers; False if none of them had it."""
        return self.delete_many([key]) > 0

    def delete_many(self, keys: Iterable[Any]) -> int:
        """Delete keys here and in the tiers, one call of each; how many there were at least."""
        return int(run_sync(self, self._deleting(keys)))

    async def adelete(self, key: Any) -> bool:
        """The same as `delete`, in a task."""
        return await self.adelete_many([key]) > 0

    async def adelete_many(self, keys: Iterable[Any]) -> int:
        """The same as `delete_many`, in a task."""
        return int(await tasks.run(self, self._deleting(keys, tasks.own())))

    def _deleting(self, keys: Iterable[Any], load: Load | None = None) -> Any:
        self.check_open()
        keys = sequence_of(keys)
        self.check_keys(keys)
        keys = list(dict.fromkeys(keys))
        return self.seen(keys, self.delete_steps(keys, load or Load()))

    def invalidate(self, name: str) -> None:
        """Make everything void that is in a namespace (this cache's), or that has a tag.

        One write in each tier, whatever it keeps. Other processes notice when they next ask a tier,
        if that is a second after they did so last; what they hold themselves and has the tag,
        when they next ask a tier for a value with it. With an invalidation source, at once.

        Raises:
            TierError: with `strict`, when a tier could not be told.
        """
        run_sync(self, self._invalidating(name))

    async def ainvalidate(self, name: str) -> None:
        """The same as `invalidate`, in a task."""
        await tasks.run(self, self._invalidating(name))

    def _invalidating(self, name: str) -> Any:
        self.check_open()
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if self.raw and self.levels:
            raise ValueError("codec='raw' has no generations: delete the keys")
        return self.seen(None, self.invalidate_steps(name))

    # --- calls that a generator yields

    def perform(self, kind: int, level: Any, arg: Any) -> Any:
        """One of those that take longer than a function call, in a thread."""
        return threads.perform(self, kind, level, arg)

    def refresh_later(self, refresh: dict[Any, int]) -> None:
        """Have keys loaded anew, in the background; `refresh` has the expiry to improve on."""
        load = Load()
        load.known, load.thread = refresh, 0
        try:
            keys, _ = self.claim(load, list(refresh))
            if keys and self.awaits:
                tasks.start(self, load, keys)
            elif keys and not self.refreshes.submit(run_load, self, load, keys):
                self.refreshes_dropped += len(keys)
                self.land(load, keys)
        except BaseException:
            self.land(load, refresh)
            raise

    def told(self, load: Load, event: str, keys: int, spent: float) -> None:
        """Call on_event; what it raises is nobody's business here."""
        if self._on_event is not None:
            try:
                with inside(load):
                    self._on_event(event, keys, spent)
            except Exception:
                _log.exception("cachecore: on_event failed")

    # --- the end

    def stats(self) -> TieredStats:
        """What was counted so far, as a TieredStats."""
        return collect(self)

    def close(self) -> None:
        """Hand down what has left, make up for missed writes where that can be, close the tiers.

        What is being loaded ends as usual, and is not kept. Takes some seconds at most beyond what
        the tiers take. Calls after it raise ValueError, but another close, which does nothing.
        """
        if self.closed:
            return
        self.closed = True
        self.slow += 1
        with ExitStack() as rest:  # from the last to the first, whatever is raised
            rest.callback(self.l0.clear)
            for tier in reversed(self.tiers):
                rest.callback(tier.close)
            rest.callback(self.tell_of_owed)
            rest.callback(self.background.close, _FLUSH)
            rest.callback(self.refreshes.close, _FLUSH)
            for source in self.sources:
                source.stop()
            for level in self.levels:
                if level.ledger is not None:
                    self.background.submit(self.replay, level)
            if self.leaving:
                self.background.submit(self.demote)
            if self.keys_file is not None:
                self.save_keys(self.keys_file)

    async def aclose(self) -> None:
        """The same as `close`, from a coroutine."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(tier.name for tier in self.tiers)
        return f"<TieredCache {self.namespace!r} of {len(self.l0)} entries over [{names}]>"


def _begin_anew() -> None:
    """In a child process the threads are gone, and so is whoever was loading."""
    for cache in list(_caches):
        cache.flights.clear()
        cache.background.reset()
        cache.refreshes.reset()
        cache.handing_down = False
        for level in (each for each in cache.levels if each.ledger is not None):
            cache.background.submit(cache.replay, level)


os.register_at_fork(after_in_child=_begin_anew)
