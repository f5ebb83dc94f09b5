"""A prefix tree when memory runs out: each allocation of a put and a look-up fails once."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from cachecore._prefix import PrefixTree

WIDTH = 2
FAILURES = (MemoryError, SystemError)  # NumPy says SystemError in places


class Spilling(PrefixTree):
    """A tree whose tier takes everything and returns nothing."""

    def _climb(self, tokens: Any, above: Any, blocks: Any) -> None:
        pass

    def _spill(self, records: list[Any]) -> int:
        return len(records)


def full() -> Spilling:
    tree = Spilling(WIDTH, 4000, bytes(16), True)
    for number in range(20):
        tree.put([number] * 6, [bytes(100)] * 3)
    return tree


def each_allocation_fails(operation: Callable[[Spilling], object]) -> int:
    """In how many runs of the operation an allocation failed, until none did."""
    testcapi = importlib.import_module("_testcapi")
    for number in range(1, 1000):
        tree = full()
        testcapi.set_nomemory(number, number + 1)
        try:
            operation(tree)
            done = True
        except FAILURES:
            done = False
        finally:
            testcapi.remove_mem_hooks()
        tree._check()
        assert tree.evictions == tree.spilled + tree.lost
        assert tree.put([7] * 6, [bytes(100)] * 3) == 6
        assert tree.match([7] * 6).length == 6
        if done and tree.lost == 0:
            return number - 1
    raise AssertionError("it never succeeded")


def test_put() -> None:
    tokens, blocks = [500] * 2 + [7] * 20, [(np.zeros(50), b"text") for _ in range(11)]
    assert each_allocation_fails(lambda tree: tree.put(tokens, blocks)) > 20


def test_match() -> None:
    assert each_allocation_fails(lambda tree: tree.match([19] * 6 + [1] * 6)) > 2


def test_digests() -> None:
    tokens = np.arange(100)
    assert each_allocation_fails(lambda tree: tree.digests(tokens)) > 50
