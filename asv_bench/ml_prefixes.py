"""PrefixCache: look-ups of 4,096 tokens in blocks of 16, beside hash chains and dicts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from bars import OURS
from cachecore._prefix import PrefixTree
from cachecore.ml import PrefixCache
from report import Line, absolute_line, ratio_line
from timing import Contender, Effort, Samples, hot

TOKENS, BLOCK = 4_096, 16
BLOCKS = TOKENS // BLOCK
PROMPTS = 200  # of the large cache: 51,200 blocks, more than the processor's caches hold
ROOT = bytes(16)

Tokens = npt.NDArray[np.int32]


def _tokens(seed: int) -> Tokens:
    return np.random.default_rng(seed).integers(0, 100_000, TOKENS).astype(np.int32)


def _filled(prompts: list[Tokens]) -> PrefixCache:
    cache = PrefixCache(block=BLOCK, max_bytes="1GB")
    for prompt in prompts:
        assert cache.put(prompt, np.zeros((BLOCKS, 256), np.float32)) == TOKENS
    return cache


def hashlib_chain(tokens: Tokens) -> list[bytes]:
    """Hash all links as a Python program does."""
    data, link, links = tokens.tobytes(), ROOT, []
    for at in range(0, 4 * TOKENS, 4 * BLOCK):
        link = hashlib.blake2b(link + data[at : at + 4 * BLOCK], digest_size=16).digest()
        links.append(link)
    return links


class ByDigest:
    """The design that lost: blocks in a dict by the digests of a chain, which each look-up makes.

    `chain` makes them. Tokens are compared on a hit, as PrefixCache does.
    """

    def __init__(self, chain: Callable[[Tokens], list[bytes]], tokens: Tokens) -> None:
        self._chain = chain
        data = tokens.tobytes()
        self._blocks = {
            link: (data[64 * at : 64 * at + 64], object()) for at, link in enumerate(chain(tokens))
        }

    def match(self, tokens: Tokens) -> list[Any]:
        data, at, found = tokens.tobytes(), 0, []
        for link in self._chain(tokens):
            held = self._blocks.get(link)
            if held is None or held[0] != data[at : at + 64]:
                break
            found.append(held[1])
            at += 64
        return found


def lookup(effort: Effort) -> list[Line]:
    """`match` of what is all there, and what others take for it."""
    tokens = _tokens(0)
    cache, chain = _filled([tokens]), PrefixTree(BLOCK, 1, ROOT, False)
    sides = [
        hot(OURS, "c.match(k)", cache, [tokens]),
        hot("list", "c.match(k)", cache, [tokens.tolist()]),
        hot("chain", "c.digests(k)", chain, [tokens]),
        hot("hashlib", "c(k)", hashlib_chain, [tokens]),
        hot("digest", "c.match(k)", ByDigest(chain.digests, tokens), [tokens]),
        hot("hashlib digest", "c.match(k)", ByDigest(hashlib_chain, tokens), [tokens]),
    ]
    samples = Samples()
    samples.play(sides, effort.large_rounds)
    name = f"PrefixCache.match, {TOKENS:,} tokens in blocks of {BLOCK}"
    lost = samples.ratio(OURS, "digest").theirs_ns / 1000
    return [
        absolute_line(f"{name}, int32", "us", samples.times(OURS) / 1000, 150, "goal 50"),
        absolute_line(f"{name}, list", "us", samples.times("list") / 1000, 150),
        absolute_line(
            "its blake2b-128 chain alone, digests()", "us", samples.times("chain") / 1000, 150
        ),
        ratio_line("digests()", "hashlib.blake2b in a loop", samples.ratio("chain", "hashlib"), 1),
        ratio_line(
            f"{name}, int32", "hashlib chain and a dict", samples.ratio(OURS, "hashlib digest"), 1
        ),
        ratio_line(
            f"{name}, int32",
            "our chain and a dict (the design that lost)",
            samples.ratio(OURS, "digest"),
            note=f"it takes {lost:.0f} us",
        ),
    ]


def large(effort: Effort) -> list[Line]:
    """Prompts of a cache of 51,200 blocks, each asked for when it is in no processor cache."""
    prompts = [_tokens(seed) for seed in range(PROMPTS)]
    cache = _filled(prompts)
    timed = hot(OURS, "c.match(k)", cache, prompts)
    samples = Samples()
    samples.play([timed], max(10, effort.large_rounds // 10))
    name = f"the same among {PROMPTS * BLOCKS:,} blocks, cold"
    return [absolute_line(name, "us", samples.times(OURS) / 1000, 150)]


def put(effort: Effort) -> list[Line]:
    """A put at capacity of 256 new blocks of 4 KB, beside the copy of them."""
    state = np.random.default_rng(0).random((BLOCKS, 512))
    cache = PrefixCache(block=BLOCK, max_bytes="16MB")
    copies: list[list[Any]] = []

    def ours(turn: int) -> float:
        tokens = _tokens(turn)
        start = perf_counter_ns()
        cache.put(tokens, state)
        return (perf_counter_ns() - start) / BLOCKS

    def theirs(turn: int) -> float:
        start = perf_counter_ns()
        copies[turn % 8 : turn % 8 + 1] = [[block.copy() for block in state]]
        return (perf_counter_ns() - start) / BLOCKS

    for turn in range(30):
        ours(10**6 + turn)
        theirs(turn)
    samples = Samples()
    samples.play([Contender(OURS, ours), Contender("copy", theirs)], effort.large_rounds)
    name = "PrefixCache.put at capacity, per block of 4 KB"
    return [ratio_line(name, "[block.copy() for block in blocks]", samples.ratio(OURS, "copy"))]


def rows(effort: Effort) -> list[Line]:
    return [*lookup(effort), *large(effort), *put(effort)]
