"""The writes and deletions that a tier has missed, until it is back and they can be made up for.

A write that was cancelled, or not answered in time, may still be on its way, and come after a later
one. So what is written under a key that stands here is noted as well, and done once more when the
first can be on its way no longer.

While a key stands here, its tier is not read for it: what it has is older. When there are more
keys than the ledger holds, nothing of that tier's is believed any more, until the generation of the
namespace in it has been replaced, which makes everything it has void at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from cachecore.sentinel import MISSING

MOST_KEYS = 100_000
MOST_BYTES = 64 * 1024 * 1024


class Missed(NamedTuple):
    """A write that a tier has missed; without a value: a deletion."""

    at: int
    """When, in Unix ms."""
    value: Any
    """MISSING: a deletion."""
    soft: int
    hard: int
    tags: tuple[int, ...]
    size: int
    noted: float = 0.0
    """When it was found to be missed, in seconds of the monotonic clock."""


class Ledger:
    """What one tier has missed. Used under the GIL, a step at a time."""

    def __init__(self) -> None:
        self.missed: dict[Any, Missed] = {}
        self.bytes = 0
        self.overflowed = False
        self.renewal: bytes | None = None
        """A generation that the tier is to be given: the namespace was invalidated meanwhile."""
        self.tags: dict[int, bytes] = {}
        """The same for tags."""

    def __len__(self) -> int:
        return len(self.missed) + len(self.tags) + self.is_void

    def readable(self, keys: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The keys for which the tier may be read, and the others."""
        if self.is_void:
            return [], list(keys)
        ask = [key for key in keys if key not in self.missed]
        return ask, [key for key in keys if key in self.missed]

    def note(self, key: Any, missed: Missed) -> None:
        """Remember a write; the latest of a key counts."""
        self.forget([key])
        self.missed[key] = missed
        self.bytes += missed.size
        if len(self.missed) > MOST_KEYS or self.bytes > MOST_BYTES:
            self.missed.clear()
            self.bytes = 0
            self.overflowed = True

    def of(self, keys: Iterable[Any], noted: float) -> list[Any]:
        """Those of the keys that have stood here since then."""
        return [key for key in keys if key in self.missed and self.missed[key].noted <= noted]

    def forget(self, keys: Iterable[Any]) -> None:
        """These keys have been written since."""
        for key in keys:
            missed = self.missed.pop(key, None)
            if missed is not None:
                self.bytes -= missed.size

    def made_up(self, done: dict[Any, Missed]) -> None:
        """These have been made up for, if nothing was missed under their keys meanwhile."""
        self.forget([key for key, missed in done.items() if self.missed.get(key) is missed])

    def void(self, number: int | None) -> None:
        """What was to be written with a tag, or at all (None), was invalidated since."""
        for key, missed in list(self.missed.items()):
            if number is None:
                self.forget([key])
            elif number in missed.tags:
                self.note(key, Missed(missed.at, MISSING, missed.soft, missed.hard, (), 64))

    @property
    def is_void(self) -> bool:
        """Whether all that the tier has is to be made void before it is read or written again."""
        return self.overflowed or self.renewal is not None
