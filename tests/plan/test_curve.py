"""simulate_curve: a point is what simulate says, a sampled one is that within its error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cachecore.plan import simulate, simulate_curve
from plan.traces import skewed

KEYS = skewed(400_000, 1 << 18, 1)


def test_a_curve_is_many_simulations() -> None:
    sizes = [1000, 10, 100, 1000]
    curve = simulate_curve(KEYS, sizes, seed=3)
    assert curve.sizes.tolist() == sizes
    assert curve.rate == 1
    expected = [simulate(KEYS, size, seed=3).hit_ratio for size in sizes]
    assert curve.hit_ratio.tolist() == expected
    assert not curve.error.any()


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_samples_agree_with_the_whole(seed: int) -> None:
    sizes = [20, 2000, 20_000]
    whole = simulate_curve(KEYS, sizes, rate=1, seed=seed)
    curve = simulate_curve(KEYS, sizes, rate=0.1, seed=seed)
    assert curve.rate == 0.1
    assert curve.hit_ratio[0] == whole.hit_ratio[0]  # too small to be sampled
    assert curve.error[0] == 0
    assert (curve.error[1:] > 0).all()
    assert np.abs(curve.hit_ratio - whole.hit_ratio).max() < 0.03
    assert (np.abs(curve.hit_ratio - whole.hit_ratio) < 6 * curve.error + 0.01).all()


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"sizes": [0]}, ValueError, "sizes"),
        ({"sizes": [1.5]}, TypeError, "sizes"),
        ({"sizes": [10], "rate": 0}, ValueError, "rate"),
        ({"sizes": [10], "rate": 0.5}, ValueError, "rate"),
        ({"sizes": [10], "rate": "all"}, TypeError, "rate"),
        ({"sizes": [10], "keys": ["a"]}, TypeError, "keys"),
        ({"sizes": [10], "seed": -1}, ValueError, "seed"),
    ],
)
def test_bad_arguments_are_named(
    arguments: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        simulate_curve(**{"keys": [1, 2, 3], **arguments})


def test_no_sizes() -> None:
    assert len(simulate_curve(KEYS, []).sizes) == 0
