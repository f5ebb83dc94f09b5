"""TieredCache: what this process has no room for goes to the first tier, and climbs back."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cachecore.tiers import MmapTier, demotion
from cachecore.tiers.testing import eventually
from support import Clock
from tiers.caches import HANGS, LONG, Counting, Make, Slow, Source, counts, in_threads, settle

ROOM = 20


def heat(cache: Any, keys: Any, times: int = 5) -> None:
    for _ in range(times):
        cache.get_many(list(keys))


def push_out(cache: Any, keys: Any) -> None:
    """Make these leave, hot as they are, for others that are hotter."""
    serial = 0
    while any(key in cache.l0 for key in keys):
        others = [f"other {serial} {at}" for at in range(ROOM)]
        cache.l0.update(dict.fromkeys(others, 0))
        for _ in range(60):
            cache.l0.get_many(others)
        serial += 1
        assert serial < 500, "they do not leave"
    cache.hand_down_soon()  # as a write through the cache itself would have seen to


def make_room(cache: Any) -> None:
    cache.l0.delete_many(list(cache.l0))


def demoted(store: Counting) -> set[bytes]:
    return {
        key for call, keys in store.calls if call == "demote"
        for key in keys if not key.startswith(b"other")
    }  # fmt: skip


def test_what_was_asked_for_goes_down_and_climbs_back(make: Make, store: Counting) -> None:
    cache = make(ROOM, tiers=[store], exclusive=True, loader=lambda key: f"value {key}")
    hot = [f"hot {at}" for at in range(8)]
    heat(cache, hot)
    push_out(cache, hot)
    eventually(lambda: len(demoted(store)) == 8)
    settle(cache)
    assert all(data is not None for data in store.tier.get_many([key.encode() for key in hot]))
    loads = cache.stats().loads
    assert cache.get_many(hot) == [f"value {key}" for key in hot]
    assert cache.stats().loads == loads
    assert cache.stats().demotions >= 8


def test_in_batches(make: Make, store: Counting) -> None:
    cache = make(ROOM, tiers=[store], exclusive=True)
    hot = [f"hot {at}" for at in range(10)]
    cache.l0.update(dict.fromkeys(hot, 1))
    heat(cache, hot)
    push_out(cache, hot)
    settle(cache)
    calls = [keys for call, keys in store.told() if call == "demote"]
    assert len(calls) < 10
    assert sum(map(len, calls)) == cache.stats().demotions


def test_what_was_asked_for_once_does_not(make: Make, store: Counting) -> None:
    cache = make(ROOM, tiers=[store], exclusive=True)
    for key in range(500):
        cache.l0[key] = key
    settle(cache)
    demotions, lost = counts(cache, "demotions", "demotions_lost")
    assert demotions < 50  # how often is an estimate, that is too high for some
    assert lost == 0


def test_until_it_is_written_it_is_found_here(make: Make, store: Counting) -> None:
    cache = make(ROOM, tiers=[store], exclusive=True)
    value = np.arange(4.0)
    cache.set("hot", value)
    heat(cache, ["hot"])
    kept = cache.get("hot")
    push_out(cache, ["hot"])
    if "hot" in cache.leaving:
        assert cache.get("hot") is kept
        assert "hot" not in cache.leaving
    else:
        settle(cache)
        assert cache.get("hot").tolist() == kept.tolist()
    assert "hot" in cache.l0


def test_exclusive_is_in_one_place_at_a_time(make: Make, store: Counting) -> None:
    source = Source()
    cache = make(ROOM, tiers=[store], exclusive=True, loader=source.one)
    hot = [f"hot {at}" for at in range(8)]
    wires = [key.encode() for key in hot]
    heat(cache, hot)
    assert store.tier.get_many(wires) == [None] * 8, "it was loaded into both"
    push_out(cache, hot)
    settle(cache)
    assert not any(key in cache.l0 for key in hot)
    assert None not in store.tier.get_many(wires)
    make_room(cache)
    cache.get_many(hot)
    assert all(key in cache.l0 for key in hot)
    assert store.tier.get_many(wires) == [None] * 8
    cache.set("hot 0", "new")
    push_out(cache, hot)
    settle(cache)
    cache.set("hot 1", "new")
    assert store.tier.get_many([b"hot 1"]) == [None]
    assert cache.get_many(["hot 0", "hot 1"]) == ["new", "new"]
    assert sorted(source.asked) == hot


@pytest.mark.parametrize("how", ["delete", "set", "namespace"])
def test_what_was_deleted_is_never_written_down_late(make: Make, store: Counting, how: str) -> None:
    cache = make(ROOM, tiers=[store], namespace="ns")
    hot = [f"hot {at}" for at in range(8)]
    for _ in range(5):
        cache.set_many(dict.fromkeys(hot, "old"))
        heat(cache, hot)
        push_out(cache, hot)
        if how == "delete":
            cache.delete_many(hot)
        elif how == "set":
            cache.set_many(dict.fromkeys(hot, "new"))
        else:
            cache.invalidate("ns")
        settle(cache)
        cache.l0.clear()
        assert cache.get_many(hot) == ["new" if how == "set" else None] * 8


@pytest.mark.parametrize("how", ["delete", "set", "namespace"])
def test_a_demotion_under_way(make: Make, store: Counting, how: str) -> None:
    class Held(Slow):
        def demote_many(self, items: Any, frequencies: Any) -> None:
            self.hold()
            self.tier.demote_many(items, frequencies)

    tier = Held(store)
    cache = make(ROOM, tiers=[tier], namespace="ns", exclusive=True)
    cache.set("hot", "old")
    heat(cache, ["hot"])
    tier.holds = True
    push_out(cache, ["hot"])
    tier.gate.wait()
    with ThreadPoolExecutor(2) as pool:
        other: Future[Any]
        if how == "delete":
            other = pool.submit(cache.delete, "hot")
        elif how == "set":
            other = pool.submit(cache.set, "hot", "new")
        else:
            tier.holds = False
            other = pool.submit(cache.invalidate, "ns")
            other.result(HANGS)
        tier.holds = False
        tier.gate.let(5)
        other.result(HANGS)
    settle(cache)
    assert cache.get("hot") == ("new" if how == "set" else None)


@pytest.mark.parametrize("when", ["they wait to be handed down", "they are handed down"])
def test_a_tag_does_not_stop_what_has_none(
    make: Make, store: Counting, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It is made void meanwhile."""
    cache = make(ROOM, tiers=[store], exclusive=True)
    demote_many = store.demote_many

    def demoted_during(items: Any, frequencies: Any) -> None:
        cache.invalidate("some tag")
        demote_many(items, frequencies)

    if when == "they are handed down":
        monkeypatch.setattr(store, "demote_many", demoted_during)
    else:
        monkeypatch.setattr(demotion, "DELAY", 0.5)
    cache.set("hot", 1)
    heat(cache, ["hot"])
    push_out(cache, ["hot"])
    if when == "they wait to be handed down":
        cache.invalidate("some tag")
    settle(cache)
    assert cache.get("hot") == 1


