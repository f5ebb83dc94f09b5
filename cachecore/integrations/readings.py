"""What caches counted, in one form for every monitoring system and for the status page."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

MEMORY, LOADER = "l0", "loader"  # what is asked before the first tier, and after the last
Counts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Durations:
    """How many calls took how long."""

    counts: Sequence[int]
    """Item i: those of 2^i ... 2^(i + 1) - 1 microseconds, and the last one's: of longer ones too.
    Empty: not known."""
    seconds: float
    """How long they took together."""
    calls: int
    """How many there were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierReading:
    """What one tier counted since its cache was made, and how it is now."""

    name: str
    results: Counts
    """Keys by what came of asking for them: "hit", "miss"."""
    durations: Durations | None = None
    """Of the look-ups that it answered."""
    breaker: str | None = None
    """One of "closed", "open" and "half-open"; None: it has no breaker."""
    failures: Counts = field(default_factory=dict)
    """Calls that failed, by kind: "timeout", "error"."""
    traffic: Counts = field(default_factory=dict)
    """Bytes by direction: "read", "written"."""
    events: Counts = field(default_factory=dict)
    """All else that it counted, by name."""
    levels: Counts = field(default_factory=dict)
    """Numbers that rise and fall, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReading:
    """What a server counted since its start, and how it is now."""

    clients: int
    """Connections that are open."""
    commands: Counts = field(default_factory=dict)
    """Commands executed, by name."""
    durations: Durations | None = None
    """Of commands."""
    traffic: Counts = field(default_factory=dict)
    """Bytes of clients, by direction: "read", "written"."""
    refused: Counts = field(default_factory=dict)
    """Connections and commands that were not served, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a cache counted since it was made, and how it is now."""

    kind: str
    """What it is, for people."""
    results: Counts
    """Look-ups by what came of them in this process's own memory: "hit", "miss"."""
    entries: int
    bytes: int
    max_entries: int | None = None
    max_bytes: int | None = None
    inserts: int = 0
    deletions: int = 0
    evictions: Counts = field(default_factory=dict)
    """Entries that left by themselves, by reason: "evicted", "rejected", "expired"."""
    refused: int = 0
    """Values that were not let in because they are larger than the bound."""
    tiers: Sequence[TierReading] = ()
    """No two of one name, and none called "l0" or "loader"."""
    loader: Counts = field(default_factory=dict)
    """Keys that the loader was asked for, by what came of it: "hit", "error"."""
    loads: Durations | None = None
    """Of the loader's calls, those that failed included."""
    stale: Counts = field(default_factory=dict)
    """Values returned past their time, by reason: "revalidate", "error", "upstream"."""
    events: Counts = field(default_factory=dict)
    """All else that it counted, by name."""
    levels: Counts = field(default_factory=dict)
    """Numbers that rise and fall, by name."""
    features: Mapping[str, Counts] = field(default_factory=dict)
    """Counts of each feature, where features are cached."""
    server: ServerReading | None = None


class Source(Protocol):
    """What may be watched as a cache is: a server, say."""

    def read(self) -> Reading:
        """What it counted so far; takes microseconds and waits for nothing."""

    def hottest(self, n: int) -> Sequence[tuple[Any, int]]:
        """The `n` keys asked for most often of late, each with how often."""


class Watch:
    """Caches under names. It keeps none of them alive: one that is gone is not watched any more.

    Thread safe, and without a lock that a fork could leave held: the child of a fork goes on with
    what was watched, and counts for itself.
    """

    def __init__(self) -> None:
        self._caches: dict[str, weakref.ref[Any]] = {}
        self.unread: Counter[str] = Counter()
        """How often a cache could not be read, because its `stats()` raised, by name."""

    def add(self, cache: Any, name: str | None = None) -> None:
        """Watch a cache: any of cachecore's, or a `Source`.

        `name` tells it from others; by default it is the cache's own name or namespace.

        Raises:
            TypeError, ValueError: it is no cache or is closed; the name is no text, or there is
                none, or it is another cache's.
        """
        from cachecore.integrations.caches import name_of, read

        if name is None:
            name = name_of(cache)
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if not name:
            raise ValueError("name is required: this cache has none of its own")
        other = self._alive(name)
        if other is not None and other is not cache:
            raise ValueError(f"name must be of one cache only: {name!r} is watched already")
        read(cache)
        try:
            self._caches[name] = weakref.ref(cache)
        except TypeError:
            kind = type(cache).__name__
            raise TypeError(f"cache must allow weak references, which {kind} does not") from None

    def remove(self, name: str) -> None:
        """Watch the cache of that name no more; KeyError if there is none."""
        del self._caches[name]

    def _alive(self, name: str) -> Any:
        reference = self._caches.get(name)
        return None if reference is None else reference()

    def caches(self) -> list[tuple[str, Any]]:
        """The caches that there are, in the order in which they came."""
        found = [(name, reference()) for name, reference in list(self._caches.items())]
        return [(name, cache) for name, cache in found if cache is not None]

    def readings(self) -> Iterator[tuple[str, Reading]]:
        """What each of them counted so far. One that is closed has nothing to tell."""
        from cachecore.integrations.caches import read

        for name, cache in self.caches():
            if getattr(cache, "closed", False):
                continue
            try:
                yield name, read(cache)
            except Exception:
                self.unread[name] += 1
