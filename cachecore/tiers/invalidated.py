"""What others invalidate: the part of a cache with tiers that listens to invalidation sources."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from cachecore._load import DELETE, Level
from cachecore._tiered import NEVER, run_sync
from cachecore.tiers.demotion import Demoting
from cachecore.tiers.generations import Calls


class Invalidated(Demoting):
    """The part of a cache with tiers that does what invalidation sources say.

    Only tiers that are not shared are told: the others are where the news comes from. While a
    source is lost, nothing is read from this process's memory and those tiers, or kept there.
    """

    __slots__ = ("sources",)

    sources: list[Any]

    def listen(self) -> None:
        """Begin to listen to the sources; until they are there, nothing is trusted."""
        for source in self.sources:
            weakref.finalize(self, source.stop).atexit = False
            source.start(Ear(self))

    def forget(self, keys: Sequence[bytes]) -> None:
        """Forget keys, named as in the tiers; what is being loaded for them will not be kept."""
        wires: list[bytes] = []
        ours: list[Any] = []
        for wire in keys:
            name = wire[len(self.prefix) :]
            if not wire.startswith(self.prefix):
                continue
            if name == b"\0generation":
                self._read_again(None)
                self.forget_all()
            elif name.startswith(b"\0tag:"):
                self._read_again(int(name[5:], 16))
                run_sync(self, self.void_steps(int(name[5:], 16), self._private()))
            elif not name.endswith(b"\0lease"):
                wires.append(wire)
                ours += _keys_of(name)
        self.invalidations += len(wires)
        self.overtake(ours)
        for level in reversed(self._private() if wires else []):
            run_sync(self, self._forget_in(level, wires, ours))
            self.overtake(ours)  # what has just been read there
        self.forget_keys(ours)

    def _read_again(self, number: int | None) -> None:
        """A generation was replaced: what shared tiers have is not believed before it is read."""
        for level in self.levels:
            if not level.tier.shared:
                continue
            if number is None:
                level.generation_read = 0
            elif number in level.tags and level.tags[number][1] != NEVER:
                level.tags[number] = level.tags[number][0], 0

    def _forget_in(self, level: Level, wires: list[bytes], keys: list[Any]) -> Calls:
        if level.ledger is not None:  # what it has missed is older
            self.owe_deletions(level, keys, self.now_ms())
        try:
            yield DELETE, level, wires
        except Exception as error:
            level.failed(error)
            self.owe_deletions(level, keys, self.now_ms())

    def forget_all(self) -> None:
        """Forget everything that this process, or a tier of its own, holds."""
        if not self.raw:
            run_sync(self, self.void_steps(None, self._private()))
            return
        self.forget_here()
        for level in self.levels:
            if not level.tier.shared:
                try:
                    level.tier.delete_many(list(level.tier.scan(self.prefix)))
                except Exception as error:
                    level.failed(error)

    def distrust(self) -> None:
        """From now on invalidations may be missed."""
        self.distrusts += 1
        self.lost += 1
        if self.lost == 1:
            self.distrusted = True
            self.slow += 1
            self.forget_here()

    def trust(self) -> None:
        """A source is back, and has told what was missed."""
        self.lost -= 1
        if self.lost == 0:
            self.distrusted = False
            self.slow -= 1


class Ear:
    """What one source tells; it is not trusted until it says that it is there.

    It does not keep its cache: one that nobody has any more stops its sources.
    """

    def __init__(self, cache: Invalidated) -> None:
        self._cache, self._lost = weakref.ref(cache), True
        cache.distrust()

    def forget(self, keys: Sequence[bytes]) -> None:
        """These keys have changed."""
        cache = self._cache()
        if cache is not None:
            cache.forget(keys)

    def forget_all(self) -> None:
        """Anything may have changed."""
        cache = self._cache()
        if cache is not None:
            cache.forget_all()

    def distrust(self) -> None:
        """The source is lost."""
        cache = self._cache()
        if cache is not None and not self._lost:
            self._lost = True
            cache.distrust()

    def trust(self) -> None:
        """The source is back."""
        cache = self._cache()
        if cache is not None and self._lost:
            self._lost = False
            cache.trust()


def _keys_of(name: bytes) -> Iterator[Any]:
    """The keys that have this name in a tier: up to one of each type."""
    yield name
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return
    yield text
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and (text == "0" or digits[0] != "0"):
        yield int(text)
