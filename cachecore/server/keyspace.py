"""How many keys each database has."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from time import monotonic
from typing import Any

from cachecore._core import Cache

SHARE = 1 / 50  # of the time that may go into counting for INFO


class Keyspace:
    """Counts the keys of a cache by their first byte.

    Attributes:
        used: numbers of the databases that somebody has selected or written to.
    """

    def __init__(self, cache: Cache[bytes, Any]) -> None:
        self.used = {0}
        self._cache = cache
        self._counted: dict[int, int] = {}
        self._until = 0.0

    def sizes(self, *, recent: bool = False) -> dict[int, int]:
        """Keys of each database that has any.

        One database costs nothing; of several the keys are walked, some 60 ms for a million.
        `recent`: a count of late is good enough, so that all counting takes its share of the time.
        """
        if len(self.used) == 1:
            return {number: len(self._cache) for number in self.used if len(self._cache)}
        begin = monotonic()
        if not recent or begin >= self._until:
            self._counted = dict(sorted(Counter(map(itemgetter(0), self._cache)).items()))
            end = monotonic()
            self._until = end + (end - begin) / SHARE
        return self._counted
