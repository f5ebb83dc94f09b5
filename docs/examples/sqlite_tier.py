"""A tier of one's own: SQLite, with all that TieredCache asks of a tier.

    python docs/examples/sqlite_tier.py

tests/docs/test_sqlite_tier.py runs the contract's tests on it.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cachecore import TieredCache
from cachecore.tiers import Item, Tier, TierError


class SqliteTier(Tier):
    """Keeps bytes in a SQLite file. Each thread of each process has a connection of its own."""

    name = "sqlite"
    shared = False  # with people who are not trusted

    def __init__(self, path: str, *, timeout: float = 1.0) -> None:
        self._path, self._timeout = path, timeout
        self._own = threading.local()
        self._closed = False
        with self._transaction() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, data BLOB, expiry INTEGER)"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection; what is done is committed, or undone and a TierError."""
        if self._closed:
            raise TierError("sqlite is closed")
        try:
            if getattr(self._own, "process", None) != os.getpid():
                self._own.process = os.getpid()
                self._own.connection = sqlite3.connect(self._path, timeout=self._timeout)
                self._own.connection.execute("PRAGMA synchronous=OFF")  # it is only a cache
            with self._own.connection:
                yield self._own.connection
        except sqlite3.Error as error:
            raise TierError(f"sqlite: {error}") from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        now = time.time() * 1000
        query = "SELECT data FROM kept WHERE key = ? AND (expiry IS NULL OR expiry > ?)"
        with self._transaction() as connection:
            rows = [connection.execute(query, (key, now)).fetchone() for key in keys]
        return [row and row[0] for row in rows]

    def set_many(self, items: Sequence[Item]) -> None:
        with self._transaction() as connection:
            connection.executemany("REPLACE INTO kept VALUES (?, ?, ?)", map(_row, items))

    def delete_many(self, keys: Sequence[bytes]) -> int:
        query = "DELETE FROM kept WHERE key = ?"
        with self._transaction() as connection:
            return sum(connection.execute(query, (key,)).rowcount for key in keys)

    def add(self, item: Item) -> bool:
        with self._transaction() as connection:
            connection.execute("DELETE FROM kept WHERE expiry <= ?", (time.time() * 1000,))
            query = "INSERT OR IGNORE INTO kept VALUES (?, ?, ?)"
            return connection.execute(query, _row(item)).rowcount == 1

    def scan(self, prefix: bytes = b"") -> Iterator[bytes]:
        query = "SELECT key FROM kept WHERE key >= ? AND substr(key, 1, ?) = ?"
        with self._transaction() as connection:
            rows = connection.execute(query, (prefix, len(prefix), prefix)).fetchall()
        yield from (key for (key,) in rows)

    def close(self) -> None:
        self._closed = True  # connections are closed with their threads
        self._own.__dict__.clear()


def _row(item: Item) -> tuple[bytes, bytes, float | None]:
    expiry = None if item.lifetime is None else time.time() * 1000 + item.lifetime
    return item.key, item.data, expiry


def main() -> None:
    """Keep squares in SQLite over the end of a cache."""
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(2):
            tiers = [SqliteTier(f"{folder}/squares.db")]
            with TieredCache(100, tiers=tiers, loader=lambda n: n * n, ttl=60) as cache:
                squares = cache.get_many(range(10))
                stats = cache.stats()
            print(f"turn {turn + 1}: {squares}")
            print(f"  {stats.tiers[0].hits} from SQLite, {stats.loads} computed")


if __name__ == "__main__":
    main()
