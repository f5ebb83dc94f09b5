"""SemanticCache: look-ups, writes, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cachecore import MISSING
from cachecore.ml import Hit, SemanticCache
from ml.texts import ALIKE, ASKED, OTHER, Embed, cosine, trigrams


@pytest.fixture(params=["exact", "usearch"])
def index(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_same_text_is_found_without_an_embedding(index: str) -> None:
    embed = Embed()
    cache = SemanticCache(embed, threshold=0.9, maxsize=10, index=index)
    cache.set(ASKED, 1)
    assert cache.get(ASKED) == Hit(1, 1.0, ASKED, exact=True)
    assert embed.calls == [[ASKED]]


def test_a_similar_text_is_found_with_its_similarity(index: str) -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10, index=index)
    assert cache.get(ALIKE) is None
    cache.set(OTHER, 2)
    cache.set(ASKED, 1)
    hit = cache.get(ALIKE)
    assert hit is not None
    assert hit.similarity == pytest.approx(cosine(ALIKE, ASKED), abs=1e-6)
    assert (hit.value, hit.query, hit.exact, hit.computed) == (1, ASKED, False, False)
    assert ALIKE not in cache
    assert ASKED in cache


def test_the_threshold_decides(index: str) -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10, index=index)
    cache.set(ASKED, 1)
    similarity = cosine(ALIKE, ASKED)
    cache.threshold = similarity + 1e-5
    assert cache.get(ALIKE) is None
    assert cache.get(ASKED) is not None
    cache.threshold = similarity - 1e-5
    assert cache.get(ALIKE) is not None
    assert cache.threshold == similarity - 1e-5


def test_the_threshold_must_be_known() -> None:
    cache = SemanticCache(trigrams, maxsize=10)
    cache.set(ASKED, 1)
    for look_up in (
        lambda: cache.get(ASKED),
        lambda: cache.get_many([ASKED]),
        lambda: cache.get_or_compute(ASKED, len),
    ):
        with pytest.raises(RuntimeError, match="threshold"):
            look_up()
    nearest = cache.nearest(OTHER)
    assert nearest is not None
    assert (nearest.value, nearest.query, nearest.exact) == (1, ASKED, False)
    assert cache.stats()[:4] == (0, 0, 0, 0)


def test_an_overwrite_is_found_and_keeps_one_row(index: str) -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10, index=index)
    for value in range(5):
        cache.set(ASKED, value)
    hit = cache.get(ALIKE)
    assert hit is not None
    assert hit.value == 4
    assert len(cache) == len(cache._neighbours) == 1


def test_values_may_be_anything_but_missing() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    values: list[Any] = [None, False, 0, "", [], np.zeros(3)]
    for value in values:
        cache.set(ASKED, value)
        hits = [cache.get(ASKED), cache.get(ALIKE), cache.get_or_compute(ALIKE, _fails)]
        assert all(hit is not None and np.array_equal(hit.value, value) for hit in hits)
    with pytest.raises(TypeError, match="MISSING"):
        cache.set(ASKED, MISSING)
    with pytest.raises(TypeError, match="MISSING"):
        cache.get_or_compute(OTHER, lambda query: MISSING)
    assert OTHER not in cache


def test_a_batch_embeds_once_what_is_not_set(index: str) -> None:
    embed = Embed()
    cache = SemanticCache(embed, threshold=0.9, maxsize=10, index=index)
    cache.set_many({ASKED: 1, OTHER: 2})
    hits = cache.get_many([OTHER, ALIKE, "something else entirely", ALIKE, ASKED])
    assert [hit and (hit.value, hit.exact) for hit in hits] == [
        (2, True), (1, False), None, (1, False), (1, True),
    ]  # fmt: skip
    assert embed.calls == [[ASKED, OTHER], [ALIKE, "something else entirely"]]
    assert cache.stats()[:3] == (2, 2, 1)
    assert cache.get_many([]) == []
    cache.set_many([])
    assert len(embed.calls) == 2


def test_a_batch_agrees_with_single_look_ups(index: str) -> None:
    cache = SemanticCache(trigrams, threshold=0.5, maxsize=300, index=index)
    cache.set_many((f"what is {n * n} plus {n}?", n) for n in range(200))
    asked = [f"what is {n} plus {n * n}?" for n in range(60)] + [OTHER]
    single = [cache.get(text) for text in asked]
    for hit, other in zip(cache.get_many(asked), single, strict=True):
        assert (hit is None) == (other is None)
        assert hit is None or other is None or hit.similarity == pytest.approx(other.similarity)
    assert sum(hit is not None for hit in single) > 30


def _fails(query: str) -> Any:
    raise AssertionError(query)


def test_compute_fills_and_tells(index: str) -> None:
    embed = Embed()
    cache = SemanticCache(embed, threshold=0.9, maxsize=10, index=index)
    assert cache.get_or_compute(ASKED, len) == Hit(len(ASKED), 1.0, ASKED, True, computed=True)
    assert embed.calls == [[ASKED]]
    assert cache.get_or_compute(ASKED, _fails) == Hit(len(ASKED), 1.0, ASKED, True)
    hit = cache.get_or_compute(ALIKE, _fails)
    assert (hit.value, hit.query, hit.exact, hit.computed) == (len(ASKED), ASKED, False, False)


def test_compute_of_a_batch_gets_each_miss_once() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    cache.set(ASKED, -1)
    computed: list[list[str]] = []

    def compute(texts: list[str]) -> list[int]:
        computed.append(texts)
        return [len(text) for text in texts]

    hits = cache.get_or_compute_many([OTHER, ALIKE, "tea", OTHER, ASKED], compute)
    assert [hit.value for hit in hits] == [len(OTHER), -1, 3, len(OTHER), -1]
    assert [hit.computed for hit in hits] == [True, False, True, True, False]
    assert computed == [[OTHER, "tea"]]
    assert [hit.exact for hit in cache.get_or_compute_many([OTHER, "tea"], compute)] == [True, True]


@pytest.mark.parametrize(
    "returned", [(len(text) for text in "ab"), {"a": 1, "b": 2}, {1, 2}, "ab", b"ab", None, 7]
)
def test_what_is_no_sequence_of_values_is_an_error(returned: Any) -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    with pytest.raises(TypeError, match="compute must return a sequence, not"):
        cache.get_or_compute_many([OTHER, "tea"], lambda texts: returned)
    assert len(cache) == 0


def test_a_list_that_is_handed_over_may_be_changed() -> None:
    def emptied(texts: list[str]) -> Any:
        rows = trigrams(texts)
        texts.clear()
        return rows

    def compute(texts: list[str]) -> list[int]:
        return [len(texts.pop()) for _ in range(len(texts))][::-1]

    cache = SemanticCache(emptied, threshold=0.9, maxsize=10)
    hits = cache.get_or_compute_many([OTHER, "tea"], compute)
    assert [hit.value for hit in hits] == [len(OTHER), 3]


def test_an_array_that_was_computed_cannot_be_changed_afterwards() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    array = np.zeros(3)
    hit = cache.get_or_compute(ASKED, lambda query: array)
    array[:] = 1
    for each in (hit, cache.get(ASKED), cache.get(ALIKE)):
        assert each is not None
        assert each.value.tolist() == [0, 0, 0]
        assert not each.value.flags.writeable


@pytest.mark.parametrize("few", [[1], [1, 2, 3], []])
def test_too_few_or_many_computed_values_are_an_error(few: list[int]) -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    with pytest.raises(ValueError, match=rf"{len(few)} values for 2"):
        cache.get_or_compute_many([OTHER, "tea"], lambda texts: few)
    assert len(cache) == 0


def test_what_compute_raises_comes_out_and_nothing_is_set() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)

    def compute(query: str) -> Any:
        raise LookupError("no model")

    with pytest.raises(LookupError, match="no model"):
        cache.get_or_compute(ASKED, compute)
    assert len(cache) == len(cache._neighbours) == 0
    assert cache.get_or_compute(ASKED, len).computed


def test_a_bad_ttl_is_found_before_anything_is_computed() -> None:
    embed = Embed()
    cache = SemanticCache(embed, threshold=0.9, maxsize=10)
    with pytest.raises(ValueError, match="ttl"):
        cache.set(ASKED, 1, ttl=0)
    assert embed.calls == []
    with pytest.raises(ValueError, match="ttl"):
        cache.get_or_compute(ASKED, _fails, ttl=-1)
    assert embed.calls == []
    assert len(cache) == 0


def test_the_verifier_has_the_last_word(index: str) -> None:
    asked: list[tuple[str, str, Any]] = []

    def verify(query: str, matched: str, value: Any) -> bool:
        asked.append((query, matched, value))
        return bool(value != "wrong")

    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10, verify=verify, index=index)
    cache.set(ASKED, "wrong")
    assert cache.get(ASKED) == Hit("wrong", 1.0, ASKED, True)
    assert asked == []
    assert cache.get(ALIKE) is None
    assert cache.get(OTHER) is None
    assert asked == [(ALIKE, ASKED, "wrong")]
    assert cache.stats()[:4] == (1, 0, 2, 1)
    assert cache.get_or_compute(ALIKE, lambda query: "right").computed
    assert cache.get(ALIKE) == Hit("right", 1.0, ALIKE, True)


def test_what_the_verifier_raises_comes_out() -> None:
    def verify(query: str, matched: str, value: Any) -> bool:
        raise LookupError(query)

    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10, verify=verify)
    cache.set(ASKED, 1)
    with pytest.raises(LookupError, match="password"):
        cache.get(ALIKE)
    assert cache.get(ASKED) is not None


def test_stats_tell_the_kinds_apart() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    assert cache.stats().hit_ratio == 0.0
    cache.get(ASKED)
    cache.set(ASKED, 1)
    for text in (ASKED, ASKED, ALIKE, ALIKE, ALIKE, OTHER):
        cache.get(text)
    stats = cache.stats()
    assert (stats.exact_hits, stats.semantic_hits, stats.misses) == (2, 3, 2)
    assert stats.hit_ratio == 5 / 7
    expected = [0] * 100
    expected[int(cosine(ASKED, ALIKE) * 100)] = 3
    expected[int(cosine(ASKED, OTHER) * 100)] += 1
    assert stats.similarities == tuple(expected)
    assert stats.cache.entries == 1


def test_similarities_at_both_ends_have_a_place() -> None:
    rows = {"a": [1.0, 0.0], "same": [2.0, 0.0], "opposite": [-1.0, 0.0]}
    cache = SemanticCache(lambda texts: [rows[text] for text in texts], threshold=0, maxsize=10)
    cache.set("a", 1)
    assert cache.get("same") == Hit(1, 1.0, "a", False)
    assert cache.get("opposite") is None
    similarities = cache.stats().similarities
    assert (similarities[0], similarities[99], sum(similarities)) == (1, 1, 2)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, ValueError, "maxsize or max_bytes"),
        ({"maxsize": 0}, ValueError, "maxsize"),
        ({"maxsize": 10, "threshold": 1.1}, ValueError, "threshold"),
        ({"maxsize": 10, "threshold": float("nan")}, ValueError, "threshold"),
        ({"maxsize": 10, "threshold": "high"}, TypeError, "threshold"),
        ({"maxsize": 10, "index": "annoy"}, ValueError, "index"),
        ({"maxsize": 10, "verify": 1}, TypeError, "verify"),
        ({"maxsize": 10, "getsizeof": 1}, TypeError, "getsizeof"),
        ({"maxsize": 10, "ttl": 0}, ValueError, "ttl"),
        ({"maxsize": 100_001, "index": "exact"}, ValueError, "at most 100000"),
        ({"maxsize": 10, "embed": None}, TypeError, "embed"),
    ],
)
def test_bad_settings_are_named(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SemanticCache(settings.pop("embed", trigrams), **settings)


@pytest.mark.parametrize("query", [1, None, b"tea", ["tea"]])
def test_queries_are_text(query: Any) -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    for call in (
        lambda: cache.get(query),
        lambda: cache.set(query, 1),
        lambda: cache.delete(query),
        lambda: cache.get_many([query]),
        lambda: cache.get_or_compute(query, len),
    ):
        with pytest.raises(TypeError, match="query must be a str"):
            call()
    wrong: Any
    for wrong in ("tea", 7, None):
        with pytest.raises(TypeError, match="queries"):
            cache.get_many(wrong)
    with pytest.raises(TypeError, match="compute must be callable"):
        cache.get_or_compute(ASKED, None)  # type: ignore[arg-type]


def test_a_kind_of_str_is_its_text() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    cache.set(np.str_(ASKED), 1)
    assert [type(key) for key in cache._cache] == [str]
    assert cache.get(np.str_(ASKED)) == cache.get(ASKED) == Hit(1, 1.0, ASKED, True)
