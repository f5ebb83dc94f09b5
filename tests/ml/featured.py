"""What the tests of FeatureCache share: a schema, and a source of features that counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cachecore.ml import Feature, FeatureCache
from support import Clock

HANGS = 20.0  # seconds after which a test fails instead of waiting on
SCHEMA = [
    Feature("country", "S2", "static", b"??"),
    Feature("age", "u1", "batch"),
    Feature("clicks", "i4", "streaming", -1),
    Feature("taste", ("f4", (4,)), 60),
]
NAMES = [feature.name for feature in SCHEMA]
BATCH = 6 * 3600


def value(entity: Any, name: str, version: int = 0) -> Any:
    """What is true of an entity."""
    number = sum(str(entity).encode("utf-8", "surrogatepass")) + version
    if name == "country":
        return b"%02d" % (number % 100)
    if name == "taste":
        return [number, 1, 2, 3]
    return number % 200


class Source:
    """A loader; `calls` has what it was asked for, `absent` what does not exist."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], list[str]]] = []
        self.version = 0
        self.absent: set[tuple[Any, str]] = set()
        self.before: Callable[[], object] = lambda: None  # called in each load
        self.after: Callable[[], object] = lambda: None  # the same, when the values were read

    def __call__(self, entities: list[Any], names: list[str]) -> dict[str, list[Any]]:
        self.calls.append((entities, names))
        self.before()
        columns = {
            name: [
                None if (entity, name) in self.absent else value(entity, name, self.version)
                for entity in entities
            ]
            for name in names
        }
        self.after()
        return columns

    async def later(self, entities: list[Any], names: list[str]) -> dict[str, list[Any]]:
        """The same as a coroutine function."""
        return self(entities, names)

    def told(self) -> list[tuple[list[Any], list[str]]]:
        """What it was asked for since it was last asked this."""
        calls, self.calls = self.calls, []
        return calls


def check(
    rows: Any, entities: Sequence[Any], names: Sequence[str] = NAMES, version: int = 0
) -> None:
    """Compare rows with what is true."""
    assert rows.dtype.names == tuple(names)
    for name in names:
        expected = np.array([value(entity, name, version) for entity in entities])
        np.testing.assert_array_equal(rows[name], expected)


def in_threads(number: int, function: Callable[[int], object]) -> list[BaseException]:
    """Call function(0), function(1) ... at a time; what they raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(number)

    def run(at: int) -> None:
        try:
            barrier.wait(HANGS)
            function(at)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(at,), daemon=True) for at in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS)
        assert not thread.is_alive()
    return errors


def make(source: Any, clock: Clock | None = None, **options: Any) -> FeatureCache:
    return FeatureCache(SCHEMA, maxsize=1000, loader=source, timer=clock, **options)
