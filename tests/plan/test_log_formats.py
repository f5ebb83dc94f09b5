"""Formats of logs beyond text, CSV and .npz: what each tells, packed or not, and what is wrong."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from cachecore.plan.logs import UNKNOWN, Chunk, LogError, open_log
from cachecore.plan.logs.lines import BLOCK
from plan.logfiles import check_refused, read

KEYS = ["ant", "bee", "ant", "ç/ø?x=1", "<script>"]
SIZES = [10, 200, 10, 0, 4096]
TIMES = [0.5, 1.0, 1.0, 2.25, 1e9]
COSTS = [1.0, 2.5, 1.0, 1e-3, 7.0]
ROWS = list(zip(KEYS, SIZES, TIMES, COSTS, strict=True))
NAMES = ("key", "size", "time", "cost")


def parquet(columns: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def table(separator: str) -> bytes:
    lines = [separator.join(NAMES), *(separator.join(map(str, row)) for row in ROWS)]
    return "\n".join(lines).encode()


def jsonl() -> bytes:
    records = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
    return b"\n\n".join(json.dumps(record).encode() for record in records) + b"\n"


WHOLE = {
    "log.csv": table(","),
    "log.tsv": table("\t"),
    "log.jsonl": jsonl(),
    "log.ndjson": jsonl(),
    "log": jsonl(),
    "log.parquet": parquet(dict(zip(NAMES, zip(*ROWS, strict=True), strict=True))),
}


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", WHOLE)
def test_all_fields(tmp_path: Path, name: str, packed: str) -> None:
    data = WHOLE[name]
    if packed == ".gz":
        data = gzip.compress(data)
    elif packed == ".zst":  # two frames
        data = zstandard.compress(data[:50]) + zstandard.compress(data[50:])
    path = tmp_path / (name + packed)
    path.write_bytes(data)
    assert read(path) == Chunk(KEYS, SIZES, TIMES, COSTS)
    with open_log(str(path)) as log:
        assert [len(chunk.keys) for chunk in log.chunks()] == [len(KEYS)]
        assert log.share() == 1
    named = {"log": "jsonl", "log.ndjson": "jsonl"}.get(name, name.removeprefix("log."))
    path.rename(tmp_path / "other.csv")
    assert read(tmp_path / "other.csv", format=named) == Chunk(KEYS, SIZES, TIMES, COSTS)


def test_npz_of_all_fields_packed_or_not(tmp_path: Path) -> None:
    file = io.BytesIO()
    keys = np.arange(5, dtype=np.uint64) + np.uint64(2**64 - 3)
    arrays: dict[str, Any] = {"size": SIZES, "time": TIMES, "cost": COSTS, "else": ["a"]}
    np.savez(file, key=keys, **arrays)
    for packed in (file.getvalue(), zstandard.compress(file.getvalue())):
        (tmp_path / "log").write_bytes(packed)
        assert read(tmp_path / "log") == Chunk([-3, -2, -1, 0, 1], SIZES, TIMES, COSTS)


@pytest.mark.parametrize("count", [BLOCK, 3 * BLOCK + 5])
def test_zstandard_in_many_blocks(tmp_path: Path, count: int) -> None:
    data = b"key\n" * count
    (tmp_path / "log").write_bytes(zstandard.compress(data))
    with open_log(str(tmp_path / "log"), twice=True) as log:
        assert [sum(len(chunk.keys) for chunk in log.chunks()) for _ in range(2)] == [count] * 2


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("17.5", 17.5),
        ("1700000000", 1.7e9),
        ("1700000000123", 1700000000.123),
        ("1700000000123456", 1700000000.123456),
        ("1700000000123456789", 1700000000.1234567),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01 00:01:00.5", 60.5),
        ("1970-01-01T02:00:00+02:00", 0.0),
    ],
)
def test_times(tmp_path: Path, written: str, seconds: float) -> None:
    (tmp_path / "log.csv").write_text(f"timestamp,key\n{written},a\n")
    assert read(tmp_path / "log.csv").times == [seconds]


def test_parquet_types(tmp_path: Path) -> None:
    moments = [datetime(2020, 1, 1, 0, 0, n, tzinfo=UTC) for n in range(3)]
    start = moments[0].timestamp()
    columns = {
        "Key": pa.array([b"a", b"\xff", b"a"]),
        "Timestamp": pa.array(moments, pa.timestamp("ns", "UTC")),
    }
    (tmp_path / "log").write_bytes(parquet(columns))
    chunk = read(tmp_path / "log")
    assert chunk == Chunk(["a", "\\xff", "a"], None, [start, start + 1, start + 2])
    columns = {"key": pa.array(["a", "b", "a"]).dictionary_encode()}
    (tmp_path / "log").write_bytes(parquet(columns))
    assert read(tmp_path / "log").keys == ["a", "b", "a"]
    (tmp_path / "log").write_bytes(parquet({"key": pa.array([7, 2**40, 7], pa.int64())}))
    assert read(tmp_path / "log").keys == [7, 2**40, 7]


OPERATIONS = [
    ("set", "a", 100),
    ("get", "a", None),
    ("GET", "b", None),
    ("delete", "a", None),
    ("set", "a", 70),
    ("get", "a", None),
    ("get", "c", 5),
]
READ = Chunk(["a", "b", "a", "c"], [100, UNKNOWN, 70, 5])


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_writes_tell_sizes_and_reads_are_requests(tmp_path: Path, name: str) -> None:
    if name == "log.csv":
        rows = [f"{op},{key},{'' if size is None else size}" for op, key, size in OPERATIONS]
        data = "\n".join(["op,key,size", *rows]).encode()
    elif name == "log.jsonl":
        records = [{"op": op, "key": key, "size": size} for op, key, size in OPERATIONS]
        data = "\n".join(map(json.dumps, records)).encode()
    else:
        columns = zip(*OPERATIONS, strict=True)
        data = parquet(dict(zip(("op", "key", "size"), columns, strict=True)))
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name) == READ


MONITOR = rb"""OK
1339518083.107412 [0 127.0.0.1:60866] "keys" "*"
1339518087.877697 [0 127.0.0.1:60866] "SET" "user:17" "12345"
1339518088.5 [0 [::1]:60866] "get" "user:17"
1339518089.5 [0 unix:/tmp/r.sock] "MGET" "a b" "q\"\\\n\x07" "\xc3\xa7"
1339518090.5 [3 127.0.0.1:1] "hget" "user:17" "name"
1339518091.5 [0 lua] "exists" "user:17"
1339518092.5 [0 lua] "getex" "\xff" "EX" "10"
1339518093.5 [0 127.0.0.1:1] "mset" "a b" "\x00\x01" "z" "yy"
1339518094.5 [0 127.0.0.1:1] "setex" "s" "60" ""
1339518095.5 [0 127.0.0.1:1] "get" "a b"
1339518096.5 [0 127.0.0.1:1] "get" "z"
1339518097.5 [0 127.0.0.1:1] "ping"
1339518098.5 [0 127.0.0.1:1] "json.mget" "j" "$.x"
"""


@pytest.mark.parametrize("first", [0, 3])
def test_monitor(tmp_path: Path, first: int) -> None:
    (tmp_path / "log").write_bytes(MONITOR[first:].replace(b"\n", b"\r\n"))
    chunk = read(tmp_path / "log")
    keys = ["user:17", "a b", 'q"\\\n\x07', "ç", "3/user:17", "\\xff", "a b", "z", "j"]
    assert chunk.keys == keys
    assert chunk.sizes == [5, *[UNKNOWN] * 5, 2, 2, UNKNOWN]
    assert chunk.times is not None
    assert chunk.times[0] == 1339518088.5
    assert chunk.times[-1] == 1339518098.5


def test_a_live_monitor_begins_with_a_short_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"OK\n" + MONITOR.split(b"\n")[3])
    assert read(tmp_path / "log").keys == ["user:17"]


def test_monitor_with_a_large_value(tmp_path: Path) -> None:
    lines = [rb'1.5 [0 x:1] "set" "k" "' + rb"\x00" * 10**6 + b'"', b'2.5 [0 x:1] "get" "k"']
    (tmp_path / "log").write_bytes(b"\n".join(lines))
    assert read(tmp_path / "log", format="monitor") == Chunk(["k"], [10**6], [2.5])


LINE = b'1.5 [0 127.0.0.1:1] "get" "a"\n'
BAD: dict[str, list[tuple[bytes, str]]] = {
    "log.jsonl": [
        (b'{"key": "a"}\nnothing\n', "log.jsonl:2: Expecting value"),
        (b'{"key": "a"}\n[1]\n', "log.jsonl:2: not a JSON object"),
        (b'{"key": "a"}\n\n{"size": 1}\n', "log.jsonl:3: no 'key'"),
        (b'{"key": null}\n', "log.jsonl:1: key is NoneType, not text or a number"),
        (b'{"key": ""}\n', "log.jsonl:1: no key"),
        (b'{"key": "a", "size": -1}\n', "log.jsonl:1: size '-1' is not a number of bytes"),
        (b'{"key": "a", "time": "now"}\n', "log.jsonl:1: time 'now' is no time"),
        (b'{"key": "a", "time": NaN}\n', "log.jsonl:1: time 'nan' is no time"),
        (b'{"key": "a", "cost": 0}\n', "log.jsonl:1: cost '0' is not a number above 0"),
        (b'{"key": "a", "ts": 1}\n{"key": "a"}\n', "log.jsonl:2: 'time' is told of some"),
        (b"[" * 100_000 + b"\n", "log.jsonl:1: "),
    ],
    "log.csv": [
        (b"key,time\na,5\nb,later\n", "log.csv:3: time 'later' is no time"),
        (b"key,time\na,inf\n", "log.csv:2: time 'inf' is no time"),
        (b"key,cost\na,-1\n", "log.csv:2: cost '-1' is not a number above 0"),
        (b"time,op\n1,get\n", "log.csv:1: no column of keys"),
    ],
    "log.tsv": [(b"key\tsize\na\t1\nb\n", "log.tsv:3: 1 columns, not 2")],
    "log": [
        (LINE + b"nothing\n", "log:2: not a line of MONITOR"),
        (LINE + b'1.5 [0 127.0.0.1:1] "get" "a\n', "log:2: not a line of MONITOR"),
        (zstandard.compress(b"a\n" * 500)[:-4], "log:1: Compressed file ended before"),
        (b"\x28\xb5\x2f\xfd and no Zstandard", "log:1: zstd"),
        (b"PAR1 and no Parquet", "log: not a readable parquet file"),
        (parquet({"id": [1]}), "log: no column named 'key'"),
        (parquet({"key": [1.5]}), "log: a key of type double"),
        (parquet({"key": ["a", None]}), "log: request 2: no key"),
        (parquet({"key": ["a"], "size": ["b"]}), "log: a size of type string"),
        (parquet({"key": ["a", "b"], "size": [1, -5]}), "log: request 2: size -5 is negative"),
    ],
    "log.parquet": [(b"a\n", "log.parquet: not a .parquet file")],
}


@pytest.mark.parametrize(
    ("name", "data", "message"), [(name, *case) for name, cases in BAD.items() for case in cases]
)
def test_bad_bytes(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    check_refused(tmp_path / name, message)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"key": [1, 2], "time": [1.0, np.nan]}, "request 2: time nan is no time"),
        ({"key": [1, 2], "cost": [0, 1]}, "request 1: cost 0 is not a number above 0"),
        ({"key": [1, 2], "time": ["a", "b"]}, "'time' must be a flat array of numbers"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "log.npz", **arrays)
    check_refused(tmp_path / "log.npz", f"log.npz: {message}")


def test_damaged_parquet_is_an_error_or_a_log(tmp_path: Path) -> None:
    """Whatever byte is wrong, nothing but a LogError comes out."""
    whole = parquet({"key": list(range(50)), "size": list(range(50))})
    path = tmp_path / "log.parquet"
    for at in range(4, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            read(path)
        except LogError:
            continue
