"""Other ways to keep rows and to get many at once: a dict, LMDB, Redis, PyTorch."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from bars import LARGE, OURS
from report import Line, left_out, ratio_line
from tier_servers import redis_server
from timing import Effort, Ratio
from vector_gather import Side, ours, play, take
from vector_tables import Population, population, release, segment_path
from workloads import slices

DIM = 1024
CALL = "c[0](k, c[1])"
REDIS = "redis-py MGET, loopback"
STACK = "np.stack([d[i] ...], out=)"
LMDB = "lmdb get, one transaction"


def stacked(here: Population) -> Side:
    """Return a dict of arrays, stacked; it is asked for ints that are there already."""
    plain = {key: row.copy() for key, row in zip(here.ids.tolist(), here.table, strict=True)}
    body = "np.stack([c[0][i] for i in k], out=c[1])"
    return Side(STACK, body, plain, lambda at: here.ids[at].tolist())


@contextmanager
def mapped(here: Population) -> Iterator[Side]:
    """Yield LMDB on files in memory; keys are packed beforehand, rows are copied from its map."""
    import lmdb

    def read(keys: list[bytes], out: Any) -> None:
        with env.begin(buffers=True) as transaction:
            for place, key in enumerate(keys):
                out[place] = np.frombuffer(transaction.get(key) or b"", np.float32)

    def packed(at: Any) -> list[bytes]:
        return [key.tobytes() for key in here.ids[at]]

    size = 3 * here.table.nbytes
    with lmdb.open(segment_path(size, "lmdb"), map_size=size, sync=False) as env:
        with env.begin(write=True) as transaction:
            for key, row in zip(here.ids, here.table, strict=True):
                transaction.put(key.tobytes(), row.tobytes())
        yield Side(LMDB, CALL, read, packed)


@contextmanager
def remote(here: Population) -> Iterator[Side]:
    """Yield redis-py with a server on the loopback; keys are written out beforehand."""
    import redis

    def read(keys: list[bytes], _: Any) -> Any:
        rows: Any = client.mget(keys)
        return np.frombuffer(b"".join(rows), np.float32).reshape(-1, here.dim)

    def written(at: Any) -> list[bytes]:
        return [b"%d" % key for key in here.ids[at]]

    with redis_server() as server, redis.Redis(port=server.port) as client:
        for part in slices(range(here.rows), 1_000):
            rows = here.table[part[0] : part[-1] + 1]
            client.mset(dict(zip(written(part), map(bytes, rows), strict=True)))
        yield Side(REDIS, CALL, read, written)


@functools.cache
def against_peers(effort: Effort) -> tuple[dict[str, tuple[Ratio, float]], str]:
    """Return our ratio to each peer and its time for a batch in us; and why one is left out."""
    rows = effort.peer_entries // 5
    release()
    here = population(rows, DIM)
    missing = "" if shutil.which("redis-server") else "redis-server is not installed"
    with ExitStack() as stack:
        sides = [ours(here), take(here), stacked(here), stack.enter_context(mapped(here))]
        if not missing:
            sides.append(stack.enter_context(remote(here)))
        samples = play(here, 1_000, effort, sides)
    return {
        side.name: (samples.ratio(OURS, side.name), samples.median(side.name)) for side in sides
    }, missing


def peers(effort: Effort) -> list[Line]:
    """1,000 rows of 4 KB beside what people use today."""
    name = f"gather(1,000 x 4 KB) of {effort.peer_entries // 5:,} rows, per row"
    seen, missing = against_peers(effort)
    return [
        ratio_line(name, against, seen[against][0], bar)
        if against in seen
        else left_out(name, against, missing, bar)
        for against, bar in ((STACK, 0.8), (REDIS, 0.25), (LMDB, None))
    ]


def torch(effort: Effort) -> list[Line]:
    """PyTorch's two ways over the same memory, with one thread, as ours."""
    names = {"torch.index_select(out=)": "select", "F.embedding": "embedding"}
    measure = "gather(1,000 x 256) of 1M rows, per row"
    try:
        import torch
    except ImportError:
        return [left_out(measure, name, "torch is not installed") for name in names]
    torch.set_num_threads(1)
    here = population(LARGE, 256)
    table = torch.from_numpy(here.table)
    embedding = torch.nn.functional.embedding

    def select(k: Any, out: Any) -> None:
        torch.index_select(table, 0, k, out=out)

    sides = [
        ours(here),
        Side("select", CALL, select, torch.from_numpy, torch.from_numpy),
        Side("embedding", CALL, lambda k, _: embedding(k, table), torch.from_numpy),
    ]
    samples = play(here, 1_000, effort, sides)
    note = f"torch {torch.__version__}, 1 thread"
    return [
        ratio_line(measure, against, samples.ratio(OURS, side), note=note)
        for against, side in names.items()
    ]
