"""TieredCache: filling it before it is asked."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from cachecore.tiers import MmapTier
from tiers.caches import Counting, Make, Open, Source


def test_from_an_iterable(make: Make, store: Counting) -> None:
    source = Source(*range(0, 1000, 10))
    cache = make(2000, tiers=[store], loader_many=source.many)
    assert cache.warm(range(1000)) == 900
    assert source.calls == 2
    assert [len(keys) for call, keys in store.told() if call == "get"] == [500, 500]
    assert len(cache.l0) == 900
    assert cache.warm(iter(range(5)), batch=2) == 4
    assert cache.warm([]) == 0


def test_batches_and_progress(make: Make) -> None:
    source = Source()
    cache = make(loader_many=source.many)
    told: list[tuple[int, int]] = []
    assert cache.warm(list(range(25)), batch=10, progress=lambda *at: told.append(at)) == 25
    assert told == [(10, 25), (20, 25), (25, 25)]
    assert source.calls == 3
    told.clear()
    cache.warm((key for key in range(15)), batch=10, progress=lambda *at: told.append(at))
    assert told == [(10, 10), (15, 15)]


def test_at_a_rate(make: Make) -> None:
    cache = make(loader=lambda key: key)
    begin = time.monotonic()
    cache.warm(range(30), batch=10, rate=100)
    assert 0.19 < time.monotonic() - begin < 5  # nobody waits after the last batch


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        (["abc"], TypeError, "keys"), ([5], TypeError, "keys"), ([b"a"], TypeError, "keys"),
        ([None], ValueError, "keys"), ([[1], {"batch": 0}], ValueError, "batch"),
        ([[1], {"rate": 0}], ValueError, "rate"), ([[1], {"rate": "x"}], TypeError, "rate"),
        ([[True]], TypeError, "key"),
    ],
)  # fmt: skip
def test_what_it_cannot_be_given(make: Make, arguments: list[Any], error: Any, name: str) -> None:
    settings = arguments.pop() if isinstance(arguments[-1], dict) else {}
    with pytest.raises(error, match=name):
        make(loader=lambda key: key).warm(*arguments, **settings)


def test_what_the_loader_raises(make: Make) -> None:
    def one(key: int) -> int:
        return 1 // (key - 15)

    cache = make(loader=one)
    with pytest.raises(ZeroDivisionError):
        cache.warm(range(30), batch=10)
    assert sorted(cache.l0) == [key for key in range(20) if key != 15]


@pytest.mark.parametrize("where", ["store", "redis_tier"])
@pytest.mark.parametrize("namespace", ["", "ns"])
def test_from_a_tier(
    make: Make, request: pytest.FixtureRequest, where: str, namespace: str
) -> None:
    tier = request.getfixturevalue(where)
    before = make(tiers=[tier], namespace=namespace)
    before.set_many({f"key {at}": at for at in range(700)})
    before.set("é", 1, tags=["tag"])
    before.set(b"\xff", 2)
    before.set(2**70, 3)
    make(tiers=[tier], namespace="nsx").set("other", 1)
    asked: list[Any] = []
    cache = make(2000, tiers=[tier], namespace=namespace, loader=asked.append)
    assert cache.warm(tier) == 703
    assert asked == []
    assert {"key 0", "key 699", "é", b"\xff", 2**70} <= set(cache.l0)


def test_in_a_task(make: Make, store: Counting) -> None:
    """From a tier and by a loader that is a coroutine function."""

    async def load(key: int) -> int | None:
        return key * 2

    make(tiers=[store]).set_many({at: at for at in range(20)})
    cache = make(tiers=[store], loader=load)
    assert asyncio.run(cache.awarm(store, batch=7)) == 20
    assert [cache.l0[at] for at in range(20)] == list(range(20))
    told: list[Any] = []
    begin = time.monotonic()
    work = cache.awarm(range(40), batch=20, rate=200, progress=lambda *at: told.append(at))
    assert asyncio.run(work) == 40
    assert time.monotonic() - begin > 0.09
    assert told == [(20, 40), (40, 40)]
    assert cache.l0[39] == 78
    with pytest.raises(TypeError, match="keys"):
        asyncio.run(cache.awarm("abc"))


def test_names_of_raw_values(make: Make, store: Counting) -> None:
    make(tiers=[store], codec="raw").set_many({"a": b"1", b"\xff": b"2"})
    cache = make(tiers=[store], codec="raw")
    assert cache.warm(store) == 2
    assert set(cache.l0) == {"a", b"\xff"}


def test_a_tier_that_is_empty(make: Make, store: Counting) -> None:
    assert make(tiers=[store]).warm(store) == 0


KEYS: list[Any] = [
    "text", "é\n", b"bytes", b"\xff\0", 5, -(2**70), "5", b"5", "0x", "b", b"b", 10**5000, "",
]  # fmt: skip


def test_the_hottest_keys_of_before(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "keys"

    def opened() -> Any:
        tier = MmapTier(tmp_path / "store", max_bytes="4MB")
        return make(keys_file=file, namespace="n", tiers=[tier])

    cache = opened()
    for heat, key in enumerate(KEYS):
        cache.set(key, heat)
        for _ in range(3 * (heat + 1)):
            cache.get(key)
    cache.close()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []
    cache = opened()
    assert cache.saved_keys() == KEYS[::-1]
    assert [type(key) for key in cache.saved_keys()] == [type(key) for key in KEYS[::-1]]
    assert cache.warm() == len(cache.l0) == 10  # 5, "5" and b"5" have one place, so do "b" and b"b"
    cache.close()


def test_without_a_file_or_with_a_damaged_one(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    cache = make(keys_file=file)
    assert cache.warm() == 0
    for text in ["{", "1.5\n", "[1]\n", "true\n", "null\n", '"zz"b\n', "5b\n", '{"a": 1}\n']:
        file.write_text(text)
        with pytest.raises(ValueError, match="damaged"):
            cache.warm()
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="damaged"):
        cache.warm()
    file.write_text('"a"\n\n"0x5"i\n5\n')
    assert cache.saved_keys() == ["a", 5, 5]


def test_how_many_keys_are_saved(make: Make, tmp_path: Path) -> None:
    cache = make()
    cache.set_many({key: key for key in range(100)})
    for _ in range(5):
        cache.get_many(range(10))
    assert cache.save_keys(tmp_path / "keys", 10) == 10
    again = make(keys_file=tmp_path / "keys")
    assert sorted(again.saved_keys()) == list(range(10))


def test_a_file_that_cannot_be_written(make: Make, store_at: Open, tmp_path: Path) -> None:
    """It is told; and everything is closed nevertheless."""
    tier = store_at()
    cache = make(keys_file=tmp_path / "none" / "keys", tiers=[tier])
    cache.set("key", 1)
    with pytest.raises(FileNotFoundError):
        cache.close()
    cache.close()
    assert len(cache.l0) == 0
    with pytest.raises(OSError, match="closed"):
        tier.tier.get_many([b"key"])
