"""Which of many unit vectors is nearest to another: by looking at all of them, or with usearch.

Both kinds keep one row for each key, a str. Similarity is the cosine, the product of unit vectors.
Their user locks them. Steps are in such an order that what interrupts one (a signal, a finalizer
that puts or drops a key of its own) costs, at worst, the hits of a key: a row is never another's.
`nearest` may then find a key that is gone, and `forget` takes it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cachecore.ml.outputs import array_of

MOST_EXACT = 100_000  # rows: 384 float32 each take some 6 ms to look at
EXACT_IS_FASTER = 20_000  # rows, with 384 float32 each: about as long as usearch takes
_EXACT_IN_GRAPH = 1_000  # rows up to which usearch looks at all of them: it takes no longer
_FIRST = 64  # rows that there is room for at first
_SCORES = 1 << 22  # of a batch at a time: 16 MB

Rows = NDArray[np.float32]


class Found(NamedTuple):
    """The nearest row: its key (None: none any more), its place, and the similarity."""

    key: str | None
    place: int
    similarity: float


class Index:
    """Rows by key. `rows` have the shape (n, dim), and are C-contiguous, float32, of length 1."""

    overhead: ClassVar[int]
    """Bytes that a row takes beyond its numbers, about."""

    def __init__(self, dim: int) -> None:
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def keys(self) -> list[str]:
        """The keys there are."""
        return list(self._places)

    def put(self, key: str, row: Rows) -> None:
        """Put one row, (dim,), under a key, in place of what is there."""
        raise NotImplementedError

    def nearest(self, rows: Rows) -> list[Found | None]:
        """The nearest row to each of some; None where there is none at all."""
        raise NotImplementedError

    def drop(self, key: str) -> None:
        """Take out a key, if it is there."""
        place = self._places.pop(key, None)
        if place is not None:
            self._clear(place)

    def forget(self, key: str | None, place: int) -> None:
        """Take out a row that `nearest` has found."""
        if key is not None and self._places.get(key) == place:
            self.drop(key)
        else:
            self._clear(place)

    def _clear(self, place: int) -> None:
        raise NotImplementedError


class ExactIndex(Index):
    """One matrix of rows, looked at as a whole: a matrix-vector product, and its maximum."""

    overhead: ClassVar[int] = 120

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._rows: Rows = np.zeros((_FIRST, dim), np.float32)
        self._keys: list[str | None] = []
        self._free: list[int] = []
        self._changes = 0

    def put(self, key: str, row: Rows) -> None:
        self._changes += 1
        place = self._places.get(key)
        if place is None:
            place = self._place()
        self._keys[place] = key
        self._places[key] = place
        self._rows[place] = row  # last: a row that has no key would be in the way of others

    def _place(self) -> int:
        if self._free:
            return self._free.pop()
        while True:
            rows = self._rows
            if len(self._keys) < len(rows):
                self._keys.append(None)
                return len(self._keys) - 1
            larger = np.zeros((2 * len(rows), rows.shape[1]), np.float32)
            larger[: len(rows)] = rows
            if self._rows is rows:
                self._rows = larger

    def _clear(self, place: int) -> None:
        self._changes += 1
        if self._keys[place] is not None:
            self._rows[place] = 0
            self._keys[place] = None
            self._free.append(place)

    def nearest(self, rows: Rows) -> list[Found | None]:
        while True:
            changes = self._changes
            found = self._nearest(rows)
            if changes == self._changes:  # else a place may be another key's by now
                return found

    def _nearest(self, rows: Rows) -> list[Found | None]:
        count = len(self._keys)
        if not self._places:
            return [None] * len(rows)
        if len(rows) == 1:
            return [self._best(self._rows[:count] @ rows[0])]
        step = max(1, _SCORES // count)
        return [
            self._best(scores)
            for start in range(0, len(rows), step)
            for scores in rows[start : start + step] @ self._rows[:count].T
        ]

    def _best(self, scores: Rows) -> Found:
        place = int(scores.argmax())
        if self._keys[place] is None:  # a cleared row is at a right angle to all: others are behind
            scores[[at for at, key in enumerate(self._keys[: len(scores)]) if key is None]] = -2
            place = int(scores.argmax())
        return Found(self._keys[place], place, min(1.0, float(scores[place])))


class UsearchIndex(Index):
    """A graph of near rows (HNSW), of usearch. Of many rows, it may miss the nearest one."""

    overhead: ClassVar[int] = 400

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._graph = usearch().Index(ndim=dim, metric="ip", dtype="f32")
        self._keys: dict[int, str] = {}
        self._next = 0

    def put(self, key: str, row: Rows) -> None:
        place, self._next = self._next, self._next + 1
        self._graph.add(place, row, threads=1)
        self._keys[place] = key
        before = self._places.get(key)
        self._places[key] = place
        if before is not None:
            self._clear(before)

    def _clear(self, place: int) -> None:
        self._keys.pop(place, None)
        self._graph.remove(place)

    def nearest(self, rows: Rows) -> list[Found | None]:
        if not self._places:
            return [None] * len(rows)
        return list(self._found(rows))

    def _found(self, rows: Rows) -> Iterator[Found | None]:
        few = len(self._places) <= _EXACT_IN_GRAPH
        matches = self._graph.search(rows, 1, threads=1, exact=few)
        if len(rows) == 1:  # then usearch answers for one, or for a batch, by the shape
            keys, distances = np.ravel(matches.keys), np.ravel(matches.distances)
            counts = [len(keys)]
        else:
            keys, distances = matches.keys[:, 0], matches.distances[:, 0]
            counts = matches.counts
        for at, count in enumerate(counts):
            if not count:
                yield None
                continue
            place = int(keys[at])
            yield Found(self._keys.get(place), place, min(1.0, 1 - float(distances[at])))


def usearch() -> Any:
    """The module usearch.index."""
    try:
        import usearch.index
    except ImportError:
        raise ImportError(
            'index="usearch" needs the package usearch: pip install "cachecore-ml[ml]"'
        ) from None
    return usearch.index


def index_kind(index: Any, entries: int | None) -> type[ExactIndex | UsearchIndex]:
    """Which kind is meant by "auto", "exact" or "usearch", for at most so many rows."""
    if index == "usearch":
        usearch()
        return UsearchIndex
    if index not in ("auto", "exact"):
        raise ValueError(f'index must be "auto", "exact" or "usearch", not {index!r}')
    if index == "auto" and (entries is None or entries > EXACT_IS_FASTER):
        try:
            usearch()
        except ImportError:
            pass
        else:
            return UsearchIndex
    if entries is not None and entries > MOST_EXACT:
        raise ValueError(
            f"maxsize must be at most {MOST_EXACT} for exact search, not {entries}; for more, "
            'pip install "cachecore-ml[ml]" and index="usearch"'
        )
    return ExactIndex


def unit_rows(returned: Any, texts: Sequence[str]) -> Rows:
    """What `embed` returned for texts, as rows of length 1.

    Raises:
        ValueError, TypeError: it has another shape, or a row that is zero or not finite.
    """
    try:
        rows = array_of(returned)
    except ValueError as error:  # ragged rows
        raise ValueError(f"embed must return rows of one length: {error}") from None
    if rows.ndim != 2 or len(rows) != len(texts) or not rows.shape[1]:
        raise ValueError(
            f"embed must return an array of shape ({len(texts)}, dim), not {rows.shape}"
        )
    if rows.dtype.kind not in "fiu":
        raise TypeError(f"embed must return numbers, not {rows.dtype}")
    wide = rows.astype(np.float64)
    peaks = np.abs(wide).max(axis=1)
    for at in np.flatnonzero(~np.isfinite(peaks) | (peaks == 0)).tolist():
        what = "zero" if peaks[at] == 0 else "not finite"
        raise ValueError(f"embed returned an embedding that is {what}, for {texts[at]!r:.80}")
    wide /= peaks[:, None]  # so that no square overflows or vanishes
    wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    return np.ascontiguousarray(wide, np.float32)
