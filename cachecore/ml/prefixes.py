"""PrefixCache: attention key/value state of token sequences, shared by all that begin alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cachecore._envelope import NEVER, Sealed, seal, unseal, wire_keys
from cachecore._prefix import Match, PrefixTree, block_of
from cachecore.codecs import DefaultCodec
from cachecore.errors import TierError
from cachecore.settings import positive_int, size_in_bytes
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.breaker import guarded
from cachecore.tiers.tiered import TieredCache

__all__ = ["Match", "PrefixCache", "PrefixStats"]

MOST_TOKENS = 1 << 20  # in a block
_NAMESPACE = b"prefix:"  # of keys in a tier
Record = tuple[bytes, Any, int]  # a key in a tier, its block, and the block's frequency
_FIRST, _GROWTH = 4, 4  # blocks asked of a tier at first, and how many times more each time


class PrefixStats(NamedTuple):
    """Counts since the cache was made, and its size now.

    Always ``inserts == blocks + evictions + deletions``.
    """

    lookups: int
    asked_tokens: int
    matched_tokens: int
    """Of those that were asked for, how many the blocks found covered."""
    blocks: int
    bytes: int
    """Bytes of the blocks and of what keeping them takes."""
    inserts: int
    evictions: int
    deletions: int
    """Blocks that clear() forgot."""
    refused: int
    """Blocks for which the budget had no room, or without those above them."""
    spilled: int
    """Evicted blocks that the tier below took."""
    returned: int
    """Blocks that came from the tier below."""
    lost: int
    """Evicted blocks that the tier below did not take."""

    @property
    def hit_ratio(self) -> float:
        """Matched tokens / asked tokens; 0.0 before the first look-up."""
        return self.matched_tokens / self.asked_tokens if self.asked_tokens else 0.0


class PrefixCache(PrefixTree):
    """Attention state by token prefix: what a prompt has in common with earlier ones is not redone.

    Token sequences are cut into blocks; a block is found by its own tokens and all before them.

    Args:
        block: tokens in a block. What is beyond the last whole block of a sequence is not kept.
        max_bytes: budget of the blocks in memory, with what keeping them takes; an int, or a size
            such as "4GB".
        salt: what distinguishes tenants that are to share nothing, in the tier below too.
        model, version: of what computed the state. Another model, version, salt or block size never
            finds these blocks.
        below: a `Tier` or a `TieredCache` that takes what is evicted and is asked for what is not
            here. It stays its owner's to close. A put waits for it: put it in a `WriteBehind`
            where that takes long. Tuples of arrays need msgspec.

    What is evicted is the end of some sequence, the one with the lowest frequency / ln(age)³ among
    a few: never a block that others follow. Reads and puts do not raise for the tier.

    Thread safe. After a fork each process has its own.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """

    def __init__(
        self,
        *,
        block: int = 16,
        max_bytes: int | str,
        salt: bytes = b"",
        model: str = "",
        version: str = "",
        below: Tier | TieredCache | None = None,
    ) -> None:
        width = positive_int(block, "block")
        if width > MOST_TOKENS:
            raise ValueError(f"block must be at most {MOST_TOKENS} tokens, not {width}")
        bound = size_in_bytes(max_bytes, "max_bytes")
        if not isinstance(salt, bytes):
            raise TypeError(f"salt must be bytes, not {type(salt).__name__}")
        for name, text in (("model", model), ("version", version)):
            if not isinstance(text, str):
                raise TypeError(f"{name} must be a str, not {type(text).__name__}")
        lower = None if below is None else _below(below)
        super().__init__(width, bound, _root(width, model, version, salt), below is not None)
        self._below, self._returned = lower, 0

    def stats(self) -> PrefixStats:
        """What was counted so far, as a PrefixStats."""
        return PrefixStats(
            self.lookups, self.asked_tokens, self.matched_tokens, len(self), self.nbytes,
            self.inserts, self.evictions, self.deletions, self.refused,
            self.spilled, self._returned, self.lost,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<PrefixCache of {len(self)} blocks of {self.block} tokens, {self.nbytes} bytes>"

    # --- the tier below

    def _climb(self, tokens: npt.NDArray[np.int32], above: bytes, blocks: list[Any]) -> None:
        assert self._below is not None
        first, width = len(blocks), self.block
        whole, step = len(tokens) // width, _FIRST
        while len(blocks) < whole:
            start, until = len(blocks), min(len(blocks) + step, whole)
            links = [above, *self._links(tokens, above, start, until)]
            cuts = tokens[start * width : until * width].reshape(-1, width)
            keys = [link + cut.tobytes() for link, cut in zip(links, cuts, strict=False)]
            for value in self._below.get(keys):
                block = block_of(value)
                if block is None:
                    break
                blocks.append(block)
            if len(blocks) < until:
                break
            above, step = links[-1], step * _GROWTH
        if len(blocks) > first:
            found = blocks[first:]
            self._keep(tokens, found, first, True)
            blocks[first:] = found
            self._returned += len(found)

    def _spill(self, records: list[Record]) -> int:
        assert self._below is not None
        try:
            self._below.put(records)
        except Exception:  # a tier that fails, or a block that its codec cannot write
            return 0
        return len(records)


def _root(width: int, model: str, version: str, salt: bytes) -> bytes:
    """The digest above all first blocks; parts are framed by their lengths."""
    root = blake2b(width.to_bytes(8, "little"), digest_size=16, person=b"cachecore prefix")
    for part in (model.encode(), version.encode(), salt):
        root.update(len(part).to_bytes(8, "little") + part)
    return root.digest()


def _writable(block: Any) -> Any:
    return list(block) if isinstance(block, tuple) else block


def _below(below: Any) -> _BelowTier | _BelowCache:
    if isinstance(below, Tier):
        return _BelowTier(below)
    if isinstance(below, TieredCache):
        return _BelowCache(below)
    raise TypeError(f"below must be a Tier or a TieredCache, not {type(below).__name__}")


# A block's key is the digest of the block above it and its own tokens. An envelope keeps the key in
# full and is compared with it, so that no digest of this block has to be trusted.


class _BelowTier:
    """A tier, in which each block lies in an envelope."""

    def __init__(self, tier: Tier) -> None:
        self._tier, self._codec = guarded(tier), DefaultCodec()

    def get(self, keys: list[bytes]) -> list[Any]:
        try:
            datas: Sequence[bytes | None] = self._tier.get_many(wire_keys(_NAMESPACE, keys))
        except TierError as error:
            datas = error.values or []
        now, values = int(time.time() * 1000), []
        for key, data in zip(keys, datas, strict=False):
            held = None if data is None else unseal(data, key, self._codec, now, 0)
            values.append(held.value if isinstance(held, Sealed) else None)
        return values

    def put(self, records: list[Record]) -> None:
        now = int(time.time() * 1000)
        items = []
        for key, block, _ in records:
            data = seal(
                key, _writable(block), self._codec,
                written=now, soft=NEVER, hard=NEVER, load=0.0, generation=0,
            )  # fmt: skip
            items.append(Item(wire_keys(_NAMESPACE, [key])[0], data))
        self._tier.demote_many(items, [frequency for *_, frequency in records])


class _BelowCache:
    """A TieredCache, with memory, lifetimes and tiers of its own."""

    def __init__(self, cache: TieredCache) -> None:
        if cache.raw:
            raise ValueError('below must not have codec="raw", which cannot write arrays')
        self._cache = cache

    def get(self, keys: list[bytes]) -> list[Any]:
        return self._cache.get_many([_NAMESPACE + key for key in keys])

    def put(self, records: list[Record]) -> None:
        self._cache.set_many({_NAMESPACE + key: _writable(block) for key, block, _ in records})
