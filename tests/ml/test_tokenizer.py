"""Vocabularies and encoded texts that come from the cache, beside what `tokenizers` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from cachecore import Cache, TieredCache
from cachecore.ml import load_tokenizer, load_vocabulary
from cachecore.tiers import MmapTier

LINES = [
    "the cat sat on the mat, and the dog on the cat",
    "na\u00efve caf\u00e9 \u6771\u4eac \U0001f408 two words 3.11",
    "a" * 500,
    "",
    "   ",
    "the [CLS] cat",
]
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]


def made(kind: str) -> Any:
    """A small tokenizer of one of the four models of `tokenizers`, trained on LINES."""
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        trainer: Any = trainers.BpeTrainer(
            vocab_size=200, special_tokens=SPECIAL, show_progress=False
        )
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=60, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
        )
    elif kind == "wordlevel":
        tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        trainer = trainers.WordPieceTrainer(
            vocab_size=150, special_tokens=SPECIAL, show_progress=False
        )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_tokens(["newtoken", "caf\u00e9s"])
    tokenizer.enable_truncation(40)
    tokenizer.enable_padding(length=64)
    return tokenizer


KINDS = ["bpe", "unigram", "wordlevel", "wordpiece"]


@pytest.fixture(params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    path = tmp_path / "tokenizer.json"
    tokenizer = made(str(request.param))
    tokenizer.save(str(path))
    return tokenizer, path


def tiered(tmp_path: Path) -> TieredCache:
    return TieredCache(1_000, tiers=[MmapTier(tmp_path / "map", max_bytes="8MB")], namespace="tok")


def test_a_vocabulary_is_what_tokenizers_has(saved: tuple[Any, Path], tmp_path: Path) -> None:
    tokenizer, path = saved
    expected = tokenizer.get_vocab(with_added_tokens=True)
    for _ in range(2):  # built, then from the map
        with tiered(tmp_path) as cache:
            vocabulary = load_vocabulary(path, cache)
            assert dict(vocabulary) == expected
            assert [vocabulary.token(index) for index in sorted(expected.values())] == list(
                vocabulary
            )
            assert vocabulary.get("[CLS]") == tokenizer.token_to_id("[CLS]")
            assert "absent" not in vocabulary
            assert len(vocabulary) == len(expected)


def test_ids_are_those_of_tokenizers(saved: tuple[Any, Path], tmp_path: Path) -> None:
    tokenizer, path = saved
    tokenizer.no_padding()
    expected = {
        special: [tokenizer.encode(line, add_special_tokens=special).ids for line in LINES]
        for special in (True, False)
    }
    for turn in range(2):
        with tiered(tmp_path) as cache:
            ours = load_tokenizer(path, cache)
            for special in (True, False):
                many = ours.encode_many(LINES, special=special)
                single = [ours.encode(line, special=special) for line in LINES]
                for ids, other, right in zip(many, single, expected[special], strict=True):
                    assert ids.tolist() == other.tolist() == right
                    assert ids.dtype == np.int32
                    assert not ids.flags.writeable
            assert ours.loaded == (turn == 0)


def test_padding_of_a_batch_is_not_kept(tmp_path: Path) -> None:
    tokenizer = made("wordpiece")
    tokenizer.enable_padding()  # to the longest of a batch
    tokenizer.save(str(tmp_path / "t.json"))
    ours = load_tokenizer(tmp_path / "t.json", Cache(100))
    short, _ = ours.encode_many([LINES[0], LINES[2]])
    assert (
        short.tolist() == load_tokenizer(tmp_path / "t.json", Cache(100)).encode(LINES[0]).tolist()
    )


PROGRAM = """
import sys
from cachecore import TieredCache
from cachecore.tiers import MmapTier
from cachecore.ml import load_tokenizer
path, place = sys.argv[1:]
with TieredCache(100, tiers=[MmapTier(place, max_bytes="8MB")], namespace="tok") as cache:
    tokenizer = load_tokenizer(path, cache)
    print(tokenizer.encode("the cat sat").tolist(), tokenizer.vocabulary["cat"])
    print("tokenizers" in sys.modules)
