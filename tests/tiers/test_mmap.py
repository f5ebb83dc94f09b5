"""The memory-mapped tier: the contract, its bound and its eviction, its counters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachecore.tiers import MmapTier
from cachecore.tiers.testing import TierContract


class TestMmapTier(TierContract):
    @pytest.fixture
    def tier(self, tmp_path: Path) -> Iterator[MmapTier]:
        tier = MmapTier(tmp_path / "store", max_bytes="64MB")
        yield tier
        tier.close()
