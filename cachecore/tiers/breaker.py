"""Circuit breaker: a tier that keeps failing is not asked for a while, so that it costs no time.

Closed, everything passes. After some failures in a row it is open: calls fail at once. When the
pause is over one call goes through, the probe, while all others are still refused (half-open): its
success closes the breaker, its failure opens it for a pause twice as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import wraps
from random import random
from typing import Any, TypeVar, cast

from cachecore.errors import TierError, TierTimeoutError
from cachecore.settings import positive_int, seconds
from cachecore.tiers.base import Item, Tier, Wrapper

M = TypeVar("M", bound=Callable[..., Any])

JITTER = 0.25  # of a pause: many processes that lost one server do not all probe it at once


class Circuit:
    """Whether to ask what may be down. Its users report how each call went.

        probe = circuit.refusing
        if probe and not circuit.admit():
            ...  # do not ask
        ...  # ask, then call succeeded(probe), failed(probe) or, if probe: released()

    There is no lock, which a fork or a dead thread could leave held: under the GIL nothing comes
    between a look and the step that depends on it; without it, at worst two probes go at once.
    """

    __slots__ = (
        "_bound", "_failures", "_most", "_pause", "_probing", "_retry_at", "_timer", "_wait",
        "opened", "probes", "refused", "refusing", "trouble",
    )  # fmt: skip

    def __init__(
        self, failures: int, pause: float, most: float, timer: Callable[[], float]
    ) -> None:
        self._failures, self._pause, self._most, self._timer = failures, pause, most, timer
        self.refusing = False
        self.trouble = 0  # failures in a row; at least one while refusing
        self._wait = pause  # of the next opening
        self._retry_at = 0.0
        self._probing = False
        self.opened = self.refused = self.probes = 0

    @property
    def state(self) -> str:
        """One of "closed", "open" and "half-open"."""
        if not self.refusing:
            return "closed"
        return "half-open" if self._probing else "open"

    def admit(self) -> bool:
        """Whether this call is the probe; only asked while `refusing`."""
        now = self._timer()
        if now < self._retry_at:
            self.refused += 1
            return False
        # A probe that never reports, its thread dead or stuck, gives way to another after a pause.
        self._retry_at = now + self._wait
        self._probing = True
        self.probes += 1
        return True

    def succeeded(self, probe: bool) -> None:
        """It answered; needs to be called only if `trouble` is not 0."""
        if probe or not self.refusing:  # else: what was asked before says nothing of now
            self.trouble, self._wait = 0, self._pause
            self.refusing = self._probing = False

    def failed(self, probe: bool) -> None:
        """It did not answer, or too late."""
        if probe != self.refusing:  # asked before it was opened, or by a probe given up
            return
        self.trouble += 1
        if not probe and self.trouble < self._failures:
            return
        wait = self._wait
        self._retry_at = self._timer() + wait * (1 + JITTER * random())
        self._wait = min(2 * wait, self._most)
        self.opened += not probe
        self.refusing, self._probing = True, False

    def released(self) -> None:
        """The probe was given up: the next call may be one."""
        self._retry_at, self._probing = self._timer(), False


def is_failure(error: TierError) -> bool:
    """Whether an error says that a tier is down or slow.

    It does not when part of the answer came in time: one of several servers is down then, and the
    others are worth asking.
    """
    return error.values is None or isinstance(error, TierTimeoutError)


def _guarded(method: M) -> M:
    @wraps(method)
    def call(self: Breaker, batch: Any, /) -> Any:  # of one argument, at half the price of many
        circuit = self._circuit
        probe = circuit.refusing
        if probe and not circuit.admit():
            raise TierError(self._refusal)
        try:
            answer = method(self, batch)
        except BaseException as error:
            self._report(error, probe)
            raise
        if circuit.trouble:
            circuit.succeeded(probe)
        return answer

    return cast(M, call)


def _aguarded(method: M) -> M:
    @wraps(method)
    async def call(self: Breaker, batch: Any, /) -> Any:
        circuit = self._circuit
        probe = circuit.refusing
        if probe and not circuit.admit():
            raise TierError(self._refusal)
        try:
            answer = await method(self, batch)
        except BaseException as error:
            self._report(error, probe)
            raise
        if circuit.trouble:
            circuit.succeeded(probe)
        return answer

    return cast(M, call)


class Breaker(Wrapper):
    """A tier that fails at once while the tier it wraps is down.

    Args:
        tier: What to ask.
        failures: So many in a row open the breaker. A failure is a `TierError`, but one that came
            in time with part of the answer (its `values`). Other exceptions are none.
        pause: Seconds until the first probe. Each probe that fails doubles it. Up to a quarter is
            added at random.
        most: Seconds that a pause grows to.
        timer: A clock in seconds.

    While it is open, every call but `scan` and `close` raises `TierError`. A probe that is
    cancelled or interrupted, or ends with an exception that is no `TierError`, decides nothing; the
    next call is one. Threads and event loops share the state. `stats()` adds how often it `opened`,
    and the calls that it `refused` or let through as `probes`.
    """

    def __init__(
        self,
        tier: Tier,
        *,
        failures: int = 5,
        pause: float = 1.0,
        most: float = 30.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(tier)
        if not callable(timer):
            raise TypeError(f"timer must be callable, not {type(timer).__name__}")
        failures = positive_int(failures, "failures")
        pause, most = seconds(pause, "pause"), seconds(most, "most")
        if most < pause:
            raise ValueError(f"most must be at least pause, {pause} seconds, not {most}")
        self._circuit = Circuit(failures, pause, most, timer)
        self._refusal = f"{self.name} is not asked: it failed at least {failures} times in a row"

    @property
    def state(self) -> str:
        """One of "closed", "open" and "half-open"."""
        return self._circuit.state

    def _report(self, error: BaseException, probe: bool) -> None:
        if isinstance(error, TierError):
            if is_failure(error):
                self._circuit.failed(probe)
            else:
                self._circuit.succeeded(probe)
        elif probe:
            self._circuit.released()

    get_many = _guarded(Wrapper.get_many)
    set_many = _guarded(Wrapper.set_many)
    delete_many = _guarded(Wrapper.delete_many)
    add = _guarded(Wrapper.add)
    aget_many = _aguarded(Wrapper.aget_many)
    aset_many = _aguarded(Wrapper.aset_many)
    adelete_many = _aguarded(Wrapper.adelete_many)
    aadd = _aguarded(Wrapper.aadd)

    @_guarded
    def _demote(self, both: tuple[Sequence[Item], Sequence[int]]) -> None:
        self.tier.demote_many(*both)

    def demote_many(self, items: Sequence[Item], frequencies: Sequence[int]) -> None:
        self._demote((items, frequencies))

    def stats(self) -> dict[str, int]:
        circuit = self._circuit
        own = {"opened": circuit.opened, "refused": circuit.refused, "probes": circuit.probes}
        return {**self.tier.stats(), **own}


def guarded(tier: Tier) -> Tier:
    """The tier behind a breaker, unless it has one, or takes microseconds and does not hang."""
    inner = tier
    while not isinstance(inner, Breaker) and isinstance(inner, Wrapper):
        inner = inner.tier
    return tier if tier.quick or isinstance(inner, Breaker) else Breaker(tier)
