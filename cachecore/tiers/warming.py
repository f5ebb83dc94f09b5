"""Warm-up: filling a cache before it is asked."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sized
from contextlib import closing
from pathlib import Path
from typing import Any

from cachecore._envelope import inspect, wire_keys
from cachecore.progress import Report, reporting
from cachecore.sentinel import MISSING
from cachecore.settings import positive_int, price
from cachecore.tiers.base import Tier
from cachecore.tiers.invalidated import Invalidated
from cachecore.tiers.owing import BATCH

HOTTEST = 10_000  # keys that are saved


class Warming(Invalidated):
    """The part of a cache with tiers that fills it before it is asked."""

    __slots__ = ("keys_file",)

    keys_file: str | os.PathLike[str] | None

    def warm(
        self,
        keys: Iterable[Any] | Tier | None = None,
        *,
        batch: int = 500,
        rate: float | None = None,
        progress: Report | None = None,
    ) -> int:
        """Look keys up, so that they are here, and return how many have a value.

        Args:
            keys: an iterable of keys; or a tier, whose keys in this namespace are looked up (not
                those that it keeps under a digest; with codec="raw" as text where they are text);
                None: the keys that the last close() has saved to `keys_file`.
            batch: keys a call of a tier and of the loader.
            rate: most keys a second; None: as fast as it goes.
            progress: called as progress(done, total) after each batch; by default a bar on a
                terminal. Without a known total, that is what was done.

        Raises:
            What the loader raises; TierError, when the tier cannot list its keys.
        """
        values = None
        with closing(self._warming(self._to_warm(keys), batch, rate, progress)) as steps:
            while True:
                try:
                    some, pause = steps.send(values)
                except StopIteration as end:
                    return int(end.value)
                time.sleep(pause)
                values = self.get_many(some, MISSING)

    async def awarm(
        self,
        keys: Iterable[Any] | Tier | None = None,
        *,
        batch: int = 500,
        rate: float | None = None,
        progress: Report | None = None,
    ) -> int:
        """The same as `warm`, in a task."""
        found = self._to_warm(keys)
        if isinstance(keys, Tier):
            found = await asyncio.to_thread(list, found)
        values = None
        with closing(self._warming(found, batch, rate, progress)) as steps:
            while True:
                try:
                    some, pause = steps.send(values)
                except StopIteration as end:
                    return int(end.value)
                await asyncio.sleep(pause)
                values = await self.aget_many(some, MISSING)

    async def aget_many(self, keys: Iterable[Any], default: Any = None) -> list[Any]:
        """The values of keys: see tiered.py."""
        raise NotImplementedError

    def _to_warm(self, keys: Iterable[Any] | Tier | None) -> Iterable[Any]:
        if keys is None:
            return self.saved_keys()
        if isinstance(keys, Tier):
            return self._keys_in(keys)
        if isinstance(keys, (str, bytes)) or not hasattr(keys, "__iter__"):
            raise TypeError(f"keys must be an iterable of keys, not {type(keys).__name__}")
        return keys

    def _warming(
        self, keys: Iterable[Any], batch: int, rate: float | None, progress: Report | None
    ) -> Generator[tuple[list[Any], float], Any, int]:
        """A generator that yields keys and how long to wait before, and is sent their values."""
        batch = positive_int(batch, "batch")
        pace = None if rate is None else price(rate, "rate")
        total = len(keys) if isinstance(keys, Sized) else 0
        done, found, begin = 0, 0, time.monotonic()
        with reporting(progress, total, "keys") as report:
            rest = iter(keys)
            while some := list(itertools.islice(rest, batch)):
                pause = 0.0 if pace is None else begin + done / pace - time.monotonic()
                values = yield some, max(0.0, pause)
                found += sum(value is not MISSING for value in values)
                done += len(some)
                report(done, total or done)
        return found

    def _keys_in(self, tier: Tier) -> Iterator[Any]:
        """The keys of what a tier has in this namespace; it is read, for names tell no types."""
        rest = tier.scan(self.prefix)
        while wires := list(itertools.islice(rest, BATCH)):
            if self.raw:
                yield from (_text(wire[len(self.prefix) :]) for wire in wires)
                continue
            for wire, data in zip(wires, tier.get_many(wires), strict=True):
                found = inspect(data, self.codec, self.prefix)
                if found is not None and wire_keys(self.prefix, [found[0]]) == [wire]:
                    yield found[0]

    def save_keys(self, path: str | os.PathLike[str], n: int = HOTTEST) -> int:
        """Write the `n` hottest keys of this process to a file, a line each; how many they were."""
        lines = [_line(key) for key, _ in self.l0.hottest(n)]
        target = Path(path)
        draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write("".join(f"{line}\n" for line in lines))
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return len(lines)

    def saved_keys(self) -> list[Any]:
        """The keys of `keys_file`, hottest first; none if there is no such file.

        Raises:
            ValueError: there is no `keys_file`, or it is not one that `save_keys` has written.
        """
        if self.keys_file is None:
            raise ValueError("keys must be given where there is no keys_file")
        keys: list[Any] = []
        try:
            with open(self.keys_file) as file:
                keys += [_key(line) for line in map(str.strip, file) if line]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise ValueError(f"keys_file {self.keys_file} is damaged: {error}") from None
        if not all(type(key) in (str, bytes, int) for key in keys):
            raise ValueError(f"keys_file {self.keys_file} is damaged")
        return keys


def _text(name: bytes) -> str | bytes:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def _line(key: Any) -> str:
    """A key as JSON; bytes and ints as text of hexadecimal digits, and what they are after it."""
    if isinstance(key, bytes):
        return json.dumps(key.hex()) + "b"
    return json.dumps(hex(key)) + "i" if isinstance(key, int) else json.dumps(key)


def _key(line: str) -> Any:
    if line.endswith("b"):
        return bytes.fromhex(json.loads(line[:-1]))
    return int(json.loads(line[:-1]), 16) if line.endswith("i") else json.loads(line)
