"""Live views of a cache: its keys, values and items, without accounting for a look-up."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from itertools import islice
from reprlib import recursive_repr
from typing import Any

from cachecore.sentinel import MISSING

_SHOWN = 1000  # items in a repr: caches are larger than what anyone reads


@recursive_repr("{...}")
def text_of(cache: Any) -> str:
    """A cache as the text of a dict of its items, cut short when they are many."""
    texts = [f"{key!r}: {value!r}" for key, value in islice(cache.items(), _SHOWN)]
    if len(cache) > _SHOWN:
        texts.append(f"... {len(cache) - _SHOWN} more")
    return "{" + ", ".join(texts) + "}"


class CacheKeys(KeysView[Any]):
    """The keys of a cache; a set, as those of a dict are."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mapping)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class CacheValues(ValuesView[Any]):
    """The values of a cache."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return self._mapping._walk(1)  # type: ignore[attr-defined, no-any-return]

    def __contains__(self, value: object) -> bool:
        return any(held is value or held == value for held in self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class CacheItems(ItemsView[Any, Any]):
    """The (key, value) pairs of a cache; a set where values can be hashed."""

    __slots__ = ()

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping._walk(2)  # type: ignore[attr-defined, no-any-return]

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        held = self._mapping.peek(item[0], MISSING)  # type: ignore[attr-defined]
        return held is not MISSING and (held is item[1] or bool(held == item[1]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"
