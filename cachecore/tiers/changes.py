"""What events of others say: which keys have changed.

`debezium` makes the function that `Streams(key_of=...)` wants of a change-data-capture stream.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable, Sequence
from string import Formatter
from typing import Any, Final, TypeAlias


class Everything(enum.Enum):
    """The type of EVERYTHING."""

    EVERYTHING = "EVERYTHING"


EVERYTHING: Final = Everything.EVERYTHING
"""Anything may have changed."""

TOMBSTONES = {b"", b"default"}  # what Debezium Server writes for null

Keys: TypeAlias = bytes | str | Iterable[bytes | str] | Everything | None


def encoded(text: Any, name: str) -> bytes:
    """The bytes of a str or bytes."""
    if isinstance(text, str):
        return text.encode()
    if not isinstance(text, bytes):
        raise TypeError(f"{name} must be str or bytes, not {type(text).__name__}")
    return text


def debezium(
    table: str | None = None, *, key: str | Sequence[str] = "id", format: str | None = None
) -> Callable[[dict[bytes, bytes]], Keys]:
    """A function from Debezium's change events to the wire keys of the rows that changed.

    Args:
        table: changes of other tables say nothing; None: those of every table count.
        key: the column, or columns, that tell a row; they must be in the events' before and after.
        format: of the wire keys, as for `str.format` with {table} and those columns; by default
            "{table}:{id}", with all of the columns, divided by colons.

    An event is a dict of fields, one of which holds the JSON of the envelope: "before", "after",
    "op" and "source", maybe in a "payload". Debezium Server's sink for Redis Streams writes such,
    compact or extended. An update that changes the key says both; a truncated table says
    EVERYTHING; heartbeats, messages and tombstones say nothing. A row without a key column raises
    ValueError, which `Streams` counts, and forgets everything.
    """
    if table is not None and not isinstance(table, str):
        raise TypeError(f"table must be a str or None, not {type(table).__name__}")
    columns = [key] if isinstance(key, str) else list(key)
    if not columns or not all(isinstance(column, str) for column in columns):
        raise TypeError("key must be a column's name, or several")
    form = ":".join(f"{{{name}}}" for name in ["table", *columns]) if format is None else format
    used = {name for _, name, _, _ in Formatter().parse(form) if name is not None}
    if strange := used - {"table", *columns}:
        raise ValueError(f"format must use only {{table}} and columns of key, not {strange}")
    return _Debezium(table, form, used)


class _Debezium:
    """What `debezium` returns."""

    def __init__(self, table: str | None, form: str, used: set[str]) -> None:
        self._table, self._form, self._used = table, form, used

    def __call__(self, event: dict[bytes, bytes]) -> Keys:
        change = _envelope(event)
        table = (change.get("source") or {}).get("table")
        kind = change.get("op")
        if kind is None or (self._table is not None and table != self._table):
            return None
        if kind == "t":
            return EVERYTHING
        if kind not in {"c", "u", "d", "r"}:
            return None
        before, after = change.get("before"), change.get("after")
        if before and after and any(before.get(name) is None for name in self._used - {"table"}):
            before = None  # of a database that logs of old rows only what changed of their keys
        rows = [row | {"table": table} for row in (before, after) if row]
        if not rows:
            raise ValueError(f"a change of table {table} tells no row")
        return list(dict.fromkeys(self._wire_key(row) for row in rows))

    def _wire_key(self, row: dict[str, Any]) -> str:
        values = {name: row.get(name) for name in self._used}
        if missing := [name for name, value in values.items() if value is None]:
            raise ValueError(f"a change of table {row['table']} does not tell {missing}")
        return self._form.format(**values)


def _envelope(event: dict[bytes, bytes]) -> dict[str, Any]:
    """The change that an event holds; empty if it holds none."""
    unread = None
    for data in event.values():
        try:
            value = json.loads(data)
        except ValueError as error:
            if data not in TOMBSTONES:
                unread = error
            continue
        if isinstance(value, dict) and isinstance(value.get("payload"), dict):
            value = value["payload"]
        if isinstance(value, dict) and "op" in value:
            return value
    if unread is not None:
        raise ValueError(f"an event that is no JSON: {unread}")
    return {}
