"""Versions of weights: what they are made of, when files are read again, and the warning."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
import tracemalloc
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cachecore.ml import fingerprint, model_version
from cachecore.ml.versions import _FileDigests, check_version

WEIGHTS: dict[str, np.ndarray[Any, Any]] = {
    "layer.0.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layer.0.bias": np.zeros(3, np.float16),
}
HEX = re.compile(r"[0-9a-f]{32}")


def later() -> int:
    """A clock by which every file was written long ago."""
    return time.time_ns() + 10**10


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    save_file(WEIGHTS, folder / "model-1.safetensors")
    save_file({"head": np.ones(5)}, folder / "model-2.safetensors")
    (folder / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    return folder


# --- state dicts ---


def test_a_state_dict() -> None:
    version = model_version(WEIGHTS)
    assert HEX.fullmatch(version)
    backwards = OrderedDict(reversed(WEIGHTS.items()))
    strided = {name: np.asfortranarray(array) for name, array in WEIGHTS.items()}
    for same in (backwards, strided, MappingProxyType(WEIGHTS)):
        assert model_version(same) == version
    bias = WEIGHTS["layer.0.bias"]
    changed = bias.copy()
    changed[1] = 1e-3
    others: list[dict[str, Any]] = [
        WEIGHTS | {"layer.0.bias": changed},
        WEIGHTS | {"layer.0.bias": bias.astype("f4")},
        WEIGHTS | {"layer.0.bias": bias[None]},
        WEIGHTS | {"layer.1.bias": bias},
        {"layer.0.bias": bias},
        {"layer.0.bais": bias},
        {**WEIGHTS, "steps": 3},
    ]
    assert len({version, *map(model_version, others)}) == len(others) + 1


def test_the_digest_is_a_part_of_it() -> None:
    versions = {model_version(WEIGHTS, digest=d) for d in ("sha3_256", "blake2b", "blake3")}
    assert len(versions) == 3


def test_golden() -> None:
    assert model_version(WEIGHTS) == "91eceaae1427892c628239d341567f46"


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({}, ValueError, "path_or_state must hold weights: the mapping is empty"),
        ({1: np.ones(1)}, TypeError, "path_or_state must map names to arrays; 1 is no str"),
        ({"a": [np.array([{}])]}, TypeError, r"^inputs\[0\]\['a'\]\[0\] is of type numpy.ndarray"),
        ("", ValueError, "path_or_state must not be empty"),
        (b"", ValueError, "path_or_state must not be empty"),
        ([np.ones(1)], TypeError, "path_or_state must be a path or a mapping .* not list"),
        (None, TypeError, "path_or_state must be a path or a mapping .* not NoneType"),
    ],
)
def test_bad_weights(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model_version(weights)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("digest", ["md5", Text("blake2b"), None, np.array(["blake2b", "blake3"])])
def test_bad_digests(digest: Any) -> None:
    for weights in (WEIGHTS, "nothing is read"):
        with pytest.raises(ValueError, match='digest must be "sha3_256", "blake2b" or "blake3"'):
            model_version(weights, digest=digest)


# --- files ---


def test_a_file_and_a_directory(shards: Path) -> None:
    file = shards / "model-1.safetensors"
    versions = {
        model_version(file),
        model_version(shards),
        model_version(load_file(file)),
        model_version(file, digest="blake2b"),
        model_version(file, digest="blake3"),
    }
    assert len(versions) == 5
    assert all(map(HEX.fullmatch, versions))
    assert model_version(str(file)) == model_version(file)


def test_golden_files(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)) * 1_000)
    assert model_version(tmp_path / "weights.bin") == "1da2ea4bab81efc597da8592d6f3c2ba"
    assert model_version(tmp_path) == "0470be7a394f75945ab38e5f2700ff72"


def test_a_name_counts_in_a_directory_only(shards: Path) -> None:
    file, folder = model_version(shards / "model-2.safetensors"), model_version(shards)
    (shards / "model-2.safetensors").rename(shards / "model-3.safetensors")
    assert model_version(shards / "model-3.safetensors") == file
    renamed = model_version(shards)
    assert renamed != folder
    moved = shards.rename(shards.parent / "elsewhere")
    assert model_version(moved) == renamed


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "extra.bin").write_bytes(b""),
        lambda folder: (folder / "tokenizer" / "vocab.txt").write_text("b\na\n"),
        lambda folder: (folder / "tokenizer" / "vocab.txt").unlink(),
        lambda folder: (folder / "tokenizer").rename(folder / "tokens"),
        lambda folder: (folder / "tokenizer" / "vocab.txt").rename(folder / "vocab.txt"),
    ],
)
def test_what_counts_in_a_directory(shards: Path, change: Callable[[Path], object]) -> None:
    before = model_version(shards)
    change(shards)
    assert model_version(shards) != before


def test_what_does_not_count_in_a_directory(shards: Path) -> None:
    before = model_version(shards)
    (shards / ".git").mkdir()
    (shards / ".git" / "HEAD").write_text("x")
    (shards / ".lock").write_text("x")
    (shards / "empty").mkdir()
    os.utime(shards / "model-1.safetensors", (1, 1))
    shard = shards / "model-2.safetensors"
    shard.rename(shards.parent / "blob")
    shard.symlink_to(shards.parent / "blob")  # as the hub's cache does
    assert model_version(shards) == before


def test_what_is_no_file_of_weights(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(FileNotFoundError):
        model_version(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no files"):
        model_version(tmp_path / "empty")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is neither a file nor a directory"):
        model_version(tmp_path / "pipe")
    (shards / "more").symlink_to(tmp_path / "empty")
    with pytest.raises(ValueError, match="more is a link to a directory"):
        model_version(shards)
    (shards / "more").unlink()
    (shards / "gone").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        model_version(shards)
    (shards / "gone").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(shards / "s"))
        with pytest.raises(ValueError, match="neither a file nor a directory"):
            model_version(shards)


def test_a_large_file_is_not_read_into_memory(tmp_path: Path) -> None:
    with open(tmp_path / "weights.bin", "wb") as file:
        file.truncate(2**26)
    model_version(tmp_path / "weights.bin")
    digests = _FileDigests()
    tracemalloc.start()
    digests.version(str(tmp_path / "weights.bin"), "blake2b")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


# --- what is remembered ---


def test_files_are_read_once(shards: Path) -> None:
    digests = _FileDigests(later)
    path = str(shards)
    version = digests.version(path, "sha3_256")
    assert (digests.reads, digests.version(path, "sha3_256"), digests.reads) == (3, version, 3)
    digests.version(path + "/model-1.safetensors", "sha3_256")
    assert digests.reads == 3  # a shard on its own
    digests.version(path, "blake2b")
    assert digests.reads == 6


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


def rewrite_as_before(path: Path) -> None:
    """The same inode, size and mtime."""
    status = path.stat()
    rewrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [rewrite, rewrite_as_before, replace])
def test_a_changed_file_is_read_again(tmp_path: Path, change: Callable[[Path], None]) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    digests = _FileDigests(later)
    before = digests.version(str(file), "sha3_256")
    begun = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == begun:  # until the file system's clock has moved
        change(file)
        change(file)
    change(file)
    assert digests.version(str(file), "sha3_256") != before
    assert digests.reads == 2


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    """It could be written again within one tick of the file system's clock."""
    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    digests = _FileDigests(lambda: file.stat().st_ctime_ns + 1_999_999_999)
    digests.version(str(file), "sha3_256")
    digests.version(str(file), "sha3_256")
    assert digests.reads == 2


