"""The example of a tier of one's own passes the contract, and its page quotes it as it is."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachecore.tiers import Tier
from cachecore.tiers.testing import TierContract

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "sqlite_tier.py"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("sqlite_tier", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestSqliteTier(TierContract):
    @pytest.fixture
    def tier(self, tmp_path: Path) -> Iterator[Tier]:
        tier = example().SqliteTier(str(tmp_path / "kept.db"))
        yield tier
        tier.close()


def test_the_page_shows_it() -> None:
    _, begin, rest = EXAMPLE.read_text().partition("class SqliteTier")
    code, end, _ = rest.partition("\n\n\ndef main")
    assert end
    assert begin + code in (DOCS / "tiers.md").read_text()
