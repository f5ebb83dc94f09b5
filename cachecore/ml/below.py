"""Rows in another cache, by the fingerprint of the computation that they are the result of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cachecore._core import Cache
from cachecore._vectors import VectorCache

if TYPE_CHECKING:
    from cachecore.tiers.tiered import TieredCache

_Row = npt.NDArray[Any]


def row_dtype(dim: int, dtype: npt.DTypeLike = "float32") -> np.dtype[Any]:
    """What a `VectorCache` of rows has to hold: each row beside its fingerprint of 32 bytes."""
    return np.dtype([("fingerprint", "<u8", (4,)), ("row", dtype, (dim,))])


def rows_below(below: Any, prefix: str, dim: int, dtype: np.dtype[Any]) -> RowsBelow | None:
    """The rows in a cache; `prefix` stands before the fingerprint in keys that are text.

    Raises:
        TypeError, ValueError: it is no cache, or one that cannot hold these rows.
    """
    if below is None:
        return None
    if isinstance(below, VectorCache):
        return _Vectors(below, dim, dtype)
    if isinstance(below, Cache):
        return _Cached(below, prefix, dim, dtype)
    from cachecore.tiers.tiered import TieredCache

    if isinstance(below, TieredCache):
        return _Tiered(below, prefix, dim, dtype)
    raise TypeError(
        f"below must be a Cache, TieredCache or VectorCache, not {type(below).__name__}"
    )


class RowsBelow:
    """Gets and puts many rows; a fingerprint without a row has None."""

    def get(self, prints: list[bytes]) -> Sequence[_Row | None]:
        raise NotImplementedError

    def put(self, prints: list[bytes], rows: _Row) -> None:
        raise NotImplementedError

    async def aget(self, prints: list[bytes]) -> Sequence[_Row | None]:
        return self.get(prints)

    async def aput(self, prints: list[bytes], rows: _Row) -> None:
        self.put(prints, rows)


class _Cached(RowsBelow):
    def __init__(
        self, cache: Cache[str, Any] | TieredCache, prefix: str, dim: int, dtype: np.dtype[Any]
    ) -> None:
        self._cache, self._prefix, self._shape, self._dtype = cache, prefix, (dim,), dtype

    def _keys(self, prints: list[bytes]) -> list[str]:
        return [self._prefix + each.hex() for each in prints]

    def _rows(self, values: list[Any]) -> list[_Row | None]:
        """Values that are such rows, and finite: others can write to that cache too."""
        return [
            value
            if isinstance(value, np.ndarray)
            and value.dtype == self._dtype
            and value.shape == self._shape
            and np.isfinite(value).all()
            else None
            for value in values
        ]

    def get(self, prints: list[bytes]) -> Sequence[_Row | None]:
        return self._rows(self._cache.get_many(self._keys(prints)))

    def put(self, prints: list[bytes], rows: _Row) -> None:
        self._cache.set_many(zip(self._keys(prints), rows, strict=True))


class _Tiered(_Cached):
    _cache: TieredCache

    def __init__(self, cache: TieredCache, prefix: str, dim: int, dtype: np.dtype[Any]) -> None:
        if cache.loader is not None:
            raise ValueError("below must be a TieredCache without a loader: encode takes its place")
        super().__init__(cache, prefix, dim, dtype)

    async def aget(self, prints: list[bytes]) -> Sequence[_Row | None]:
        return self._rows(await self._cache.aget_many(self._keys(prints)))

    async def aput(self, prints: list[bytes], rows: _Row) -> None:
        await self._cache.aset_many(zip(self._keys(prints), rows, strict=True))


class _Vectors(RowsBelow):
    """Ids are 64 bits of the fingerprint; the whole of it lies beside the row and is compared."""

    def __init__(self, table: VectorCache, dim: int, dtype: np.dtype[Any]) -> None:
        self._dtype = row_dtype(dim, dtype)
        if table.dim is not None or table.dtype != self._dtype:
            raise ValueError(
                "below, a VectorCache, must be made as VectorCache(None, "
                f'EmbeddingCache.row_dtype({dim}, "{dtype}"), capacity=...)'
            )
        self._table = table

    def get(self, prints: list[bytes]) -> Sequence[_Row | None]:
        words = _words(prints)
        records, found = self._table.gather(words[:, 0].view(np.int64))
        rows = records["row"]
        found &= (records["fingerprint"] == words).all(axis=1) & np.isfinite(rows).all(axis=1)
        rows.flags.writeable = False
        return [rows[at] if there else None for at, there in enumerate(found.tolist())]

    def put(self, prints: list[bytes], rows: _Row) -> None:
        words = _words(prints)
        records = np.empty(len(prints), self._dtype)
        records["fingerprint"], records["row"] = words, rows
        # Behind a stopped process rows are not taken; the table counts them as refused.
        with suppress(TimeoutError):
            self._table.put(words[:, 0].view(np.int64), records)


def _words(prints: list[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(prints), "<u8").reshape(-1, 4)
