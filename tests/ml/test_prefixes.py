"""PrefixCache in memory: what is found, what is kept, what is refused."""

from __future__ import annotations

import array
import collections
import gc
import itertools
import sys
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest

from cachecore.ml import PrefixCache
from ml.blocks import BLOCK, bytes_of_one, cache, numbers, states

# --- look-ups


def test_the_longest_prefix_is_found() -> None:
    kept = cache()
    assert kept.put([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], states(3)) == 12
    found = kept.match([1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 11, 12])
    assert found.length == 8
    assert numbers(found.blocks) == [0, 1]
    assert kept.match([5, 6, 7, 8]).length == 0  # the same block, but not at the beginning
    assert kept.match([1, 2, 3]).length == 0
    assert kept.match([]).blocks == []
    assert kept.match(range(1, 100)).length == 12
    kept._check()


def test_blocks_are_shared_by_those_that_begin_alike() -> None:
    kept = cache()
    kept.put([1, 1, 1, 1, 2, 2, 2, 2], states(2))
    assert kept.put([1, 1, 1, 1, 3, 3, 3, 3], states(2, first=10)) == 8
    assert len(kept) == 3
    assert numbers(kept.match([1, 1, 1, 1, 3, 3, 3, 3]).blocks) == [0, 11]  # the first one stays
    assert numbers(kept.match([1, 1, 1, 1, 2, 2, 2, 2]).blocks) == [0, 1]
    kept._check()


def test_a_partial_block_at_the_end_is_not_kept() -> None:
    kept = cache()
    assert kept.put([1, 2, 3, 4, 5, 6], states(1)) == 4
    assert kept.match([1, 2, 3, 4, 5, 6]).length == 4
    assert kept.put([1, 2], []) == 0


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        lambda tokens: np.array(tokens, np.int32),
        lambda tokens: np.array(tokens, np.int64),
        lambda tokens: np.array(tokens, np.uint64),
        lambda tokens: np.array(tokens, ">i4"),
        lambda tokens: np.array(tokens, np.uint16),
        lambda tokens: np.repeat(np.array(tokens, np.int32), 2)[::2],
        lambda tokens: np.repeat(np.array(tokens, np.int64), 2)[::2],
        lambda tokens: [np.int64(token) for token in tokens],
        lambda tokens: array.array("i", tokens),
    ],
)
def test_tokens_are_what_they_are_in_any_form(make: Any) -> None:
    tokens = [5, 0, 65535, 7, 9, 9, 9, 9]
    kept = cache()
    kept.put(tokens, states(2))
    assert kept.match(make(tokens)).length == 8
    other = cache()
    other.put(make(tokens), states(2))
    assert other.match(tokens).length == 8


@pytest.mark.parametrize("nothing", [[], (), range(0), np.empty(0, np.int64), array.array("q")])
def test_no_tokens(nothing: Any) -> None:
    assert cache().match(nothing).blocks == cache().digests(nothing) == []
    assert cache().put(nothing, []) == 0


class Lying(np.ndarray[Any, Any]):
    """An array that converts itself to something else, of fewer bytes than it should have."""

    def astype(self, *_: Any, **__: Any) -> Any:
        return np.zeros(10**4, np.int8)

    def min(self, *_: Any, **__: Any) -> Any:
        return 0

    max = min


def test_an_array_that_lies_is_taken_for_what_it_is() -> None:
    tokens = [9, 8, 7, 6, 5, 4, 3, 2]
    kept = cache()
    kept.put(np.array(tokens, np.int16).view(Lying), states(2))
    assert kept.match(tokens).length == 8
    with pytest.raises(ValueError, match="32 bits"):
        kept.match(np.array([2**31], np.uint32).view(Lying))


def test_tokens_of_the_whole_range() -> None:
    kept = cache()
    tokens = [-(2**31), 2**31 - 1, -1, 0]
    kept.put(tokens, states(1))
    assert kept.match(np.array(tokens)).length == 4


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        ([1.0, 2.0], TypeError),
        ([1, True], TypeError),
        ([1, None], TypeError),
        (["a"], TypeError),
        ("text", TypeError),
        (b"bytes", TypeError),
        (np.zeros(4), TypeError),
        (np.zeros(4, bool), TypeError),
        (7, TypeError),
        (None, TypeError),
        (np.zeros((1, 4), int), ValueError),
        (collections.deque([[1], [2, 3]]), ValueError),
        ([np.array([1, 2])], TypeError),
        ([2**31], ValueError),
        ([-(2**31) - 1], ValueError),
        ([2**70], ValueError),
        (np.array([1, 2**31]), ValueError),
        (np.array([2**63], np.uint64), ValueError),
        (np.array([2**31], ">i8"), ValueError),
    ],
)
def test_what_are_no_tokens_is_refused(tokens: Any, error: type[Exception]) -> None:
    kept = cache()
    for call in (kept.match, kept.digests, lambda tokens: kept.put(tokens, [])):
        with pytest.raises(error, match="tokens"):
            call(tokens)
    assert kept.stats().lookups == 0


