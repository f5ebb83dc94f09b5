"""Pipeline: stages with versions, of which only those run whose result is not known yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from cachecore.ml.checks import refuse_unkeepable
from cachecore.ml.computed import Computed
from cachecore.ml.fingerprints import fingerprint
from cachecore.ml.savings import Ledger, Savings, report
from cachecore.ml.steps import Steps, run
from cachecore.ml.versions import check_version
from cachecore.sentinel import MISSING
from cachecore.settings import awaits

if TYPE_CHECKING:
    from cachecore.tiers.tiered import TieredCache

_DOMAIN = "cachecore.ml.pipeline"


@dataclass(frozen=True)
class Stage:
    """A step of a pipeline."""

    name: str
    function: Callable[[Any], Any]
    """Called with what the stage before returned, which it must not change."""
    version: str | int
    """Of the function: another version, another result."""
    batch: bool = False
    """The function takes a list of n inputs and returns n results: a list, array or tensor."""
    allow_nan: bool = False
    """A NaN is a result like any other."""


class _Running:
    """A stage, the cache of its results, and what those have in common."""

    __slots__ = ("computed", "lineage", "stage")

    def __init__(self, stage: Stage, lineage: bytes, computed: Computed) -> None:
        self.stage, self.lineage, self.computed = stage, lineage, computed

    def results(self, inputs: list[Any]) -> Any:
        """Call the function."""
        stage = self.stage
        if not stage.batch:
            results: Any = [stage.function(value) for value in inputs]
        else:
            results = stage.function(inputs)
            rows = isinstance(results, (list, np.ndarray)) or hasattr(results, "detach")
            if isinstance(results, np.ma.MaskedArray) or getattr(results, "shape", None) == ():
                rows = False
            if not rows:
                kind = type(results).__name__
                raise TypeError(f"stage {stage.name!r} must return a list or array, not {kind}")
            if len(results) != len(inputs):
                raise ValueError(
                    f"stage {stage.name!r} must return {len(inputs)} results for as many inputs, "
                    f"not {len(results)}"
                )
            results = list(results)
        refuse_unkeepable(results, f"stage {stage.name!r}", stage.allow_nan)
        return results


class Pipeline:
    """Functions one after another, each with a version and a cache of its own.

    A result is kept under the input's fingerprint and the names and versions of the stages that
    made it. The last stage's cache is asked first: what it has takes one look-up. What it does
    not have begins after the last stage that has it. So when a stage is replaced, what lies
    before it is reused. Of all threads that ask for a result at a time, one computes it.

    Args:
        stages: each a `Stage` or a tuple (name, function, version).
        maxsize, max_bytes, ttl, timer: of each stage's cache, as for `Cache`; one of the first two
            is required.
        below: a TieredCache without a loader, asked for what is not here.
        salt: part of every fingerprint: those of two tenants are never the same.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """

    def __init__(
        self,
        stages: Iterable[Stage | tuple[str, Callable[[Any], Any], str | int]],
        *,
        maxsize: int | None = None,
        max_bytes: int | str | None = None,
        ttl: float | None = None,
        below: TieredCache | None = None,
        salt: bytes | str = b"",
        timer: Callable[[], float] | None = None,
    ) -> None:
        if not isinstance(stages, Iterable):
            kind = type(stages).__name__
            raise TypeError(f"stages must be an iterable of Stages or tuples, not {kind}")
        listed = list(map(_stage, stages))
        names = [stage.name for stage in listed]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"stages must be at least one, each of another name, not {names}")
        self._salt = salt
        self._stages: tuple[_Running, ...] = self._running(
            listed,
            [
                Computed(maxsize, max_bytes, ttl, timer, below, Ledger(stage.name, stage.version))
                for stage in listed
            ],
        )

    def _running(self, stages: list[Stage], caches: Iterable[Computed]) -> tuple[_Running, ...]:
        running, lineage = [], b""
        for stage, computed in zip(stages, caches, strict=True):
            lineage = self._fingerprint(lineage, stage.name, stage.version)
            running.append(_Running(stage, lineage, computed))
        return tuple(running)

    def _fingerprint(self, value: Any, model: str = "input", version: str | int = 1) -> bytes:
        return fingerprint(value, model=model, version=version, domain=_DOMAIN, salt=self._salt)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages as they are now."""
        return tuple(running.stage for running in self._stages)

    def key(self, x: Any) -> bytes:
        """The compound fingerprint of an input and all stages: 64 bytes, half of each."""
        return self._stages[-1].lineage + self._fingerprint(x)

    def run(self, x: Any) -> Any:
        """The last stage's result for an input; see `run_many`."""
        return self.run_many([x])[0]

    def run_many(self, xs: Iterable[Any]) -> list[Any]:
        """The last stage's result for each input; a stage is called once, with what is new to it.

        Args:
            xs: inputs that `fingerprint` takes.

        Returns:
            A list. Arrays in it are read-only; other objects are those that the cache keeps, and
            must not be changed.

        Raises:
            ValueError: a stage did not return one result for each input, or NaN. It keeps nothing
                then; the stages before it do.
            TypeError: of an input, there is no fingerprint; a stage returned what is no list or
                array, or something that can be read once only, such as a generator.
        """
        stages = self._stages  # of one moment, whatever is replaced meanwhile
        if isinstance(xs, (str, bytes)) or not hasattr(type(xs), "__iter__"):
            raise TypeError(f"xs must be an iterable of inputs, not {type(xs).__name__}")
        inputs = list(xs)
        prints = [self._fingerprint(x) for x in inputs]
        results = _results(stages, dict(zip(prints, inputs, strict=True)))
        for running in stages:
            running.computed.ledger.asked(len(inputs))
        return [results[print] for print in prints]

    def replace(self, name: str, function: Callable[[Any], Any], *, version: str | int) -> None:
        """Put a new version of a stage in its place; runs that have begun end with the old one.

        Results of the old version remain until they are evicted: going back to it finds them. From
        one thread at a time.

        Raises:
            KeyError: there is no such stage.
            ValueError: it has this version already.
        """
        stages = {running.stage.name: running.stage for running in self._stages}
        if name not in stages:
            raise KeyError(name)
        if stages[name].version == version:
            raise ValueError(f"version must be another than that of stage {name!r}, {version!r}")
        stages[name] = _stage(replace(stages[name], function=function, version=version))
        caches = [running.computed for running in self._stages]
        self._stages = self._running(list(stages.values()), caches)
        for running in self._stages:
            running.computed.ledger.version = running.stage.version

    def savings(self, gpu_cost_per_hour: float | None = None) -> Savings:
        """What was saved so far; the price of an hour of the machine makes money of seconds."""
        return report([running.computed.ledger for running in self._stages], gpu_cost_per_hour)

    def clear(self) -> None:
        """Forget all results in this process, not those below."""
        for running in self._stages:
            running.computed.cache.clear()


