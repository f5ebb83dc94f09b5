"""Every method of Cache against a plain model, in long random sequences.

The model is a dict of what the cache must hold. It cannot know whom the policy evicts; it is told
by on_evict, and then holds the cache to every word: what left was there, with that value; what
did not leave is there; the counts agree, all of them, after each step.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cachecore import Cache
from support import ENTRY_OVERHEAD, LONG, Clock, Key, check

DAY = 86400.0
ROW = 16  # bytes of the values that gather can take


class Entry(NamedTuple):
    value: bytes
    deadline: float
    size: int


# Equal keys of two types, equal but distinct objects, colliding hashes, every inline path.
KEYS: list[Any] = [
    *range(12), True, "a", "b", "\u20ac", b"a", b"", (), (1, "a"), 2**61 - 1, 2**61, 2**64,
    -(2**64), 0.5, None, frozenset("a"), *(Key(name) for name in "xyzx"),
]  # fmt: skip
keys = st.sampled_from(KEYS)
sizes = st.sampled_from([ROW, ROW, ROW, 8, 104, 1000])
costs = st.sampled_from([None, 0.1, 9])
ttls = st.sampled_from([None, 0.01, 0.5, 3, 40 * DAY, math.inf])


class Model(RuleBasedStateMachine):
    cache: Cache[Any, Any]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.model: dict[Any, Entry] = {}
        self.counts: Counter[str] = Counter()
        self.heard: list[tuple[Any, Any, str]] = []
        self.serial = 0

    @initialize(
        maxsize=st.sampled_from([None, 1, 2, 3, 8, 20]),
        max_bytes=st.sampled_from([None, 300, 1500, "4KB"]),
        ttl=st.sampled_from([None, None, 2, 30 * DAY]),
    )
    def make(self, maxsize: int | None, max_bytes: int | str | None, ttl: float | None) -> None:
        if maxsize is None and max_bytes is None:
            maxsize = 8
        self.cache = Cache(
            maxsize,
            max_bytes=max_bytes,
            ttl=ttl,
            timer=self.clock,
            on_evict=lambda *leaver: self.heard.append(leaver),
        )

    # --- the model

    def live(self, key: Any) -> bool:
        return key in self.model and self.model[key].deadline > self.clock.now

    def entry(self, key: Any, size: int, ttl: float | None) -> Entry:
        self.serial += 1
        value = self.serial.to_bytes(8, "big") * (size // 8)
        lifetime = self.cache.ttl if ttl is None else ttl
        deadline = math.inf if lifetime is None else round(self.clock.now + lifetime, 3)
        return Entry(value, deadline, sys.getsizeof(key) + len(value) + ENTRY_OVERHEAD)

    def leave(self, key: Any) -> None:
        """An entry that the model knows is removed: deleted, or found to have expired."""
        self.listen()
        if key in self.model:
            assert self.live(key)
            del self.model[key]
            self.counts["deletions"] += 1

    def enter(self, key: Any, entry: Entry) -> None:
        """An entry that the cache has been given."""
        self.listen()
        assert key not in self.model or self.live(key), "an expired entry was overwritten in place"
        if self.cache.max_bytes is not None and entry.size > self.cache.max_bytes:
            self.counts["refused"] += 1
            self.leave(key)
            assert key not in self.cache
            return
        self.counts["inserts"] += key not in self.model
        self.model[key] = entry
        assert self.cache.peek(key) == entry.value

    def listen(self) -> None:
        """Take what on_evict said."""
        for key, value, reason in self.heard:
            entry = self.model.pop(key)
            assert entry.value is value
            assert (reason == "expired") == (entry.deadline <= self.clock.now)
            self.counts[reason] += 1
        self.heard.clear()

    def looked_up(self, key: Any) -> bytes | None:
        """What a look-up must find; counts it."""
        self.counts["hits" if self.live(key) else "misses"] += 1
        return self.model[key].value if self.live(key) else None

    # --- the operations

    @rule(key=keys, size=sizes, ttl=ttls, plainly=st.booleans(), cost=costs)
    def put(self, key: Any, size: int, ttl: Any, plainly: bool, cost: float | None) -> None:
        entry = self.entry(key, size, None if plainly else ttl)
        if plainly:
            self.cache[key] = entry.value
        else:
            self.cache.set(key, entry.value, ttl=ttl, cost=cost)
        self.enter(key, entry)

    @rule(pairs=st.lists(st.tuples(keys, sizes), max_size=30), ttl=ttls, update=st.booleans())
    def set_many(self, pairs: list[tuple[Any, int]], ttl: Any, update: bool) -> None:
        def feed() -> Iterator[tuple[Any, bytes]]:
            for key, size in pairs:
                entry = self.entry(key, size, None if update else ttl)
                yield key, entry.value
                self.enter(key, entry)  # before the next one, which may push it out

        if update:
            self.cache.update(feed())
        else:
            self.cache.set_many(feed(), ttl=ttl)

    @rule(key=keys)
    def get(self, key: Any) -> None:
        assert self.cache.get(key) is self.looked_up(key)

    @rule(key=keys)
    def getitem(self, key: Any) -> None:
        expected = self.looked_up(key)
        if expected is None:
            with pytest.raises(KeyError) as caught:
                self.cache[key]
            assert caught.value.args == (key,)
        else:
            assert self.cache[key] is expected

    @rule(asked=st.lists(keys, max_size=50), many=st.integers(1, 3))
    def get_many(self, asked: list[Any], many: int) -> None:
        asked *= many
        assert self.cache.get_many(asked) == [self.looked_up(key) for key in asked]

    @rule(asked=st.lists(keys, max_size=20))
    def gather(self, asked: list[Any]) -> None:
        out = np.full((len(asked), ROW), 0xAA, np.uint8)
        expected = [self.looked_up(key) for key in asked]
        if all(value is None or len(value) == ROW for value in expected):
            found = self.cache.gather(asked, out)
            assert found.tolist() == [value is not None for value in expected]
            assert out.tobytes() == b"".join(value or bytes(ROW) for value in expected)
        else:
            with pytest.raises((ValueError, TypeError)):
                self.cache.gather(asked, out)
            assert (out == 0xAA).all()

    @rule(key=keys, size=sizes)
    def setdefault(self, key: Any, size: int) -> None:
        entry = self.entry(key, size, None)
        found = self.looked_up(key)
        assert self.cache.setdefault(key, entry.value) is (found or entry.value)
        if found is None:
            self.enter(key, entry)

    @rule(key=keys, size=sizes, ttl=ttls, fails=st.booleans())
    def get_or_set(self, key: Any, size: int, ttl: Any, fails: bool) -> None:
        entry = self.entry(key, size, ttl)
        found = self.looked_up(key)
        if fails and found is None:
            with pytest.raises(ZeroDivisionError):
                self.cache.get_or_set(key, lambda: 1 // 0, ttl=ttl)
            return
        assert self.cache.get_or_set(key, lambda: entry.value, ttl=ttl) is (found or entry.value)
        if found is None:
            self.enter(key, entry)

    @rule(key=keys)
    def pop(self, key: Any) -> None:
        found = self.looked_up(key)
        assert self.cache.pop(key, None) is found
        self.leave(key)

    @rule(key=keys, plainly=st.booleans())
    def delete(self, key: Any, plainly: bool) -> None:
        there = self.live(key)
        if not plainly:
            assert self.cache.delete(key) is there
        elif there:
            del self.cache[key]
        else:
            with pytest.raises(KeyError):
                del self.cache[key]
        self.leave(key)

    @rule(doomed=st.lists(keys, max_size=10))
    def delete_many(self, doomed: list[Any]) -> None:
        there = {key for key in doomed if self.live(key)}
        assert self.cache.delete_many(doomed) == len(there)
        for key in doomed:
            self.leave(key)

    @rule()
    def popitem(self) -> None:
        last = list(self.cache.items())[-1:]
        if not last:
            with pytest.raises(KeyError):
                self.cache.popitem()
            return
        assert self.cache.popitem() == last[0]
        self.leave(last[0][0])

    @rule(key=keys, ttl=ttls)
    def touch(self, key: Any, ttl: Any) -> None:
        there = self.live(key)
        assert self.cache.touch(key, ttl) is there
        if there:
            deadline = self.entry(key, 8, ttl).deadline
            self.model[key] = self.model[key]._replace(deadline=deadline)

    @rule(key=keys)
    def get_ttl(self, key: Any) -> None:
        if not self.live(key):
            with pytest.raises(KeyError):
                self.cache.get_ttl(key)
            return
        left = self.cache.get_ttl(key)
        expected = self.model[key].deadline - self.clock.now
        assert (math.inf if left is None else left) == pytest.approx(expected, abs=1e-6)

    @rule(seconds=st.sampled_from([0.01, 0.5, 2, 3, 29 * DAY, 41 * DAY]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def expire(self) -> None:
        expired = sum(not self.live(key) for key in self.model)
        assert self.cache.expire() == expired
        self.listen()
        assert all(self.live(key) for key in self.model)

    @rule(ttl=st.sampled_from([None, 1, 35 * DAY, math.inf]))
    def set_ttl(self, ttl: float | None) -> None:
        self.cache.ttl = ttl

    @rule(maxsize=st.sampled_from([None, 1, 4, 30]), max_bytes=st.sampled_from([None, 400, 5000]))
    def resize(self, maxsize: int | None, max_bytes: int | None) -> None:
        if maxsize is None and max_bytes is None:
            return
        self.cache.resize(maxsize, max_bytes)
        assert maxsize is None or self.cache.maxsize == maxsize
        assert max_bytes is None or self.cache.max_bytes == max_bytes

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.counts["deletions"] += len(self.model)
        self.model.clear()

    @rule(keep=st.booleans())
    def copy(self, keep: bool) -> None:
        twin = self.cache.copy()
        check(twin)
        assert list(twin.items()) == list(self.cache.items()) or twin == self.cache
        assert all(twin.get_ttl(key) == self.cache.get_ttl(key) for key in twin)
        assert (twin.maxsize, twin.max_bytes, twin.ttl) == (
            self.cache.maxsize,
            self.cache.max_bytes,
            self.cache.ttl,
        )
        self.listen()
        if keep:
            self.cache = twin
            self.model = {key: entry for key, entry in self.model.items() if self.live(key)}
            self.counts = Counter(inserts=len(self.model))

    @rule(n=st.integers(1, 40))
    def hottest(self, n: int) -> None:
        ranked = self.cache.hottest(n)
        assert len(ranked) == min(n, sum(self.live(key) for key in self.model))
        assert all(self.live(key) for key, _ in ranked)
        frequencies = [frequency for _, frequency in ranked]
        assert frequencies == sorted(frequencies, reverse=True)

    @rule(nth=st.integers(0, 30))
    def a_change_ends_an_iteration(self, nth: int) -> None:
        iterator = iter(self.cache.items())
        if next(iterator, None) is None:
            return
        self.delete(list(self.model)[nth % len(self.model)], False)
        with pytest.raises(RuntimeError):
            next(iterator)

    # --- what holds after each of them

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "cache"):
            return
        self.listen()
        cache = self.cache
        check(cache)
        assert len(cache) == len(self.model)
        expected = {key: entry.value for key, entry in self.model.items() if self.live(key)}
        assert cache == expected
        assert sorted(map(repr, cache)) == sorted(map(repr, expected))
        assert all(cache.peek(key) is value and key in cache for key, value in expected.items())
        assert all((key in cache) == (key in expected) for key in KEYS)
        if cache.max_bytes is not None:
            assert cache.stats().bytes == sum(entry.size for entry in self.model.values())
        counted = {
            name: self.counts[word]
            for name, word in {
                "hits": "hits", "misses": "misses", "inserts": "inserts", "refused": "refused",
                "evictions": "evicted", "rejections": "rejected", "expirations": "expired",
                "deletions": "deletions",
            }.items()
        }  # fmt: skip
        stats = cache.stats()._asdict()
        assert {name: stats[name] for name in counted} == counted


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=20_000 if LONG else 800, stateful_step_count=60, deadline=None
)
