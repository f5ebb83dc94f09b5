"""Backlog against a model: what waits, in which order, what is dropped, and how large it is."""

from __future__ import annotations

import gc
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cachecore._backlog import Backlog
from support import LONG

KEYS = [b"%d" % at for at in range(12)]
Given = tuple[bytes, bytes | None, None]


class BacklogMachine(RuleBasedStateMachine):
    """Operations of one caller and one worker, who may hold a batch while others come."""

    @initialize(items=st.integers(1, 10), size=st.integers(5, 60), drops=st.booleans())
    def begin(self, items: int, size: int, drops: bool) -> None:
        self.backlog = Backlog(items, size, drops)
        self.items, self.size, self.drops = items, size, drops
        self.waiting: dict[bytes, bytes | None] = {}
        self.order: list[bytes] = []  # of what is not being done
        self.taken: list[tuple[bytes, Any]] = []
        self.at_work: dict[bytes, bytes | None] = {}
        self.lost = 0

    def used(self) -> int:
        return sum(len(key) + len(data or b"") for key, data in self.waiting.items())

    def fits(self, key: bytes, data: bytes | None) -> bool:
        old = len(key) + len(self.waiting[key] or b"") if key in self.waiting else 0
        room = self.used() - old + len(key) + len(data or b"") <= self.size
        return room and (key in self.waiting or len(self.waiting) < self.items)

    @rule(
        given=st.lists(
            st.tuples(
                st.sampled_from(KEYS), st.one_of(st.none(), st.binary(max_size=20)), st.none()
            ),
            max_size=6,
        )
    )
    def put(self, given: list[Given]) -> None:
        expected = len(given)
        for at, (key, data, _) in enumerate(given):
            if len(key) + len(data or b"") > self.size:
                expected = at
                break
            while not self.fits(key, data) and self.drops and self.order:
                del self.waiting[self.order.pop(0)]
                self.lost += 1
            if not self.fits(key, data):
                expected = at
                break
            if key not in self.waiting:
                self.order.append(key)
            self.waiting[key] = data
        self.backlog.idle = True
        assert self.backlog.put(given) == (expected if given else -1)
        if expected == len(given):
            self.backlog.idle = False
            assert self.backlog.put([]) == -1

    @rule(most=st.integers(1, 5))
    def take(self, most: int) -> None:
        if not self.taken:
            self.taken = self.backlog.take(most)
            now, self.order = self.order[:most], self.order[most:]
            self.at_work = {key: self.waiting[key] for key in now}
            assert [(key, one.data) for key, one in self.taken] == list(self.at_work.items())
            self.before = dict(self.taken)

    @rule()
    def done(self) -> None:
        same = {key for key, one in self.taken if (self.backlog.look([key]) or [None])[0] is one}
        self.backlog.done(self.taken)
        for key in self.at_work:
            if key in same:
                del self.waiting[key]
            else:
                self.order.append(key)
        self.taken, self.at_work = [], {}

    @rule()
    def back(self) -> None:
        self.backlog.back(self.taken)
        self.order = [*self.at_work, *self.order]
        self.taken, self.at_work = [], {}

    @rule()
    def rest(self) -> None:
        assert self.backlog.rest() == (not self.waiting) == self.backlog.idle

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "backlog"):
            return
        assert len(self.backlog) == len(self.waiting) <= self.items
        assert self.backlog.size == self.used() <= self.size
        assert self.backlog.lost == self.lost
        assert self.backlog.waiting() == len(self.order)
        found = self.backlog.look(KEYS)
        there = [None] * len(KEYS) if found is None else found
        for key, one in zip(KEYS, there, strict=True):
            assert (one is not None) == (key in self.waiting)
            assert one is None or one.data == self.waiting[key]


TestBacklog = BacklogMachine.TestCase
TestBacklog.settings = settings(max_examples=1000 if LONG else 100, stateful_step_count=40)


def test_places_that_are_left_behind_are_given_back() -> None:
    backlog = Backlog(10, 10**6, True)
    for at in range(20_000):
        backlog.put([(b"%d" % at, b"", None)])
    assert (len(backlog), backlog.lost) == (10, 19_990)
    assert [key for key, _ in backlog.take(100)] == [b"%d" % at for at in range(19_990, 20_000)]


class Finicky:
    """Data that uses the backlog when it is asked for its size, and when it is released."""

    def __init__(self, backlog: Backlog) -> None:
        self.backlog = backlog

    @property
    def nbytes(self) -> int:
        self.use()
        return 100

    def use(self) -> None:
        self.backlog.put([(b"from within", b"x" * 50, 1000), (b"a", b"other", None)])

    def __call__(self) -> bytes:
        return b""

    def __del__(self) -> None:
        self.use()


def test_foreign_code() -> None:
    backlog = Backlog(5, 400, True)
    for at in range(500):
        item: Any = (b"%d" % (at % 7), Finicky(backlog), None)
        backlog.put([item])
        assert len(backlog) <= 5
        assert 0 <= backlog.size <= 400
        if at % 10 == 0:
            taken = backlog.take(3)
            (backlog.done if at % 20 else backlog.back)(taken)
    del item, taken
    while taken := backlog.take(10):
        backlog.done(taken)
        del taken
    gc.collect()
    while taken := backlog.take(10):
        backlog.done(taken)
    assert (len(backlog), backlog.size) == (0, 0)
