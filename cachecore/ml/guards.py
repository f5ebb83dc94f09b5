"""A verifier for semantic hits that looks at what embeddings overlook: numbers, negation, order."""

from __future__ import annotations

import re
from collections import Counter

# A minus is a number's own where it stands behind no word: not in "2023-24" or "covid-19".
_WORD = re.compile(r"(?:(?<![^\W_])[-\u2212])?\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_PLAIN = str.maketrans("\u2019\u2212", "'-")
_NUMBERS = dict(
    zip(
        "zero two three four five six seven eight nine ten eleven twelve".split(),
        "0 2 3 4 5 6 7 8 9 10 11 12".split(),
        strict=True,
    )
)  # no "one": it is mostly no number
_NEGATIONS = frozenset(
    "not no never none nothing nobody neither nor without cannot cant dont doesnt didnt isnt arent "
    "wasnt werent wont wouldnt shouldnt couldnt hasnt havent hadnt mustnt".split()
)
_ALIKE = 0.6  # share of common words from which on their order counts


def _words(text: str) -> list[str]:
    words = (word.casefold().translate(_PLAIN) for word in _WORD.findall(text))
    return [_NUMBERS.get(word, word) for word in words]


def _negations(words: list[str]) -> int:
    return sum(word in _NEGATIONS or word.endswith("n't") for word in words)


def word_guard(query: str, matched: str, value: object = None) -> bool:
    """False if two queries differ in their numbers, in negations, or in the order of their words.

    For `SemanticCache(verify=word_guard)`: English questions such as "Is A bigger than B?" and "Is
    B bigger than A?", "Can I?" and "Can I not?", "in 2023" and "in 2024", between which the cosine
    of sentence embeddings hardly tells. The order counts where most words are common: 3 of 5 of all
    there are. It is no judge of meaning: it refuses some paraphrases that move words about, and
    does not see antonyms ("enable", "disable") or another name ("in Paris", "in Rome").
    """
    ours, theirs = _words(query), _words(matched)
    if _negations(ours) != _negations(theirs):
        return False
    a, b = Counter(ours), Counter(theirs)
    if {word: n for word, n in a.items() if word[-1].isdigit()} != {
        word: n for word, n in b.items() if word[-1].isdigit()
    }:
        return False
    common = a & b
    if common.total() < _ALIKE * (a | b).total():
        return True
    return _kept(ours, common) == _kept(theirs, common)


def _kept(words: list[str], common: Counter[str]) -> list[str]:
    """The common words in their order; of one that is more frequent here, the first ones."""
    left = Counter(common)
    kept = []
    for word in words:
        if left[word] > 0:
            left[word] -= 1
            kept.append(word)
    return kept
