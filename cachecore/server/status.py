"""What the status page shows: readings of watched caches, their recent history, hottest keys."""

from __future__ import annotations

import dataclasses
import time
from codecs import getincrementaldecoder
from collections import deque
from typing import Any

from cachecore import __version__
from cachecore.integrations.caches import hottest
from cachecore.integrations.readings import Reading, Watch

INTERVAL = 2.0  # seconds between two samples of the history
KEPT = 900  # samples: half an hour
HOTTEST = 20  # keys shown of each cache
SHARE = (
    1 / 200
)  # of the time that may go into looking for them: it takes 8 ms for a million entries
FRESH = 5.0  # seconds that they are shown at least before they are looked for again
LONGEST_KEY = 200  # characters shown of a key
COLUMNS = ("hit", "miss", "evicted", "rejected", "expired", "stale", "entries", "bytes")
MOST_DIGITS = 10**40


def shown(key: Any) -> str:
    """A key as text that does no harm wherever it is shown: no controls, nothing invisible.

    What is no text, bytes or number, nor a tuple of these, is shown as its type: none of its own
    code runs.
    """
    kind = type(key)
    if kind is tuple:
        inner = ("(…)" if type(each) is tuple else shown(each) for each in key[:8])
        text = f"({', '.join(inner)}{', …' if len(key) > 8 else ''})"
    elif kind is str:
        text = key[: LONGEST_KEY + 1]
    elif kind is bytes:
        text = _text(key)
    elif kind is float or kind is bool or key is None or (kind is int and abs(key) < MOST_DIGITS):
        text = repr(key)
    else:
        text = f"<{kind.__name__}>"
    text = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
    return text if len(text) <= LONGEST_KEY else text[: LONGEST_KEY - 1] + "…"


def _text(key: bytes) -> str:
    """What bytes say as UTF-8, as far as they are shown; else as they are written in Python."""
    head = key[: 4 * LONGEST_KEY + 4]  # a character takes 4 bytes at most
    try:
        return getincrementaldecoder("utf-8")().decode(head, final=len(head) == len(key))
    except UnicodeDecodeError:
        return str(head)


class Status:
    """What a page shows of watched caches; `sample()` is called every `INTERVAL` seconds.

    Args:
        watch: the caches.
        title: what the page is headed with.
        keys: whether to show the hottest keys.
    """

    def __init__(self, watch: Watch, title: str, keys: bool) -> None:
        self._watch, self._title, self._keys = watch, title, keys
        self._started = time.time()
        self._history: deque[tuple[float, dict[str, tuple[float, ...]]]] = deque(maxlen=KEPT)
        self._hottest: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    def sample(self) -> None:
        """Add the counts of now to the history."""
        now = {name: _row(reading) for name, reading in self._watch.readings()}
        self._history.append((time.time(), now))

    def document(self, since: float = 0.0) -> dict[str, Any]:
        """What /status.json shows; of the history, what is younger than `since`, Unix seconds."""
        readings = dict(self._watch.readings())
        caches = dict(self._watch.caches())
        return {
            "version": __version__,
            "title": self._title,
            "started": self._started,
            "now": time.time(),
            "interval": INTERVAL,
            "columns": COLUMNS,
            "caches": [
                {
                    "name": name,
                    **dataclasses.asdict(reading),
                    "hottest": self._hottest_of(name, caches.get(name)),
                }
                for name, reading in readings.items()
            ],
            "history": [row for row in list(self._history) if row[0] > since],
        }

    def _hottest_of(self, name: str, cache: Any) -> list[dict[str, Any]] | None:
        """The hottest keys of late; None: they are not to be shown, or it does not know them."""
        if not self._keys or cache is None:
            return None
        begin = time.monotonic()
        until, rows = self._hottest.get(name, (0.0, []))
        if begin >= until:
            found = hottest(cache, HOTTEST)
            if found is None:
                return None
            rows = [{"key": shown(key), "frequency": count} for key, count in found]
            end = time.monotonic()
            until = end + max(FRESH, (end - begin) / SHARE)
            self._hottest[name] = until, rows
        return rows


def _row(reading: Reading) -> tuple[float, ...]:
    counts = {**reading.results, **reading.evictions, "stale": sum(reading.stale.values())}
    sizes = {"entries": reading.entries, "bytes": reading.bytes}
    return tuple({**counts, **sizes}.get(column, 0) for column in COLUMNS)
