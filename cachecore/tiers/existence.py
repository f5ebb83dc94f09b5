"""A Bloom filter in front of a tier: what surely is not there is not asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice

from cachecore.settings import positive_int, share
from cachecore.tiers.base import Item, Tier, Wrapper
from cachecore.tiers.parts import aget_rest, get_rest

try:
    from rbloom import Bloom
except ImportError as error:
    raise ImportError('ExistenceFilter needs rbloom: pip install "cachecore-ml[bloom]"') from error

MOST = 10**10  # keys that may be expected
FILLED = 10_000  # keys that are put in at a time


def _number(key: bytes) -> int:
    """What rbloom makes its hashes from: the same in all processes, unlike Python's own."""
    return int.from_bytes(blake2b(key, digest_size=16).digest(), "big", signed=True)


class ExistenceFilter(Wrapper):
    """A tier that is only asked for keys that may be there (Bloom, 1970).

    Args:
        tier: What is asked.
        keys: Those that are there already; see also `fill` and `fill_from_scan`.
        expected: How many keys there will be.
        false_positives: The share of absent keys that are asked for in vain, once there are so
            many; more keys make it grow.

    The filter has to know every key that is there: those set through it, and those it was told. One
    that somebody else sets is not found. A key that was deleted or has expired stays in it: make a
    new filter now and then. It takes 1.2 bytes per expected key at 0.01.

    `stats()` adds the keys that were `spared`, `filter_keys`, about how many are in it, and
    `filter_overfull`, 1 when these are more than expected. Thread safe under the GIL.
    """

    def __init__(
        self,
        tier: Tier,
        keys: Iterable[bytes] = (),
        *,
        expected: int,
        false_positives: float = 0.01,
    ) -> None:
        super().__init__(tier)
        self._expected = positive_int(expected, "expected")
        if self._expected > MOST:  # where there is no memory for it, rbloom ends the process
            raise ValueError(f"expected must be at most {MOST}, not {expected}")
        if not 1e-9 <= share(false_positives, "false_positives") <= 0.5:
            raise ValueError(f"false_positives must be between 1e-9 and 0.5, not {false_positives}")
        # The numbers are hashes already. `int` leaves them as they are, and lets no other thread
        # run, which could meet the filter while it is being changed.
        self._bloom = Bloom(self._expected, float(false_positives), int)
        self._spared = 0
        self.fill(keys)

    def fill(self, keys: Iterable[bytes]) -> None:
        """Put in keys that are there."""
        rest = iter(keys)
        while numbers := [_number(key) for key in islice(rest, FILLED)]:
            self._bloom.update(numbers)

    def fill_from_scan(self, prefix: bytes = b"") -> None:
        """Put in the tier's keys that begin with `prefix`; TierError if it cannot list them."""
        self.fill(self.tier.scan(prefix))

    @property
    def overfull(self) -> bool:
        """Whether it has more keys than expected, and thus spares less than it should."""
        return bool(self._bloom.approx_items > self._expected)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        places = self._places(keys)
        if len(places) == len(keys):
            return self.tier.get_many(keys)
        return get_rest(self.tier, keys, [None] * len(keys), places)

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        places = self._places(keys)
        if len(places) == len(keys):
            return await self.tier.aget_many(keys)
        return await aget_rest(self.tier, keys, [None] * len(keys), places)

    def _places(self, keys: Sequence[bytes]) -> list[int]:
        """Where the keys are that may be there."""
        bloom = self._bloom
        places = [at for at, key in enumerate(keys) if _number(key) in bloom]
        self._spared += len(keys) - len(places)
        return places

    # Keys are put in before they are set: nobody may find them there, and not be let through.

    def set_many(self, items: Sequence[Item]) -> None:
        self.fill(item[0] for item in items)
        self.tier.set_many(items)

    async def aset_many(self, items: Sequence[Item]) -> None:
        self.fill(item[0] for item in items)
        await self.tier.aset_many(items)

    def add(self, item: Item) -> bool:
        self.fill([item[0]])
        return self.tier.add(item)

    async def aadd(self, item: Item) -> bool:
        self.fill([item[0]])
        return await self.tier.aadd(item)

    def demote_many(self, items: Sequence[Item], frequencies: Sequence[int]) -> None:
        self.fill(item[0] for item in items)
        self.tier.demote_many(items, frequencies)

    def stats(self) -> dict[str, int]:
        return {
            **self.tier.stats(),
            "spared": self._spared,
            "filter_keys": round(min(self._bloom.approx_items, self._bloom.size_in_bits)),
            "filter_overfull": int(self.overfull),
        }
