"""`cachecore replay` on real files: what it counts, what it prints, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cachecore.cli.group import cli

TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["replay", *map(str, arguments)])


def run_json(*arguments: object) -> dict[str, Any]:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert isinstance(report, dict)
    return report


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A skewed log with sizes, as .npz; the same as CSV and as text beside it."""
    rng = np.random.default_rng(7)
    key = rng.zipf(1.2, 100_000) % 5_000
    size = key * 37 % 4_000 + 1
    path = tmp_path_factory.mktemp("logs") / "log.npz"
    np.savez_compressed(path, key=key, size=size)
    rows = [f"{k},{s}" for k, s in zip(key.tolist(), size.tolist(), strict=True)]
    path.with_suffix(".csv").write_text("key,size\n" + "\n".join(rows) + "\n")
    path.with_suffix(".txt").write_text("\n".join(map(str, key.tolist())) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".txt"])
def test_a_cache_that_holds_all_misses_each_key_once(log: Path, suffix: str) -> None:
    key, size = (np.load(log)[name] for name in ("key", "size"))
    _, first = np.unique(key, return_index=True)
    report = run_json(log.with_suffix(suffix), "--maxsize", 10_000)
    assert report["requests"] == len(key)
    assert report["distinct"] == report["misses"] == report["entries"] == len(first)
    assert report["distinct_is_exact"]
    assert report["hits"] == len(key) - len(first)
    assert report["hit_ratio"] == pytest.approx(1 - len(first) / len(key))
    assert report["evictions"] == report["rejections"] == report["refused"] == 0
    assert report["operations"] == len(key) + len(first)
    assert report["ns_per_request"] > report["ns_per_operation"] > 0
    if suffix == ".txt":
        assert report["byte_hit_ratio"] is None
        assert report["bytes"] is None
    else:
        missed = size[first].sum() / size.sum()
        assert report["byte_hit_ratio"] == pytest.approx(1 - missed)
        assert report["bytes"] > size[first].sum()


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".txt"])
def test_the_default_bound_is_a_tenth_of_the_keys(log: Path, suffix: str) -> None:
    report = run_json(log.with_suffix(suffix))
    assert report["maxsize"] == report["entries"] == round(report["distinct"] * 0.1)
    assert report["maxsize_is_default"]
    assert report["evictions"] + report["rejections"] == report["misses"] - report["entries"]
    assert 0.3 < report["hit_ratio"] < 0.95


def test_bytes_stay_under_the_bound(log: Path) -> None:
    report = run_json(log, "--max-bytes", "1 MB")
    assert report["max_bytes"] == 1 << 20
    assert 0.9 * (1 << 20) < report["bytes"] <= 1 << 20
    assert report["maxsize"] is None
    assert run_json(log, "--max-bytes", "2KB")["refused"] > 0


def test_both_bounds(log: Path) -> None:
    report = run_json(log, "--max-bytes", "1MB", "--maxsize", 50)
    assert report["entries"] == 50
    assert report["bytes"] <= 1 << 20


def test_logs_that_do_not_tell_all_sizes(tmp_path: Path) -> None:
    lines = ['"set" "a" "12345"', '"get" "a"', '"get" "b"', '"mget" "a" "c"', '"get" "b"']
    text = "\n".join(f"1.{at} [0 127.0.0.1:1] {line}" for at, line in enumerate(lines))
    (tmp_path / "log").write_text(text)
    report = run_json(tmp_path / "log", "--maxsize", 10)
    assert (report["requests"], report["distinct"], report["hits"]) == (5, 3, 2)
    assert report["byte_hit_ratio"] == pytest.approx(0.5)  # of the five bytes of a, asked for twice
    (tmp_path / "log").write_text('{"key": "a"}\n{"key": "b"}\n{"key": "a"}\n')
    assert run_json(tmp_path / "log", "--maxsize", 10)["hits"] == 1
    (tmp_path / "log").write_text("a\t1\nb\t2\na\t1\n")
    assert run_json(tmp_path / "log", "--format", "tsv")["byte_hit_ratio"] is not None


def test_table(log: Path) -> None:
    result = run(log)
    assert result.exit_code == 0
    assert result.stderr == ""
    for words in ("100,000", "hit ratio", "byte hit ratio", "ns per operation", "evictions"):
        assert words in result.stdout
    assert "no bound given: 10% of the distinct keys" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--maxsize", "0"], "--maxsize must be"),
        (["--maxsize", "-5"], "--maxsize must be"),
        (["--maxsize", str(2**70)], "--maxsize must be"),
        (["--max-bytes", "4XB"], "--max-bytes must be"),
        (["--max-bytes", "0"], "--max-bytes must be"),
    ],
)
def test_bad_bounds_are_one_line(log: Path, arguments: list[str], message: str) -> None:
    check_refused(run(log, *arguments), message)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("log", b"\n \n", "log: no request in it"),
        ("log.csv", b"key,size\n", "log.csv: no request in it"),
        ("log.csv", b"a,1\nb,1,2\n", "log.csv:2: 3 columns, not 2"),
        ("log", b"ok\n\xff\n", "log:2: not UTF-8 text"),
    ],
)
@pytest.mark.parametrize("bound", [[], ["--maxsize", "10"]])
def test_bad_logs_are_one_line(
    tmp_path: Path, name: str, data: bytes, message: str, bound: list[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    check_refused(run(tmp_path / name, "--json", *bound), message)


def test_no_request_in_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", key=np.empty(0, np.int64))
    check_refused(run(tmp_path / "log.npz"), "log.npz: no request in it")


def test_missing_file(tmp_path: Path) -> None:
    check_refused(run(tmp_path / "nothing"), "nothing: No such file or directory")


def check_refused(result: Result, message: str) -> None:
    """One line on stderr, nothing on stdout, exit code 2."""
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real traces: {TRACES} is absent")
@pytest.mark.parametrize(("name", "requests", "distinct"), [("cpio", 113_872, 48_974)])
def test_real_trace(name: str, requests: int, distinct: int) -> None:
    report = run_json(TRACES / f"{name}.npz", "--max-bytes", "512MB")
    assert (report["requests"], report["distinct"]) == (requests, distinct)
    assert 0 < report["byte_hit_ratio"] < report["hit_ratio"] < 1
