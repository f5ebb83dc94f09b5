"""ResultCache and Pipeline: rows that are known, beside the model that would have computed them."""

from __future__ import annotations

import functools
from dataclasses import replace
from time import perf_counter_ns
from typing import Any

import numpy as np

from bars import OURS
from cachecore import Cache
from cachecore.ml import Pipeline, ResultCache, fingerprint
from report import Line, ratio_line
from timing import Contender, Effort, Samples, hot

ROWS, FEATURES, POOL = 100, 30, 2_000


@functools.cache
def trained() -> tuple[Any, np.ndarray[Any, Any]]:
    """Return a gradient boosting classifier of 100 trees, and rows for it."""
    from sklearn.ensemble import GradientBoostingClassifier

    draw = np.random.default_rng(0)
    rows = draw.normal(size=(POOL, FEATURES))
    labels = rows[:, 0] + rows[:, 1] ** 2 + draw.normal(size=POOL) > 1
    return GradientBoostingClassifier(random_state=0).fit(rows, labels), rows


def _filled(predict: Any, inputs: Any) -> ResultCache:
    cache = ResultCache(predict, model="model", version="1", maxsize=10 * POOL)
    cache.predict(inputs)
    return cache


def rows(effort: Effort) -> list[Line]:
    """All lines of this part."""
    return hits(effort) + texts(effort) + partly(effort) + stages(effort)


def hits(effort: Effort) -> list[Line]:
    """`predict` of 100 rows of 30 float64, all known: how many times as long others take."""
    model, pool = trained()
    cache, samples = _filled(model, pool), Samples()
    batches = [np.ascontiguousarray(pool[at : at + ROWS]) for at in range(0, POOL, ROWS)]
    one_by_one = "for i in range(100): c.predict(k[i : i + 1])"
    sides = [hot(OURS, "c.predict(k)", cache, batches)]
    sides += [hot("batch", "c.predict(k)", model, batches), hot("one", one_by_one, model, batches)]
    samples.play(sides, effort.rounds)
    what = "ResultCache.predict, all hits, 100 x 30 float64"
    bars = {"one": ("row by row", 50), "batch": ("the batch", 1)}
    return [
        replace(
            ratio_line(what, f"GradientBoosting.predict, {how}", samples.ratio(name, OURS), bar),
            at_least=True,
        )
        for name, (how, bar) in bars.items()
    ]


def texts(effort: Effort) -> list[Line]:
    """`predict` of 100 texts, all of them known, beside a look-up of the same by themselves."""
    stored = [f"transaction {i}, a text of some length" for i in range(POOL)]
    cache, samples = _filled(lambda some: [len(text) for text in some], stored), Samples()
    plain: Cache[str, int] = Cache(POOL)
    plain.update((text, len(text)) for text in stored)
    batches = [stored[at : at + ROWS] for at in range(0, POOL, ROWS)]
    sides = [hot(OURS, "c.predict(k)", cache, batches)]
    sides.append(hot("Cache", "c.get_many(k)", plain, batches))
    samples.play(sides, effort.rounds)
    what = "ResultCache.predict, all hits, 100 str"
    return [ratio_line(what, "Cache.get_many", samples.ratio(OURS, "Cache"))]


def partly(effort: Effort) -> list[Line]:
    """Batches of 1,000 rows of which none, or 70 %, are known; each side gets new rows."""
    model, _ = trained()
    cache = ResultCache(model, model="model", version="1", maxsize=1_000)
    draw = np.random.default_rng(1)
    known = draw.normal(size=(700, FEATURES))
    batches = [
        np.concatenate((known, draw.normal(size=(300, FEATURES)))) for _ in range(effort.rounds + 4)
    ]
    fresh = [draw.normal(size=(1_000, FEATURES)) for _ in range(effort.rounds + 4)]
    lines = []
    for part, lists, fill in (("70 %", batches, known), ("none", fresh, None)):
        samples = Samples()
        for each in lists:
            cache.clear()
            if fill is not None:
                cache.predict(fill)
            sides = [hot_once(OURS, cache, each), hot_once("batch", model, each)]
            samples.play(sides, 1)
        what = f"ResultCache.predict, {part} of 1,000 x 30 float64 known"
        lines.append(ratio_line(what, "GradientBoosting.predict", samples.ratio(OURS, "batch")))
    return lines


def hot_once(name: str, c: Any, batch: np.ndarray[Any, Any]) -> Contender:
    """Time one call."""

    def turn(_: int) -> float:
        start = perf_counter_ns()
        c.predict(batch)
        return perf_counter_ns() - start

    return Contender(name, turn)


def stages(effort: Effort) -> list[Line]:
    """`run_many` of 100 known rows through three stages, beside their fingerprints alone."""
    _, pool = trained()
    pipeline = Pipeline(
        [("scale", np.tanh, 1), ("sum", np.sum, 1), ("round", np.round, 1)], maxsize=POOL
    )
    pipeline.run_many(pool)
    batches = [list(pool[at : at + ROWS]) for at in range(0, POOL, ROWS)]
    samples = Samples()
    prints = "[c(x, model='input', version=1) for x in k]"
    sides = [hot(OURS, "c.run_many(k)", pipeline, batches)]
    sides.append(hot("fingerprint", prints, fingerprint, batches))
    samples.play(sides, effort.rounds)
    ratio = samples.ratio(OURS, "fingerprint")
    return [ratio_line("Pipeline.run_many, 100 known rows, 3 stages", "fingerprint of each", ratio)]
