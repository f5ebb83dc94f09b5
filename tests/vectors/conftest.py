"""Fixtures for the tests of VectorCache: tables that are checked at the end, folders, processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachecore import VectorCache
from vectors.helpers import Child, MakeTable, Start, check_counts

SHM = Path("/dev/shm")


@pytest.fixture
def make() -> Iterator[MakeTable]:
    """Give VectorCache itself, but for a check of every table it made when the test is over."""
    made: list[VectorCache] = []

    def make_table(*args: Any, **kwargs: Any) -> VectorCache:
        made.append(VectorCache(*args, **kwargs))
        return made[-1]

    yield make_table
    for table in made:
        if not table.closed:
            check_counts(table)
            table.close()


@pytest.fixture
def shm() -> Iterator[Path]:
    """An empty folder in shared memory, where closing a table costs no writing to a disk."""
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def start() -> Iterator[Start]:
    """Run functions in processes of their own, none of which outlives the test."""
    children: list[Child] = []

    def run(act: Callable[[Child], object]) -> Child:
        children.append(Child(act, len(children)))
        return children[-1]

    yield run
    for child in children:
        child.kill()
