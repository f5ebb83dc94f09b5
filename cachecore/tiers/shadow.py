"""ShadowCheck: whether what a tier returns is what its source would say, on a sample."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cachecore._envelope import inspect
from cachecore.codecs import codec_of
from cachecore.settings import share as a_share
from cachecore.tiers.background import Background
from cachecore.tiers.base import Tier, Wrapper
from cachecore.tiers.loading import aligned

MOST = 1000  # samples that wait


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, of the same type, arrays with the same dtype and shape."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if type(a) is not type(b) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        return bool(a.tobytes() == b.tobytes())
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b or (a != a and b != b))


class ShadowCheck(Wrapper):
    """A tier whose hits are compared with their source, a share of them, in the background.

    Args:
        tier: what is looked up.
        source: called as source(keys) in a thread; returns a list of values aligned with the keys,
            or a mapping, as a loader does.
        share: of hits that are compared, 0 ... 1.
        codec: of the cache above.
        namespace: of the cache above; for codecs that sign, and to tell its keys with "raw".
        on_mismatch: called as on_mismatch(key, cached, current) for each difference.

    A difference is not always a fault: values that may live for a minute are up to a minute old.
    How many there are says whether a lifetime is well chosen and whether invalidations arrive.

    `stats()` adds hits `compared` and `mismatched`, and those `uncompared` although they were
    chosen: too many waited, the value could not be read, or the source raised. Thread safe.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """

    def __init__(
        self,
        tier: Tier,
        source: Callable[[list[Any]], Any],
        *,
        share: float = 0.01,
        codec: Any = None,
        namespace: str = "",
        on_mismatch: Callable[[Any, Any, Any], object] | None = None,
    ) -> None:
        super().__init__(tier)
        for name, function in (("source", source), ("on_mismatch", on_mismatch)):
            if not callable(function) and not (function is None and name == "on_mismatch"):
                raise TypeError(f"{name} must be callable, not {type(function).__name__}")
        if not isinstance(namespace, str):
            raise TypeError(f"namespace must be a str, not {type(namespace).__name__}")
        self._source, self._on_mismatch = source, on_mismatch
        self._share = a_share(share, "share")
        self._codec = codec_of(codec)
        self._prefix = namespace.encode() + b":" if namespace else b""
        self._background = Background(threads=1, most=MOST)
        self._compared = self._mismatched = self._uncompared = 0

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        datas = self.tier.get_many(keys)
        self._sample(keys, datas)
        return datas

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        datas = await self.tier.aget_many(keys)
        self._sample(keys, datas)
        return datas

    def close(self) -> None:
        self._background.close(1.0)
        super().close()

    async def aclose(self) -> None:
        self._background.close(0.0)
        await super().aclose()

    def stats(self) -> dict[str, int]:
        return {
            **super().stats(),
            "compared": self._compared,
            "mismatched": self._mismatched,
            "uncompared": self._uncompared,
        }

    def _sample(self, keys: Sequence[bytes], datas: Sequence[bytes | None]) -> None:
        chosen = [
            (wire, data)
            for wire, data in zip(keys, datas, strict=True)
            if data is not None and random.random() < self._share
        ]
        if chosen and not self._background.submit(self._compare, chosen):
            self._uncompared += len(chosen)

    def _read(self, wire: bytes, data: bytes) -> tuple[Any, Any] | None:
        if not self._codec.enveloped:
            return wire[len(self._prefix) :], self._codec.decode(data)
        found = inspect(data, self._codec, self._prefix)
        return None if found is None else (found[0], found[1].value)

    def _compare(self, chosen: list[tuple[bytes, bytes]]) -> None:
        pairs = [pair for pair in (self._read(wire, data) for wire, data in chosen) if pair]
        self._uncompared += len(chosen) - len(pairs)
        if not pairs:
            return
        keys = [key for key, _ in pairs]
        try:
            current = aligned(self._source(keys), keys)
        except Exception:
            self._uncompared += len(pairs)
            raise
        for (key, cached), value in zip(pairs, current, strict=True):
            self._compared += 1
            if not same(cached, value):
                self._mismatched += 1
                if self._on_mismatch is not None:
                    self._on_mismatch(key, cached, value)