def _stage(stage: Any) -> Stage:
    """A stage as it was given, checked."""
    if isinstance(stage, tuple) and len(stage) == 3:
        stage = Stage(*stage)
    if not isinstance(stage, Stage):
        raise TypeError(f"stages must be tuples (name, function, version) or Stages, not {stage!r}")
    if not isinstance(stage.name, str) or not stage.name:
        raise TypeError(f"a stage's name must be a str, not {stage.name!r}")
    if not callable(stage.function):
        kind = type(stage.function).__name__
        raise TypeError(f"the function of stage {stage.name!r} must be callable, not {kind}")
    if awaits(stage.function):
        raise TypeError(f"the function of stage {stage.name!r} must not be a coroutine function")
    for option in ("batch", "allow_nan"):
        if not isinstance(getattr(stage, option), bool):
            kind = type(getattr(stage, option)).__name__
            raise TypeError(f"{option} of stage {stage.name!r} must be a bool, not {kind}")
    check_version(stage.version, stacklevel=4)
    return stage


def _results(stages: Sequence[_Running], inputs: dict[bytes, Any]) -> dict[bytes, Any]:
    """The results of the last of some stages, for inputs by their fingerprints."""
    if not stages:
        return inputs
    *before, last = stages
    cut = len(last.lineage)
    keys = [last.lineage + print for print in inputs]
    values = dict(zip(keys, last.computed.cache.get_many(keys, MISSING), strict=True))
    missing = [key for key in keys if values[key] is MISSING]

    def compute(mine: list[bytes]) -> Steps:
        earlier = _results(before, {key[cut:]: inputs[key[cut:]] for key in mine})
        start = perf_counter()
        inputs_here = [earlier[key[cut:]] for key in mine]
        results = yield last.results, last.results, (inputs_here,)  # `run` takes the first one
        return results, perf_counter() - start

    if missing:
        values |= last.computed.flights.run(
            missing, lambda mine: run(last.computed.steps(mine, list, compute))
        )
    return {key[cut:]: value for key, value in values.items()}
