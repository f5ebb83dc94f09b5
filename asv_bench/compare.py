"""cachecore against every peer: hit, miss, set at capacity, mixed stream, memory per entry.

10,000 str keys (bytes for lmdb); all peers take their turns in the same rounds. A dash: the peer
has no such operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import isolated
from bars import OURS, SMALL
from peers import PEERS, Peer
from report import markdown
from timing import Contender, Effort, Samples, Stream, consuming, hot
from workloads import fresh_keys, make_keys, shuffled, slices, zipf


@dataclass
class Comparison:
    """What one peer showed: values by column, and its times as multiples of cachecore's."""

    peer: Peer
    values: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)


COLUMNS = {
    "hit": "hit, ns",
    "miss": "miss, ns",
    "set": "set of a new key at capacity, ns",
    "mixed": "mixed stream, ns",
    "hits": "its hit ratio, %",
    "memory": "memory per entry, bytes",
}


def _hit(peer: Peer, build: int) -> Contender:
    keys = make_keys(peer.keys, SMALL)
    return hot(peer.name, peer.hit, peer.filled(SMALL, keys), shuffled(keys, build))


def _miss(peer: Peer, build: int) -> Contender | None:
    if peer.get is None:
        return None
    c = peer.filled(SMALL, make_keys(peer.keys, SMALL))
    return hot(peer.name, peer.get, c, shuffled(make_keys(peer.keys, SMALL, SMALL), build))


def _set(peer: Peer, build: int) -> Contender | None:
    if not peer.bounded:
        return None
    c = peer.filled(SMALL, make_keys(peer.keys, SMALL))
    return consuming(peer.name, peer.set, c, fresh_keys(500, SMALL), warm=SMALL // 500)


def compare(effort: Effort, note: Callable[[str], None]) -> list[Comparison]:
    """Measure every peer; `note` is told what comes next."""
    found = {name: Comparison(peer) for name, peer in PEERS.items()}

    def enter(column: str, samples: Samples, names: list[str]) -> None:
        for name in names:
            found[name].values[column] = samples.median(name)
            found[name].ratios[column] = samples.ratio(name, OURS).median

    for column, contender_of in (("hit", _hit), ("miss", _miss), ("set", _set)):
        note(f"all peers: {column}")
        samples = Samples()
        for build in range(max(1, effort.builds // 3)):
            contenders = [c for peer in PEERS.values() if (c := contender_of(peer, build))]
            samples.play(contenders, effort.rounds)
        enter(column, samples, [c.name for c in contenders])

    note("all peers: mixed")
    part, warm, rounds = 12_000, 20, effort.rounds
    stream = slices(zipf(0.9, make_keys("str", 100_000), (warm + rounds) * part), part)
    streams = [Stream(p.name, p.mixed, p.make(SMALL), stream) for p in PEERS.values() if p.mixed]
    Samples().play(streams, warm)
    for played in streams:
        played.forget()
    samples = Samples()
    samples.play(streams, rounds)
    enter("mixed", samples, [played.name for played in streams])
    for played in streams:
        found[played.name].values["hits"] = 100 * played.hit_ratio

    for name, peer in PEERS.items():
        if peer.in_memory:
            note(f"all peers: memory of {name}")
            figures = isolated.run("overhead", name, effort.peer_entries)
            found[name].values["memory"] = figures["bytes_per_entry"]
    return list(found.values())


def table(comparisons: list[Comparison]) -> str:
    """Return the table; in parentheses the multiple of cachecore's time."""

    def cell(comparison: Comparison, column: str) -> str:
        value = comparison.values.get(column)
        if value is None:
            return "-"
        times = comparison.ratios.get(column)
        text = f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
        return (
            text
            if times is None
            else f"{text} ({times:.2g}x)"
            if times < 10
            else f"{text} ({times:.0f}x)"
        )

    rows = [[c.peer.label, *(cell(c, column) for column in COLUMNS)] for c in comparisons]
    return markdown(["peer", *COLUMNS.values()], rows)
