"""The rows of the table of bars: what is measured, against whom, and the ratio that is asked for.

Unless a row says otherwise: 10,000 str keys, all of them in the cache, visited in a random order
through the very key objects that were stored; caches and dict hold the same key and value objects;
ratios are of gross times, the loop included, as a user sees them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import cachecore
import isolated
from peers import PEERS
from report import Line, ratio_line
from timing import Contender, Effort, Samples, Stream, cold, compile_loop, consuming, hot
from workloads import KeyKind, copies, fresh_keys, make_keys, rows, shuffled, slices, zipf

SMALL, LARGE = 10_000, 1_000_000
OURS = "cachecore"


def _values(n: int) -> list[float]:
    return [float(i) for i in range(n)]


def _hits(
    effort: Effort,
    body: str,
    names: Sequence[str] = (OURS, "dict"),
    kind: KeyKind = "str",
    asking: str = "the same objects",
    make: Callable[[int], Any] | None = None,
) -> Samples:
    """Measure `body` over resident keys; `make` replaces how our cache is made."""
    samples = Samples()
    for build in range(effort.builds):
        stored, values = make_keys(kind, SMALL), _values(SMALL)
        asked = {
            "the same objects": shuffled(stored, build),
            "equal objects": shuffled(copies(stored), build),
            "in order of insertion": stored,
        }[asking]
        contenders = [hot("loop", "pass", None, asked)]
        for name in names:
            c = PEERS[name].filled(SMALL, stored, values)
            if make is not None and name == OURS:
                c = make(SMALL)
                c.update(zip(stored, values, strict=True))
            assert len(c) == SMALL, f"{name} lost entries below its capacity"
            contenders.append(hot(name, body, c, asked))
        samples.play(contenders, effort.rounds)
    return samples


def hit_item(effort: Effort) -> list[Line]:
    """`c[k]`, all accounting on."""
    samples = _hits(effort, "c[k]", (OURS, "dict", "cachebox LRU"))
    name = "c[k] hit, 10k str keys"
    return [
        ratio_line(name, "dict[k]", samples.ratio(OURS, "dict", "loop"), 1.05, 1.0),
        ratio_line(name, "cachebox LRU c[k]", samples.ratio(OURS, "cachebox LRU", "loop"), 0.5),
    ]


def hit_get(effort: Effort) -> list[Line]:
    """`c.get(k)`."""
    ratio = _hits(effort, "c.get(k)").ratio(OURS, "dict", "loop")
    return [ratio_line("c.get(k) hit", "dict.get(k)", ratio, 1.0)]


def hit_ttl(effort: Effort) -> list[Line]:
    """`c[k]` where every entry has a time to live."""
    samples = _hits(effort, "c[k]", make=lambda n: cachecore.Cache(n, ttl=3600))
    return [ratio_line("c[k] hit with a TTL", "dict[k]", samples.ratio(OURS, "dict", "loop"), 1.5)]


def hit_variants(effort: Effort) -> list[Line]:
    """`c[k]` for other keys; for information."""
    variants: list[tuple[KeyKind, str]] = [
        ("str", "in order of insertion"),
        ("str", "equal objects"),
        ("int", "the same objects"),
        ("int", "equal objects"),
        ("bytes", "the same objects"),
        ("bytes", "equal objects"),
    ]
    peers = ("dict", "cachebox LRU")
    lines = []
    for kind, asking in variants:
        samples = _hits(effort, "c[k]", (OURS, *peers), kind, asking)
        lines += [
            ratio_line(
                f"c[k] hit, 10k {kind} keys, {asking}",
                f"{peer} c[k]",
                samples.ratio(OURS, peer, "loop"),
            )
            for peer in peers
        ]
    return lines


@functools.cache
def _large() -> tuple[Any, dict[Any, Any], list[Any]]:
    """Return a cache and a dict of the same million objects, and the keys in random order."""
    keys, values = make_keys("str", LARGE), _values(LARGE)
    cache = PEERS[OURS].filled(LARGE, keys, values)
    assert len(cache) == LARGE
    return cache, dict(zip(keys, values, strict=True)), shuffled(keys)


def hit_large(effort: Effort) -> list[Line]:
    """A million keys in random order: nearly every look-up waits for memory."""
    cache, plain, keys = _large()
    parts = slices(keys, 10_000)
    lines = []
    for body, bar in (("c[k]", 0.8), ("c.get(k)", 0.9)):
        samples = Samples()
        third = len(parts) // 3
        contenders = [
            cold(OURS, body, cache, parts, 0),
            cold("dict", body, plain, parts, third),
            cold("loop", "pass", None, parts, 2 * third),
        ]
        samples.play(contenders, effort.large_rounds)
        against = body.replace("c", "dict", 1)
        ratio = samples.ratio(OURS, "dict", "loop")
        lines.append(ratio_line(f"{body} hit, 1M random keys", against, ratio, bar))
    return lines


def miss(effort: Effort) -> list[Line]:
    """`get` of keys that were never there."""
    samples = Samples()
    for build in range(effort.builds):
        stored = make_keys("str", SMALL)
        absent = shuffled(make_keys("str", SMALL, start=SMALL), build)
        contenders = [
            hot(name, "c.get(k)", PEERS[name].filled(SMALL, stored), absent)
            for name in (OURS, "dict")
        ]
        samples.play([*contenders, hot("loop", "pass", None, absent)], effort.rounds)
    ratio = samples.ratio(OURS, "dict", "loop")
    return [ratio_line("miss: c.get(absent)", "dict.get(absent)", ratio, 1.0)]


COMPREHENSION = "[c[key] for key in k]"


def get_many(effort: Effort) -> list[Line]:
    """`get_many` of 1,000 keys, per key, small and hot, then among a million."""
    small = Samples()
    for build in range(effort.builds):
        keys = make_keys("str", SMALL)
        values = _values(SMALL)
        batches = slices(shuffled(keys, build), 1000)
        cache, plain = (PEERS[name].filled(SMALL, keys, values) for name in (OURS, "dict"))
        assert cache.get_many(batches[0]) == [plain[key] for key in batches[0]]
        timed: cachecore.Cache[str, float] = cachecore.Cache(SMALL, ttl=3600)
        timed.update(plain)
        contenders = [
            hot(OURS, "c.get_many(k)", cache, batches, 1000),
            hot("with a TTL", "c.get_many(k)", timed, batches, 1000),
            hot("dict", COMPREHENSION, plain, batches, 1000),
        ]
        small.play(contenders, effort.rounds)
    cache, plain, keys = _large()
    parts = slices(slices(keys, 1000), 10)
    large = Samples()
    contenders = [
        cold(OURS, "c.get_many(k)", cache, parts, 0, 1000),
        cold("dict", COMPREHENSION, plain, parts, len(parts) // 2, 1000),
    ]
    large.play(contenders, effort.large_rounds)
    return [
        ratio_line(
            "get_many(1,000), 10k keys, per key",
            "[d[k] for k in keys]",
            small.ratio(OURS, "dict"),
            0.4,
        ),
        ratio_line(
            "get_many(1,000), 1M keys, per key",
            "[d[k] for k in keys]",
            large.ratio(OURS, "dict"),
            0.4,
        ),
        ratio_line(
            "get_many(1,000), 10k keys with a TTL, per key",
            "[d[k] for k in keys]",
            small.ratio("with a TTL", "dict"),
        ),
    ]


def gather(effort: Effort) -> list[Line]:
    """`gather` of 1,000 rows of 4 KB, per row, out of 40 and 400 MB; np.take reads one table."""
    lines = []
    for population in (SMALL, 100_000):
        table = rows(population)
        keys = make_keys("str", population)
        plain = {key: row.copy() for key, row in zip(keys, table, strict=True)}
        cache = PEERS[OURS].filled(population, keys, list(plain.values()))
        order = shuffled(range(population))
        batches = [([keys[i] for i in part], np.array(part)) for part in slices(order, 1000)]
        parts = [[batch] for batch in batches]
        outs = [np.empty((1000, 1024), np.float32) for _ in range(2)]
        assert cache.gather(batches[0][0], outs[0]).all()
        assert (outs[0] == table[batches[0][1]]).all()
        third = len(parts) // 3
        contenders: list[Contender] = [
            cold(OURS, "c[0].gather(k[0], c[1])", (cache, outs[0]), parts, 0, 1000),
            cold("stack", "np.stack([c[key] for key in k[0]])", plain, parts, third, 1000),
            cold(
                "take",
                "np.take(c[0], k[1], axis=0, out=c[1], mode='clip')",
                (table, outs[1]),
                parts,
                2 * third,
                1000,
            ),
        ]
        samples = Samples()
        samples.play(contenders, effort.large_rounds)
        name = f"gather(1,000 x 4 KB) of {population // 1000}k rows, per row"
        lines += [
            ratio_line(name, "np.stack([d[k] ...])", samples.ratio(OURS, "stack"), 0.85),
            ratio_line(name, "np.take(out=, clip)", samples.ratio(OURS, "take"), 1.15),
        ]
    return lines


def _freeing() -> Contender:
    """Time what every set at capacity contains: the release of one str key."""
    timed, lists = compile_loop("k.clear()"), fresh_keys(500, SMALL)
    return Contender("free", lambda _: timed(None, [next(lists)], 1)[0] / 500)


def set_at_capacity(effort: Effort) -> list[Line]:
    """`c[k] = k` of keys never seen, 10k entries; each set evicts one entry and frees its key."""
    bars = {"cachebox LFU": 1.0, "cachebox LRU": 2.0, "cachetools LRU": 0.2}
    samples = Samples()
    for _ in range(effort.builds):
        contenders = [
            consuming(
                name,
                PEERS[name].set,
                PEERS[name].filled(SMALL, make_keys("str", SMALL)),
                fresh_keys(500, SMALL),
                warm=SMALL // 500,
            )
            for name in (OURS, *bars)
        ]
        contenders += [hot("loop", "pass", None, make_keys("str", 500)), _freeing()]
        samples.play(contenders, effort.rounds // 3)
    note = f"freeing a key: {samples.median('free'):.0f} ns of each"
    return [
        ratio_line(
            "set of a new key at capacity 10k",
            peer,
            samples.ratio(OURS, peer, "loop"),
            bar,
            note=note,
        )
        for peer, bar in bars.items()
    ]


def mixed(effort: Effort) -> list[Line]:
    """Zipf 0.9 over 100k keys, capacity 10k: get, on a miss set."""
    keys = make_keys("str", 100_000)
    names = (OURS, "cachebox LRU")
    part, warm = 12_000, 30
    stream = slices(zipf(0.9, keys, (warm + effort.large_rounds) * part), part)
    contenders = [
        Stream(name, PEERS[name].mixed or "", PEERS[name].make(SMALL), stream) for name in names
    ]
    Samples().play(contenders, warm)
    for contender in contenders:
        contender.forget()
    samples = Samples()
    samples.play(contenders, effort.large_rounds)
    ours, theirs = (100 * contender.hit_ratio for contender in contenders)
    name = "mixed Zipf 0.9"
    return [
        ratio_line(name, "cachebox LRU, time", samples.ratio(*names), 1.0),
        Line(
            name,
            "cachebox LRU, points of hits",
            ours - theirs,
            5.0,
            at_least=True,
            detail=f"hit ratio {ours:.1f} % / {theirs:.1f} %",
        ),
    ]


def pauses(effort: Effort) -> list[Line]:
    """Each `set` at capacity 10^6 timed alone."""
    seen = isolated.run("pauses", LARGE, effort.sets)
    ms = {name: value / 1000 for name, value in seen.items()}
    largest = (
        f"CPU time of the thread; by wall clock {ms['wall_max_us']:.2f}, an empty pair of clock "
        f"reads {ms['empty_max_us']:.2f}"
    )
    typical = (
        f"wall clock, median over blocks of 10,000 of {effort.sets:,} sets; an empty pair of clock "
        f"reads {seen['empty_p999_us']:.2f}"
    )
    name = "single set at capacity 10^6"
    return [
        Line(f"largest {name}", "ms", ms["max_us"], 2, detail=largest),
        Line(f"p99.9 {name}", "us", seen["p999_us"], 20, detail=typical),
        Line("largest single set on the way there", "ms", ms["filling_max_us"], detail="CPU time"),
    ]


def memoize_hit(effort: Effort) -> list[Line]:
    """A decorated function called with one of 100 str arguments, maxsize 128 on both sides."""
    samples = Samples()
    for build in range(effort.builds):
        keys = shuffled(make_keys("str", 100), build)
        ours, theirs = cachecore.memoize(maxsize=128)(len), functools.lru_cache(maxsize=128)(len)
        contenders = [
            hot(OURS, "c(k)", ours, keys),
            hot("lru_cache", "c(k)", theirs, keys),
            hot("loop", "pass", None, keys),
        ]
        samples.play(contenders, effort.rounds)
        assert ours.cache_info().misses == theirs.cache_info().misses == 100
    ratio = samples.ratio(OURS, "lru_cache", "loop")
    return [ratio_line("@memoize hit, one str argument", "functools.lru_cache", ratio, 0.6)]


def overhead(effort: Effort) -> list[Line]:
    """Resident memory per entry beyond the key and value objects, after evictions."""
    seen = isolated.run("overhead", OURS, effort.entries)
    detail = (
        f"RSS growth at {seen['entries']:,} entries, after {seen['sets']:,} sets of distinct keys"
    )
    return [Line("overhead per entry", "bytes", seen["bytes_per_entry"], 64, 56, detail=detail)]


def import_time(effort: Effort) -> list[Line]:
    """Cache, VectorCache and memoize imported where NumPy is already."""
    times = [isolated.run("imports")["ms"] for _ in range(effort.imports)]
    low, median, high = np.percentile(times, (25, 50, 75))
    detail = f"median of {len(times)} fresh processes"
    return [Line("import beyond NumPy's own", "ms", median, 30, spread=(low, high), detail=detail)]


ROWS: dict[str, Callable[[Effort], list[Line]]] = {
    "c[k]": hit_item,
    "get": hit_get,
    "ttl": hit_ttl,
    "1M": hit_large,
    "miss": miss,
    "get_many": get_many,
    "gather": gather,
    "set": set_at_capacity,
    "mixed": mixed,
    "pause": pauses,
    "memoize": memoize_hit,
    "overhead": overhead,
    "import": import_time,
    "variants": hit_variants,
}