def test_blocks_whose_hashes_collide_are_two() -> None:
    """Of 300,000 blocks some ten pairs have the same hash of 32 bits."""
    kept = cache("1GB")
    words = np.random.default_rng(0).integers(0, 2**31, (300_000, BLOCK)).astype(np.int32)
    for block in words:
        kept.put(block, [block.tobytes()])
    assert all(kept.match(block).blocks == [block.tobytes()] for block in words)
    assert len(kept) == len(words)


# --- what is kept


def test_what_is_found_is_what_is_kept_and_nobody_can_write_to_it() -> None:
    kept = cache()
    state = states(1)[0]
    kept.put([1, 2, 3, 4], [state])
    state[:] = 99
    found = kept.match([1, 2, 3, 4]).blocks[0]
    assert found is kept.match([1, 2, 3, 4]).blocks[0]
    assert numbers([found]) == [0]
    with pytest.raises(ValueError, match="read-only"):
        found[:] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        found.flags.writeable = True


def test_a_slice_does_not_keep_the_whole() -> None:
    whole = np.zeros((100, BLOCK))
    kept = cache()
    kept.put([1, 2, 3, 4], [whole[3]])
    gone = weakref.ref(whole)
    del whole
    gc.collect()
    assert gone() is None


def test_tuples_and_buffers() -> None:
    kept = cache()
    layers = tuple(states(3))
    kept.put(range(12), [layers, b"bytes", bytearray(b"more")])
    first, second, third = kept.match(range(12)).blocks
    assert type(first) is tuple
    assert numbers(list(first)) == [0, 1, 2]
    assert (second, third) == (b"bytes", b"more")
    assert type(third) is bytes


def test_what_came_from_a_match_is_not_copied_again() -> None:
    one, other = cache(), cache()
    one.put([1, 2, 3, 4], states(1))
    one.put([5, 6, 7, 8], [tuple(states(2))])
    for tokens in ([1, 2, 3, 4], [5, 6, 7, 8]):
        blocks = one.match(tokens).blocks
        other.put(tokens, blocks)
        there = other.match(tokens).blocks[0]
        parts = (blocks[0], there) if isinstance(there, tuple) else ((blocks[0],), (there,))
        assert all(ours is theirs for ours, theirs in zip(*parts, strict=True))


@pytest.mark.parametrize(
    ("blocks", "start", "error", "message"),
    [
        (states(1), 0, ValueError, "blocks must be 2"),
        (states(3), 0, ValueError, "blocks must be 2"),
        (states(2), 4, ValueError, "blocks must be 1"),
        (states(1), 1, ValueError, "start must be a multiple of 4"),
        (states(1), -4, ValueError, "start must be"),
        ([], 12, ValueError, "start must be"),
        (states(1), "4", TypeError, "start must be an int"),
        (states(2), False, TypeError, "start must be an int"),
        (7, 0, TypeError, "blocks must be an iterable"),
        (b"12", 0, TypeError, "blocks must be an iterable"),
        ([states(1)[0], None], 0, TypeError, "blocks must be arrays, buffers"),
        ([states(1)[0], "text"], 0, TypeError, "blocks must be arrays, buffers"),
        ([states(1)[0], states(2)], 0, TypeError, "blocks must be arrays, buffers"),
        ([states(1)[0], np.array([None])], 0, TypeError, "must not hold objects"),
    ],
)
def test_blocks_that_do_not_fit_change_nothing(
    blocks: Any, start: Any, error: type[Exception], message: str
) -> None:
    kept = cache()
    with pytest.raises(error, match=message):
        kept.put(range(8), blocks, start)
    assert (len(kept), kept.nbytes) == (0, 0)
    kept._check()


def test_a_put_goes_on_where_a_match_ended() -> None:
    kept = cache()
    kept.put(range(8), states(2))
    found = kept.match(range(16))
    assert kept.put(range(16), states(2, first=2), start=found.length) == 16
    assert numbers(kept.match(range(16)).blocks) == [0, 1, 2, 3]


def test_blocks_without_those_above_are_not_kept() -> None:
    kept = cache()
    assert kept.put(range(16), states(2), start=8) == 0
    assert len(kept) == 0
    assert kept.stats().refused == 2


# --- bounds


def test_the_budget_is_kept_and_the_beginning_stays() -> None:
    room = 5 * bytes_of_one()
    kept = cache(room)
    assert kept.put(range(32), states(8)) == 20
    assert len(kept) == 5
    assert kept.stats().refused == 3
    assert kept.nbytes == room
    kept._check()


