"""ResultCache: the results of a deterministic model, row by row; only new rows go to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cachecore._core import Cache
from cachecore.ml.checks import refuse_stochastic, refuse_unkeepable
from cachecore.ml.computed import Computed
from cachecore.ml.fingerprints import fingerprint
from cachecore.ml.savings import Ledger, Savings, report
from cachecore.ml.steps import Steps, arun, in_thread, run
from cachecore.ml.versions import check_version
from cachecore.sentinel import MISSING
from cachecore.settings import awaits
from cachecore.stats import CacheStats

if TYPE_CHECKING:
    from cachecore.tiers.tiered import TieredCache

_DOMAIN = "cachecore.ml.results"
_OBJECT = np.dtype(object)
_MOST_CALLS = 1_000  # kinds of calls that are remembered; the results of others are not found
_MOST_EXACT = 4096  # bytes of an input that is its own key; of a longer one it is the fingerprint


class ResultCache:
    """The results of a deterministic model, kept for each input.

    A batch is looked up input by input. The model is called once, with the inputs that are new,
    each once; the result is in the order of the batch. Of all who ask for an input at a time,
    threads and tasks, one has it computed.

    A row of up to 4 KB is found by all of its bytes, with its dtype, shape and parameters, and a
    longer one by a fingerprint of 32 bytes: never by a hash alone. Rows are equal if their
    bytes are: 0.0 and -0.0 are two inputs.

    Args:
        predict: called as predict(inputs, **parameters), or an object with such a method `predict`;
            may be a coroutine function. It returns one row for each input: an array, or a list.
        model, version: name the model and its version; part of every fingerprint. Two functions of
            a model (`predict`, `predict_proba`) over one cache below need two names.
        maxsize, max_bytes, ttl, timer: as for `Cache`; one of the first two is required.
        below: a TieredCache without a loader, asked for what is not here.
        salt: part of every fingerprint: those of two tenants are never the same.
        allow_stochastic: take parameters that make a model draw lots. Its first draw is kept.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """

    def __init__(
        self,
        predict: Any,
        *,
        model: str,
        version: str | int,
        maxsize: int | None = None,
        max_bytes: int | str | None = None,
        ttl: float | None = None,
        below: TieredCache | None = None,
        salt: bytes | str = b"",
        allow_stochastic: bool = False,
        timer: Callable[[], float] | None = None,
    ) -> None:
        self._predict = getattr(predict, "predict", predict)
        if not callable(self._predict):
            kind = type(predict).__name__
            raise TypeError(f"predict must be callable or have a method predict, not {kind}")
        if not isinstance(allow_stochastic, bool):
            kind = type(allow_stochastic).__name__
            raise TypeError(f"allow_stochastic must be a bool, not {kind}")
        self._fingerprint = partial(
            fingerprint, model=model, version=version, domain=_DOMAIN, salt=salt
        )
        check_version(version, stacklevel=3)
        self._fingerprint()  # refuses bad arguments here
        self._owner = getattr(self._predict, "__self__", self._predict)
        self._awaits = awaits(self._predict)
        self._model, self._allow_stochastic = model, allow_stochastic
        self._ledger = Ledger(model, version)
        self._computed = Computed(maxsize, max_bytes, ttl, timer, below, self._ledger)
        self._calls: Cache[Any, _Call] = Cache(_MOST_CALLS)
        self._numbers = count()

    def predict(self, inputs: Any, /, **params: Any) -> Any:
        """The model's results for a batch.

        Args:
            inputs: an array of shape (n, ...), whose rows are the inputs, or a list of n inputs
                that `fingerprint` takes: arrays, str, ... The model gets what is new as it is
                given: as an array, whose dtype is of the machine's byte order, or as a list.
            params: go to the model, and are part of what a result is kept for.

        Returns:
            An array of shape (n, ...) with the dtype and trailing shape of the model's, which is
            the caller's own, or a list, if the model returns one. What it has for no inputs, while
            it is not known what it returns, is for the model to say.

        Raises:
            ValueError: a parameter makes the model stochastic, or it is in training mode; it did
                not return one row for each input, or rows of another dtype or shape than before,
                or NaN. Nothing of this call was cached then.
            TypeError: inputs or results are of a kind that is not known, a result can be read once
                only, such as a generator, or the model is a coroutine function.
            RuntimeError: items or parameters were changed after the call, before the model had
                them. This too reaches all who wait for the same inputs.
        """
        if self._awaits:
            raise TypeError(f"{self._model} is a coroutine function: use apredict")
        batch = self._batch(inputs, params)
        call, keys = batch.call, batch.keys
        if not keys and call.kind is None:
            return self._predict(inputs, **params)
        values = self._computed.cache.get_many(keys, MISSING)
        out = call.joined(values)
        if out is None:
            missing = [key for key, value in zip(keys, values, strict=True) if value is MISSING]
            found = self._computed.flights.run(missing, lambda mine: run(self._steps(batch, mine)))
            out = call.joined(_filled(keys, values, found))
        self._ledger.asked(len(keys))
        return out

    async def apredict(self, inputs: Any, /, **params: Any) -> Any:
        """The same in a task; a model that is no coroutine function runs in a thread."""
        batch = self._batch(inputs, params)
        call, keys = batch.call, batch.keys
        if not keys and call.kind is None:
            return await self._awaited(params)(inputs)
        values = self._computed.cache.get_many(keys, MISSING)
        out = call.joined(values)
        if out is None:
            missing = [key for key, value in zip(keys, values, strict=True) if value is MISSING]
            found = await self._computed.flights.arun(
                missing, lambda mine: arun(self._steps(batch, mine))
            )
            out = call.joined(_filled(keys, values, found))
        self._ledger.asked(len(keys))
        return out

    def savings(self, gpu_cost_per_hour: float | None = None) -> Savings:
        """What was saved so far; the price of an hour of the machine makes money of seconds."""
        return report([self._ledger], gpu_cost_per_hour)

    def stats(self) -> CacheStats:
        """Counts of the cache in this process: each input is a look-up."""
        return self._computed.cache.stats()

    def clear(self) -> None:
        """Forget all results in this process, not those below."""
        self._computed.cache.clear()

    def __len__(self) -> int:
        """How many results are kept in this process."""
        return len(self._computed.cache)

    # --- keys

    def _batch(self, inputs: Any, params: dict[str, Any]) -> _Batch:
        if not isinstance(inputs, np.ndarray) or isinstance(inputs, np.ma.MaskedArray):
            if not isinstance(inputs, (list, tuple)):
                kind = type(inputs).__name__
                raise TypeError(f"inputs must be an array or a list of inputs, not {kind}")
        elif inputs.ndim == 0:
            raise ValueError("inputs must be an array of rows, not of no dimension")
        elif not inputs.dtype.hasobject:
            call = self._call(_native(inputs.dtype), inputs.shape[1:], params)
            rows = np.empty(len(inputs), call.layout)
            rows["call"], rows["row"] = call.number, inputs
            if call.layout.itemsize <= _MOST_EXACT:
                keys: list[bytes] = rows.view(call.flat).tolist()
            else:
                keys = [self._key(call, row) for row in rows["row"]]
            return _Batch(call, params, keys, rows["row"])
        call = self._call(_OBJECT, (), params)
        items = list(inputs)
        keys = [self._key(call, item) for item in items]
        return _Batch(call, params, keys, inputs if isinstance(inputs, np.ndarray) else items)

    def _call(self, dtype: np.dtype[Any], shape: tuple[int, ...], params: dict[str, Any]) -> _Call:
        if params and not self._allow_stochastic:
            refuse_stochastic(params)
        settings = self._settings(params)
        return self._calls.get_or_set(
            (dtype, shape, settings), lambda: _Call(next(self._numbers), dtype, shape, settings)
        )

    def _settings(self, params: dict[str, Any]) -> bytes:
        return self._fingerprint(params=params) if params else b""

    def _key(self, call: _Call, item: Any) -> bytes:
        if type(item) is str:
            text = item.encode("utf-8", "surrogatepass")
            if len(text) <= _MOST_EXACT:
                return call.prefix + b"s" + text
        return call.prefix + b"f" + self._fingerprint(item)

    # --- what is new

    def _steps(self, batch: _Batch, mine: list[bytes]) -> Steps:
        places = {key: at for at, key in enumerate(batch.keys)}

        def inputs_of(keys: Sequence[bytes]) -> Any:
            inputs, call = batch.take([places[key] for key in keys]), batch.call
            pairs = zip(inputs, keys, strict=True)
            if self._settings(batch.params) != call.settings or not (
                call.of_rows or all(self._key(call, x) == key for x, key in pairs)
            ):
                raise RuntimeError(
                    f"inputs or parameters of {self._model} were changed before it was called"
                )
            return inputs

        def names(keys: Sequence[bytes]) -> list[bytes]:
            named = partial(self._fingerprint, batch.call.of_rows, params=batch.params or None)
            return [named(each) for each in inputs_of(keys)]

        def compute(keys: list[bytes]) -> Steps:
            if getattr(self._owner, "training", False) is True and not self._allow_stochastic:
                raise ValueError(f"{self._model} is in training mode: call its eval() first")
            inputs = inputs_of(keys)
            start = perf_counter()
            call = partial(self._predict, **batch.params)
            results = yield call, self._awaited(batch.params), (inputs,)
            spent = perf_counter() - start
            return batch.call.split(results, len(keys), self._model), spent

        return self._computed.steps(mine, names, compute, batch.call.packed, batch.call.unpacked)

    def _awaited(self, params: dict[str, Any]) -> Callable[..., Any]:
        call = partial(self._predict, **params)
        return call if self._awaits else in_thread(call)


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype in the machine's byte order; without padding, whose bytes are those of nobody."""
    if dtype.names:
        from numpy.lib.recfunctions import repack_fields

        dtype = repack_fields(dtype, recurse=True)
    return dtype.newbyteorder("=")


