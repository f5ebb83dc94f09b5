"""How the tests of logs read one, and see one refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cachecore.plan.logs import FORMATS, Chunk, LogError, open_log


def read(path: Path, **options: Any) -> Chunk:
    """All requests of a log as one chunk."""
    columns: list[list[Any]] = [[], [], [], []]
    with open_log(str(path), **options) as log:
        assert log.format in FORMATS
        for chunk in log.chunks():
            for column, part in zip(columns, chunk, strict=True):
                column.extend(part or [])
    return Chunk(columns[0], *(column or None for column in columns[1:]))


def check_refused(path: Path, message: str) -> None:
    """A log is a LogError whose text matches."""
    with pytest.raises(LogError, match=message):
        read(path)
