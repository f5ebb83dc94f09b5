"""The errors that are cachecore's own; each is also one of the builtins."""

from __future__ import annotations

from collections.abc import Sequence


class TierError(OSError):
    """A tier did not do what it was asked: it is down, refuses, is full, or answers nonsense.

    `values`: of a `get_many` that went wrong in part, what was read, aligned with its keys.
    """

    values: Sequence[bytes | None] | None = None


class TierTimeoutError(TierError, TimeoutError):
    """A tier did not answer within its deadline. Whether it did what it was asked is not known."""


class ShardError(ValueError):
    """A file of weights is not what it should be: damaged, truncated, or of another kind."""