class _Kind(NamedTuple):
    """What a model returns for an input."""

    listed: bool
    """An item of a list; else a row of an array."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """It is bytes of a fixed number."""
        return not self.dtype.hasobject

    def __str__(self) -> str:
        return "a list" if self.listed else f"{self.dtype} rows of shape {self.shape}"


class _Call:
    """Calls with the same parameters and kind of inputs: what their keys and results share."""

    __slots__ = ("_kinds", "flat", "layout", "number", "of_rows", "prefix", "settings")

    def __init__(
        self, number: int, dtype: np.dtype[Any], shape: tuple[int, ...], settings: bytes
    ) -> None:
        self.number, self.prefix = number, number.to_bytes(8, "little")
        self.settings, self.of_rows = settings, not dtype.hasobject
        if self.of_rows:
            self.layout = np.dtype([("call", "<u8"), ("row", dtype, shape)])
            self.flat: np.dtype[Any] = np.dtype((np.void, self.layout.itemsize))
        self._kinds: dict[str, _Kind] = {}  # one, which whoever is first sets in one step

    @property
    def kind(self) -> _Kind | None:
        """What the model returns, once it is known."""
        return self._kinds.get("kind")

    def split(self, results: Any, n: int, model: str) -> list[Any]:
        """What is kept of each of n results of a model."""
        results, kind = _checked(results, n, model)
        refuse_unkeepable(results, model)
        known = self._kinds.setdefault("kind", kind)
        if known != kind:
            raise ValueError(f"{model} must return {known}, as before, not {kind}")
        if not kind.plain:
            return list(results)
        width = results.nbytes // n
        if not width:
            return [b""] * n
        void = np.dtype((np.void, width))
        kept: list[Any] = np.ascontiguousarray(results).reshape(n, -1).view(void)[:, 0].tolist()
        return kept

    def joined(self, values: list[Any]) -> Any:
        """Results as the model returns them, of what is kept of each; None if something is MISSING.

        Joining bytes takes a half of what `Cache.gather` and its test for misses do.
        """
        kind = self.kind
        if kind is None:
            return None
        if kind.plain:
            try:
                rows = bytearray().join(values)
            except TypeError:
                return None
            return np.ndarray((len(values), *kind.shape), kind.dtype, rows)
        if any(value is MISSING for value in values):
            return None
        return values if kind.listed else np.fromiter(values, kind.dtype, len(values))

    def packed(self, value: Any) -> Any:
        """A result as it is written below: an array, or whether it is of a list, and it."""
        kind = self._kinds["kind"]
        return self.joined([value])[0, ...] if kind.plain else [kind.listed, value]

    def unpacked(self, value: Any) -> Any:
        """The same back; MISSING if it is of another kind than the model's."""
        if type(value) is list and len(value) == 2 and type(value[0]) is bool:
            kind, value = _Kind(value[0], _OBJECT, ()), value[1]
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            kind, value = _Kind(False, value.dtype, value.shape), value.tobytes()
        else:
            return MISSING
        return value if self._kinds.setdefault("kind", kind) == kind else MISSING


