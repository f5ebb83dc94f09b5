"""How each kind of cache is read: from its own `stats()` to a Reading."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from cachecore._core import Cache
from cachecore.integrations.readings import (
    LOADER,
    MEMORY,
    Counts,
    Durations,
    Reading,
    Source,
    TierReading,
)
from cachecore.tiers.base import Tier, Wrapper
from cachecore.tiers.breaker import Breaker
from cachecore.tiers.stats import TieredStats, TierStats

Fields = Mapping[str, Any]

# Of the numbers that caches and tiers tell under names of their own these rise and fall; all others
# only rise.
LEVELS = frozenset((
    "bytes", "entries", "filter_keys", "filter_overfull", "hot", "hot_bytes", "locked_bytes",
    "nbytes", "open", "pinned", "pinned_bytes", "stuck", "tensors", "unlocked_bytes", "waiting",
    "waiting_bytes", "writes_off",
))  # fmt: skip
LEAVING = {"evictions": "evicted", "rejections": "rejected", "expirations": "expired"}


def memory_of(cache: Any) -> Cache[Any, Any] | None:
    """The `Cache` that a cache is, or has in this process's memory and shows."""
    shown = (cache, getattr(cache, "l0", None), getattr(cache, "cache", None))
    return next((one for one in shown if isinstance(one, Cache)), None)


def name_of(cache: Any) -> Any:
    """What a cache calls itself; an empty str: nothing."""
    return getattr(cache, "namespace", None) or getattr(cache, "name", None) or ""


def hottest(cache: Any, n: int) -> Sequence[tuple[Any, int]] | None:
    """The keys asked for most often of late, each with how often; None: it does not tell."""
    source = cache if _is_source(cache) else memory_of(cache)
    return None if source is None else source.hottest(n)


def read(cache: Any) -> Reading:
    """What a cache counted so far.

    Raises:
        TypeError: it is neither one of ours nor a `Source`.
    """
    if _is_source(cache):
        return cast(Source, cache).read()
    stats = None if isinstance(cache, type) or not hasattr(cache, "stats") else cache.stats()
    if isinstance(stats, TieredStats):
        return _of_tiers(cache, stats)
    fields: Fields = {}
    if isinstance(stats, tuple) and hasattr(stats, "_asdict"):
        fields = stats._asdict()
    elif dataclasses.is_dataclass(stats) and not isinstance(stats, type):
        fields = {each.name: getattr(stats, each.name) for each in dataclasses.fields(stats)}
    of_kind = _OTHERS.get(type(stats).__name__)
    if of_kind is not None:
        return of_kind(cache, fields)
    if "hits" not in fields or "misses" not in fields:
        raise TypeError(f"cache must be a cache or a Source, not {type(cache).__name__}")
    return _of_memory(cache, fields)


def _is_source(cache: Any) -> bool:
    """As isinstance of a runtime protocol would tell, in a tenth of its time."""
    return not isinstance(cache, type) and hasattr(cache, "read") and hasattr(cache, "hottest")


def _of_memory(cache: Any, fields: Fields, known: tuple[str, ...] = (), **more: Any) -> Reading:
    """A Reading of what all caches count; fields that are not `known` to `more` are added."""
    memory = memory_of(cache)
    bounded = cache if memory is None else memory
    told = {*known, *LEAVING, "hits", "misses", "inserts", "deletions", "refused", "entries",
            "bytes"}  # fmt: skip
    common = {
        "kind": type(cache).__name__,
        "results": {"hit": fields.get("hits", 0), "miss": fields.get("misses", 0)},
        "entries": fields.get("entries", 0),
        "bytes": fields.get("bytes", 0),
        "max_entries": getattr(bounded, "maxsize", None) or getattr(bounded, "capacity", None),
        "max_bytes": getattr(bounded, "max_bytes", None),
        "inserts": fields.get("inserts", 0),
        "deletions": fields.get("deletions", 0),
        "refused": fields.get("refused", 0),
        "evictions": {LEAVING[name]: fields[name] for name in LEAVING if name in fields},
    }
    events, levels = _parted({name: fields[name] for name in fields if name not in told})
    return Reading(**{**common, "events": events, "levels": levels, **more})


def _parted(numbers: Fields) -> tuple[Counts, Counts]:
    """Those that only rise, and those that rise and fall; what is no number is left out."""
    kept = {
        name: value
        for name, value in numbers.items()
        if type(value) in (int, float) and math.isfinite(value)
    }
    levels = {name: value for name, value in kept.items() if name in LEVELS}
    return {name: value for name, value in kept.items() if name not in LEVELS}, levels


