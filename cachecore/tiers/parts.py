"""Batches of which a wrapper answers one part itself and leaves the rest to its tier."""

from __future__ import annotations

from collections.abc import Sequence

from cachecore.errors import TierError
from cachecore.tiers.base import Tier

Values = list[bytes | None]


def get_rest(tier: Tier, keys: Sequence[bytes], values: Values, places: Sequence[int]) -> Values:
    """`values`, with what the tier has at the places that are left to it."""
    try:
        answers = tier.get_many([keys[at] for at in places]) if places else []
    except TierError as error:
        _widen(error, values, places)
        raise
    return _merge(values, places, answers)


async def aget_rest(
    tier: Tier, keys: Sequence[bytes], values: Values, places: Sequence[int]
) -> Values:
    """The same in a task."""
    try:
        answers = await tier.aget_many([keys[at] for at in places]) if places else []
    except TierError as error:
        _widen(error, values, places)
        raise
    return _merge(values, places, answers)


def _merge(values: Values, places: Sequence[int], answers: Sequence[bytes | None]) -> Values:
    for at, answer in zip(places, answers, strict=True):
        values[at] = answer
    return values


def _widen(error: TierError, values: Values, places: Sequence[int]) -> None:
    """Align the `values` of a tier's error with the whole batch, and add ours to them."""
    if error.values is not None:
        error.values = _merge(values, places, error.values)
    elif any(value is not None for value in values):
        error.values = values