class _Busy(_FileDigests):
    """Another process writes to the file after each of the first `times` readings."""

    times = 0

    def _read(self, seen: Any, digest: str) -> bytes | None:
        found = super()._read(seen, digest)
        if self.reads <= self.times:
            with open(seen.path, "ab") as file:
                file.write(b"more")
        return found


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    digests = _Busy(later)
    digests.times = 2
    version = digests.version(str(file), "sha3_256")
    assert digests.reads == 3
    assert file.read_bytes() == b"onemoremore"
    assert version == _FileDigests().version(str(file), "sha3_256")
    digests = _Busy(later)
    digests.times = 9
    with pytest.raises(RuntimeError, match="changed while it was read, 3 times in a row"):
        digests.version(str(file), "sha3_256")
    digests.times = 0
    assert digests.version(str(file), "sha3_256") == model_version(file)


def test_a_writer_in_another_thread(tmp_path: Path) -> None:
    """Each version is one of a content that the file has had."""
    file = tmp_path / "weights.bin"
    contents = [bytes([at]) * 300_000 for at in range(4)]
    allowed = set()
    for content in contents:
        file.write_bytes(content)
        allowed.add(model_version(file))
    stop = threading.Event()

    def write() -> None:
        at = 0
        while not stop.is_set():
            at += 1
            (tmp_path / "next").write_bytes(contents[at % 4])
            (tmp_path / "next").replace(file)

    writer = threading.Thread(target=write)
    writer.start()
    found = set()
    try:
        for _ in range(50):
            try:
                found.add(model_version(file))
            except RuntimeError as error:
                assert "3 times in a row" in str(error)  # noqa: PT017
    finally:
        stop.set()
        writer.join()
    assert found <= allowed


# --- the warning ---


@pytest.mark.parametrize(
    "version",
    [
        "latest", "Main", " current ", "master", "HEAD", "2026-01-31", "2026-01-31T12:00:00Z",
        "2026-01-31 12:00:00.123456+01:00", "20260131", "20260131-1200", "20260131T120000",
        "2026/01/31", "1769817600", "1769817600.25", "1769817600123", 1769817601,
        1769817600123456789, "Sat Jan 31 12:00:00 2026",
    ],
)  # fmt: skip
def test_versions_that_move(version: str | int) -> None:
    with pytest.warns(UserWarning, match="^version .* model_version"):
        check_version(version)


@pytest.mark.parametrize(
    "version",
    [
        "1", "1.0", 1, 0, -1, 7, "v2", "6f1a", "gpt-4o-2024-05-13", "main-6f1a", "2.13.0",
        "latest-3", "20261399", "123456789", "a" * 1_000, 10**30, "3f" * 16, "é",
    ],
)  # fmt: skip
def test_versions_that_stay(version: str | int) -> None:
    check_version(version)  # warnings are errors here


def test_an_int_that_is_too_long_to_be_written() -> None:
    assert len(fingerprint(1, model="m", version=10**5_000)) == 32
    check_version(-(10**5_000))


def test_a_warning_comes_once_for_a_text_and_points_at_the_caller() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for model in ("a", "b", "c"):
            fingerprint(1, model=model, version="2031-01-05")
        fingerprint(1, model="a", version="2031-01-06")
        check_version("2031-01-05")
        check_version("2031-01-07")
    assert [str(w.message).split()[1] for w in caught] == [
        "'2031-01-05'", "'2031-01-06'", "'2031-01-07'",
    ]  # fmt: skip
    assert {w.filename for w in caught} == {__file__}
    assert {w.category for w in caught} == {UserWarning}


def test_a_warning_that_is_an_error_comes_each_time() -> None:
    for _ in range(2):
        with pytest.raises(UserWarning, match="looks like a time"):
            fingerprint(1, model="a", version="2031-02-01")
