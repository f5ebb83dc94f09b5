"""The databases: which there are, and how many keys each has."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from time import monotonic
from typing import Any

from cachecore._core import Cache
from cachecore._keyspace import count_keys
from cachecore._resp_values import ReplyError

SHARE = 1 / 50  # of the time that may go into counting for INFO


class Keyspace:
    """Counts the keys of a cache by their first byte, the number of their database.

    Args:
        cache: whose keys.
        databases: numbers below this one are good.

    Attributes:
        used: numbers of the databases that somebody has named.
    """

    def __init__(self, cache: Cache[bytes, Any], databases: int) -> None:
        self.used = {0}
        self._cache, self._databases = cache, databases
        self._counted: dict[int, int] = {}
        self._until = 0.0

    def use(self, number: int) -> bytes:
        """What the keys of a database begin with; ReplyError: there is none of this number."""
        if not 0 <= number < self._databases:
            raise ReplyError("ERR DB index is out of range")
        self.used.add(number)
        return bytes((number,))

    def size(self, number: int) -> int:
        """Keys of a database; expired ones, too, for as long as nobody has noticed."""
        return len(self._cache) if len(self.used) == 1 else count_keys(self._cache, number)

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
