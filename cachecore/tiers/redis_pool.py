"""Connections to the servers of one tier, and what is asked on them, within a deadline.

Each node has a pool for threads, and one for each event loop; the connection that was used last is
used first. A pool outlives neither its loop nor, in use, a fork: the child begins with none.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import hiredis

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.redis_link import ENDED, Helpers, Link, Node, Refusal, Steps
from cachecore.tiers.redis_wait import arun, run, run_all

# Errors of a server that may no longer be the right one: its connection is made anew, by name.
DISPLACED = frozenset({"READONLY", "MASTERDOWN", "NOAUTH"})
FAILURES = (OSError, hiredis.HiredisError, Refusal)


class Ask(NamedTuple):
    """Commands for one node, and what else matters for the asking."""

    node: Node
    payload: bytes
    wanted: int
    """How many replies it must bring."""
    again: bool = True
    """Whether they may be sent once more when the connection turns out to be closed."""
    share: float = 1.0
    """Of the time that is left, how much it may take."""


Answer = list[Any] | TierError
"""The replies, some of them maybe a `Refusal`; or why there are none."""


class _Pool:
    """The connections to one node, for one event loop or all threads."""

    def __init__(self, node: Node, limit: int) -> None:
        self._node, self._limit = node, limit
        self._idle: list[Link] = []
        self._links: WeakSet[Link] = WeakSet()  # one that got lost does not count
        self._turns: deque[Future[Link]] = deque()
        # Reentrant: the collector may run anybody's finalizers where something is made under it.
        self._lock = threading.RLock()

    def take(self) -> Link | None:
        """An idle connection, or one that is yet to be opened; None: wait for your turn."""
        return None if self._turns else self._next()

    def _next(self) -> Link | None:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        with self._lock:
            if len(self._links) >= self._limit:
                return None
            link = Link(self._node)
            self._links.add(link)
            return link

    def wait(self) -> Steps[Link]:
        """The same, in the order of asking: who asks later could else always be faster."""
        turn: Future[Link] = Future()
        self._turns.append(turn)
        self._serve()  # what was given back before we queued
        try:
            yield turn
            return turn.result()
        except BaseException:
            if not turn.cancel():
                self.give(turn.result())
            raise

    def give(self, link: Link) -> None:
        self._idle.append(link)
        if self._turns:
            self._serve()

    def drop(self, link: Link) -> None:
        link.close()
        with self._lock:
            self._links.discard(link)
        if self._turns:
            self._serve()

    def _serve(self) -> None:
        """Hand what there is to those who wait."""
        while self._turns and (link := self._next()) is not None:
            try:
                turn = self._turns.popleft()
            except IndexError:
                self._idle.append(link)
            else:
                if turn.set_running_or_notify_cancel():
                    turn.set_result(link)
                else:
                    self._idle.append(link)

    def shed(self) -> int:
        """Drop those that are idle; how many."""
        count = 0
        with suppress(IndexError):
            while True:
                self.drop(self._idle.pop())
                count += 1
        return count

    def close(self) -> None:
        """Drop what is idle, and end what is in use for its users, who drop it."""
        self.shed()
        for link in self.links():
            link.hang_up()

    def links(self) -> list[Link]:
        """All of them, in use or not."""
        with self._lock:
            return [*self._links]

    def leave(self) -> None:
        """In a child: close this process's descriptors; nothing is said on them."""
        for link in [*self._links]:  # the lock may have been held by a thread that is not here
            link.close()


_Pools = dict[Node, _Pool]


