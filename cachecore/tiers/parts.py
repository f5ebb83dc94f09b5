"""Batches of which a wrapper answers one part itself and leaves the rest to its tier."""

from __future__ import annotations

from collections.abc import Sequence

from cachecore.errors import TierError


def merge(
    values: list[bytes | None], places: Sequence[int], answers: Sequence[bytes | None]
) -> list[bytes | None]:
    """`values`, with the answers of the tier at their places."""
    for at, answer in zip(places, answers, strict=True):
        values[at] = answer
    return values


def widen(error: TierError, values: list[bytes | None], places: Sequence[int]) -> None:
    """Align the `values` of a tier's error with the whole batch, and add ours to them."""
    if error.values is not None:
        error.values = merge(values, places, error.values)
    elif any(value is not None for value in values):
        error.values = values
