"""Warm-up: filling a cache before it is asked."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

from cachecore.progress import Report, reporting
from cachecore.settings import positive_int, price
from cachecore.tiers.base import Tier
from cachecore.tiers.invalidated import Invalidated

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
            keys: an iterable of keys; or a tier, whose keys in this namespace are looked up, as
                text where they are text (not those that the tier keeps under a digest); None: the
                keys that the last close() has saved to `keys_file`.
            batch: keys a call of a tier and of the loader.
            rate: most keys a second; None: as fast as it goes.
            progress: called as progress(done, total) after each batch; by default a bar on a
                terminal. Without a known total, that is what was done.

        Raises:
            What the loader raises.
        """
        if keys is None:
            keys = self.saved_keys()
        elif isinstance(keys, Tier):
            keys = self._keys_in(keys)
        if isinstance(keys, (str, bytes)) or not hasattr(keys, "__iter__"):
            raise TypeError(f"keys must be an iterable of keys, not {type(keys).__name__}")
        batch = positive_int(batch, "batch")
        pace = None if rate is None else price(rate, "rate")
        total = len(keys) if isinstance(keys, Sized) else 0
        done, found, begin, missing = 0, 0, time.monotonic(), object()
        with reporting(progress, total, "keys") as report:
            rest = iter(keys)
            while some := list(itertools.islice(rest, batch)):
                found += sum(value is not missing for value in self.get_many(some, missing))
                done += len(some)
                report(done, total or done)
                if pace is not None:
                    time.sleep(max(0.0, begin + done / pace - time.monotonic()))
        return found

    def _keys_in(self, tier: Tier) -> Iterator[Any]:
        for wire in tier.scan(self.prefix):
            name = wire[len(self.prefix) :]
            if name.startswith(b"\0") or name.endswith(b"\0lease"):
                continue
            try:
                yield name.decode()
            except UnicodeDecodeError:
                yield name

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


def _line(key: Any) -> str:
    """A key as JSON; bytes and ints as text of hexadecimal digits, and what they are after it."""
    if isinstance(key, bytes):
        return json.dumps(key.hex()) + "b"
    return json.dumps(hex(key)) + "i" if isinstance(key, int) else json.dumps(key)


def _key(line: str) -> Any:
    if line.endswith("b"):
        return bytes.fromhex(json.loads(line[:-1]))
    return int(json.loads(line[:-1]), 16) if line.endswith("i") else json.loads(line)