def test_a_block_larger_than_the_budget_is_refused() -> None:
    kept = cache(5 * bytes_of_one())
    kept.put(range(8), states(2))
    terabytes = np.broadcast_to(np.zeros(1), 10**12)
    for block in (np.zeros(10**5), terabytes, (np.zeros(2), terabytes)):  # and copied nowhere
        assert kept.put([7, 7, 7, 7], [block]) == 0
    assert kept.stats().refused == 3
    assert kept.match(range(8)).length == 8


def test_what_is_evicted_is_the_end_of_what_is_asked_for_least() -> None:
    kept = cache(20 * bytes_of_one())
    system = list(range(4 * BLOCK))
    kept.put(system, states(4))
    for number in range(1, 200):
        prompt = system + [1000 + number] * (4 * BLOCK)
        found = kept.match(prompt)
        assert found.length >= 4 * BLOCK  # the shared part was never evicted
        kept.put(prompt, [*found.blocks, *states(8)[len(found.blocks) :]])
        assert kept.match(prompt).length == 8 * BLOCK
        kept._check()
    assert kept.stats().evictions > 700


def test_a_long_idle_sequence_leaves_from_its_end() -> None:
    kept = cache(30 * bytes_of_one())
    idle = list(range(20 * BLOCK))
    kept.put(idle, states(20))
    lengths = [kept.match(idle).length]
    for number in range(60):
        kept.put([1000 + number] * BLOCK, states(1))
        kept.match([1000 + number] * BLOCK)
        lengths.append(kept.put(idle, [], start=len(idle)))  # no look-up, and adds nothing
        kept._check()
    assert all(later <= earlier for earlier, later in itertools.pairwise(lengths))
    assert lengths[-1] < lengths[0]


def test_blocks_stay_as_they_are_when_they_are_evicted() -> None:
    kept = cache(3 * bytes_of_one())
    kept.put(range(12), states(3))
    held = kept.match(range(12))
    for number in range(10):
        kept.put([number + 50] * 12, states(3, first=100))
    kept.clear()
    assert numbers(held.blocks) == [0, 1, 2]


def test_what_is_counted_is_what_is_taken() -> None:
    width, count = 1024, 400
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = cache("100MB")
        tokens = np.arange(count * BLOCK)
        kept.put(tokens, np.zeros((count, width), np.uint8))
        taken = tracemalloc.get_traced_memory()[0] - before - tokens.nbytes
    finally:
        tracemalloc.stop()
    assert count * width < taken <= kept.nbytes < 1.35 * taken


def test_what_leaves_leaves_no_reference() -> None:
    kept = cache(3 * bytes_of_one())
    states_ = states(1)
    before = sys.getrefcount(None)
    for number in range(1000):
        kept.put([number] * BLOCK, states_)
    assert abs(sys.getrefcount(None) - before) < 100


def test_clear() -> None:
    kept = cache()
    kept.put(range(40), states(10))
    kept.clear()
    assert (len(kept), kept.nbytes, kept.match(range(40)).length) == (0, 0, 0)
    kept._check()
    assert kept.put(range(40), states(10)) == 40
    assert kept.stats().deletions == 10
    kept._check()


def test_counts() -> None:
    kept = cache()
    assert kept.stats().hit_ratio == 0.0
    kept.match(range(10))
    kept.put(range(8), states(2))
    kept.match(range(10))
    counts = kept.stats()
    assert (counts.lookups, counts.asked_tokens, counts.matched_tokens) == (2, 20, 8)
    assert (counts.blocks, counts.inserts, counts.bytes) == (2, 2, kept.nbytes)
    assert counts.hit_ratio == 0.4


# --- settings


@pytest.mark.parametrize(
    ("settings", "error", "name"),
    [
        ({"block": 0}, ValueError, "block"),
        ({"block": 2**31}, ValueError, "block"),
        ({"block": 2.0}, TypeError, "block"),
        ({"max_bytes": 0}, ValueError, "max_bytes"),
        ({"max_bytes": "much"}, ValueError, "max_bytes"),
        ({"salt": "text"}, TypeError, "salt"),
        ({"model": b"m"}, TypeError, "model"),
        ({"version": 3}, TypeError, "version"),
        ({"below": {}}, TypeError, "below"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        PrefixCache(**{"max_bytes": "1MB", **settings})


def test_a_size_and_the_block_are_told() -> None:
    kept = PrefixCache(max_bytes="2MB")
    assert (kept.block, kept.max_bytes) == (16, 2 * 1024**2)
    assert "0 blocks of 16 tokens" in repr(kept)
    kept.put(range(16), [b""])
    with pytest.raises(RuntimeError, match="once"):
        PrefixCache.__init__(kept, max_bytes="1MB")
    assert kept.match(range(16)).length == 16
