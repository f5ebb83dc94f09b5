"""`memoize`: 10,000 calls of a decorated function."""

from __future__ import annotations

import functools
from collections.abc import Callable

from cachecore import memoize
from workloads import KeyKind, draws, make_keys

from .common import KINDS, LOOKUPS, Topic, next_seed


@functools.cache
def decorated(maxsize: int) -> Callable[..., int]:
    """Return a memoized built-in, so that a miss costs the cache's work and little more."""
    function: Callable[..., int] = memoize(maxsize=maxsize)(hash)
    return function


class Memoize(Topic):
    """One argument; the default size, and 10^4."""

    params = ([128, 10**4], KINDS)
    param_names = ("maxsize", "arguments")

    def setup(self, maxsize: int, kind: KeyKind) -> None:
        """Call once with each argument."""
        arguments = make_keys(kind, maxsize)
        self.function = decorated(maxsize)
        for argument in arguments:
            self.function(argument)
        self.hits = draws(arguments, LOOKUPS, next_seed())
        self.misses = make_keys(kind, LOOKUPS, start=maxsize + LOOKUPS * next_seed())

    def time_hit(self, *_: object) -> None:
        """`f(x)` with a result remembered."""
        function = self.function
        for argument in self.hits:
            function(argument)

    def time_miss(self, *_: object) -> None:
        """`f(x)` with a new argument each time."""
        function = self.function
        for argument in self.misses:
            function(argument)
