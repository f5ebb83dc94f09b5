"""The table of a vocabulary: what it holds, and what it does not take for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore.ml.vocabulary import Vocabulary


@given(st.dictionaries(st.text(max_size=8), st.integers(0, 2**31 - 1), max_size=60))
def test_a_table_is_the_dict_it_was_made_of(tokens: dict[str, int]) -> None:
    tokens = {token: index for index, token in {i: t for t, i in tokens.items()}.items()}
    tokens = {t: i for t, i in tokens.items() if not any("\ud800" <= c <= "\udfff" for c in t)}
    vocabulary = Vocabulary(Vocabulary.build(tokens).table.copy())
    assert vocabulary == tokens
    assert list(vocabulary) == sorted(tokens, key=tokens.__getitem__)
    for token, index in tokens.items():
        assert vocabulary.token(index) == token
        for other in (token + "x", token[:-1]):
            assert vocabulary.get(other) == tokens.get(other)
    for absent in (-1, 2**31, max(tokens.values(), default=0) + 1):
        with pytest.raises(KeyError):
            vocabulary.token(absent)
    for odd in (7, None, b"a", "\ud800"):
        assert odd not in vocabulary


def _table() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return Vocabulary.build({"a": 0, "bc": 1, "": 5}).table.copy()


def _u32(at: int, value: int) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        table[at : at + 4].view("<u4")[0] = value
        return table

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table[:-1],
        lambda table: table[:10],
        lambda table: np.append(table, np.uint8(0)),
        lambda table: np.roll(table, 1),
        lambda table: table[::2],
        lambda table: table.astype("<u4"),
        _u32(8, 2**32 - 1),  # tokens
        _u32(12, 0),  # slots
        _u32(16, 2),  # bytes of text
        _u32(24, 2**32 - 1),  # the first id
        _u32(28, 0),  # an id twice
        _u32(36, 9),  # an end beyond the next
        _u32(44, 2),  # the last end
        _u32(48, 99),  # a slot
    ],
)
def test_a_damaged_table_is_refused(damage: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="table"):
        Vocabulary(damage(_table()))
    assert dict(Vocabulary(_table())) == {"a": 0, "bc": 1, "": 5}