class Connections:
    """All of a tier's connections."""

    def __init__(self, name: str, limit: int) -> None:
        self._name, self._limit = name, limit
        self._lock = threading.RLock()
        self.counts: Counter[str] = Counter()
        self.closed = False
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._helpers = Helpers()
        self._threads: _Pools = {}
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pools] = WeakKeyDictionary()

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def open_now(self) -> int:
        return sum(link.is_open for pool in self._pools() for link in pool.links())

    # --- asking

    def exchange(self, asks: list[Ask], until: float) -> list[Answer]:
        """What each is answered by the moment `until`."""
        if self.closed:
            raise TierError(f"{self._name} is closed")
        pools = self._threads
        if len(asks) == 1:
            ask = asks[0]
            try:
                return [run(self._steps(pools, ask), _until(ask, until))]
            except FAILURES as error:
                return [self._failure(pools, ask, error)]
        # In one order for all threads, so that none holds what another waits for.
        order = sorted(range(len(asks)), key=lambda at: asks[at].node[:2])
        answers: list[Any] = [None] * len(asks)
        several = [self._steps(pools, asks[at]) for at in order]
        for at, answer in zip(order, run_all(several, until), strict=True):
            failed = isinstance(answer, Exception)
            answers[at] = self._failure(pools, asks[at], answer) if failed else answer
        return answers

    async def aexchange(self, asks: list[Ask], until: float) -> list[Answer]:
        """The same in an event loop."""
        if self.closed:
            raise TierError(f"{self._name} is closed")
        loop = asyncio.get_running_loop()
        pools = self._loops.get(loop)
        if pools is None:
            with self._lock:
                pools = self._loops.setdefault(loop, {})
        if len(asks) == 1:
            return [await self._answer(pools, asks[0], until)]
        return await asyncio.gather(*[self._answer(pools, ask, until) for ask in asks])

    async def _answer(self, pools: _Pools, ask: Ask, until: float) -> Answer:
        try:
            return await arun(self._steps(pools, ask), _until(ask, until))
        except FAILURES as error:
            return self._failure(pools, ask, error)

    def _steps(self, pools: _Pools, ask: Ask) -> Steps[list[Any]]:
        """Take a connection, ask, and give it back; drop it in case of any doubt."""
        pool = pools.get(ask.node) or pools.setdefault(ask.node, _Pool(ask.node, self._limit))
        link = pool.take() or (yield from pool.wait())
        try:
            replies = yield from self._ask(pool, link, ask)
        except BaseException:
            if link.is_open:
                self.count("dropped")
            pool.drop(link)
            raise
        refused = Refusal in map(type, replies)
        if refused and any(getattr(reply, "code", "") in DISPLACED for reply in replies):
            self.count("dropped", 1 + pool.shed())
            pool.drop(link)
        else:
            pool.give(link)
        if self.closed:
            pool.close()
        return replies

    def _ask(self, pool: _Pool, link: Link, ask: Ask) -> Steps[list[Any]]:
        """Ask on a connection, opened before if it is not, or is no longer, open."""
        if link.is_open and (ask.again or not link.has_ended()):
            try:
                return (yield from link.exchange(ask.payload, ask.wanted))
            except ENDED:
                if link.heard or not ask.again or self.closed:
                    raise
        if self.closed:
            raise TierError(f"{self._name} is closed")
        if link.is_open:  # it had been closed by the server
            self.count("retries")
            self.count("dropped", 1 + pool.shed())  # those that are idle are no younger
        yield from link.open(self._helpers)
        self.count("made")
        return (yield from link.exchange(ask.payload, ask.wanted))

    def _failure(self, pools: _Pools, ask: Ask, error: object) -> TierError:
        """What a caller is told instead of an answer."""
        if isinstance(error, TierError):
            return error
        if isinstance(error, TimeoutError):
            self.count("timeouts")
            self.count("dropped", pools[ask.node].shed())  # maybe something forgot them on the way
            return TierTimeoutError(f"{self._name}: {ask.node} did not answer in time")
        self.count("errors")
        if isinstance(error, OSError):
            text = error.strerror or str(error) or type(error).__name__
            return TierError(f"{self._name}: {ask.node}: {text}")
        if isinstance(error, Refusal):
            return TierError(f"{self._name}: {ask.node} lets nobody in: {error}")
        if isinstance(error, hiredis.HiredisError):
            return TierError(f"{self._name}: {ask.node} does not speak Redis' protocol: {error}")
        assert isinstance(error, Exception)
        raise error

    # --- the end

    def _pools(self) -> Iterator[_Pool]:
        with self._lock:
            every = [self._threads, *self._loops.values()]
        for pools in every:
            yield from [*pools.values()]

    def close(self) -> None:
        """Close all; calls that are under way end with an error."""
        self.closed = True
        for pool in self._pools():
            pool.close()

    def forget(self) -> None:
        """After a fork, in the child: leave the parent's connections to it, and begin anew."""
        self._lock = threading.RLock()
        for pool in self._pools():
            pool.leave()
        self._begin()


def _until(ask: Ask, until: float) -> float:
    if ask.share == 1.0:
        return until
    now = monotonic()
    return now + (until - now) * ask.share


def _forget_all() -> None:
    for connections in [*_all]:
        connections.forget()


_all: WeakSet[Connections] = WeakSet()
os.register_at_fork(after_in_child=_forget_all)