# --- caches with tiers


def _of_tiers(cache: Any, stats: TieredStats) -> Reading:
    names = _distinct([tier.name for tier in stats.tiers])
    kept = ("l0", "tiers", "loads", "load_errors", "load_latencies", "load_seconds",
            "stale_while_revalidate", "stale_if_error")  # fmt: skip
    events, levels = _parted({
        name: value for name, value in stats._asdict().items() if name not in kept
    })  # fmt: skip
    return _of_memory(
        cache,
        stats.l0._asdict(),
        tiers=[
            _of_tier(name, tier, one)
            for name, tier, one in zip(names, cache.tiers, stats.tiers, strict=True)
        ],
        loader={"hit": stats.loads - stats.load_errors, "error": stats.load_errors},
        loads=_durations(stats.load_latencies, stats.load_seconds),
        stale={"revalidate": stats.stale_while_revalidate, "error": stats.stale_if_error},
        events=events,
        levels=levels,
    )


def _of_tier(name: str, tier: Tier, stats: TierStats) -> TierReading:
    counted: Fields = {"writes": stats.writes, "deletes": stats.deletes}
    damaged = {f"refused_{reason}": count for reason, count in stats.refused.items()}
    events, levels = _parted({**stats.own, **counted, **damaged})
    return TierReading(
        name=name,
        results={"hit": stats.hits, "miss": stats.misses},
        durations=_durations(stats.latencies, stats.seconds),
        breaker=_breaker(tier),
        failures={"timeout": stats.timeouts, "error": stats.errors - stats.timeouts},
        traffic={"read": stats.bytes_read, "written": stats.bytes_written},
        events=events,
        levels={**levels, "owed": stats.owed},
    )


def _durations(counts: list[int], seconds: float) -> Durations:
    return Durations(counts, seconds, sum(counts))


def _breaker(tier: Tier) -> str | None:
    while not isinstance(tier, Breaker):
        if not isinstance(tier, Wrapper):
            return None
        tier = tier.tier
    return tier.state


def _distinct(names: list[str]) -> list[str]:
    """The names, with a number behind those that are taken already."""
    taken = {MEMORY, LOADER}
    for at, name in enumerate(names):
        number = 2
        while names[at] in taken:
            names[at], number = f"{name} {number}", number + 1
        taken.add(names[at])
    return names


# --- what ML services cache


def _of_embeddings(cache: Any, fields: Fields) -> Reading:
    return _of_memory(
        cache,
        fields,
        known=("below", "encoded", "calls", "seconds"),
        tiers=[TierReading(name="below", results={"hit": fields["below"]})],
        loader={"hit": fields["encoded"]},
        loads=Durations((), fields["seconds"], fields["calls"]),
    )


def _of_features(cache: Any, fields: Fields) -> Reading:
    events, levels = _parted({name: fields[name] for name in fields if name != "l0"})
    features = {name: counts._asdict() for name, counts in fields["features"].items()}
    return _of_memory(
        cache, fields["l0"]._asdict(), events=events, levels=levels, features=features
    )


def _of_prefixes(cache: Any, fields: Fields) -> Reading:
    """Its look-ups are counted in tokens, as its hit ratio is."""
    matched = fields["matched_tokens"]
    return _of_memory(
        cache,
        fields,
        known=("asked_tokens", "matched_tokens", "blocks"),
        results={"hit": matched, "miss": fields["asked_tokens"] - matched},
        entries=fields["blocks"],
        evictions={"evicted": fields["evictions"]},
    )


def _of_semantic(cache: Any, fields: Fields) -> Reading:
    """Its look-ups are queries, not those of the cache of values inside."""
    names = ("exact_hits", "semantic_hits", "verified_away")
    return _of_memory(
        cache,
        fields["cache"]._asdict(),
        results={
            "hit": fields["exact_hits"] + fields["semantic_hits"],
            "miss": fields["misses"],
        },
        events={name: fields[name] for name in names},
        levels={},
    )


def _of_weights(cache: Any, fields: Fields) -> Reading:
    return _of_memory(
        cache,
        fields,
        entries=fields["hot"] + fields["pinned"],
        bytes=fields["hot_bytes"] + fields["pinned_bytes"],
    )


# By name: what reads numbers does not import what made them.
_OTHERS: dict[str, Callable[[Any, Fields], Reading]] = {
    "EmbeddingStats": _of_embeddings,
    "FeatureCacheStats": _of_features,
    "PrefixStats": _of_prefixes,
    "SemanticStats": _of_semantic,
    "WeightStats": _of_weights,
}
