"""SemanticCache: answers for queries that mean the same as one that was answered before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cachecore.ml.calibration import Calibration
from cachecore.ml.index import MOST_EXACT, ExactIndex, index_kind
from cachecore.ml.semantic_parts import (
    Hit,
    SemanticStats,
    check_ttl,
    size_of,
    text_of,
    texts_of,
    values_of,
)
from cachecore.ml.semantic_steps import SemanticSteps, all_by, one_by
from cachecore.ml.steps import arun, run
from cachecore.settings import bounds, share


class SemanticCache(SemanticSteps):
    """A bounded cache by text whose look-ups also find what is set under a similar text.

    A look-up takes what is set under the very text, without an embedding. Else the text is
    embedded, and what is set under the nearest one is taken if their cosine is at least the
    threshold and the verifier, if there is one, agrees. Cosines do not see everything: negations,
    numbers and who does what to whom change them little. `calibrate` measures that.

    Args:
        embed: called as embed(texts) with a list of str; returns their embeddings, (n, dim), an
            array or what becomes one. They need not be of length 1.
        threshold: a cosine of 0 ... 1 from which a query is a hit; or call `calibrate`.
        maxsize, max_bytes, ttl, getsizeof, timer: as of `Cache`; a bound is required. An entry
            counts its embedding, too. What the cache evicts or expires leaves the index.
        verify: called as verify(query, matched, value) before a semantic hit; false: a miss.
        index: "exact" looks at all embeddings, at most 100,000; "usearch" at some in a graph of
            them, and may miss the nearest one; "auto" is "usearch" where more than 20,000 entries
            may come, for which it is faster, and it is installed.

    Thread safe; a forked child has a copy of its own. `embed`, `verify` and `compute` are called
    without a lock. Methods that begin with an "a" are for tasks of any event loop: they await those
    of the three that are coroutine functions, and call the others in a thread.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named. What
            `embed` returned has another shape, or a row that is zero or not finite: nothing is
            kept then.
        ImportError: index="usearch" without that package.
    """

    def __init__(
        self,
        embed: Callable[[list[str]], Any],
        *,
        threshold: float | None = None,
        maxsize: int | None = None,
        max_bytes: int | str | None = None,
        ttl: float | None = None,
        verify: Callable[[str, str, Any], object] | None = None,
        index: str = "auto",
        getsizeof: Callable[[Any], float] | None = None,
        timer: Callable[[], float] | None = None,
    ) -> None:
        if getsizeof is not None and not callable(getsizeof):
            raise TypeError(f"getsizeof must be callable, not {type(getsizeof).__name__}")
        maxsize, max_bytes = bounds(maxsize, max_bytes)
        self._kind = index_kind(index, maxsize)
        if maxsize is None and self._kind is ExactIndex:
            maxsize = MOST_EXACT
        self._getsizeof = getsizeof or size_of
        super().__init__(
            embed, verify, self._kind, maxsize=maxsize, max_bytes=max_bytes, ttl=ttl, timer=timer,
            getsizeof=None if max_bytes is None else self._entry_size,
        )  # fmt: skip
        if threshold is not None:
            self.threshold = threshold

    def _entry_size(self, value: Any) -> float:
        return self._getsizeof(value) + 4 * self._dim + self._kind.overhead

    @property
    def threshold(self) -> float | None:
        """The cosine from which a query is a hit; None: not chosen yet. It can be set."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold = share(value, "threshold")

    @property
    def dim(self) -> int | None:
        """Numbers in an embedding; None before the first one."""
        return self._dim or None

    # --- look-ups

    def get(self, query: str) -> Hit | None:
        """What is set under this query or one that is near enough; None: nothing.

        Raises:
            RuntimeError: there is no threshold yet.
        """
        text = text_of(query)
        hit = self._exact(text)
        return run(self._absent([text]))[text] if hit is None else hit

    async def aget(self, query: str) -> Hit | None:
        """The same as `get`, in a task."""
        text = text_of(query)
        hit = self._exact(text)
        return (await arun(self._absent([text])))[text] if hit is None else hit

    def get_many(self, queries: Iterable[str]) -> list[Hit | None]:
        """The same for many, aligned with them; those not set are embedded in one call."""
        hits: list[Hit | None] = run(self._many(texts_of(queries)))
        return hits

    async def aget_many(self, queries: Iterable[str]) -> list[Hit | None]:
        """The same as `get_many`, in a task."""
        hits: list[Hit | None] = await arun(self._many(texts_of(queries)))
        return hits

    def nearest(self, query: str) -> Hit | None:
        """What is set under the nearest query, however far: without the threshold, not counted.

        For drawing the pairs of `calibrate`: (query, nearest.query, whether its value is right).
        """
        hit: Hit | None = run(self._nearest_hit(text_of(query)))
        return hit

    async def anearest(self, query: str) -> Hit | None:
        """The same as `nearest`, in a task."""
        hit: Hit | None = await arun(self._nearest_hit(text_of(query)))
        return hit

    def __contains__(self, query: object) -> bool:
        """Whether the very text is set; no look-up."""
        return query in self._cache

    def __len__(self) -> int:
        return len(self._cache)

    # --- writes

    def set(self, query: str, value: Any, *, ttl: float | None = None) -> None:
        """Set the value of a query."""
        self.set_many([(text_of(query), value)], ttl=ttl)

    async def aset(self, query: str, value: Any, *, ttl: float | None = None) -> None:
        """The same as `set`, in a task."""
        await self.aset_many([(text_of(query), value)], ttl=ttl)

    def set_many(
        self, items: Mapping[str, Any] | Iterable[tuple[str, Any]], *, ttl: float | None = None
    ) -> None:
        """Set the values of many queries; they are embedded in one call."""
        check_ttl(ttl)
        run(self._set(values_of(items), ttl))

    async def aset_many(
        self, items: Mapping[str, Any] | Iterable[tuple[str, Any]], *, ttl: float | None = None
    ) -> None:
        """The same as `set_many`, in a task."""
        check_ttl(ttl)
        await arun(self._set(values_of(items), ttl))

    def delete(self, query: str) -> bool:
        """Delete the value of this very query; False if there is none."""
        text = text_of(query)
        there = self._cache.delete(text)
        self._neighbours.left(text)
        return there

    def clear(self) -> None:
        """Delete everything; the threshold and the counts stay."""
        self._cache.clear()
        self._neighbours.clear()

    def expire(self) -> int:
        """Take out what has expired; how much it was. Insertions do so, too, by and by."""
        return self._cache.expire()

    # --- both

    def get_or_compute(
        self, query: str, compute: Callable[[str], Any], *, ttl: float | None = None
    ) -> Hit:
        """A hit, or what compute(query) returns, which is set; `computed` says which.

        Of all who ask for the same text at a time, one computes. What `compute` raises comes out,
        and nothing is set.
        """
        text, steps = text_of(query), one_by(compute)
        check_ttl(ttl)
        hit = self._exact(text)
        return run(self._absent([text], steps, ttl))[text] if hit is None else hit

    async def aget_or_compute(
        self, query: str, compute: Callable[[str], Any], *, ttl: float | None = None
    ) -> Hit:
        """The same as `get_or_compute`, in a task.

        If that is cancelled while it computes, the computation goes on, for others who may wait.
        """
        text, steps = text_of(query), one_by(compute)
        check_ttl(ttl)
        hit = self._exact(text)
        return (await arun(self._absent([text], steps, ttl)))[text] if hit is None else hit

    def get_or_compute_many(
        self,
        queries: Iterable[str],
        compute: Callable[[list[str]], Any],
        *,
        ttl: float | None = None,
    ) -> list[Hit]:
        """The same for many: compute(texts) gets those that are no hits, in one call, each once.

        It returns a sequence of values aligned with them.
        """
        check_ttl(ttl)
        hits: list[Hit] = run(self._many(texts_of(queries), all_by(compute), ttl))
        return hits

    async def aget_or_compute_many(
        self,
        queries: Iterable[str],
        compute: Callable[[list[str]], Any],
        *,
        ttl: float | None = None,
    ) -> list[Hit]:
        """The same as `get_or_compute_many`, in a task."""
        check_ttl(ttl)
        hits: list[Hit] = await arun(self._many(texts_of(queries), all_by(compute), ttl))
        return hits

    # --- the threshold

    def calibrate(
        self,
        pairs: Iterable[tuple[str, str, bool]],
        max_false_hit_rate: float = 0.01,
        *,
        confidence: float = 0.95,
        verified: bool = False,
    ) -> Calibration:
        """Choose the lowest threshold that keeps false hits to a rate, and use it.

        Args:
            pairs: (query, cached query, whether they have the same answer), drawn as they occur: of
                look-ups and the nearest query that the cache had then (see `nearest`). Pairs
                drawn at random are less similar, and promise too much.
            max_false_hit_rate: of the pairs whose answers differ, the share that may be hits, above
                0 and below 1. With the stated confidence it is kept beyond the sample, too.
            confidence: above 0 and below 1.
            verified: pairs that the verifier refuses are no hits; it gets None for the value. By
                default it is not asked, and can only lower the rate further.

        Raises:
            ValueError: the sample is too small for that rate and confidence (1 % at 95 % takes 299
                pairs with different answers), or no threshold keeps to the rate; the threshold
                stays as it was.
        """
        steps = self._calibrate(pairs, max_false_hit_rate, confidence, verified)
        chosen: Calibration = run(steps)
        return chosen

    async def acalibrate(
        self,
        pairs: Iterable[tuple[str, str, bool]],
        max_false_hit_rate: float = 0.01,
        *,
        confidence: float = 0.95,
        verified: bool = False,
    ) -> Calibration:
        """The same as `calibrate`, in a task."""
        steps = self._calibrate(pairs, max_false_hit_rate, confidence, verified)
        chosen: Calibration = await arun(steps)
        return chosen

    def stats(self) -> SemanticStats:
        """What was counted so far."""
        with self._neighbours.lock:
            cache = self._cache.stats()
            return SemanticStats(
                exact_hits=cache.hits - self._uses,
                semantic_hits=self._semantic_hits,
                misses=self._misses,
                verified_away=self._verified_away,
                similarities=tuple(self._similarities),
                cache=cache,
            )
