"""Text encoders of the demo: feature hashing in NumPy, or a sentence-transformers model by name."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class Encoder(Protocol):
    """Turns one text into one L2-normalised float32 vector."""

    name: str
    dim: int

    def encode(self, text: str) -> Vector: ...


class HashingEncoder:
    """Signed feature hashing (Weinberger et al., ICML 2009): no model, no vocabulary, no training.

    Features are words, pairs of neighbouring words and character 3-, 4- and 5-grams. Each hashes to
    one of `dim` places and a sign, with the weight 1 + ln(occurrences); the sum is scaled to length
    1. Texts that share wording come out close; it knows nothing of meaning.
    """

    name = "feature hashing, not a neural model"

    def __init__(self, dim: int = 1024) -> None:
        if dim < 2 or dim & (dim - 1):
            raise ValueError(f"dim must be a power of two, not {dim}")
        self.dim = dim

    def encode(self, text: str) -> Vector:
        text = text.lower()
        words = np.array([crc32(w.encode()) for w in _WORD.findall(text)], np.uint64)
        chars = np.frombuffer(f" {' '.join(text.split())} ".encode(), np.uint8).astype(np.uint64)
        features = [words + _SALT[0], words[:-1] * _PAIR + words[1:] + _SALT[1]]
        grams = chars[:-1] * _BYTE + chars[1:]
        for n in (3, 4, 5):
            grams = grams[:-1] * _BYTE + chars[n - 1 :] if len(chars) >= n else grams[:0]
            features.append(grams + _SALT[n - 1])
        hashed, times = np.unique(_mix(np.concatenate(features)), return_counts=True)
        weights = (1.0 + np.log(times)) * np.where(hashed >> np.uint64(63), 1.0, -1.0)
        place = (hashed & np.uint64(self.dim - 1)).astype(np.intp)
        vector = np.bincount(place, weights, self.dim)
        length = np.sqrt(vector @ vector)
        return (vector / length if length else vector).astype(np.float32)


class ModelEncoder:
    """A sentence-transformers model, by name or by path, on the processor."""

    def __init__(self, name: str) -> None:
        library = import_module("sentence_transformers")
        self.name = f"sentence-transformers model {name}"
        self._model: Any = library.SentenceTransformer(name, device="cpu")
        self.dim = len(self.encode("probe"))

    def encode(self, text: str) -> Vector:
        vector = self._model.encode(text, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vector, np.float32)


_WORD = re.compile(r"\w+")
_BYTE = np.uint64(257)
_PAIR = np.uint64(0x9E3779B97F4A7C15)
_SALT = np.arange(1, 6, dtype=np.uint64) << np.uint64(48)  # keeps the kinds of feature apart


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread the features over all 64 bits (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
