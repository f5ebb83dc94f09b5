"""The metrics, declared once: names, kinds, labels, and how each is read from a Reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cachecore.integrations.readings import LOADER, MEMORY, Counts, Durations, Reading

Row = tuple[tuple[str, ...], Any]  # values of the labels after `cache`; a number, or Durations
BREAKER_STATES = ("closed", "half-open", "open")
# Upper bounds in seconds of the buckets of a histogram: 2 us ... 67 s. Longer ones are in the last.
BOUNDS = [2**power / 1_000_000 for power in range(1, 27)]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; its name is without `cachecore_` and without what its kind adds."""

    name: str
    kind: str
    """"counter", "gauge" or "histogram"."""
    text: str
    labels: tuple[str, ...]
    """Those after `cache`, which all have."""
    rows: Callable[[Reading], Iterable[Row]]
    unit: str = ""
    """"seconds", "bytes" or nothing; the name ends with it."""


def _requests(reading: Reading) -> Iterator[Row]:
    asked = [(MEMORY, reading.results)]
    asked += [(tier.name, tier.results) for tier in reading.tiers]
    asked += [(LOADER, reading.loader)]
    for place, results in asked:
        yield from (((place, result), count) for result, count in results.items())


def _each(counts: Counts, *before: str) -> Iterator[Row]:
    return (((*before, name), count) for name, count in counts.items())


def _of_tiers(part: str) -> Callable[[Reading], Iterator[Row]]:
    """Rows of one part of what each tier tells, a mapping."""
    return lambda reading: (
        row for tier in reading.tiers for row in _each(getattr(tier, part), tier.name)
    )


def _with_own(part: str) -> Callable[[Reading], Iterator[Row]]:
    """The same, before it those of the cache itself."""

    def rows(reading: Reading) -> Iterator[Row]:
        yield from _each(getattr(reading, part), MEMORY)
        yield from _of_tiers(part)(reading)

    return rows


def _one(part: str) -> Callable[[Reading], Iterator[Row]]:
    """A number of the cache's, unless it is None."""
    return lambda reading: (
        ((), value) for value in [getattr(reading, part)] if value is not None
    )  # fmt: skip


def _tier_durations(reading: Reading) -> Iterator[Row]:
    timed = ((tier.name, tier.durations) for tier in reading.tiers)
    return (((name,), durations) for name, durations in timed if durations is not None)


def _breakers(reading: Reading) -> Iterator[Row]:
    for tier in reading.tiers:
        if tier.breaker is not None:
            for state in BREAKER_STATES:
                yield (tier.name, state), int(tier.breaker == state)


def _features(reading: Reading) -> Iterator[Row]:
    for name, counts in reading.features.items():
        yield from _each(counts, name)


def _of_server(rows: Callable[[Any], Iterable[Row]]) -> Callable[[Reading], Iterable[Row]]:
    return lambda reading: () if reading.server is None else rows(reading.server)


METRICS = (
    Metric(
        "requests", "counter",
        "Keys asked for, by tier and result. Tier l0 is the process's own memory.",
        ("tier", "result"), _requests,
    ),
    Metric("entries", "gauge", "Entries held.", (), _one("entries")),
    Metric("bytes", "gauge", "Bytes of keys, values and entries; 0 where they are not counted.",
           (), _one("bytes"), "bytes"),
    Metric("max_entries", "gauge", "The bound of entries, if there is one.", (),
           _one("max_entries")),
    Metric("max_bytes", "gauge", "The bound of bytes, if there is one.", (), _one("max_bytes"),
           "bytes"),
    Metric("inserts", "counter", "Entries made; an overwrite makes none.", (), _one("inserts")),
    Metric("deletions", "counter", "Entries deleted.", (), _one("deletions")),
    Metric(
        "evictions", "counter",
        "Entries that left by themselves: evicted to make room, rejected while new, expired.",
        ("reason",), lambda reading: _each(reading.evictions),
    ),
    Metric("refused", "counter", "Values larger than the bound, which were never let in.", (),
           _one("refused")),
    Metric(
        "stale_served", "counter",
        "Values returned past their time: while being loaded anew, or because that failed.",
        ("reason",), lambda reading: _each(reading.stale),
    ),
    Metric("load_duration_seconds", "histogram", "How long calls of the loader took.", (),
           _one("loads"), "seconds"),
    Metric(
        "tier_duration_seconds", "histogram",
        "How long look-ups took that a tier answered; each is of a batch of keys.",
        ("tier",), _tier_durations, "seconds",
    ),
    Metric("tier_failures", "counter", "Calls of a tier that failed, by kind.", ("tier", "kind"),
           _of_tiers("failures")),
    Metric("tier_bytes", "counter", "Bytes of values exchanged with a tier, by direction.",
           ("tier", "direction"), _of_tiers("traffic"), "bytes"),
    Metric("breaker_state", "gauge", "1 for the state that a tier's circuit breaker is in.",
           ("tier", "state"), _breakers),
    Metric("events", "counter", "All else that a cache or a tier counted, by name.",
           ("tier", "event"), _with_own("events")),
    Metric("level", "gauge", "Other numbers that rise and fall, by name.", ("tier", "of"),
           _with_own("levels")),
    Metric("feature_events", "counter", "Counts of each feature, by name.", ("feature", "event"),
           _features),
    Metric("server_clients", "gauge", "Connections of clients that are open.", (),
           _of_server(_one("clients"))),
    Metric("server_commands", "counter", "Commands executed, by name.", ("command",),
           _of_server(lambda server: _each(server.commands))),
    Metric("server_command_duration_seconds", "histogram", "How long commands took.", (),
           _of_server(_one("durations")), "seconds"),
    Metric("server_bytes", "counter", "Bytes exchanged with clients, by direction.",
           ("direction",), _of_server(lambda server: _each(server.traffic)), "bytes"),
    Metric("server_refused", "counter", "Connections and commands not served, by reason.",
           ("reason",), _of_server(lambda server: _each(server.refused))),
)  # fmt: skip


def buckets(durations: Durations) -> list[tuple[float, int]]:
    """Upper bounds in seconds with how many took at most that long; without the infinite one."""
    if not durations.counts:
        return []
    reached, pairs = 0, []
    for bound, count in zip(BOUNDS, durations.counts, strict=False):
        reached += count
        pairs.append((bound, reached))
    return pairs


def text_of(label: str) -> str:
    """A value of a label that can be written as UTF-8."""
    return label.encode("utf-8", "backslashreplace").decode()
