"""Debezium's change events: which keys they say have changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cachecore.tiers.changes import EVERYTHING, debezium


def event(wrap: bool = False, **change: Any) -> dict[bytes, bytes]:
    """A change of the table "users", as the compact form has it."""
    change = {"source": {"table": "users"}, "ts_ms": 1, **change}
    value = {"schema": {"type": "struct"}, "payload": change} if wrap else change
    return {b'{"id": 1}': json.dumps(value).encode()}


ROW = {"id": 1, "name": "a"}


@pytest.mark.parametrize("wrap", [True, False])
def test_rows(wrap: bool) -> None:
    keys_of = debezium("users")
    for op in ("c", "r"):
        assert keys_of(event(wrap, op=op, before=None, after=ROW)) == ["users:1"]
    assert keys_of(event(wrap, op="u", before=ROW, after=ROW)) == ["users:1"]
    assert keys_of(event(wrap, op="u", before=None, after=ROW)) == ["users:1"]
    assert keys_of(event(wrap, op="u", before={"id": None}, after=ROW)) == ["users:1"]
    assert keys_of(event(wrap, op="d", before=ROW, after=None)) == ["users:1"]
    moved = event(wrap, op="u", before=ROW, after={"id": 2})
    assert keys_of(moved) == ["users:1", "users:2"]
    assert keys_of(event(wrap, op="t", before=None, after=None)) is EVERYTHING


def test_the_extended_form() -> None:
    change = event(op="u", before=None, after=ROW)[b'{"id": 1}']
    assert debezium()({b"key": b'{"id": 1}', b"value": change}) == ["users:1"]


def test_what_says_nothing() -> None:
    keys_of = debezium("users")
    assert keys_of(event(op="u", before=None, after=ROW, source={"table": "others"})) is None
    assert keys_of(event(op="m", message={})) is None
    assert keys_of({b'{"id": 1}': b"default"}) is None
    assert keys_of({b'{"id": 1}': b"null"}) is None
    assert keys_of({b"key": b"{}", b"value": b'{"ts_ms": 1}'}) is None
    assert keys_of(event(op="u", before=None, after=ROW, source=None)) is None


def test_formats() -> None:
    row = {"id": 7, "shop": "é", "n": 1.5}
    change = event(op="c", before=None, after=row)
    assert debezium(key=["shop", "id"])(change) == ["users:é:7"]
    assert debezium(key="id", format="u/{id:03d}/{table}")(change) == ["u/007/users"]
    assert debezium(key=("id", "n"), format="{n}")(change) == ["1.5"]


@pytest.mark.parametrize(
    "change",
    [
        event(op="c", before=None, after={"name": "a"}),
        event(op="c", before=None, after={"id": None}),
        event(op="c", before=None, after=ROW, source=None),
        event(op="u", before=None, after=None),
        event(op="d", before=None, after=None),
        {b"key": b"{}", b"value": b'{"op": "c", '},
    ],
)
def test_what_cannot_be_told(change: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r"does not tell \['(id|table)'\]|tells no row|no JSON"):
        debezium()(change)


def test_bad_arguments() -> None:
    strange: Any = 5
    with pytest.raises(TypeError, match="table must be"):
        debezium(strange)
    for key in ([], [5], [b"id"]):
        with pytest.raises(TypeError, match="key must be"):
            debezium(key=key)  # type: ignore[arg-type]
    for form in ("{name}", "{}", "{0}", "{id", "{id.__class__}"):
        with pytest.raises(ValueError, match=r"format must|expected '}'"):
            debezium(format=form)
