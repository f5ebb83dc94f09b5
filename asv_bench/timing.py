"""Interleaved timing: contenders take turns of about a millisecond, a ratio compares one round's.

What slows the machine for longer than a round (another tenant, a lower clock) slows both sides of a
ratio; what is shorter hits few rounds, and the median drops it. The order of turns is drawn for
each round: nobody always follows the same neighbour, and nobody follows itself, who would find its
data warm. Loops are compiled per contender: the body is exactly the measured expression on local
variables, and nobody inherits another's specialised bytecode.
"""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

# A turn: long against a clock read (some 50 ns), short against the moods of the machine.
ROUND_NS = 1_500_000


@dataclass(frozen=True)
class Effort:
    """How long to measure: each build lays its objects out anew, then plays its rounds."""

    builds: int
    rounds: int
    large_rounds: int  # for populations built once, or expensive turns
    sets: int  # single sets timed for the pauses
    entries: int  # for the overhead per entry
    peer_entries: int  # the same, of every peer; a fifth as many rows of 4 KB
    table_rows: int  # most rows of a table of vectors
    imports: int


FULL = Effort(
    builds=8,
    rounds=40,
    large_rounds=150,
    sets=400_000,
    entries=2_000_000,
    peer_entries=500_000,
    table_rows=50_000_000,
    imports=15,
)
QUICK = Effort(
    builds=3,
    rounds=12,
    large_rounds=30,
    sets=200_000,
    entries=2_000_000,
    peer_entries=100_000,
    table_rows=1_000_000,
    imports=5,
)


Loop = Callable[[Any, Sequence[Any], int], tuple[int, int]]


def compile_loop(body: str) -> Loop:
    """Compile `for k in keys: body` into (c, keys, passes) -> (ns, m); the body may count in m."""
    source = (
        "def timed(c, keys, passes):\n"
        "    m = 0\n"
        "    start = clock()\n"
        "    for _ in repeat(None, passes):\n"
        "        for k in keys:\n"
        f"            {body}\n"
        "    return clock() - start, m\n"
    )
    namespace: dict[str, Any] = {"clock": perf_counter_ns, "repeat": itertools.repeat, "np": np}
    exec(source, namespace)
    timed: Loop = namespace["timed"]
    return timed


@dataclass
class Contender:
    """One side of a comparison: `turn(i)` plays round i and returns nanoseconds per operation."""

    name: str
    turn: Callable[[int], float]


def hot(name: str, body: str, c: Any, keys: Sequence[Any], per_item: int = 1) -> Contender:
    """Loop over the same keys in every turn, after an untimed pass to warm the processor's cache.

    `per_item`: operations one item of `keys` stands for (a batch of 1,000 keys is 1,000).
    """
    timed = compile_loop(body)
    estimate = min(timed(c, keys[: max(1, len(keys) // 10)], 10)[0] for _ in range(3))
    passes = max(1, round(ROUND_NS / max(1, estimate)))
    if estimate > 2 * ROUND_NS:  # a slow peer: a part of the keys is enough
        keys = keys[: max(1, len(keys) * ROUND_NS // estimate)]

    def turn(_: int) -> float:
        timed(c, keys, 1)
        return timed(c, keys, passes)[0] / (passes * len(keys) * per_item)

    return Contender(name, turn)


def cold(
    name: str, body: str, c: Any, parts: Sequence[Sequence[Any]], lag: int, per_item: int = 1
) -> Contender:
    """Loop over another part of a large population in each turn, `lag` parts behind the others.

    So no contender finds lines in the processor's cache that another has just brought there.
    """
    timed = compile_loop(body)
    timed(c, parts[lag % len(parts)], 1)

    def turn(i: int) -> float:
        part = parts[(i + lag) % len(parts)]
        return timed(c, part, 1)[0] / (len(part) * per_item)

    return Contender(name, turn)


def consuming(name: str, body: str, c: Any, lists: Iterator[list[Any]], warm: int) -> Contender:
    """Loop over new keys each time; their list is dropped then, so what `c` evicts is really freed.

    The lists are short: hardly any key is evicted while its own list still holds it. In each turn
    `warm` lists go untimed before twenty timed ones: the working set must come back, and it takes
    about as many sets as there are entries until nothing waits for it. A slow peer gets fewer.
    """
    timed = compile_loop(body)

    def play(times: int) -> float:
        total = count = 0
        for keys in itertools.islice(lists, times):
            total += timed(c, keys, 1)[0]
            count += len(keys)
            if total > 10 * ROUND_NS:
                break
        return total / count

    def turn(_: int) -> float:
        play(warm)
        return play(20)

    return Contender(name, turn)


class Stream(Contender):
    """Play a request stream once, part by part, and count the misses.

    The first half of each part is played untimed: it brings back into the processor's cache what
    the others displaced.
    """

    def __init__(self, name: str, body: str, c: Any, parts: Iterable[Sequence[Any]]) -> None:
        timed = compile_loop(body)
        rest = iter(parts)
        self._misses = self._requests = 0
        info = getattr(c, "cache_info", None)  # an lru_cache has no miss branch to count in

        def turn(_: int) -> float:
            part = next(rest)
            cut = len(part) // 2
            before = info().misses if info else 0
            missed = timed(c, part[:cut], 1)[1]
            spent, more = timed(c, part[cut:], 1)
            self._misses += info().misses - before if info else missed + more
            self._requests += len(part)
            return spent / (len(part) - cut)

        super().__init__(name, turn)

    def forget(self) -> None:
        """Start counting anew: the cache is warm."""
        self._misses = self._requests = 0

    @property
    def hit_ratio(self) -> float:
        """Hits over requests since the count began."""
        return 1 - self._misses / self._requests


@dataclass(frozen=True)
class Ratio:
    """The median and the quartiles of per-round ratios, and the two medians in ns per operation."""

    median: float
    low: float
    high: float
    ours_ns: float
    theirs_ns: float
    net: float | None  # the median ratio after taking the empty loop off both


class Samples:
    """Nanoseconds per operation of each contender in each round, over several builds."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[float]] = {}

    def play(self, contenders: Sequence[Contender], rounds: int) -> None:
        """Play interleaved rounds without garbage collection and add them to the samples."""
        order = random.Random(rounds)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            last = None
            for i in range(rounds):
                turns = order.sample(contenders, len(contenders))
                if turns[0] is last:
                    turns.append(turns.pop(0))
                last = turns[-1]
                for contender in turns:
                    self._rounds.setdefault(contender.name, []).append(contender.turn(i))
        finally:
            gc.enable()
            gc.unfreeze()

    def times(self, name: str) -> npt.NDArray[np.float64]:
        """Return the ns per operation of each round."""
        return np.array(self._rounds[name])

    def median(self, name: str) -> float:
        """Return the median ns per operation."""
        return float(np.median(self._rounds[name]))

    def ratio(self, ours: str, theirs: str, loop: str | None = None) -> Ratio:
        """Compare two contenders round by round; `loop` names the one that ran the empty loop."""
        a, b = self.times(ours), self.times(theirs)
        low, median, high = np.percentile(a / b, (25, 50, 75))
        net = None
        if loop is not None:
            empty = self.median(loop)
            net = float(np.median((a - empty) / np.maximum(b - empty, 0.1)))
        return Ratio(median, low, high, self.median(ours), self.median(theirs), net)
