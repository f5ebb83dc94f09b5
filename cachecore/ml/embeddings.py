"""EmbeddingCache: the rows that a model computes of texts and other inputs, kept by version."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from cachecore._core import Cache
from cachecore._texts import all_texts
from cachecore._vectors import VectorCache
from cachecore.ml.below import row_dtype, rows_below
from cachecore.ml.fingerprints import fingerprint
from cachecore.ml.flights import BatchFlights
from cachecore.ml.outputs import checked_rows
from cachecore.ml.steps import Steps, arun, in_thread, run
from cachecore.ml.versions import check_version
from cachecore.progress import Report, reporting
from cachecore.settings import awaits, positive_int

if TYPE_CHECKING:
    from cachecore.ml.encoders import CachedEncoder
    from cachecore.tiers.tiered import TieredCache

_Rows = npt.NDArray[Any]
_Encode = Callable[[list[Any]], Any]

_PLAIN = frozenset((str, bytes))  # inputs that are keys themselves
_NO_BATCH = (str, bytes, bytearray, memoryview, dict)
_OTHER = object()  # before the fingerprint of an input that is not
_ROOM = "256MB"  # of rows in memory, where no bound is given


class EmbeddingStats(NamedTuple):
    """What an EmbeddingCache counted, all its variants together, and its size now."""

    hits: int
    """Inputs whose rows were in memory."""
    misses: int
    below: int
    """Rows that were found in the cache below."""
    encoded: int
    """Inputs that the model was given and returned good rows for."""
    calls: int
    """Calls of the model, those included that failed."""
    seconds: float
    """Spent in the model, of all threads and tasks together."""
    entries: int
    """Rows in memory."""
    bytes: int
    """Bytes of these with their keys; 0 where `maxsize` is the only bound."""

    @property
    def hit_ratio(self) -> float:
        """Hits / look-ups; 0.0 before the first look-up."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


