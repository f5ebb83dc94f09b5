"""The memory-mapped tier: the contract, its bound and its eviction, a model of it, its counters."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachecore.tiers import Item, MmapTier, TierError
from cachecore.tiers.testing import TierContract, eventually

BOUND = 4 << 20


class TestMmapTier(TierContract):
    @pytest.fixture
    def tier(self, tmp_path: Path) -> Iterator[MmapTier]:
        tier = MmapTier(tmp_path / "store", max_bytes="64MB")
        yield tier
        tier.close()


class TestMmapTierWithLittleRoom(TierContract):
    """The values of the contract just fit."""

    @pytest.fixture
    def tier(self, tmp_path: Path) -> Iterator[MmapTier]:
        tier = MmapTier(tmp_path / "store", max_bytes="8MB")
        yield tier
        tier.close()


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[MmapTier]:
    tier = MmapTier(tmp_path / "store", max_bytes=BOUND)
    yield tier
    tier.close()


def test_get_is_get_many_of_one(tier: MmapTier) -> None:
    tier.set_many([Item(b"a", b"1"), Item(b"b" * 600, b"2", 60_000), Item(b"c", b"3", 1)])
    assert (tier.get(b"a"), tier.get(b"b" * 600), tier.get(b"none")) == (b"1", b"2", None)
    eventually(lambda: tier.get(b"c") is None)
    with pytest.raises(TierError):
        tier.get(b"")


def test_it_is_not_loaded_before_it_is_asked_for() -> None:
    program = (
        "import sys, cachecore.tiers; assert 'lmdb' not in sys.modules\n"
        "assert 'MmapTier' in cachecore.tiers.__all__; cachecore.tiers.MmapTier\n"
        "assert 'lmdb' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_package_is_named() -> None:
    program = "import sys; sys.modules['lmdb'] = None\nfrom cachecore.tiers import MmapTier"
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert 'ImportError: MmapTier needs lmdb: pip install "cachecore-ml[mmap]"' in run.stderr


# --- the bound


@pytest.mark.parametrize(
    "sizes", [(60,), (1000,), (4096,), (20_000,), (300_000,), (10, 5000, 100_000)], ids=str
)
@pytest.mark.parametrize("batch", [1, 50])
def test_the_file_never_exceeds_the_bound(
    tmp_path: Path, tier: MmapTier, sizes: tuple[int, ...], batch: int
) -> None:
    """And what was just set is there, most of the room is used, and nothing refused."""
    written = at = 0
    while written < 3 * BOUND and at < 20_000:
        items = []
        for _ in range(batch):
            data = b"%d;" % at * (sizes[at % len(sizes)] // len(b"%d;" % at))
            items.append(Item(b"key %d" % at, data))
            written += len(data) + 60
            at += 1
        tier.set_many(items[:10] if sizes[0] > 100_000 else items)
        if sum(len(item.data) for item in items) < BOUND // 16:
            assert tier.get(items[0].key) == items[0].data
        assert (tmp_path / "store" / "data.mdb").stat().st_size == BOUND
    stats = tier.stats()
    assert stats["refused"] == stats["damaged"] == stats["write_errors"] == 0
    assert BOUND * 0.5 < stats["bytes"] < BOUND
    assert stats["evictions"] + stats["entries"] <= at
    for key in tier.scan():
        found = tier.get(key)
        assert found
        assert set(found.split(b";")) == {key[4:], b""}


def test_what_cannot_fit_is_refused(tier: MmapTier) -> None:
    tier.set_many([Item(b"a", b"1"), Item(b"b", b"2")])
    tier.set_many([Item(b"a", bytes(BOUND)), Item(b"c", b"3")])
    assert tier.get_many([b"a", b"b", b"c"]) == [None, b"2", b"3"]
    assert tier.add(Item(b"d", bytes(BOUND))) is False
    assert tier.add(Item(b"b", bytes(BOUND))) is False
    assert tier.get_many([b"b", b"d"]) == [b"2", None]
    assert tier.stats()["refused"] == 2


def test_room_among_scattered_pages(tier: MmapTier) -> None:
    """Large values need pages in a row, which have to be made."""
    large = bytes(600_000)
    for turn in range(400):
        tier.set_many([Item(b"%d" % turn, b"x" * 5000)])
        if turn % 40 == 39:
            tier.set_many([Item(b"large", large)])
            assert tier.get(b"large") in {large, None}
    assert tier.stats()["refused"] <= 2


# --- who stays


def test_what_is_asked_for_stays(tier: MmapTier) -> None:
    value = bytes(4000)
    hot = [b"hot %d" % at for at in range(40)]
    tier.set_many([Item(key, value) for key in hot])
    for turn in range(4000):
        tier.set_many([Item(b"cold %d" % turn, value)])
        tier.get(random.choice(hot))
    assert sum(data is not None for data in tier.get_many(hot)) >= 36


def test_frequencies_are_taken_over(tier: MmapTier) -> None:
    value = bytes(4000)
    hot = [b"hot %d" % at for at in range(100)]
    tier.demote_many([Item(key, value) for key in hot], [50] * 100)
    tier.set_many([Item(b"once %d" % at, value) for at in range(1500)])
    assert sum(data is not None for data in tier.get_many(hot)) >= 95


def test_the_expired_go_first(tier: MmapTier) -> None:
    value = bytes(8000)
    keys = [b"lasting %d" % at for at in range(200)]
    tier.set_many([Item(key, value) for key in keys])
    tier.set_many([Item(b"short %d" % at, value, 1) for at in range(200)])
    time.sleep(0.01)
    tier.demote_many([Item(b"new %d" % at, value) for at in range(150)], [2] * 150)
    stats = tier.stats()
    assert stats["expirations"] >= 40
    assert sum(data is not None for data in tier.get_many(keys)) >= 200 - stats["evictions"] > 150


def test_small_values_stay_rather_than_large_ones(tier: MmapTier) -> None:
    for at in range(300):
        tier.set_many([Item(b"small %d" % at, bytes(100)), Item(b"large %d" % at, bytes(50_000))])
    counts = [len(list(tier.scan(prefix))) for prefix in (b"small", b"large")]
    assert counts[0] > 2 * counts[1]


def test_hits_are_written_when_it_closes(tmp_path: Path) -> None:
    """So that another process, or the next one, knows what is asked for."""
    tier = MmapTier(tmp_path, max_bytes=BOUND)
    value = bytes(8000)
    keys = [b"%d" % at for at in range(350)]
    tier.set_many([Item(key, value) for key in keys])
    hot = random.sample(keys, 50)
    for _ in range(20):
        tier.get_many(hot)
    tier.close()
    tier = MmapTier(tmp_path, max_bytes=BOUND)
    tier.set_many([Item(b"new %d" % at, value) for at in range(600)])
    assert sum(data is not None for data in tier.get_many(hot)) >= 45
    assert sum(data is not None for data in tier.get_many(keys)) < 250
    tier.close()


# --- demotion


def test_demotion_of_what_is_held_writes_little(tier: MmapTier) -> None:
    """The pages of large values are not written again."""
    items = [Item(b"%d" % at, bytes([at]) * 50_000, 600_000) for at in range(20)]
    tier.set_many(items)

    def written() -> int:
        counts = Path("/proc/self/io").read_text().split()
        return int(counts[counts.index("wchar:") + 1])

    before = written()
    tier.demote_many(items, [3] * 20)
    between = written()
    changed = [item._replace(data=item.data[:-1] + b"!") for item in items]
    tier.demote_many(changed, [3] * 20)
    assert between - before < 20 * 50_000 / 2 < 20 * 50_000 < written() - between
    assert tier.get_many([item.key for item in items]) == [item.data for item in changed]


def test_demotion_with_another_lifetime(tier: MmapTier) -> None:
    tier.set_many([Item(b"a", b"1", 600_000), Item(b"b", b"1"), Item(b"c", b"1", 200)])
    tier.demote_many([Item(b"a", b"1", 300), Item(b"b", b"1", 300), Item(b"c", b"1")], [1, 1, 1])
    eventually(lambda: tier.get_many([b"a", b"b", b"c"]) == [None, None, b"1"])
    with pytest.raises(ValueError, match="zip"):
        tier.demote_many([Item(b"a", b"1")], [])


# --- a model


keys = st.sampled_from([b"a", b"b", b"c" * 511, b"c" * 512, b"d" * 2000, b"\0", b"e"])
values = st.sampled_from([b"", b"x", b"y" * 100, b"z" * 5000, b"w" * 60_000])
lifetimes = st.sampled_from([None, 10**6, 10**12])
items = st.builds(Item, keys, values, lifetimes)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("set_many"), st.lists(items, max_size=4)),
        st.tuples(st.just("demote_many"), st.lists(items, max_size=4)),
        st.tuples(st.just("add"), items),
        st.tuples(st.just("delete_many"), st.lists(keys, max_size=4)),
        st.tuples(st.just("get_many"), st.lists(keys, max_size=4)),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=30,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(operations)
def test_it_does_what_a_dict_does(tmp_path: Path, operations: list[tuple[str, object]]) -> None:
    model: dict[bytes, bytes] = {}
    tier = MmapTier(tmp_path / "model", max_bytes=BOUND)
    tier.delete_many([*tier.scan(), b"c" * 512, b"d" * 2000])
    for name, argument in operations:
        match name, argument:
            case "set_many", list(some):
                tier.set_many(some)
                model.update((item.key, item.data) for item in some)
            case "demote_many", list(some):
                tier.demote_many(some, [3] * len(some))
                model.update((item.key, item.data) for item in some)
            case "add", Item() as item:
                assert tier.add(item) == (item.key not in model)
                model.setdefault(item.key, item.data)
            case "delete_many", list(some):
                assert tier.delete_many(some) == len(set(some) & set(model))
                for key in some:
                    model.pop(key, None)
            case "get_many", list(some):
                assert tier.get_many(some) == [model.get(key) for key in some]
            case _:
                tier.close()
                tier = MmapTier(tmp_path / "model", max_bytes=BOUND)
    assert set(tier.scan()) == {key for key in model if len(key) <= 511}
    assert tier.stats()["entries"] == len(model)
    tier.close()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_there_is_right_under_eviction(tier: MmapTier, seed: int) -> None:
    model: dict[bytes, bytes] = {}
    dice = random.Random(seed)
    for turn in range(3000):
        key = b"%d" % dice.randrange(400) * dice.choice([1, 1, 1, 300])
        data = b"%d;" % turn * dice.choice([1, 100, 1000, 6000])
        match dice.randrange(6):
            case 0 | 1:
                tier.set_many([Item(key, data)])
                model[key] = data
            case 2:
                tier.demote_many([Item(key, data)], [dice.randrange(5)])
                model[key] = data
            case 3:
                if tier.add(Item(key, data)):
                    model[key] = data
            case 4:
                tier.delete_many([key])
                model.pop(key, None)
            case _:
                assert tier.get(key) in {model.get(key), None}
    found = tier.get_many(list(model))
    assert all(data in {model[key], None} for key, data in zip(model, found, strict=True))
    assert sum(data is not None for data in found) == tier.stats()["entries"]
    assert tier.stats()["evictions"] > 0


# --- the rest


def test_a_scan_while_it_changes(tier: MmapTier) -> None:
    """A scan holds no transaction open; what stays is found."""
    tier.set_many([Item(b"stay %d" % at, b"") for at in range(3000)])
    found = []
    for at, key in enumerate(tier.scan(b"stay")):
        found.append(key)
        tier.set_many([Item(b"other %d" % at, b"")] if at % 50 == 0 else [])
    assert set(found) == {b"stay %d" % at for at in range(3000)}


def test_an_interrupted_write(tier: MmapTier) -> None:
    """A KeyboardInterrupt leaves nothing half done and nothing locked."""
    tier.set_many([Item(b"a", b"old"), Item(b"b", b"old")])

    def interrupted() -> None:
        with tier._store.writing() as txn:
            tier._tables.drop(txn, b"a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tier.get_many([b"a", b"b"]) == [b"old", b"old"]
    tier.set_many([Item(b"a", b"new")])
    assert tier.get(b"a") == b"new"


def test_an_environment_that_lmdb_gave_up_is_opened_again(tier: MmapTier) -> None:
    tier.set_many([Item(b"a", b"1")])
    tier._store.reopen()
    assert tier.get_many([b"a", b"b"]) == [b"1", None]
    tier._store.reopen()
    tier.set_many([Item(b"a", b"2")])
    assert tier.get(b"a") == b"2"


def test_many_readers(tier: MmapTier) -> None:
    tier.set_many([Item(b"%d" % at, b"%d" % at * 500) for at in range(100)])
    wrong: list[object] = []

    def read() -> None:
        for at in list(range(100)) * 5:
            if tier.get(b"%d" % at) != b"%d" % at * 500:
                wrong.append(at)  # noqa: PERF401

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