def test_it_goes_down_with_its_lifetime(make: Make, store: Counting, clock: Clock) -> None:
    cache = make(ROOM, tiers=[store], exclusive=True, timer=clock, ttl=LONG, stale_ttl=LONG)
    cache.set("hot", 1)
    cache.set("ever", 2, ttl=float("inf"))
    heat(cache, ["hot", "ever"])
    clock.advance(10)
    push_out(cache, ["hot", "ever"])
    settle(cache)
    make_room(cache)
    assert cache.get_many(["hot", "ever"]) == [1, 2]
    assert cache.l0.get_ttl("hot") == pytest.approx(2 * LONG - 10, abs=0.1)
    assert cache.l0.get_ttl("ever") is None
    push_out(cache, ["hot", "ever"])
    settle(cache)
    clock.advance(2 * LONG)
    assert cache.get_many(["hot", "ever"]) == [None, 2]


def test_what_expired_is_not_handed_down(make: Make, store: Counting, clock: Clock) -> None:
    cache = make(ROOM, tiers=[store], exclusive=True, timer=clock, ttl=10)
    cache.set("hot", 1)
    heat(cache, ["hot"])
    clock.advance(11)
    cache.l0.update({f"other {at}": 0 for at in range(200)})
    cache.l0.expire()
    settle(cache)
    assert b"hot" not in demoted(store)


def test_an_older_value_does_not_replace_another_processs(make: Make, store: Counting) -> None:
    """Two caches over one tier: what one let go is older than what the other has set since."""
    ours, theirs = make(ROOM, tiers=[store]), make(ROOM, tiers=[store])
    ours.set("hot", "old")
    heat(ours, ["hot"])
    theirs.set("hot", "new")
    push_out(ours, ["hot"])
    settle(ours)
    assert b"hot" in demoted(store)
    theirs.l0.clear()
    assert theirs.get("hot") == ours.get("hot") == "new"


def test_it_is_handed_down_at_the_end(make: Make, tmp_path: Any) -> None:
    def opened() -> Any:
        tier = MmapTier(tmp_path / "store", max_bytes="4MB")
        return make(ROOM, tiers=[tier], exclusive=True)

    cache = opened()
    cache.set("hot", 1)
    heat(cache, ["hot"])
    push_out(cache, ["hot"])
    cache.close()
    assert opened().get("hot") == 1


def test_many_threads_lose_nothing(make: Make, store: Counting) -> None:
    source = Source()
    cache = make(ROOM, tiers=[store], exclusive=True, loader_many=source.many)

    def work(at: int) -> None:
        for turn in range(80):
            keys = [(turn * 7 + at * 3 + step) % 60 for step in range(10)]
            assert cache.get_many(keys) == [f"{key!r} v0" for key in keys]

    in_threads(6, work)
    settle(cache)
    assert cache.get_many(range(60)) == [f"{key!r} v0" for key in range(60)]
    settle(cache)
    assert not cache.leaving