class _Batch(NamedTuple):
    """A request."""

    call: _Call
    params: dict[str, Any]
    keys: list[bytes]
    inputs: Any
    """Rows as they were when the keys were made, or a list."""

    def take(self, places: list[int]) -> Any:
        """Some of the inputs."""
        if isinstance(self.inputs, list):
            return [self.inputs[at] for at in places]
        return self.inputs[places]


def _filled(keys: list[bytes], values: list[Any], found: dict[bytes, Any]) -> list[Any]:
    """`values`, and in the places of what was MISSING what has been found."""
    pairs = zip(keys, values, strict=True)
    return [found[key] if value is MISSING else value for key, value in pairs]


def _checked(results: Any, n: int, model: str) -> tuple[Any, _Kind]:
    """What a model returned for n inputs, and its kind."""
    if hasattr(results, "detach"):  # a torch tensor, maybe with a gradient, maybe elsewhere
        try:
            results = results.detach().cpu().numpy()
        except TypeError:
            what = f"{results.dtype}, which NumPy does not have: let it return results.float()"
            raise TypeError(f"{model} returned {what}") from None
    if isinstance(results, list):
        kind = _Kind(True, _OBJECT, ())
        arrays = [result for result in results if isinstance(result, np.ndarray)]
        if n > 1 and len(arrays) == n and all(a.ndim and len(a) == n for a in arrays):
            raise TypeError(
                f"{model} must return one array for all inputs: a list of {n} arrays of {n} rows "
                "could be one for each output as well"
            )
    elif hasattr(results, "__array__") and not isinstance(results, np.ma.MaskedArray):
        results = np.asarray(results)
        kind = _Kind(False, results.dtype, results.shape[1:])
        if results.ndim == 0 or (results.dtype.hasobject and results.ndim > 1):
            raise TypeError(
                f"{model} must return one row for each input, of numbers or one object, "
                f"not {results.dtype} of shape {results.shape}"
            )
    else:
        raise TypeError(f"{model} must return an array or a list, not {type(results).__name__}")
    if len(results) != n:
        raise ValueError(f"{model} must return {n} rows for {n} inputs, not {len(results)}")
    return results, kind
