"""Generations: the numbers by which a whole namespace, or all that has a tag, is void at once.

Each tier keeps a random number for the namespace and one for each tag, under keys of their own;
what is written to the tier carries those of the moment. Whoever invalidates replaces a number, and
all that carries the old one is a miss. Others notice when they next read it, at most a second later
if they use the tier at all, or at once when an invalidation source tells them.

A number that an engine has forgotten is made anew, never assumed: what the tier has stays void.
What others hold does not become so: a server that comes back empty is no invalidation. So one that
somebody had not read before the server lost it reaches him only by an invalidation source.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from hashlib import blake2b
from typing import Any

from cachecore._load import ADD, GET, Level, Load
from cachecore._tiered import GENERATION_MS, NEVER
from cachecore._writes import TieredWrites
from cachecore.tiers.base import Item

Calls = Generator[Any, Any, Any]

SIZE = 8  # bytes of a generation


def fresh(voids: bool = True) -> bytes:
    """A generation that nobody has; an odd number says that what was before is void."""
    number = os.urandom(SIZE)
    return bytes([number[0] & ~1 | voids]) + number[1:]


def tag_number(tag: str) -> int:
    """The number by which envelopes name a tag."""
    if not isinstance(tag, str):
        raise TypeError(f"a tag must be a str, not {type(tag).__name__}")
    return int.from_bytes(blake2b(tag.encode(), digest_size=8).digest(), "little")


class Generations(TieredWrites):
    """The part of a cache with tiers that keeps the generations of its namespace and its tags."""

    __slots__ = ()

    def tag_key(self, number: int) -> bytes:
        """Where a tier keeps the generation of a tag."""
        return self.prefix + b"\0tag:%016x" % number

    def _renewed(self, level: Level, key: bytes, data: bytes | None) -> Calls:
        """A generation that was read, or the one that takes its place where there is none."""
        if data is None or len(data) != SIZE:
            mine = fresh(voids=False)
            if (yield ADD, level, Item(key, mine)):
                return mine
            data = (yield GET, level, [key])[0]
        return data if data is not None and len(data) == SIZE else fresh()  # void at once

    def generation_found(self, level: Level, data: bytes | None, now: int) -> Calls:
        """Take over the generation that was read with other keys; None: the tier has none yet."""
        number = int.from_bytes(
            (yield from self._renewed(level, level.generation_key, data)), "little"
        )
        known, level.generation, level.generation_read = level.generation, number, now
        if known not in (0, number):  # somebody else has invalidated it, or the tier was emptied
            level.tags = {tag: each for tag, each in level.tags.items() if each[1] == NEVER}
            if number & 1:
                yield from self.void_steps(None, self._to_tell(level))

    def generation_known(self, level: Level, now: int) -> Calls:
        """Read a tier's generation where that was long ago; raises what the tier raises."""
        if now - level.generation_read >= GENERATION_MS and not self.raw:
            data = (yield GET, level, [level.generation_key])[0]
            yield from self.generation_found(level, data, now)

    def tags_known(self, level: Level, numbers: Iterable[int], now: int) -> Calls:
        """The generations of tags in a tier, as pairs; raises what the tier raises."""
        old = [n for n in numbers if now - level.tags.get(n, (0, 0))[1] >= GENERATION_MS]
        if old:
            keys = [self.tag_key(number) for number in old]
            datas = yield GET, level, keys
            for number, key, data in zip(old, keys, datas, strict=True):
                found = int.from_bytes((yield from self._renewed(level, key, data)), "little")
                known, level.tags[number] = level.tags.get(number, (found, 0))[0], (found, now)
                if known != found and found & 1:
                    yield from self.void_steps(number, self._to_tell(level))
        return tuple((number, level.tags[number][0]) for number in numbers)

    def tags_hold(self, level: Level, tags: tuple[tuple[int, int], ...], now: int) -> Calls:
        """Whether none of a value's tags has been invalidated since it was written."""
        try:
            return tags == (yield from self.tags_known(level, [number for number, _ in tags], now))
        except Exception as error:
            level.failed(error)
            return False

    def _to_tell(self, level: Level) -> list[Level]:
        """Where news of a tier goes: to this machine's tiers, and from one of these only upward.

        Who has invalidated what is there has told the tiers that he uses; to answer him would never
        end.
        """
        shared = level.tier.shared
        levels = self.levels if shared else self.levels[: self.levels.index(level)]
        return [each for each in levels if not each.tier.shared]

    def _private(self) -> list[Level]:
        """The tiers of this machine."""
        return [level for level in self.levels if not level.tier.shared]

    def void_steps(self, number: int | None, levels: Sequence[Level]) -> Calls:
        """Make the namespace or a tag void: see writing.py."""
        raise NotImplementedError

    def owed_here(self, load: Load, level: Level, keys: list[Any], now: int) -> list[Any]:
        """Keep what a tier should have and has missed: see owing.py."""
        raise NotImplementedError

    def sealed_now(self, now: int, soft: int, hard: int) -> Any:
        """What an envelope would say of a value that had none: see filling.py."""
        raise NotImplementedError

    def told(self, load: Load, event: str, keys: int, spent: float) -> None:
        """Tell whoever wants to know of an event: see tiered.py."""
        raise NotImplementedError

    def tag_changed(self, number: int) -> None:
        """What is here and has the tag is void."""
        self.epoch += 1
        self.tag_epochs[number] = self.epoch

    def forget_here(self) -> None:
        """Empty what this process holds; what is being loaded will not be kept."""
        self.overtake(list(self.flights))
        self.leaving.clear()
        self.l0.clear()
        if self.absent is not None:
            self.absent.clear()
