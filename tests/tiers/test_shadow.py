"""ShadowCheck: the contract of tiers, and what it counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import MISSING, TieredCache
from cachecore.codecs import Pickle
from cachecore.tiers import MmapTier, ShadowCheck
from cachecore.tiers.shadow import same
from cachecore.tiers.testing import TierContract, eventually

Wrap = Callable[..., ShadowCheck]


@pytest.fixture
def wrap(tmp_path: Path) -> Iterator[Wrap]:
    tier = MmapTier(tmp_path / "store", max_bytes="8MB")
    yield lambda source, **settings: ShadowCheck(tier, source, **settings)
    tier.close()


class TestContract(TierContract):
    @pytest.fixture
    def tier(self, wrap: Wrap) -> ShadowCheck:
        return wrap(lambda keys: [MISSING] * len(keys), share=1)


def counts(tier: ShadowCheck) -> tuple[int, int, int]:
    stats = tier.stats()
    return stats["compared"], stats["mismatched"], stats["uncompared"]


@pytest.mark.parametrize("codec", [None, "raw", "pickle", Pickle(b"a secret of ours")])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_difference_is_counted_and_told(wrap: Wrap, codec: Any, asynchronous: bool) -> None:
    current = {b"a": b"1", b"b": b"2"}
    told: list[tuple[Any, ...]] = []
    tier = wrap(
        lambda keys: [current[key] for key in keys],
        share=1,
        codec=codec,
        namespace="n",
        on_mismatch=lambda *args: told.append(args),
    )
    with TieredCache(10, tiers=[tier], namespace="n", codec=codec) as cache:
        cache.set_many(current)
        for round_ in (1, 2):
            cache.l0.clear()
            if asynchronous:
                asyncio.run(cache.aget_many(current))
            else:
                cache.get_many(current)
            eventually(lambda: counts(tier)[0] == 2 * round_)  # noqa: B023
            assert told == [(b"b", b"2", b"changed")][: round_ - 1]
            current[b"b"] = b"changed"
        assert counts(tier) == (4, 1, 0)


def test_keys_of_all_kinds(wrap: Wrap) -> None:
    values: dict[Any, Any] = {
        "k": 1.5,
        7: None,
        -(10**700): [np.arange(3)],
        b"\xff": np.zeros((0, 2)),
    }
    tier = wrap(lambda keys: {key: values[key] for key in keys}, share=1)
    with TieredCache(10, tiers=[tier]) as cache:
        cache.set_many(values)
        cache.l0.clear()
        cache.get_many(values)
        eventually(lambda: counts(tier) == (4, 0, 0))


def test_a_share(wrap: Wrap) -> None:
    tier = wrap(list, share=0.25)
    with TieredCache(10_000, tiers=[tier]) as cache:
        cache.set_many({f"{at}": f"{at}" for at in range(4000)})
        cache.l0.clear()
        for at in range(4000):
            cache.get(f"{at}")
    compared, mismatched, uncompared = counts(tier)
    assert 700 < compared + uncompared < 1300
    assert mismatched == 0


def test_what_cannot_be_compared_is_counted(wrap: Wrap) -> None:
    go = threading.Event()

    def source(keys: list[Any]) -> list[Any]:
        go.wait(10)
        raise ConnectionError("gone")

    tier = wrap(source, share=1)
    with TieredCache(10, tiers=[tier]) as cache:
        cache.set("a", 1)
        for _ in range(1500):  # more than wait
            cache.l0.clear()
            assert cache.get("a") == 1
        assert counts(tier)[2] >= 400
        go.set()
        eventually(lambda: counts(tier) == (0, 0, 1500))


def test_what_is_the_same() -> None:
    nan = float("nan")
    assert same([1, {"a": np.float32(nan)}], [1, {"a": np.float32(nan)}])
    assert same(np.array([nan]), np.array([nan]))
    assert not same(1, True)
    assert not same(np.zeros(2), np.zeros(2, np.float32))
    assert not same([1], [1, 2])
    assert not same({"a": 1}, {"b": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": 1}, "source must be callable"),
        ({"share": 2}, "share must be between 0 and 1"),
        ({"codec": "none"}, "codec must be one of"),
        ({"namespace": 1}, "namespace must be a str"),
        ({"on_mismatch": 1}, "on_mismatch must be callable"),
    ],
)
def test_bad_arguments(wrap: Wrap, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        wrap(settings.pop("source", list), **settings)
