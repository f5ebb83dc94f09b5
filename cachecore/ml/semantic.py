"""SemanticCache: answers for queries that mean the same as one that was answered before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cachecore._core import Cache
from cachecore.ml.calibration import Calibration, calibrated
from cachecore.ml.flights import BatchFlights
from cachecore.ml.index import MOST_EXACT, ExactIndex, Found, index_kind, unit_rows
from cachecore.ml.neighbours import Neighbours
from cachecore.ml.semantic_parts import (
    BINS,
    Hit,
    SemanticStats,
    open_share,
    size_of,
    text_of,
    texts_of,
)
from cachecore.sentinel import MISSING
from cachecore.settings import bounds, seconds, share


class SemanticCache:
    """A bounded cache by text whose look-ups also find what is set under a similar text.

    A look-up takes what is set under the very text, without an embedding. Else the text is
    embedded, and what is set under the nearest one is taken if their cosine is at least the
    threshold and the verifier, if there is one, agrees. Cosines do not see everything: negations,
    numbers and who does what to whom change them little. `calibrate` measures that.

    Args:
        embed: called as embed(texts) with a list of str; returns their embeddings, (n, dim), an
            array or what NumPy makes one of. They need not be of length 1.
        threshold: a cosine of 0 ... 1 from which a query is a hit; or call `calibrate`.
        maxsize, max_bytes, ttl, getsizeof, timer: as of `Cache`; a bound is required. An entry
            counts its embedding, too. What the cache evicts or expires leaves the index.
        verify: called as verify(query, matched, value) before a semantic hit; false: a miss.
        index: "exact" looks at all embeddings, at most 100,000; "usearch" at some in a graph of
            them, and may miss the nearest one; "auto" is "usearch" where more than 20,000 entries
            may come, for which it is faster, and it is installed.

    Thread safe; a forked child has a copy of its own. `embed`, `verify` and `compute` are called
    without a lock.

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
        if not callable(embed):
            raise TypeError(f"embed must be callable, not {type(embed).__name__}")
        if verify is not None and not callable(verify):
            raise TypeError(f"verify must be callable, not {type(verify).__name__}")
        if getsizeof is not None and not callable(getsizeof):
            raise TypeError(f"getsizeof must be callable, not {type(getsizeof).__name__}")
        maxsize, max_bytes = bounds(maxsize, max_bytes)
        self._kind = index_kind(index, maxsize)
        if maxsize is None and self._kind is ExactIndex:
            maxsize = MOST_EXACT
        self._embed, self._verify, self._getsizeof = embed, verify, getsizeof or size_of
        self._threshold: float | None = None
        if threshold is not None:
            self.threshold = threshold
        self._cache: Cache[str, Any] = Cache(
            maxsize, max_bytes=max_bytes, ttl=ttl, timer=timer, on_evict=self._left,
            getsizeof=None if max_bytes is None else self._entry_size,
        )  # fmt: skip
        self._neighbours = Neighbours(self._cache, self._kind)
        self._flights = BatchFlights()
        self._dim = 0
        # Counts change under the lock of the neighbours.
        self._semantic_hits = self._misses = self._verified_away = self._uses = 0
        self._similarities = [0] * BINS

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
        return self._similar([text], self._rows([text]))[text] if hit is None else hit

    def get_many(self, queries: Iterable[str]) -> list[Hit | None]:
        """The same for many, aligned with them; those not set are embedded in one call."""
        texts = texts_of(queries)
        return self._find(texts)[0]

    def nearest(self, query: str) -> Hit | None:
        """What is set under the nearest query, however far: without the threshold, not counted.

        For drawing the pairs of `calibrate`: (query, nearest.query, whether its value is right).
        """
        text = text_of(query)
        found = self._neighbours.nearest(self._rows([text]))[0]
        if found is None or found.key is None:
            return None
        value = self._cache.peek(found.key, MISSING)
        if value is MISSING:
            return None
        return Hit(value, found.similarity, found.key, found.key == text)

    def __contains__(self, query: object) -> bool:
        """Whether the very text is set; no look-up."""
        return query in self._cache

    def __len__(self) -> int:
        return len(self._cache)

    def _exact(self, text: str) -> Hit | None:
        if self._threshold is None:
            raise RuntimeError("there is no threshold: pass threshold= or call calibrate() first")
        value = self._cache.get(text, MISSING)
        return None if value is MISSING else Hit(value, 1.0, text, True)

    def _find(self, texts: list[str]) -> tuple[list[Hit | None], dict[str, NDArray[np.float32]]]:
        """The hits, and the embeddings of the texts that are not set."""
        hits = [self._exact(text) for text in texts]
        absent = [text for text, hit in zip(texts, hits, strict=True) if hit is None]
        if not absent:
            return hits, {}
        distinct = list(dict.fromkeys(absent))
        rows = self._rows(distinct)
        similar = self._similar(absent, rows)
        hits = [hit or similar[text] for text, hit in zip(texts, hits, strict=True)]
        return hits, dict(zip(distinct, rows, strict=True))

    def _similar(self, texts: list[str], rows: NDArray[np.float32]) -> dict[str, Hit | None]:
        """The hits of texts that are not set, by text; a row for each that is distinct."""
        found = zip(dict.fromkeys(texts), self._neighbours.nearest(rows), strict=True)
        hits = {text: self._accepted(text, each) for text, each in found}
        semantic = sum(hits[text] is not None for text in texts)
        with self._neighbours.lock:
            self._semantic_hits += semantic
            self._misses += len(texts) - semantic
        return hits

    def _accepted(self, text: str, found: Found | None) -> Hit | None:
        """A hit if the nearest query is near enough, still there, and passes the verifier."""
        if found is None or found.key is None:
            return None
        with self._neighbours.lock:
            self._similarities[max(0, min(BINS - 1, int(found.similarity * BINS)))] += 1
        if self._threshold is None or found.similarity < self._threshold:
            return None
        value = self._cache.peek(found.key, MISSING)
        if value is MISSING:
            return None
        if self._verify is not None and not self._verify(text, found.key, value):
            with self._neighbours.lock:
                self._verified_away += 1
            return None
        used = self._cache.get(found.key, MISSING) is not MISSING  # so that it is kept
        with self._neighbours.lock:
            self._uses += used
        return Hit(value, found.similarity, found.key, False)

    # --- writes

    def set(self, query: str, value: Any, *, ttl: float | None = None) -> None:
        """Set the value of a query."""
        self.set_many([(text_of(query), value)], ttl=ttl)

    def set_many(
        self, items: Mapping[str, Any] | Iterable[tuple[str, Any]], *, ttl: float | None = None
    ) -> None:
        """Set the values of many queries; they are embedded in one call."""
        values = {text_of(query): value for query, value in dict(items).items()}
        if any(value is MISSING for value in values.values()):
            raise TypeError("value must not be MISSING, which means that there is none")
        _check_ttl(ttl)
        if values:
            self._keep(values, self._rows(list(values)), ttl)

    def _keep(
        self, values: Mapping[str, Any], rows: Iterable[NDArray[np.float32]], ttl: float | None
    ) -> None:
        for (text, value), row in zip(values.items(), rows, strict=True):
            self._cache.set(text, value, ttl=ttl)
            self._neighbours.put(text, row)

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

    def _left(self, text: str, value: object, reason: str) -> None:
        self._neighbours.left(text)

    def _entry_size(self, value: Any) -> float:
        return self._getsizeof(value) + 4 * self._dim + self._kind.overhead

    # --- both

    def get_or_compute(
        self, query: str, compute: Callable[[str], Any], *, ttl: float | None = None
    ) -> Hit:
        """A hit, or what compute(query) returns, which is set; `computed` says which.

        Of all who ask for the same text at a time, one computes. What `compute` raises comes out,
        and nothing is set.
        """
        text = text_of(query)
        hit = self._exact(text)
        if hit is None:
            rows = self._rows([text])
            hit = self._similar([text], rows)[text]
        if hit is None:
            hit = self._filled([text], {text: rows[0]}, lambda _: [compute(text)], ttl)[text]
        return hit

    def get_or_compute_many(
        self,
        queries: Iterable[str],
        compute: Callable[[list[str]], Sequence[Any]],
        *,
        ttl: float | None = None,
    ) -> list[Hit]:
        """The same for many: compute(texts) gets those that are no hits, in one call, each once.

        It returns a sequence of values aligned with them.
        """
        texts = texts_of(queries)
        hits, rows = self._find(texts)
        missing = [text for text, hit in zip(texts, hits, strict=True) if hit is None]
        filled = self._filled(missing, rows, compute, ttl) if missing else {}
        return [hit or filled[text] for text, hit in zip(texts, hits, strict=True)]

    def _filled(
        self,
        texts: list[str],
        rows: Mapping[str, NDArray[np.float32]],
        compute: Callable[[list[str]], Sequence[Any]],
        ttl: float | None,
    ) -> dict[str, Hit]:
        """Hits of texts that somebody computes now: this call, or another."""
        _check_ttl(ttl)

        def fill(texts: list[str]) -> list[Any]:
            values = {text: self._cache.peek(text, MISSING) for text in texts}
            absent = [text for text, value in values.items() if value is MISSING]
            if absent:
                computed = compute(absent)
                if len(computed) != len(absent):
                    raise ValueError(
                        f"compute returned {len(computed)} values for {len(absent)} queries"
                    )
                new = dict(zip(absent, computed, strict=True))
                if any(value is MISSING for value in new.values()):
                    raise TypeError("compute must not return MISSING")
                self._keep(new, [rows[text] for text in absent], ttl)
                values |= new
            return list(values.values())

        values = self._flights.run(texts, fill)
        return {text: Hit(value, 1.0, text, True, True) for text, value in values.items()}

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
        rate = open_share(max_false_hit_rate, "max_false_hit_rate")
        level = open_share(confidence, "confidence")
        if verified and self._verify is None:
            raise ValueError("verified=True needs a cache with verify=")
        labelled = [(text_of(a), text_of(b), bool(same)) for a, b, same in pairs]
        texts = list(dict.fromkeys(text for a, b, _ in labelled for text in (a, b)))
        rows = dict(zip(texts, self._rows(texts), strict=True)) if texts else {}
        by_answer: dict[bool, list[float]] = {True: [], False: []}
        for a, b, same in labelled:
            refused = verified and self._verify is not None and not self._verify(a, b, None)
            by_answer[same].append(float("-inf") if refused else float(rows[a] @ rows[b]))
        chosen = calibrated(by_answer[True], by_answer[False], rate, level)
        self._threshold = chosen.threshold
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

    def _rows(self, texts: list[str]) -> NDArray[np.float32]:
        """The embeddings of texts, of length 1."""
        rows = unit_rows(self._embed(list(texts)), texts, self.dim)
        self._dim = rows.shape[1]
        return rows


def _check_ttl(ttl: float | None) -> None:
    """Before anything is embedded or computed for it."""
    if ttl is not None:
        seconds(ttl, "ttl")
