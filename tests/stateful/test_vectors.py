"""VectorCache against a plain model, in long random sequences, in private memory and in a file.

The model is a dict of what was put and not deleted since. A table that was full may have evicted
any of it; what it finds must be as the model says, and what the model does not know is not there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cachecore import VectorCache
from support import LONG
from vectors.helpers import SHM, check_counts

DIM = 3
IDS = [*range(12), -1, 2**63 - 1, -(2**63), 2**32, -(2**32) - 7]
ids = st.sampled_from(IDS)
batches = st.lists(ids, max_size=30)


class Entry:
    def __init__(self, serial: int, deadline: float) -> None:
        self.serial, self.deadline = serial, deadline


class Model(RuleBasedStateMachine):
    shared = False
    table: VectorCache

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, Entry] = {}
        self.views: list[tuple[Any, int]] = []
        self.now, self.serial, self.lookups, self.version = 0, 0, 0, 1
        self.overfull = False
        self.folder = tempfile.TemporaryDirectory(dir=SHM) if self.shared else None

    @initialize(
        capacity=st.sampled_from([1, 2, 5, 10, 40]),
        ttl=st.sampled_from([None, None, 100]),
        checksums=st.booleans(),
        codec=st.sampled_from([None, "int8"]),
    )
    def make(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.table = self.open()

    def open(self) -> VectorCache:
        path = Path(self.folder.name, "t") if self.folder is not None else None
        return VectorCache(DIM, path=path, version=str(self.version), **self.arguments)

    def teardown(self) -> None:
        if hasattr(self, "table"):
            self.table.close()
            assert all((view == self.row(serial)).all() for view, serial in self.views)
        if self.folder is not None:
            self.folder.cleanup()

    # --- the model

    @staticmethod
    def row(serial: int) -> Any:
        """Three items that int8 keeps as they are."""
        return np.array([127, serial % 120, serial // 120 % 120], np.float32)

    def live(self, id: int) -> bool:
        return id in self.model and self.model[id].deadline > self.now

    def enter(self, id: int) -> Any:
        self.serial += 1
        ttl = self.arguments["ttl"]
        self.model[id] = Entry(self.serial, self.now + ttl if ttl else float("inf"))
        self.overfull |= len(self.model) > self.table.capacity
        return self.row(self.serial)

    def forget(self) -> None:
        self.model.clear()
        self.overfull = False
        assert len(self.table) == 0

    def check_rows(self, asked: list[int], rows: Any, found: Any) -> None:
        for id, row, there in zip(asked, rows, found, strict=True):
            assert self.live(id) or not there
            assert (row == (self.row(self.model[id].serial) if there else 0)).all()

    # --- the operations

    @rule(asked=batches, many=st.sampled_from([1, 1, 3]))
    def put(self, asked: list[int], many: int) -> None:
        asked = asked * many
        rows = np.array([self.enter(id) for id in asked], np.float32).reshape(len(asked), DIM)
        self.table.put(asked, rows)
        if asked:
            assert self.table.find(asked[-1:]).all()

    @rule(asked=batches, threads=st.sampled_from([1, 2]), into=st.booleans())
    def gather(self, asked: list[int], threads: int, into: bool) -> None:
        out = np.full((len(asked), DIM), 7, np.float32) if into else None
        rows, found = self.table.gather(asked, out=out, threads=threads)
        self.check_rows(asked, rows, found)
        self.lookups += len(asked)

    @rule(asked=batches)
    def get_or_load(self, asked: list[int]) -> None:
        loaded: list[int] = []

        def load(missing: Any) -> Any:
            loaded.extend(missing.tolist())
            return np.array([self.enter(id) for id in missing.tolist()])

        there = dict(zip(asked, self.table.find(asked).tolist(), strict=True))
        rows = self.table.get_or_load(asked, load)
        assert loaded == [id for id in dict.fromkeys(asked) if not there[id]]
        self.check_rows(asked, rows, [True] * len(asked))
        self.lookups += len(asked)

    @rule(doomed=batches)
    def delete(self, doomed: list[int]) -> None:
        there = set(np.array(doomed, np.int64)[self.table.find(doomed)].tolist())
        assert self.table.delete(doomed) == len(there)
        for id in doomed:
            self.model.pop(id, None)

    @rule(id=ids, keep=st.booleans())
    def view(self, id: int, keep: bool) -> None:
        there = self.table.find([id])[0]
        self.lookups += 1
        view = self.table.view(id)
        assert (view is not None) == there
        if view is not None:
            self.check_rows([id], [view], [True])
            if keep and len(self.views) < 5:
                self.views.append((view, self.model[id].serial))

    @rule()
    def let_go(self) -> None:
        for view, serial in self.views:
            assert (view == self.row(serial)).all()
        self.views.clear()

    @rule()
    def clear(self) -> None:
        self.table.clear()
        self.forget()

    @rule(seconds=st.sampled_from([1, 60, 101, 10**8]))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.table._advance(seconds)

    @rule(anew=st.booleans())
    def close_and_open(self, anew: bool) -> None:
        if not self.shared:
            return
        self.table.close()
        self.version += anew
        self.table = self.open()
        self.table._advance(self.now)
        if anew:
            self.forget()

    # --- what holds after each of them

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "table"):
            return
        check_counts(self.table)
        found = self.table.find(IDS)
        assert all(self.live(id) for id, there in zip(IDS, found, strict=True) if there)
        if not self.overfull:
            assert found.sum() == sum(self.live(id) for id in self.model)
        stats = self.table.stats()
        assert stats.hits + stats.misses == self.lookups
        assert (stats.refused, stats.damaged) == (0, 0)
        pins = 0 if self.shared or self.arguments["codec"] else len({s for _, s in self.views})
        assert stats.pinned_bytes == pins * DIM * 4


class SharedModel(Model):
    shared = True


@pytest.mark.parametrize("model", [Model, SharedModel])
def test_model(model: type[Model]) -> None:
    case = model.TestCase
    case.settings = settings(
        max_examples=10_000 if LONG else 200, stateful_step_count=50, deadline=None
    )
    case().runTest()