"""


def test_a_second_process_starts_from_the_map(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    made("wordlevel").save(str(path))
    command = [sys.executable, "-c", PROGRAM, str(path), str(tmp_path / "map")]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
        for _ in range(2)
    )
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("True", "False")


def test_another_file_is_another_vocabulary(tmp_path: Path) -> None:
    cache = Cache[str, Any](100)
    path = tmp_path / "vocab.json"
    for number in range(3):
        path.write_text(json.dumps({"a": number, "b": number + 10}))
        assert dict(load_vocabulary(path, cache)) == {"a": number, "b": number + 10}
    assert dict(load_vocabulary(path, cache, version="v1")) == {"a": 2, "b": 12}
    path.write_text("{}")
    assert dict(load_vocabulary(path, cache, version="v1")) == {"a": 2, "b": 12}
    assert dict(load_vocabulary(path, cache)) == {}


def test_a_file_that_changes_under_a_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    made("wordlevel").save(str(path))
    cache = Cache[str, Any](100)
    ours = load_tokenizer(path, cache)
    made("wordpiece").save(str(path))
    for use in (lambda: ours.encode("the cat"), lambda: ours.vocabulary):
        with pytest.raises(ValueError, match="has changed"):
            use()
    assert len(cache) == 0


def test_what_is_done_to_the_tokenizer_handed_out_does_not_reach_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    made("wordlevel").save(str(path))
    expected = load_tokenizer(path, Cache(10)).encode(LINES[0]).tolist()
    ours = load_tokenizer(path, Cache(10))
    ours.tokenizer.enable_truncation(3)
    ours.tokenizer.enable_padding(length=99)
    assert ours.tokenizer is ours.tokenizer
    assert ours.encode(LINES[0]).tolist() == expected
    assert len(ours.encode_many([LINES[0], ""])[1]) == 2


def test_versions_and_texts_cannot_be_mistaken_for_one_another(tmp_path: Path) -> None:
    cache = Cache[str, Any](100)
    for name, kind in (("a", "wordlevel"), ("b", "bpe")):
        made(kind).save(str(tmp_path / name))
    ours = load_tokenizer(tmp_path / "a", cache, version="v")
    other = load_tokenizer(tmp_path / "b", cache, version="v:ids:x")
    ours.encode("x:ids:the cat sat")
    assert other.encode("the cat sat").tolist() == (
        load_tokenizer(tmp_path / "b", Cache(10)).encode("the cat sat").tolist()
    )


def test_a_cache_with_a_loader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    made("wordlevel").save(str(path))
    with TieredCache(10, loader=lambda key: np.zeros(2, np.int32)) as cache:
        for load in (load_tokenizer, load_vocabulary):
            with pytest.raises(ValueError, match="cache must have no loader"):
                load(path, cache)


def test_a_child_can_load_what_a_thread_of_its_parent_is_loading(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    os.mkfifo(path)  # whoever reads it waits for a writer
    made("wordlevel").save(str(tmp_path / "real.json"))
    ours = load_tokenizer(path, Cache(10), version="v1")
    thread = threading.Thread(target=ours.encode, args=("the cat",))
    thread.start()
    while not len(ours._flights):
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        try:
            ours._source.path = tmp_path / "real.json"
            os._exit(0 if len(ours.encode("the cat")) else 1)
        except BaseException:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    path.write_bytes((tmp_path / "real.json").read_bytes())
    thread.join()
    assert status == 0
    assert ours.loaded


def test_text_files_of_a_token_a_line(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes("[PAD]\ncaf\u00e9\n##s\n\u2028\n".encode())
    assert dict(load_vocabulary(path, Cache(10))) == {
        "[PAD]": 0, "caf\u00e9": 1, "##s": 2, "\u2028": 3,
    }  # fmt: skip
    path.write_bytes(b"a\r\nb\r\n")
    assert dict(load_vocabulary(path, Cache(10))) == {"a": 0, "b": 1}
    path.write_bytes(b"")
    assert dict(load_vocabulary(path, Cache(10))) == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\na\n", "a line twice"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"a": 1', "no vocabulary"),
        (b'{"a": "b"}', "the id of 'a'"),
        (b'{"a": true}', "the id of 'a'"),
        (b'{"a": 1.5}', "the id of 'a'"),
        (b'{"a": -1}', "ids must be within"),
        (b'{"a": 2147483648}', "ids must be within"),
        (b'{"a": 1, "b": 1}', "two tokens have one id"),
        (b'{"model": {}}', "no vocabulary"),
        (b'{"model": {"vocab": 7}}', "no vocabulary"),
        (b'{"model": {"vocab": [["a"]]}}', "no vocabulary"),
        (b'{"model": {"vocab": {}}, "added_tokens": [1]}', "no vocabulary"),
        (b'{"\\ud800": 1}', "surrogates"),
        (b'{"a":' + b"[" * 100_000, "no vocabulary"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "odd.vocab"
    path.write_bytes(data)
    cache = Cache[str, Any](100)
    with pytest.raises(ValueError, match=rf"odd\.vocab: .*{message}") as raised:
        load_vocabulary(path, cache)
    assert str(raised.value).count("odd.vocab") == 1
    assert len(cache) == 0


def test_a_bad_tokenizer_is_an_error(tmp_path: Path) -> None:
    path, cache = tmp_path / "t.json", Cache[str, Any](100)
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"t\.json is no tokenizer"):
        load_tokenizer(path, cache).encode("a")
    Tokenizer(models.BPE({"a": 0}, [], dropout=0.5)).save(str(path))
    with pytest.raises(ValueError, match="dropout"):
        load_tokenizer(path, cache).encode("a")
    with pytest.raises(FileNotFoundError):
        load_tokenizer(tmp_path / "none.json", cache)
    assert len(cache) == 0


def test_arguments_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    made("wordlevel").save(str(path))
    with pytest.raises(TypeError, match="cache must be"):
        load_vocabulary(path, 7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="version"):
        load_vocabulary(path, Cache(10), version="")
    ours = load_tokenizer(path, Cache(10))
    wrong: Any = b"a"
    with pytest.raises(TypeError, match="text must be a str"):
        ours.encode(wrong)
    for wrong in ("a", 7, None):
        with pytest.raises(TypeError, match="texts must be an iterable"):
            ours.encode_many(wrong)
    with pytest.raises(ValueError, match="surrogates"):
        ours.encode("the \ud800")
    assert ours.encode_many([]) == []
    assert not ours.loaded


def test_without_the_package_what_is_kept_still_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "t.json", Cache[str, Any](10)
    made("wordlevel").save(str(path))
    ids = load_tokenizer(path, cache).encode("the cat")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    ours = load_tokenizer(path, cache)
    assert ours.encode("the cat").tolist() == ids.tolist()
    assert "cat" in ours.vocabulary
    with pytest.raises(ImportError, match=r"cachecore-ml\[ml\]"):
        ours.encode("the dog")


@pytest.mark.parametrize("poison", [b"", "ids", np.zeros(3), np.zeros((2, 2), np.int32), None])
def test_a_foreign_value_in_the_cache_is_a_miss(tmp_path: Path, poison: Any) -> None:
    path, cache = tmp_path / "t.json", Cache[str, Any](100)
    made("wordlevel").save(str(path))
    first = load_tokenizer(path, cache)
    ids, tokens = first.encode("the cat").tolist(), dict(first.vocabulary)
    for key in list(cache):
        cache[key] = poison
    again = load_tokenizer(path, cache)
    assert again.encode("the cat").tolist() == ids
    assert again.encode_many(["the cat"])[0].tolist() == ids
    assert dict(again.vocabulary) == tokens


def test_threads_share_one(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    made("bpe").save(str(path))
    ours, seen = load_tokenizer(path, Cache(1_000)), []

    def work() -> None:
        seen.append([ids.tolist() for ids in ours.encode_many(LINES)])

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 5
    assert all(each == seen[0] for each in seen)
