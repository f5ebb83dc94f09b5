"""What SemanticCache does, as steps that threads and tasks take alike (see `computed.run`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cachecore._core import Cache
from cachecore.ml.calibration import Calibration, calibrated
from cachecore.ml.flights import BatchFlights
from cachecore.ml.index import Found, Index, unit_rows
from cachecore.ml.neighbours import Neighbours
from cachecore.ml.semantic_parts import BINS, Hit, both_ways, open_share, pair_of
from cachecore.ml.steps import Steps, arun, in_thread, run
from cachecore.sentinel import MISSING

# Steps that return the values of texts.
Compute = Callable[[list[str]], Steps]


class SemanticSteps:
    """The values, their neighbours and the counts; each method that embeds is a generator."""

    def __init__(self, embed: Any, verify: Any, kind: type[Index], **settings: Any) -> None:
        self._embed = both_ways(embed, "embed")
        self._verify = None if verify is None else both_ways(verify, "verify")
        self._threshold: float | None = None
        self._cache: Cache[str, Any] = Cache(on_evict=self._left, **settings)
        self._neighbours = Neighbours(self._cache, kind)
        self._flights = BatchFlights()
        self._dim = 0
        # Counts change under the lock of the neighbours, and so does the dimension.
        self._semantic_hits = self._misses = self._verified_away = self._uses = 0
        self._similarities = [0] * BINS

    def _left(self, text: str, value: object, reason: str) -> None:
        self._neighbours.left(text)

    def _rows(self, texts: list[str]) -> Steps:
        """Return the embeddings of texts, of length 1."""
        returned = yield (*self._embed, (list(texts),))
        rows = unit_rows(returned, texts)
        with self._neighbours.lock:
            self._dim = self._dim or rows.shape[1]
        if rows.shape[1] != self._dim:
            raise ValueError(f"embed must return {self._dim} columns, not {rows.shape[1]}")
        return rows

    # --- look-ups

    def _exact(self, text: str) -> Hit | None:
        if self._threshold is None:
            raise RuntimeError("there is no threshold: pass threshold= or call calibrate() first")
        value = self._cache.get(text, MISSING)
        return None if value is MISSING else Hit(value, 1.0, text, True)

    def _many(
        self, texts: list[str], compute: Compute | None = None, ttl: float | None = None
    ) -> Steps:
        """Return the hits of texts, aligned with them."""
        hits = [self._exact(text) for text in texts]
        absent = [text for text, hit in zip(texts, hits, strict=True) if hit is None]
        if not absent:
            return hits
        found = yield from self._absent(absent, compute, ttl)
        return [hit or found[text] for text, hit in zip(texts, hits, strict=True)]

    def _absent(
        self, texts: list[str], compute: Compute | None = None, ttl: float | None = None
    ) -> Steps:
        """Return the hits, by text, of texts that are not set; the rest are None, or computed."""
        distinct = list(dict.fromkeys(texts))
        rows = yield from self._rows(distinct)
        hits: dict[str, Hit | None] = {}
        for text, found in zip(distinct, (yield from self._nearest(rows)), strict=True):
            hits[text] = yield from self._accepted(text, found)
        semantic = sum(hits[text] is not None for text in texts)
        with self._neighbours.lock:
            self._semantic_hits += semantic
            self._misses += len(texts) - semantic
        missing = [text for text in distinct if hits[text] is None]
        if missing and compute is not None:
            known = dict(zip(distinct, rows, strict=True))
            hits |= yield from self._filled(missing, known, compute, ttl)
        return hits

    def _nearest(self, rows: NDArray[np.float32]) -> Steps:
        nearest = self._neighbours.nearest
        return (yield nearest, in_thread(nearest), (rows,))

    def _accepted(self, text: str, found: Found | None) -> Steps:
        """Return a hit if the nearest query is near enough, still there, and is not refused."""
        if found is None or found.key is None:
            return None
        with self._neighbours.lock:
            self._similarities[max(0, min(BINS - 1, int(found.similarity * BINS)))] += 1
        if self._threshold is None or found.similarity < self._threshold:
            return None
        value = self._cache.peek(found.key, MISSING)
        if value is MISSING:
            return None
        if self._verify is not None and not (yield (*self._verify, (text, found.key, value))):
            with self._neighbours.lock:
                self._verified_away += 1
            return None
        used = self._cache.get(found.key, MISSING) is not MISSING  # so that it is kept
        with self._neighbours.lock:
            self._uses += used
        return Hit(value, found.similarity, found.key, False)

    def _nearest_hit(self, text: str) -> Steps:
        rows = yield from self._rows([text])
        found = (yield from self._nearest(rows))[0]
        if found is None or found.key is None:
            return None
        value = self._cache.peek(found.key, MISSING)
        if value is MISSING:
            return None
        return Hit(value, found.similarity, found.key, found.key == text)

    # --- writes

    def _set(self, values: Mapping[str, Any], ttl: float | None) -> Steps:
        if values:
            self._keep(values, (yield from self._rows(list(values))), ttl)

    def _keep(
        self, values: Mapping[str, Any], rows: Iterable[NDArray[np.float32]], ttl: float | None
    ) -> None:
        for (text, value), row in zip(values.items(), rows, strict=True):
            self._cache.set(text, value, ttl=ttl)
            self._neighbours.put(text, row)

    def _filled(
        self,
        texts: list[str],
        rows: Mapping[str, NDArray[np.float32]],
        compute: Compute,
        ttl: float | None,
    ) -> Steps:
        """Return hits, by text, of texts that somebody computes now: this call, or another."""
        computed: set[str] = set()

        def fill(texts: list[str]) -> Steps:
            values = {text: self._cache.peek(text, MISSING) for text in texts}
            absent = [text for text, value in values.items() if value is MISSING]
            if absent:
                new = dict(zip(absent, (yield from compute(absent)), strict=True))
                if any(value is MISSING for value in new.values()):
                    raise TypeError("compute must not return MISSING")
                self._keep(new, [rows[text] for text in absent], ttl)
                computed.update(absent)
                # Of an array, what cannot be changed.
                values |= {text: self._cache.peek(text, value) for text, value in new.items()}
            return list(values.values())

        values = yield (
            lambda: self._flights.run(texts, lambda mine: run(fill(mine))),
            lambda: self._flights.arun(texts, lambda mine: arun(fill(mine))),
            (),
        )
        return {
            text: Hit(value, 1.0, text, True, text in computed) for text, value in values.items()
        }

    # --- the threshold

    def _calibrate(self, pairs: Any, rate: Any, confidence: Any, verified: bool) -> Steps:
        rate = open_share(rate, "max_false_hit_rate")
        confidence = open_share(confidence, "confidence")
        if verified and self._verify is None:
            raise ValueError("verified=True needs a cache with verify=")
        labelled = [pair_of(pair) for pair in pairs]
        texts = list(dict.fromkeys(text for a, b, _ in labelled for text in (a, b)))
        rows = dict(zip(texts, (yield from self._rows(texts)), strict=True)) if texts else {}
        by_answer: dict[bool, list[float]] = {True: [], False: []}
        for a, b, same in labelled:
            refused = verified and self._verify and not (yield (*self._verify, (a, b, None)))
            by_answer[same].append(float("-inf") if refused else float(rows[a] @ rows[b]))
        chosen: Calibration = calibrated(by_answer[True], by_answer[False], rate, confidence)
        self._threshold = chosen.threshold
        return chosen


def one_by(compute: Any) -> Compute:
    """compute(query) -> value, for one text."""
    calls = both_ways(compute, "compute")

    def steps(texts: list[str]) -> Steps:
        (text,) = texts
        return [(yield (*calls, (text,)))]

    return steps


def all_by(compute: Any) -> Compute:
    """compute(queries) -> values, for several."""
    calls = both_ways(compute, "compute")

    def steps(texts: list[str]) -> Steps:
        values = yield (*calls, (list(texts),))
        if not isinstance(values, Sized) or isinstance(values, (str, bytes, Mapping, set)):
            raise TypeError(f"compute must return a sequence, not {type(values).__name__}")
        if len(values) != len(texts):
            raise ValueError(f"compute returned {len(values)} values for {len(texts)} queries")
        return values

    return steps
