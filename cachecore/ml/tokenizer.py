"""What a tokenizer has worked out, kept in a cache: its vocabulary, and the ids of texts.

Over a `TieredCache` with an `MmapTier` a second process finds both in the map, and neither imports
`tokenizers` nor parses its file before it meets a new text.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cachecore.ml.flights import BatchFlights
from cachecore.ml.vocabulary import Vocabulary, read_tokens

Ids = NDArray[np.int32]


class Store(Protocol):
    """What is used of a `Cache` or a `TieredCache`."""

    def get(self, key: Any, /) -> Any: ...
    def get_many(self, keys: Any, /) -> list[Any]: ...
    def set(self, key: Any, value: Any, /) -> None: ...
    def set_many(self, items: Any, /) -> None: ...


def load_vocabulary(
    path: str | os.PathLike[str], cache: Store, *, version: str | None = None
) -> Vocabulary:
    """The vocabulary of a tokenizer.json, vocab.json or vocab.txt, from the cache if it is there.

    Args:
        path: the file. It is read to tell what is in it; not with a `version`.
        cache: a `Cache`, or a `TieredCache` without a loader, whose codec takes arrays ("raw" does
            not).
        version: names what is in the file; by default its SHA-256 does. It must change with it.

    Returns:
        A mapping of tokens to ids, those of added tokens included.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no vocabulary, or has changed meanwhile; nothing is kept then.
    """
    return _Source(path, cache, version).vocabulary()


def load_tokenizer(
    path: str | os.PathLike[str], cache: Store, *, version: str | None = None
) -> CachedTokenizer:
    """A tokenizer.json of Hugging Face's `tokenizers`, whose results are kept in the cache.

    The arguments and errors are those of `load_vocabulary`. The package `tokenizers` is needed, and
    the file is parsed, when a text is encoded that the cache does not have.
    """
    return CachedTokenizer(_Source(path, cache, version))


class CachedTokenizer:
    """Encodes texts to ids, each once: `load_tokenizer` makes one. Thread safe."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._encoder: Any = None
        self._tokenizer: Any = None
        self._vocabulary: Vocabulary | None = None
        self._flights = BatchFlights()

    @property
    def loaded(self) -> bool:
        """Whether the file has been parsed to encode a text."""
        return self._encoder is not None

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokens and ids, without parsing the file if the cache has them."""
        if self._vocabulary is None:
            self._vocabulary = self._source.vocabulary()
        return self._vocabulary

    @property
    def tokenizer(self) -> Any:
        """A `tokenizers.Tokenizer` of the file, loaded when first asked for. Its padding is off.

        It is the caller's: another one encodes what is kept in the cache, so that what is changed
        in this one, such as truncation, does not get there.

        Raises:
            ImportError: the package is not installed.
            ValueError: the file is no tokenizer, has changed since, or encodes at random (dropout).
        """
        if self._tokenizer is None:
            self._tokenizer = self._load("tokenizer")
        return self._tokenizer

    def _load(self, which: str) -> Any:
        """Of all threads that want it at a time, one parses the file."""
        return self._flights.run([which], lambda _: [self._source.tokenizer()])[which]

    def encode(self, text: str, *, special: bool = True) -> Ids:
        """The ids of a text, (n,) int32, read-only; `special`: with those such as [CLS].

        Truncated as the file says; not padded, for padding depends on what else is in a batch.
        """
        if type(text) is str:
            ids = self._source.cache.get(self._prefix(special) + text)
            if _is_ids(ids):
                return ids  # type: ignore[no-any-return]
        return self.encode_many([text], special=special)[0]

    def encode_many(self, texts: Iterable[str], *, special: bool = True) -> list[Ids]:
        """The ids of each of some texts; those not in the cache are encoded in one call.

        Raises:
            ValueError, ImportError: as of `tokenizer`; or a text has lone surrogates.
        """
        if isinstance(texts, (str, bytes)) or not hasattr(type(texts), "__iter__"):
            raise TypeError(f"texts must be an iterable of str, not {type(texts).__name__}")
        texts = list(texts)
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"text must be a str, not {type(text).__name__}")
        prefix = self._prefix(special)
        keys = [prefix + text for text in texts]
        found = dict(zip(keys, self._source.cache.get_many(keys), strict=True))
        new = {key: text for key, text in zip(keys, texts, strict=True) if not _is_ids(found[key])}
        if new:
            for text in new.values():
                text.encode()  # `tokenizers` does not say that it is lone surrogates it minds
            if self._encoder is None:
                self._encoder = self._load("encoder")
            made = self._encoder.encode_batch(list(new.values()), add_special_tokens=special)
            ids = {key: _ids(each.ids) for key, each in zip(new, made, strict=True)}
            self._source.cache.set_many(ids)
            found |= ids
        return [found[key] for key in keys]

    def _prefix(self, special: bool) -> str:
        return self._source.version + (":ids:" if special else ":bare:")


class _Source:
    """A file, what is in it, and the cache."""

    def __init__(self, path: str | os.PathLike[str], cache: Store, version: str | None) -> None:
        for name in ("get", "get_many", "set", "set_many"):
            if not callable(getattr(cache, name, None)):
                raise TypeError(f"cache must be a Cache or TieredCache, not {type(cache).__name__}")
        if getattr(cache, "loader", None) is not None:
            raise ValueError("cache must have no loader: what it does not have is read here")
        if version is not None and (not isinstance(version, str) or not version):
            raise TypeError(f"version must be a str of at least one character, not {version!r}")
        self.path, self.cache, self._given = Path(path), cache, version
        # No version is the beginning of another's keys.
        named = None if version is None else f"{len(version)}:{version}"
        self.version = named or _digest(self.path.read_bytes())

    def _read(self) -> bytes:
        data = self.path.read_bytes()
        if self._given is None and _digest(data) != self.version:
            raise ValueError(f"{self.path} has changed since it was loaded")
        return data

    def vocabulary(self) -> Vocabulary:
        key = f"{self.version}:vocabulary"
        table = self.cache.get(key)
        if isinstance(table, np.ndarray):
            try:
                return Vocabulary(table)
            except ValueError:
                pass  # of another layout: a miss
        data = self._read()
        try:
            built = Vocabulary.build(read_tokens(data))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        self.cache.set(key, built.table)
        return built

    def tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise ImportError(
                'encoding needs the package tokenizers: pip install "cachecore-ml[ml]"'
            ) from None
        data = self._read()
        try:
            tokenizer = Tokenizer.from_buffer(data)
        except Exception as error:  # it raises that very class
            raise ValueError(f"{self.path} is no tokenizer: {error}") from None
        if getattr(tokenizer.model, "dropout", None):
            raise ValueError(f"{self.path} has dropout: it encodes a text in another way each time")
        tokenizer.no_padding()
        return tokenizer


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_ids(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.int32 and value.ndim == 1


def _ids(numbers: list[int]) -> Ids:
    ids = np.array(numbers, np.int32)
    ids.flags.writeable = False
    return ids
