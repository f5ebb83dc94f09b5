"""Fingerprints: how much more than the digest of the same bytes, and the digest of a file."""

from __future__ import annotations

import functools
import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cachecore.ml import fingerprint, model_version
from report import Line, absolute_line, left_out, ratio_line
from timing import Contender, Effort, Samples, hot

OURS = "fingerprint"
CALL = "c(k, model='minilm', version='6f1a')"
SHORT = [f"what is the capital of country {at}?" for at in range(1_000)]


def _bare(digest: str) -> Callable[[Any], Any]:
    if digest == "blake2b":
        return functools.partial(hashlib.blake2b, digest_size=32)
    if digest == "sha3_256":
        return hashlib.sha3_256
    import blake3

    return blake3.blake3


def _against(
    measure: str, digest: str, values: Sequence[Any], bar: float | None, effort: Effort
) -> Line:
    """Make a line of fingerprints against the digests of what the values consist of."""
    data = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
    call = CALL if digest == "sha3_256" else CALL.replace(")", f", digest={digest!r})")
    samples = Samples()
    samples.play(
        [hot(OURS, call, fingerprint, values), hot(digest, "c(k).digest()", _bare(digest), data)],
        effort.rounds * effort.builds,
    )
    return ratio_line(measure, f"{digest} of the same bytes", samples.ratio(OURS, digest), bar)


def short(effort: Effort) -> list[Line]:
    """Short texts, with parameters and without, in microseconds."""
    lines = []
    for params, note in ((None, ""), ({"temperature": 0.0, "top_k": 5}, " and a dict of 2")):
        samples = Samples()
        body = CALL.replace(")", f", params={params!r})")
        samples.play([hot(OURS, body, fingerprint, SHORT)], effort.rounds * effort.builds)
        times = samples.times(OURS) / 1000
        lines.append(absolute_line(f"a text of 34 characters{note}", "us", times, 3.0))
    lines.append(_against("a text of 34 characters", "sha3_256", SHORT, None, effort))
    return lines


def large(effort: Effort) -> list[Line]:
    """From 4 KB on: nearly all is the digest's own time."""
    rng = np.random.default_rng(0)
    inputs: dict[str, list[Any]] = {
        "4 KB of bytes": [rng.bytes(4096) for _ in range(16)],
        "4 KB of text": ["x" * 4096] * 16,
        "4 KB array": list(rng.random((16, 512))),
        "1 MB array": list(rng.random((4, 1 << 17))),
    }
    lines = [
        _against(measure, "sha3_256", values, 1.3, effort) for measure, values in inputs.items()
    ]
    lines += [
        _against(measure, digest, inputs[measure], None, effort)
        for digest in ("blake2b", "blake3")
        for measure in ("4 KB array", "1 MB array")
    ]
    return lines


def peers(effort: Effort) -> list[Line]:
    """joblib.hash, which comes with scikit-learn: MD5 of a pickle."""
    measures: dict[str, Sequence[Any]] = {
        "a text of 34 characters": SHORT,
        "4 KB array": list(np.eye(16, 512)),
    }
    try:
        import joblib
    except ImportError:
        return [left_out(measure, "joblib.hash", "not installed") for measure in measures]
    lines = []
    for measure, values in measures.items():
        samples = Samples()
        sides = [hot(OURS, CALL, fingerprint, values), hot("joblib", "c(k)", joblib.hash, values)]
        samples.play(sides, effort.rounds * effort.builds)
        lines.append(ratio_line(measure, "joblib.hash", samples.ratio(OURS, "joblib")))
    return lines


def files(effort: Effort) -> list[Line]:
    """A model of four shards of 1 MB whose files are as they were."""
    with tempfile.TemporaryDirectory() as folder:
        for at in range(4):
            Path(folder, f"model-{at}.safetensors").write_bytes(bytes([at]) * 2**20)

        def by_reading(path: str) -> str:
            shards = sorted(Path(path).iterdir())
            return hashlib.sha3_256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()

        time.sleep(2.1)  # what was just written is not remembered
        model_version(folder)
        samples = Samples()
        sides: list[Contender] = [hot(OURS, "c(k)", model_version, [folder])]
        sides.append(hot("reading", "c(k)", by_reading, [folder]))
        samples.play(sides, effort.large_rounds)
    name = "model_version again, 4 shards of 1 MB"
    return [ratio_line(name, "sha3_256 of their content", samples.ratio(OURS, "reading"))]


def rows(effort: Effort) -> list[Line]:
    """Return all lines of this part."""
    return [*short(effort), *large(effort), *peers(effort), *files(effort)]
