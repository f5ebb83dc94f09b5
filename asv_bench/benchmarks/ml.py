"""The ML layer: 100 calls of what is all in memory, and fingerprints; NumPy stands for models."""

from __future__ import annotations

import functools
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cachecore.ml import (
    EmbeddingCache,
    Feature,
    FeatureCache,
    PrefixCache,
    ResultCache,
    WeightStore,
    fingerprint,
)

from .common import Topic

CALLS, BATCH, DIM, TOKENS, BLOCK = 100, 100, 384, 4_096, 16
TEXTS = [f"what is the capital of country number {at} of them all?" for at in range(10 * BATCH)]
RANDOM = np.random.default_rng(0)


def encode(texts: list[str]) -> Any:
    """Embed texts as random rows."""
    return RANDOM.random((len(texts), DIM), np.float32)


class Fingerprint(Topic):
    """One input of a kind, 100 times."""

    params = (["text", "4 KB array", "1 MB array", "dict of 20"],)
    param_names = ("input",)

    def setup(self, kind: str) -> None:
        """Make the input."""
        inputs: dict[str, object] = {
            "text": TEXTS[0],
            "4 KB array": np.zeros(1024, np.float32),
            "1 MB array": np.zeros(1 << 18, np.float32),
            "dict of 20": {text: at for at, text in enumerate(TEXTS[:20])},
        }
        self.input = inputs[kind]

    def time_fingerprint(self, *_: object) -> None:
        """`fingerprint(x, model=..., version=...)`."""
        for value in itertools.repeat(self.input, CALLS):
            fingerprint(value, model="model", version="1")


@functools.cache
def filled(part: str) -> tuple[Any, list[Any]]:
    """Return the method of a cache that holds all, and arguments for it."""
    rows = RANDOM.random((len(TEXTS), 30))
    if part == "embed":
        embeddings = EmbeddingCache(encode, model="random", version="1", dim=DIM)
        embeddings.embed(TEXTS)
        return embeddings.embed, [TEXTS[at : at + BATCH] for at in range(0, len(TEXTS), BATCH)]
    if part == "predict":
        results = ResultCache(lambda x: x.sum(1), model="sum", version="1", maxsize=len(TEXTS))
        results.predict(rows)
        return results.predict, [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    if part == "get_features":
        features = FeatureCache([Feature(f"f{at}", "f4") for at in range(20)], maxsize=len(TEXTS))
        features.set_features(TEXTS, {f"f{at}": rows[:, at] for at in range(20)})
        batches = [TEXTS[at : at + BATCH] for at in range(0, len(TEXTS), BATCH)]
        return features.get_features, batches
    prefixes = PrefixCache(block=BLOCK, max_bytes="64MB")
    prompt = RANDOM.integers(0, 100_000, TOKENS).astype(np.int32)
    prefixes.put(prompt, [bytes(1024)] * (TOKENS // BLOCK))
    return prefixes.match, [prompt]


class Hit(Topic):
    """Batches of 100 that are all in memory; a prefix of 4,096 tokens."""

    params = (["embed", "predict", "get_features", "match"],)
    param_names = ("call",)

    def setup(self, part: str) -> None:
        """Fill the cache, once."""
        self.method, self.arguments = filled(part)

    def time_hit(self, *_: object) -> None:
        """The call, 100 times."""
        method = self.method
        for argument in itertools.islice(itertools.cycle(self.arguments), CALLS):
            method(argument)


class Weights(Topic):
    """A mapped array of 64 MB."""

    def setup(self) -> None:
        """Write the file."""
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "table.npy")
        np.save(self.path, np.zeros((1 << 14, 1 << 10), np.float32))
        self.store = WeightStore(self.path)

    def teardown(self) -> None:
        """Remove it."""
        self.store.close()
        self.folder.cleanup()

    def time_open(self) -> None:
        """`WeightStore(path)` and its array."""
        with WeightStore(self.path) as store:
            store["table"]

    def time_access(self) -> None:
        """`store[name]`, 100 times."""
        store = self.store
        for _ in range(CALLS):
            store["table"]
