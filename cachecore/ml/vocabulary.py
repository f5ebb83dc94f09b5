"""A vocabulary as one block of bytes: built once from its file, then looked up in where it lies.

    header    8 bytes "ccvocab1", then u32: tokens, slots, bytes of text, 0
    ids       i32 per token, increasing
    ends      u32 per token: where it ends in the text; it begins where the one before ends
    slots     u32: a hash table, open addressing by the CRC-32 of a token: its number + 1, or 0
    text      the tokens in UTF-8, one after another

All numbers are little-endian. Slots are a power of two, and at most half of them are used.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"ccvocab1"
_HEAD = 24  # bytes
_MOST = 2**31 - 1


class Vocabulary(Mapping[str, int]):
    """Tokens and their ids: a read-only mapping over a table of bytes, of which nothing is copied.

    `table`: a C-contiguous array of uint8, (n,), as `build` makes it. Iteration is in the order of
    the ids. Thread safe. A look-up takes about a microsecond, ten times as long as in a dict, which
    takes ten milliseconds or more to fill.

    Raises:
        ValueError: the table is none, or is damaged.
    """

    __slots__ = ("_ends", "_ids", "_mask", "_slots", "_text", "table")

    def __init__(self, table: NDArray[np.uint8]) -> None:
        if table.dtype != np.uint8 or table.ndim != 1 or not table.flags.c_contiguous:
            raise ValueError("table must be a contiguous array of uint8 in one dimension")
        view = memoryview(table.data).toreadonly()
        if len(view) < _HEAD or bytes(view[:8]) != _MAGIC:
            raise ValueError("table is no vocabulary")
        count, slots, size, _ = view[8:_HEAD].cast("I").tolist()
        if len(view) != _HEAD + 8 * count + 4 * slots + size:
            raise ValueError("table is truncated")
        ends, hashed, text = _HEAD + 4 * count, _HEAD + 8 * count, len(view) - size
        self._ids: memoryview[int] = view[_HEAD:ends].cast("i")
        self._ends: memoryview[int] = view[ends:hashed].cast("I")
        self._slots: memoryview[int] = view[hashed:text].cast("I")
        self._text, self._mask, self.table = view[text:], slots - 1, table
        self._check(count, slots, size)

    def _check(self, count: int, slots: int, size: int) -> None:
        """That no look-up can go astray, whatever wrote the table."""
        ids, ends, table = (np.asarray(part) for part in (self._ids, self._ends, self._slots))
        if (
            slots & (slots - 1)
            or slots < 2 * count
            or slots == 0
            or np.count_nonzero(table) != count
            or (table > count).any()
            or (count and (ids[0] < 0 or (ids[1:] <= ids[:-1]).any()))
            or (count and (ends[-1] != size or (ends[1:] < ends[:-1]).any()))
        ):
            raise ValueError("table is damaged")

    @classmethod
    def build(cls, tokens: Mapping[str, int]) -> Self:
        """A table of these tokens and ids.

        Raises:
            ValueError: an id is negative, above 2**31 - 1, or given twice.
        """
        pairs = sorted((index, token) for token, index in tokens.items())
        ids = [index for index, _ in pairs]
        if any(a == b for a, b in pairwise(ids)):
            raise ValueError("two tokens have one id")
        if ids and not 0 <= ids[0] <= ids[-1] <= _MOST:
            raise ValueError(f"ids must be within 0 ... {_MOST}")
        texts = [token.encode() for _, token in pairs]
        slots = [0] * (1 << max(1, 2 * len(pairs) - 1).bit_length())
        mask = len(slots) - 1
        for number, text in enumerate(texts, 1):
            slot = crc32(text) & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = number
        text = b"".join(texts)
        head = np.array([len(pairs), len(slots), len(text), 0], "<u4")
        ends = np.cumsum([len(each) for each in texts], dtype="<u4")
        parts = (head, np.array(ids, "<i4"), ends, np.array(slots, "<u4"))
        return cls(np.frombuffer(_MAGIC + b"".join(map(bytes, parts)) + text, np.uint8))

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, token: str) -> int:
        try:
            wanted = token.encode()
        except (AttributeError, UnicodeEncodeError):
            raise KeyError(token) from None
        slots, mask, ends, text = self._slots, self._mask, self._ends, self._text
        slot = crc32(wanted) & mask
        while number := slots[slot]:
            begin = ends[number - 2] if number > 1 else 0
            if text[begin : ends[number - 1]] == wanted:
                return self._ids[number - 1]
            slot = (slot + 1) & mask
        raise KeyError(token)

    def __iter__(self) -> Iterator[str]:
        return map(self._token, range(len(self._ids)))

    def token(self, index: int) -> str:
        """The token of an id; KeyError where there is none."""
        ids = self._ids
        number = index if 0 <= index < len(ids) and ids[index] == index else bisect_left(ids, index)
        if number == len(ids) or ids[number] != index:
            raise KeyError(index)
        return self._token(number)

    def _token(self, number: int) -> str:
        begin = self._ends[number - 1] if number else 0
        return str(self._text[begin : self._ends[number]], "utf-8")

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} tokens>"


def read_tokens(data: bytes) -> dict[str, int]:
    """Tokens and ids of a file: a tokenizer.json, a vocab.json, or text of one token a line.

    Raises:
        ValueError: it is none of these.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error}") from None
    if not text.lstrip().startswith("{"):
        return _of_lines(text)
    try:
        return _of_json(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no vocabulary: {error!r:.200}") from None


def _of_lines(text: str) -> dict[str, int]:
    lines = text.removesuffix("\n").split("\n") if text else []
    tokens = {line.removesuffix("\r"): at for at, line in enumerate(lines)}
    if len(tokens) != len(lines):
        raise ValueError("it is no vocabulary: it has a line twice")
    return tokens


def _of_json(document: dict[str, Any]) -> dict[str, int]:
    found: Any = document
    if "model" in document and not isinstance(document["model"], int):
        found = document["model"]["vocab"]
    if isinstance(found, list):  # of [token, score]
        found = {token: at for at, (token, _) in enumerate(found)}
    tokens = dict(found)
    if found is not document:
        for added in document.get("added_tokens") or ():
            tokens[added["content"]] = added["id"]
    for token, index in tokens.items():
        if type(token) is not str or type(index) is not int:
            raise TypeError(f"the id of {token!r} is {index!r}")
    return tokens
