"""word_guard: which pairs it refuses, which it lets pass, and what it does not see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore.ml import SemanticCache, word_guard
from ml.texts import trigrams

REFUSED = [
    ("Is Paris bigger than London?", "Is London bigger than Paris?"),
    ("is paris bigger than london", "is london larger than paris"),
    ("Does A cause B?", "does B cause A"),
    ("flights from Rome to Oslo", "flights from Oslo to Rome"),
    ("Can I return it?", "Can I not return it?"),
    ("Can I return it?", "Can't I return it?"),
    ("Can I return it?", "Can\u2019t I return it?"),
    ("is it allowed", "is it never allowed"),
    ("coffee with sugar", "coffee without sugar"),
    ("revenue in 2023", "revenue in 2024"),
    ("a discount of 5%", "a discount of 15%"),
    ("within two weeks", "within three weeks"),
    ("version 3.11", "version 3.12"),
    ("store it below -5 degrees", "store it below 5 degrees"),
    ("an offset of \u22122", "an offset of 2"),
    ("2 cups and 3 spoons", "3 cups and 2 spoons"),
]
PASSED = [
    ("Is Paris bigger than London?", "is paris bigger than london"),
    ("How do I reset my password?", "how can I reset my password"),
    ("within two weeks", "Within 2 weeks?"),
    ("I forgot my password, how to reset it?", "how can I reset my password"),
    ("cannot log in", "can't log in"),
    ("plans for 2023-24", "plans for 2023 - 24"),
    ("what is covid-19", "what is COVID 19?"),
    ("below -5", "below \u22125"),
    ("", ""),
    ("?", "!"),
]
UNSEEN = [  # other answers, the same to it: another name, an opposite without a negation
    ("weather in Paris", "weather in Rome"),
    ("how to enable two factors", "how to disable two factors"),
]


@pytest.mark.parametrize(("one", "other"), REFUSED)
def test_refused(one: str, other: str) -> None:
    assert not word_guard(one, other)
    assert not word_guard(other, one)


@pytest.mark.parametrize(("one", "other"), PASSED + UNSEEN)
def test_passed(one: str, other: str) -> None:
    assert word_guard(one, other)
    assert word_guard(other, one)


@given(st.text(), st.text())
def test_it_takes_any_text_and_does_not_mind_which_is_first(one: str, other: str) -> None:
    assert word_guard(one, other) == word_guard(other, one)
    assert word_guard(one, one)


@pytest.mark.parametrize(("one", "other"), REFUSED)
def test_as_a_verifier_it_makes_misses_of_near_hits(one: str, other: str) -> None:
    cache = SemanticCache(trigrams, threshold=0.3, maxsize=10, verify=word_guard)
    cache.set(other, 1)
    assert cache.get(one) is None
    assert cache.stats().verified_away == 1
