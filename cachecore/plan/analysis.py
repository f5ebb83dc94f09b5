"""`analyze`: how large a cache a trace needs, what it would save, and whether it is worth it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cachecore.plan.curve import Miniatures, Simulated, sampling_rate
from cachecore.plan.policies import MOST_REQUESTS, libcachesim_is_installed, published_curves
from cachecore.plan.terms import Settled, Terms, overhead, settle
from cachecore.plan.trace import Trace
from cachecore.plan.traffic import Traffic, traffic
from cachecore.plan.verdict import Verdict, judge
from cachecore.settings import positive_int, size_in_bytes

POINTS = 14  # of the curve
SMALLEST = 100  # entries of the curve's first cache, where there are so many keys
SAMPLED_SMALLEST = 256  # entries of the same in a sample: 64 in each of four
TARGETS = (0.5, 0.8, 0.9)
ENOUGH = 0.9  # of the attainable hits, where no price decides
NEAR = 1.02  # how much larger than the least size one that is looked for may be
REFINED = 5  # sizes tried around the one that saves most
WHOSE = (
    "other policies and the optimum are libcachesim's, whose W-TinyLFU has a fixed window and hits"
    " less than Caffeine's"
)
SAMPLED = (
    f"they were given a sample of {MOST_REQUESTS:,} requests: a difference of a point or two from"
    " Cache means little"
)
INSTALL = 'LRU, LFU, S3-FIFO, W-TinyLFU and the optimum need: pip install "cachecore-ml[plan]"'


@dataclass(frozen=True)
class Outcome:
    """What a cache of one size does.

    Attributes:
        entries: bound of their number; None for a bound of bytes.
        memory_bytes: of these entries, or the bound.
        hit_ratio: share of the requests that hit.
        error: standard error of it by sampling; 0 where all was simulated.
        byte_hit_ratio: share of the bytes asked for that hit; None without sizes.
        cost_saved: share of the costs of all requests that hits save; None without costs.
        latency: mean seconds of a request.
        gpu_hours_a_day: saved; None without a GPU time or a rate.
        saved_a_day, memory_a_day, net_a_day: prices of the GPU-hours saved and of the memory, and
            the difference; None without prices.
    """

    entries: int | None
    memory_bytes: float
    hit_ratio: float
    error: float
    byte_hit_ratio: float | None
    cost_saved: float | None
    latency: float
    gpu_hours_a_day: float | None
    saved_a_day: float | None
    memory_a_day: float | None
    net_a_day: float | None


@dataclass(frozen=True)
class Target:
    """A hit ratio asked for, and the least cache that has it; None: no cache does."""

    hit_ratio: float
    outcome: Outcome | None


@dataclass(frozen=True)
class Plan:
    """All that was found out about a trace.

    Attributes:
        requests: how many were read; `complete` says if that is the whole log.
        sample_rate: share of the keys whose requests were analysed; 1: all.
        sizes_known: share of the requests whose sizes the log tells.
        traffic: statistics.
        terms: what hits, misses and memory cost, given or assumed.
        attainable: hit ratio of a cache that holds everything: first requests miss always.
        curve: caches bound by entries, from small to all distinct keys.
        policies: hit ratios of other policies at the curve's sizes, None where not known; empty
            without libcachesim.
        byte_curve: caches bound by bytes; empty without sizes.
        targets: least sizes for hit ratios asked for.
        asked: caches of sizes asked for.
        recommended: the cache to take, and `chosen`: why this size.
        verdict: whether a cache is worth it.
        notes: what else a reader should know.
    """

    requests: int
    complete: bool
    sample_rate: float
    sizes_known: float
    traffic: Traffic
    terms: Settled
    attainable: float
    curve: tuple[Outcome, ...]
    policies: dict[str, list[float | None]]
    byte_curve: tuple[Outcome, ...]
    targets: tuple[Target, ...]
    asked: tuple[Outcome, ...]
    recommended: Outcome
    chosen: str
    verdict: Verdict
    notes: tuple[str, ...]


def analyze(
    trace: Trace,
    terms: Terms | None = None,
    *,
    targets: Sequence[float] = TARGETS,
    maxsize: Sequence[int] = (),
    max_bytes: Sequence[int | str] = (),
    progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> Plan:
    """Plan a cache for a trace: `trace_of` arrays, or `collect`ed from a log.

    Args:
        trace: at least one request.
        terms: latencies and prices; what is None is assumed or left out.
        targets: hit ratios, above 0 and below 1, whose least cache is wanted.
        maxsize: entries of caches to simulate besides.
        max_bytes: bytes of caches to simulate besides.
        progress: called with what is done and the share of it that is.

    Raises:
        ValueError, TypeError: no request, a target or size out of range or of the wrong kind, or
            terms that lack what they need.
    """
    if not len(trace.keys):
        raise ValueError("no request to plan for")
    for target in targets:
        if not 0 < target < 1:
            raise ValueError(f"a target must be above 0 and below 1, not {target}")
    entries = [positive_int(number, "maxsize") for number in maxsize]
    bounds = [size_in_bytes(number, "max_bytes") for number in max_bytes]
    known = traffic(trace)
    settled = settle(terms or Terms(), trace, known)
    sizer = Sizer(trace, known, settled, progress)
    curve = sizer.curve()
    recommended, chosen = sizer.recommended(curve)
    notes = _notes(trace)
    policies: dict[str, list[float | None]] = {}
    if not libcachesim_is_installed():
        notes.append(INSTALL)
    else:
        sizes = [outcome.entries or 0 for outcome in curve]
        try:
            policies = published_curves(
                trace, sizes, lambda share: progress("other policies", share)
            )
            notes.append(WHOSE)
            if len(trace.keys) > MOST_REQUESTS:
                notes.append(SAMPLED)
        except RuntimeError as error:
            notes.append(str(error))
    return Plan(
        requests=trace.requests,
        complete=trace.complete,
        sample_rate=trace.rate,
        sizes_known=trace.sizes_known,
        traffic=known,
        terms=settled,
        attainable=sizer.attainable,
        curve=curve,
        policies=policies,
        byte_curve=sizer.byte_curve(),
        targets=tuple(Target(target, sizer.least(target, curve)) for target in targets),
        asked=(
            *(sizer.of_entries(number) for number in entries),
            *(sizer.of_bytes(bound) for bound in bounds),
        ),
        recommended=recommended,
        chosen=chosen,
        verdict=judge(
            attainable=sizer.attainable,
            half=sizer.of_entries(max(1, known.distinct_keys // 2)).hit_ratio,
            hit_ratio=recommended.hit_ratio,
            memory_bytes=recommended.memory_bytes,
            net_a_day=recommended.net_a_day,
            saved_a_day=recommended.saved_a_day,
            memory_a_day=recommended.memory_a_day,
            distinct_keys=known.distinct_keys,
            terms=settled,
        ),
        notes=tuple(notes),
    )


class Sizer:
    """Simulates caches of any size over a trace and says what each would cost and save."""

    def __init__(
        self,
        trace: Trace,
        known: Traffic,
        terms: Settled,
        progress: Callable[[str, float], None],
    ) -> None:
        self._trace, self._known, self._terms, self._progress = trace, known, terms, progress
        distinct = (int(trace.keys.max()) + 1) / trace.rate
        self.attainable = max(0.0, 1 - distinct / trace.requests)
        rate = sampling_rate(len(trace.keys))
        if trace.rate < 1:
            rate = min(rate, 0.25)  # four quarters, whose spread is the error
        self._rate = rate
        self._by_entries = self._miniatures(trace.sizes)
        self._by_bytes = None
        if trace.sizes is not None:
            self._by_bytes = self._miniatures(trace.sizes + round(overhead(trace)))

    def of_entries(self, entries: int) -> Outcome:
        """A cache of so many entries."""
        found = self._by_entries.at(min(entries, self._known.distinct_keys))
        if entries >= self._known.distinct_keys:  # nothing leaves it: no chance, and no error
            found = found._replace(hit_ratio=self.attainable, error=0.0)
        return self._outcome(entries, entries * self._terms.entry_bytes, found)

    def of_bytes(self, bound: int) -> Outcome:
        """A cache of so many bytes; of entries of the mean size where sizes are not known."""
        if self._by_bytes is None:
            return self.of_entries(max(1, int(bound / self._terms.entry_bytes)))
        return self._outcome(None, bound, self._by_bytes.at(max_bytes=bound))

    def curve(self) -> tuple[Outcome, ...]:
        """Caches from small to all distinct keys, in even steps of the logarithm."""
        most = self._known.distinct_keys
        least = SMALLEST if self._trace.rate == 1 else SAMPLED_SMALLEST / self._trace.rate
        least = max(1, min(int(least), most // 10))
        sizes = np.unique(np.geomspace(least, most, POINTS).round().astype(int))
        return self._side_by_side(self.of_entries, sizes.tolist(), "simulating")

    def byte_curve(self) -> tuple[Outcome, ...]:
        """Caches from a thousandth of all bytes to all of them."""
        if self._known.working_set_bytes is None:
            return ()
        most = self._known.working_set_bytes + overhead(self._trace) * self._known.distinct_keys
        sizes = np.unique(np.geomspace(max(most / 1000, 1), most, POINTS).round().astype(int))
        return self._side_by_side(self.of_bytes, sizes.tolist(), "simulating bounds of bytes")

    def least(self, hit_ratio: float, curve: Sequence[Outcome]) -> Outcome | None:
        """The least cache with a hit ratio, to 2 %; None if there is none."""
        above = next((i for i, outcome in enumerate(curve) if outcome.hit_ratio >= hit_ratio), None)
        if above is None:
            return None
        best, low = curve[above], _entries(curve[above - 1]) if above else 0
        while tried := self._between(low, _entries(best), 2):
            reached = [outcome for outcome in tried if outcome.hit_ratio >= hit_ratio]
            best = reached[0] if reached else best
            low = max([low, *(_entries(o) for o in tried if _entries(o) < _entries(best))])
            if _entries(best) <= low * NEAR:
                break
        return best

    def recommended(self, curve: Sequence[Outcome]) -> tuple[Outcome, str]:
        """The cache that saves most or, without prices, hits nearly always; how it was chosen."""
        if curve[0].net_a_day is None:
            enough = self.least(ENOUGH * self.attainable, curve)
            why = f"the least that has {ENOUGH:.0%} of the attainable hits"
            return enough or curve[-1], why
        best = max(curve, key=_net)
        at = curve.index(best)
        low, high = curve[max(at - 1, 0)], curve[min(at + 1, len(curve) - 1)]
        best = max([best, *self._between(_entries(low), _entries(high), REFINED)], key=_net)
        return best, "the one that saves most after its memory is paid for"

    def _between(self, low: int, high: int, count: int) -> tuple[Outcome, ...]:
        steps = np.geomspace(max(low, 1), high, count + 2)[1:-1].round().astype(int)
        sizes = [n for n in np.unique(steps).tolist() if low < n < high]
        return self._side_by_side(self.of_entries, sizes, "looking for sizes")

    def _side_by_side(
        self, simulate: Callable[[int], Outcome], sizes: Iterable[int], what: str
    ) -> tuple[Outcome, ...]:
        wanted = list(sizes)
        found = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for number, outcome in enumerate(pool.map(simulate, wanted), 1):
                found.append(outcome)
                self._progress(what, number / len(wanted))
        return tuple(found)

    def _miniatures(self, sizes: npt.NDArray[np.int64] | None) -> Miniatures:
        trace = self._trace
        return Miniatures(
            trace.keys,
            self._rate,
            sizes=sizes,
            costs=trace.costs,
            held=trace.rate,
            requests=trace.requests,
        )

    def _outcome(self, entries: int | None, memory_bytes: float, found: Simulated) -> Outcome:
        terms = self._terms
        hours = terms.gpu_hours_a_day(found.hit_ratio)
        memory = terms.memory_a_day(memory_bytes)
        saved = None
        if hours is not None and terms.gpu_hour_price is not None:
            saved = hours * terms.gpu_hour_price
        return Outcome(
            entries=entries,
            memory_bytes=memory_bytes,
            latency=terms.latency(found.hit_ratio),
            gpu_hours_a_day=hours,
            saved_a_day=saved,
            memory_a_day=memory,
            net_a_day=None if saved is None or memory is None else saved - memory,
            **found._asdict(),
        )


def _entries(outcome: Outcome) -> int:
    return outcome.entries or 0


def _net(outcome: Outcome) -> float:
    return outcome.net_a_day or 0.0


def _notes(trace: Trace) -> list[str]:
    notes = []
    if not trace.complete:
        notes.append(
            f"few keys and very many requests: the first {trace.requests:,} were analysed, the rest"
            " of the log was not read"
        )
    if trace.rate < 1:
        notes.append(
            f"the requests of {trace.rate:.3g} of the keys were analysed, chosen by hash (SHARDS),"
            " and all counts scaled"
        )
    if 0 < trace.sizes_known < 1:
        notes.append(
            f"the sizes of {trace.sizes_known:.1%} of the requests are known; others were taken as"
            " their key's or the mean"
        )
    return notes
