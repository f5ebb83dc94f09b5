"""TieredCache over a memory-mapped tier against a plain model, in long random sequences.

Every value says whose it is and which version. The model knows what each key's value must be, as
far as anybody can: what was set or loaded last, if it was neither deleted, nor made void, nor has
expired. Where there is no loader that is what a look-up finds; where there is one, it is that or
what the loader says now. What is evicted is found below: nothing is lost but by its time.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cachecore import MISSING, TieredCache
from cachecore.tiers import MmapTier, Policy
from support import LONG, check_shared
from tiers.caches import clock, settle

HOUR = 3600.0
# What is one text in a tier are different keys: each makes the other's value there a miss.
KEYS: list[Any] = [*range(8), "1", "x", "\u20ac", b"1", b"y", b"\xff", -(2**70)]
keys = st.sampled_from(KEYS)
batches = st.lists(keys, max_size=20)
TAGS = ["red", "blue"]
tags = st.lists(st.sampled_from(TAGS), unique=True, max_size=2)
ttls = st.sampled_from([None, None, HOUR, 10 * HOUR, math.inf])
ABSENT = "absent"


def wire(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


class Entry(NamedTuple):
    value: str
    soft: float
    hard: float
    tags: frozenset[str]


class Model(RuleBasedStateMachine):
    cache: TieredCache

    def __init__(self) -> None:
        super().__init__()
        self.clock = clock()
        self.folder = tempfile.TemporaryDirectory()
        self.model: dict[Any, Entry] = {}
        self.displaced: set[Any] = set()  # by a key of the same text: nobody has to find them
        self.source: dict[Any, str] = {}
        self.serial = 0

    @initialize(
        maxsize=st.sampled_from([1, 3, 8, 100]),
        loads=st.booleans(),
        stale=st.sampled_from([0.0, 0.0, HOUR]),
        negative=st.sampled_from([None, None, HOUR]),
        ttl=st.sampled_from([None, 5 * HOUR]),
        write=st.sampled_from(["through", "through", "around", "exclusive"]),
        namespace=st.sampled_from(["", "ns"]),
        codec=st.sampled_from([None, "msgpack"]),
    )
    def make(self, loads: bool, stale: float, negative: Any, write: str, **settings: Any) -> None:
        self.loads, self.stale, self.negative = loads, stale, negative
        self.exclusive = write == "exclusive"
        self.ttl, self.maxsize = settings.pop("ttl"), settings.pop("maxsize")
        self.policy = Policy(
            ttl=self.ttl,
            negative_ttl=negative,
            stale_while_revalidate=stale,
            stale_if_error=stale,
            maxsize=self.maxsize,
        )
        self.arguments = {
            **settings,
            "policy": self.policy,
            "timer": self.clock,
            "loader_many": self.load if loads else None,
            "exclusive": self.exclusive,
            "write": "around" if write == "around" else "through",
        }
        self.open()

    def open(self) -> None:
        tier = MmapTier(Path(self.folder.name, "store"), max_bytes="4MB")
        self.cache = TieredCache(tiers=[tier], **self.arguments)

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.close()
        self.folder.cleanup()

    # --- the model

    def fresh(self, key: Any) -> str:
        self.serial += 1
        return f"{key!r} {self.serial}"

    def load(self, keys: list[Any]) -> dict[Any, str]:
        assert len(set(keys)) == len(keys)
        return {key: self.source[key] for key in keys if key in self.source}

    def live(self, key: Any) -> bool:
        return key in self.model and self.model[key].hard > self.clock.now

    def enter(self, key: Any, value: str, ttl: float | None, names: Any = ()) -> None:
        seconds = (self.ttl or math.inf) if ttl is None else ttl
        soft = self.clock.now + seconds
        self.model[key] = Entry(value, soft, soft + self.stale, frozenset(names))
        self.displaced.discard(key)
        self.displace(key)

    def displace(self, key: Any) -> None:
        """What is in the tier under this text may be gone, but for this key's."""
        self.displaced |= {other for other in KEYS if wire(other) == wire(key)} - {key}

    def check(self, key: Any, found: Any) -> None:
        """Hold what a look-up found to what it may find; and take note of it."""
        said = self.source.get(key, ABSENT) if self.loads else ABSENT
        if not self.live(key):
            allowed = {said, ABSENT} if self.negative else {said}
        elif self.model[key].soft > self.clock.now:
            allowed = {self.model[key].value}
        else:
            allowed = {self.model[key].value, said}
        if self.lossy(key):
            allowed |= {said, ABSENT} if self.negative or not self.live(key) else {said}
        assert found in allowed, (key, found, allowed, self.model.get(key))
        if found == ABSENT:
            self.model.pop(key, None)
        elif not self.live(key) or self.model[key].value != found:
            self.enter(key, found, None)
        else:
            self.displace(key)

    def lossy(self, key: Any) -> bool:
        """Whether a value may have been let go before its time."""
        return self.exclusive or key in self.displaced

    # --- the operations

    @rule(key=keys)
    def get(self, key: Any) -> None:
        self.check(key, self.cache.get(key, ABSENT))
        settle(self.cache)
        self.refreshed([key])

    @rule(asked=batches)
    def get_many(self, asked: list[Any]) -> None:
        found = self.cache.get_many(asked, ABSENT)
        assert len(found) == len(asked)
        for key, value in dict(zip(asked, found, strict=True)).items():
            self.check(key, value)
        settle(self.cache)
        self.refreshed(asked)

    def refreshed(self, asked: list[Any]) -> None:
        """Take note of what was loaded anew behind the back of whoever got a stale value."""
        for key in asked:
            if not (self.live(key) and self.model[key].soft <= self.clock.now and self.loads):
                continue
            if key not in self.source:
                del self.model[key]
            else:
                self.enter(key, self.source[key], None)

    @rule(key=keys, ttl=ttls, names=tags)
    def set(self, key: Any, ttl: Any, names: list[str]) -> None:
        value = self.fresh(key)
        self.cache.set(key, value, ttl=ttl, tags=names)
        self.enter(key, value, ttl, names)

    @rule(asked=batches, ttl=ttls, names=tags)
    def set_many(self, asked: list[Any], ttl: Any, names: list[str]) -> None:
        values = {key: self.fresh(key) for key in asked}
        self.cache.set_many(values, ttl=ttl, tags=names)
        for key, value in values.items():
            self.enter(key, value, ttl, names)

    @rule(doomed=batches)
    def delete_many(self, doomed: list[Any]) -> None:
        count = self.cache.delete_many(doomed)
        assert 0 <= count <= len(set(doomed))
        for key in doomed:
            self.displace(key)
            self.model.pop(key, None)

    @rule(name=st.sampled_from(TAGS))
    def invalidate_tag(self, name: str) -> None:
        self.cache.invalidate(name)
        self.model = {key: each for key, each in self.model.items() if name not in each.tags}

    @rule()
    def invalidate_namespace(self) -> None:
        self.cache.invalidate(self.cache.namespace)
        self.model.clear()

    @rule(key=keys, gone=st.booleans())
    def change_the_source(self, key: Any, gone: bool) -> None:
        if gone:
            self.source.pop(key, None)
        else:
            self.source[key] = self.fresh(key)

    @rule(seconds=st.sampled_from([0.01, 1.5, HOUR / 2, HOUR, 6 * HOUR, 11 * HOUR]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def clear_what_is_here(self) -> None:
        self.cache.l0.clear()
        if self.exclusive:
            self.displaced |= set(KEYS)

    @rule()
    def reopen(self) -> None:
        self.cache.close()
        self.open()
        if self.exclusive:
            self.displaced |= set(KEYS)

    @rule(asked=batches, key=keys)
    def a_request(self, asked: list[Any], key: Any) -> None:
        with self.cache.request():
            first = self.cache.get_many([*asked, key], ABSENT)
            settle(self.cache)
            assert self.cache.get_many([*asked, key], ABSENT) == first
            for each, value in dict(zip([*asked, key], first, strict=True)).items():
                self.check(each, value)
            self.refreshed([*asked, key])
            self.set(key, None, [])
            assert self.cache.get(key) == self.model[key].value

    # --- what holds after each of them

    @invariant()
    def whole(self) -> None:
        if not hasattr(self, "cache"):
            return
        settle(self.cache)
        check_shared(self.cache.l0)
        assert not self.cache.flights
        assert self.cache.slow == 0
        stats = self.cache.stats()
        (tier,) = stats.tiers
        assert tier.errors == tier.owed == stats.load_errors == stats.demotions_lost == 0
        assert set(tier.refused) <= {"other key", "other generation", "expired"}
        for key in self.cache.l0:
            assert self.cache.l0.peek(key) is not MISSING


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=2_000 if LONG else 60, stateful_step_count=50, deadline=None
)
