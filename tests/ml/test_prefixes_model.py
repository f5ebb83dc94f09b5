"""Long random sequences of operations on a PrefixCache, beside a model, with and without a tier.

Few tokens and short blocks, so that prefixes meet. A block's state tells the prefix it belongs to.
After each operation the structure is checked, in which each block has all those above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cachecore.ml import PrefixCache
from cachecore.tiers import Item, Tier
from support import LONG

WIDTH = 2

Prefix = tuple[int, ...]


class DictTier(Tier):
    """A tier without bounds."""

    quick = True

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.kept.get(key) for key in keys]

    def set_many(self, items: Sequence[Item]) -> None:
        self.kept.update({item.key: item.data for item in items})


def state(prefix: Prefix, writer: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([writer, *prefix])


class Prefixes(RuleBasedStateMachine):
    cache: PrefixCache

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[Prefix, set[int]] = {}  # who ever put it
        self.held: list[tuple[Prefix, list[Any]]] = []
        self.tier: DictTier | None = None
        self.writer = 0

    @initialize(room=st.sampled_from([400, 1200, 3000, 10**6]), tier=st.booleans())
    def make(self, room: int, tier: bool) -> None:
        self.tier = DictTier() if tier else None
        self.cache = PrefixCache(block=WIDTH, max_bytes=room, below=self.tier)

    tokens = st.lists(st.integers(0, 2), max_size=17).map(tuple)

    def prefixes(self, tokens: Prefix) -> list[Prefix]:
        return [tokens[:end] for end in range(WIDTH, len(tokens) + 1, WIDTH)]

    def right(self, tokens: Prefix, blocks: list[Any]) -> None:
        for prefix, block in zip(self.prefixes(tokens), blocks, strict=False):
            assert block[0] in self.kept[prefix]
            assert tuple(block[1:]) == prefix

    def put(self, tokens: Prefix, start: int) -> None:
        prefixes = self.prefixes(tokens)
        self.writer += 1
        for prefix in prefixes[start:]:
            self.kept.setdefault(prefix, set()).add(self.writer)
        blocks = [state(prefix, self.writer) for prefix in prefixes[start:]]
        here = self.cache.put(tokens, blocks, start * WIDTH)
        assert here % WIDTH == 0
        if self.tier is None:
            assert self.cache.match(tokens).length == here
        else:
            assert self.cache.match(tokens).length >= here

    @rule(tokens=tokens)
    def put_all(self, tokens: Prefix) -> None:
        self.put(tokens, 0)

    @rule(tokens=tokens, data=st.data())
    def put_the_rest(self, tokens: Prefix, data: st.DataObject) -> None:
        self.put(tokens, data.draw(st.integers(0, len(tokens) // WIDTH)))

    @rule(tokens=tokens)
    def match(self, tokens: Prefix) -> None:
        found = self.cache.match(tokens)
        assert found.length == WIDTH * len(found.blocks)
        self.right(tokens, found.blocks)
        self.held.append((tokens, found.blocks))
        del self.held[:-5]

    @rule(tokens=tokens)
    def match_and_put_again(self, tokens: Prefix) -> None:
        found = self.cache.match(tokens)
        rest = self.prefixes(tokens)[len(found.blocks) :]
        self.writer += 1
        for prefix in rest:
            self.kept.setdefault(prefix, set()).add(self.writer)
        self.cache.put(tokens, [*found.blocks, *(state(prefix, self.writer) for prefix in rest)])

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        assert len(self.cache) == self.cache.nbytes == 0

    @invariant()
    def sound(self) -> None:
        if not hasattr(self, "cache"):
            return
        self.cache._check()
        counts = self.cache.stats()
        assert counts.inserts == counts.blocks + counts.evictions + counts.deletions
        assert counts.lost == 0
        assert counts.matched_tokens <= counts.asked_tokens

    @invariant()
    def what_was_handed_out_stays(self) -> None:
        for tokens, blocks in self.held:
            self.right(tokens, blocks)


class NothingIsLost(RuleBasedStateMachine):
    """Over a tier without bounds whatever was kept is found again, however little fits here."""

    @initialize(room=st.sampled_from([400, 1200, 3000]))
    def make(self, room: int) -> None:
        self.cache = PrefixCache(block=WIDTH, max_bytes=room, below=DictTier())
        self.kept: set[Prefix] = set()

    @rule(tokens=Prefixes.tokens)
    def put(self, tokens: Prefix) -> None:
        found = self.cache.match(tokens)
        prefixes = [tokens[:end] for end in range(WIDTH, len(tokens) + 1, WIDTH)]
        rest = [state(prefix, 0) for prefix in prefixes[len(found.blocks) :]]
        here = self.cache.put(tokens, [*found.blocks, *rest])
        self.kept.update(prefix for prefix in prefixes if len(prefix) <= here)

    @rule(tokens=Prefixes.tokens)
    def match(self, tokens: Prefix) -> None:
        found = self.cache.match(tokens)
        longest = max(
            (len(prefix) for prefix in self.kept if tokens[: len(prefix)] == prefix), default=0
        )
        assert found.length == longest
        self.cache._check()


Prefixes.TestCase.settings = settings(max_examples=1000 if LONG else 60, deadline=None)
NothingIsLost.TestCase.settings = settings(max_examples=1000 if LONG else 40, deadline=None)
TestPrefixes = Prefixes.TestCase
TestNothingIsLost = NothingIsLost.TestCase