class _Counts:
    """What several threads count. A finaliser that runs amid a count may count itself."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.below = self.encoded = self.calls = 0
        self.seconds = 0.0
        _every_counts.add(self)


_every_counts: WeakSet[_Counts] = WeakSet()


def _begin_anew() -> None:
    """In a child process, whose parent may have held a lock in another thread."""
    for counts in _every_counts:
        counts.lock = RLock()


os.register_at_fork(after_in_child=_begin_anew)


class EmbeddingCache:
    """Embeds inputs, of which the model is given only those whose rows are not known yet.

    Args:
        encode: called as encode(inputs) with a list of distinct inputs; returns their rows in this
            order: an array, a torch tensor, or a list of rows. It may be a coroutine function: then
            only the asynchronous methods encode.
        model: name of the model.
        version: its version, of which the weights' digest is the best (`model_version`). Rows of
            one version are never returned for another.
        dim, dtype: of a row; `encode` may return what NumPy casts to this dtype within its kind.
        maxsize, max_bytes: bounds of what is kept in memory, as for `Cache`; 256 MB by default.
        ttl: seconds a row is kept in memory; None: until it is evicted.
        below: a `Cache` or `TieredCache` of rows under the keys "model:version:fingerprint", or a
            `VectorCache(None, EmbeddingCache.row_dtype(dim, dtype), capacity=...)`. It has bounds
            and lifetimes of its own, and may be shared by models, versions and processes.
        salt: a tenant's secret: part of the fingerprint.

    Inputs are str or bytes, which are looked up as they are, or anything else that `fingerprint`
    takes. Rows are compared by their whole input in memory, and by the whole fingerprint below.

    All methods may be called from any thread, the asynchronous ones from any event loop; an input
    that several want at a time is encoded once. When `encode` raises or returns something else than
    a finite row for each input, none of that call's rows is kept.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """

    row_dtype = staticmethod(row_dtype)

    def __init__(
        self,
        encode: _Encode,
        *,
        model: str,
        version: str | int,
        dim: int,
        dtype: npt.DTypeLike = "float32",
        maxsize: int | None = None,
        max_bytes: int | str | None = None,
        ttl: float | None = None,
        below: Cache[str, Any] | TieredCache | VectorCache | None = None,
        salt: bytes | str = b"",
    ) -> None:
        check_version(version, stacklevel=3)
        self.model, self.version = model, version
        self.dim, self.dtype = positive_int(dim, "dim"), np.dtype(dtype)
        if self.dtype.kind == "b" or not np.can_cast(self.dtype, np.float64, "same_kind"):
            raise TypeError(f"dtype must be one of real numbers, not {self.dtype}")
        self._use(encode)
        self._params: object = None
        self._tag: bytes | None = None  # stands for `params` in keys in memory
        self._salt = salt
        self._print("")  # errors in what goes into every fingerprint come up here
        if maxsize is None and max_bytes is None:
            max_bytes = _ROOM
        self.cache: Cache[Any, _Rows] = Cache(maxsize, max_bytes=max_bytes, ttl=ttl)
        self._below = rows_below(below, f"{model}:{version}:", self.dim, self.dtype)
        self._flights = BatchFlights()
        self._counts = _Counts()

    def variant(self, encode: _Encode, params: object) -> Self:
        """The same cache for another way to call the model, such as with another prompt.

        They share memory, its bound, `below` and counts; rows of different `params`, of which None
        stands for the original's, are never mixed. `params` is part of the fingerprint.
        """
        other = copy.copy(self)
        other._use(encode)
        other._params = params
        other._tag = None if params is None else other._print("")
        return other

    def _use(self, encode: _Encode) -> None:
        if not callable(encode):
            raise TypeError(f"encode must be callable, not {type(encode).__name__}")
        self._encode = encode
        self._awaits = awaits(encode)

    @classmethod
    def wrap(cls, model: Any, **settings: Any) -> CachedEncoder:
        """A stand-in for a sentence-transformers model: see `cachecore.ml.encoders.CachedEncoder`.

        Args:
            model: a `SentenceTransformer`.
            settings: those of an EmbeddingCache. By default `version` is a digest of the weights
                and of how the modules are set up, `model` the class's name.
        """
        from cachecore.ml.encoders import CachedEncoder

        return CachedEncoder(cls, model, **settings)

    # --- inputs and keys

    def _print(self, value: Any) -> bytes:
        domain = f"cachecore.ml.embeddings {self.dtype.name}"
        return fingerprint(
            value, model=self.model, version=self.version, params=self._params, domain=domain,
            salt=self._salt,
        )  # fmt: skip

    def _key(self, value: Any) -> Any:
        """The key of an input in memory."""
        if type(value) not in _PLAIN:
            return _OTHER, self._print(value)
        return value if self._tag is None else (self._tag, value)

    def _look(self, inputs: list[Any]) -> tuple[_Rows, list[Any], dict[Any, Any]]:
        """Rows, as far as they are in memory; the keys; and by key the inputs that are not."""
        keys = inputs
        if self._tag is not None or not all_texts(inputs):
            keys = [self._key(value) for value in inputs]
        out = np.empty((len(keys), self.dim), self.dtype)
        found = self.cache.gather(keys, out)
        if np.count_nonzero(found) == len(keys):
            return out, keys, {}
        return out, keys, {keys[at]: inputs[at] for at in np.flatnonzero(~found).tolist()}

    # --- look-ups

    def embed(self, inputs: Iterable[Any]) -> _Rows:
        """The rows of n inputs, in their order: a new array of shape (n, dim).

        Raises:
            TypeError: an input has no fingerprint; `encode` is a coroutine function, or returned
                something else than rows of numbers that fit the dtype.
            ValueError: `encode` returned another number of rows, another dim, NaN or infinity.
            Exception: what `encode` raised.
        """
        out, keys, missing = self._look(_listed(inputs))
        return _filled(out, keys, self._fetch(missing)) if missing else out

    async def aembed(self, inputs: Iterable[Any]) -> _Rows:
        """The same in a task; an `encode` that is no coroutine function is called in a thread."""
        out, keys, missing = self._look(_listed(inputs))
        return _filled(out, keys, await self._afetch(missing)) if missing else out

    def embed_one(self, value: Any) -> _Rows:
        """The row of one input: a read-only array of shape (dim,). Raises what `embed` does."""
        key = value if type(value) is str and self._tag is None else self._key(value)
        row = self.cache.get(key)
        return self._fetch({key: value})[key] if row is None else row

    async def aembed_one(self, value: Any) -> _Rows:
        """The same as `embed_one`, in a task."""
        key = self._key(value)
        row = self.cache.get(key)
        return (await self._afetch({key: value}))[key] if row is None else row

    def precompute(
        self, catalogue: Iterable[Any], *, batch: int = 1024, progress: Report | None = None
    ) -> int:
        """Embed a catalogue beforehand, `batch` inputs at a time; rows that are there stay.

        What does not fit in memory is kept by `below` only.

        Args:
            catalogue: the inputs.
            batch: most inputs that the model is given in one call.
            progress: called as progress(done, total); by default a bar on a terminal, with rich.

        Returns:
            How many rows were not in memory.

        Raises:
            Exception: what `embed` raises. The rows of the batches before are kept.
        """
        fetched, catalogue = 0, _listed(catalogue)
        with reporting(progress, len(catalogue), "inputs") as report:
            for done, missing in self._batches(catalogue, positive_int(batch, "batch")):
                fetched += len(self._fetch(missing))
                report(done, len(catalogue))
        return fetched

    async def aprecompute(
        self, catalogue: Iterable[Any], *, batch: int = 1024, progress: Report | None = None
    ) -> int:
        """The same as `precompute`, in a task."""
        fetched, catalogue = 0, _listed(catalogue)
        with reporting(progress, len(catalogue), "inputs") as report:
            for done, missing in self._batches(catalogue, positive_int(batch, "batch")):
                fetched += len(await self._afetch(missing))
                report(done, len(catalogue))
        return fetched

    def _batches(self, catalogue: list[Any], batch: int) -> Iterator[tuple[int, dict[Any, Any]]]:
        for start in range(0, len(catalogue), batch):
            part = catalogue[start : start + batch]
            keyed = {self._key(value): value for value in part}
            missing = {key: value for key, value in keyed.items() if key not in self.cache}
            yield start + len(part), missing

    def stats(self) -> EmbeddingStats:
        """What was counted so far."""
        memory, counts = self.cache.stats(), self._counts
        with counts.lock:
            return EmbeddingStats(
                memory.hits, memory.misses, counts.below, counts.encoded, counts.calls,
                counts.seconds, memory.entries, memory.bytes,
            )  # fmt: skip

    # --- misses

    def _fetch(self, missing: dict[Any, Any]) -> dict[Any, _Rows]:
        """The rows of inputs that were not in memory, by key."""
        return self._flights.run(missing, lambda keys: run(self._steps(keys, missing)))

    async def _afetch(self, missing: dict[Any, Any]) -> dict[Any, _Rows]:
        return await self._flights.arun(missing, lambda keys: arun(self._steps(keys, missing)))

    def _steps(self, keys: list[Any], inputs: dict[Any, Any]) -> Steps:
        """Look again, look below, and encode the rest; the rows of the keys, in a list."""
        rows = {key: row for key in keys if (row := self.cache.peek(key)) is not None}
        rest = [key for key in keys if key not in rows]
        prints: list[bytes] = []
        if rest and self._below is not None:
            prints = [self._print(inputs[key]) for key in rest]
            found = yield self._below.get, self._below.aget, (prints,)
            known = {key: row for key, row in zip(rest, found, strict=True) if row is not None}
            self._keep(known, rows)
            with self._counts.lock:
                self._counts.below += len(known)
            prints = [each for each, row in zip(prints, found, strict=True) if row is None]
            rest = [key for key in rest if key not in known]
        if rest:
            batch = yield self._run, self._arun, ([inputs[key] for key in rest],)
            self._keep(dict(zip(rest, batch, strict=True)), rows)
            if self._below is not None:
                yield self._below.put, self._below.aput, (prints, batch)
        return [rows[key] for key in keys]

    def _keep(self, new: dict[Any, _Rows], rows: dict[Any, _Rows]) -> None:
        self.cache.set_many(new)
        rows.update(new)

    def _run(self, inputs: list[Any]) -> _Rows:
        """Have the model encode."""
        if self._awaits:
            raise TypeError("encode is a coroutine function: use the asynchronous methods")
        start, count = perf_counter(), len(inputs)
        try:
            result = self._encode(inputs)
        finally:
            self._called(start)
        return self._checked(result, count)

    async def _arun(self, inputs: list[Any]) -> _Rows:
        if not self._awaits:
            rows: _Rows = await in_thread(self._run)(inputs)
            return rows
        start, count = perf_counter(), len(inputs)
        try:
            result = await self._encode(inputs)
        finally:
            self._called(start)
        return self._checked(result, count)

    def _called(self, start: float) -> None:
        with self._counts.lock:
            self._counts.calls += 1
            self._counts.seconds += perf_counter() - start

    def _checked(self, result: Any, count: int) -> _Rows:
        rows = checked_rows(result, count, self.dim, self.dtype)
        with self._counts.lock:
            self._counts.encoded += count
        return rows


def _listed(inputs: Any) -> list[Any]:
    """Inputs as a list of the callee's own; one text is hardly meant as many inputs."""
    if isinstance(inputs, np.ndarray) and inputs.ndim == 1:
        return list(inputs.tolist())
    if isinstance(inputs, _NO_BATCH) or not hasattr(type(inputs), "__iter__"):
        raise TypeError(f"inputs must be an iterable of inputs, not one {type(inputs).__name__}")
    return list(inputs)


def _filled(out: _Rows, keys: list[Any], rows: dict[Any, _Rows]) -> _Rows:
    for at, key in enumerate(keys):
        if key in rows:
            out[at] = rows[key]
    return out
