"""MISSING: the one object that means "there is no value", where None may be a value."""

from __future__ import annotations

import enum
from typing import Final, Literal


class Missing(enum.Enum):
    """The type of MISSING; as an enumeration so that type checkers can narrow it."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> Literal[False]:
        return False


MISSING: Final = Missing.MISSING
