"""Access logs: every format reads alike, and every kind of bad file is one clear line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore.plan.logs import LogError, open_log
from cachecore.plan.logs.lines import BLOCK
from cachecore.plan.sampling import DistinctCounter
from plan import logfiles

KEYS = ["ant", "bee", "ant", "ç/ø?x=1", "cow"]
SIZES = [10, 200, 10, 0, 4096]


def read(path: Path, **options: Any) -> tuple[list[object], list[int] | None]:
    """All keys and sizes of a log."""
    whole = logfiles.read(path, **options)
    return whole.keys, whole.sizes


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(KEYS),
        "\n".join(KEYS) + "\n",
        "\r\n".join(KEYS) + "\r\n",
        "\ufeff" + "\n".join(KEYS),
        "\n\n  " + " \n\n".join(KEYS) + "\n\n",
    ],
    ids=["no last newline", "last newline", "crlf", "byte order mark", "blanks"],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_text_has_a_key_per_line(tmp_path: Path, text: str, zipped: bool) -> None:
    path = tmp_path / "log"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    assert read(path) == (KEYS, None)


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("", "{key},{size}"),
        ("key,size\n", "{key},{size}"),
        ("Size, Key ,when\n", "{size},{key},now"),
        ("id,size\n", "{key},{size}"),
        ("size,id\n", "{size},{key}"),
        ("", '"{key}", {size} ,"a,b"'),
    ],
)
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_csv_finds_its_columns(tmp_path: Path, head: str, row: str, name: str) -> None:
    rows = [row.format(key=key, size=size) for key, size in zip(KEYS, SIZES, strict=True)]
    data = (head + "\r\n".join(rows) + "\n\n").encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert read(path) == (KEYS, SIZES)


@pytest.mark.parametrize("text", ["key,time\na,5\nb,6\n", "time,key\n5,a\n6,b\n", "a\nb\n"])
def test_csv_without_sizes(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    assert read(tmp_path / "log.csv") == (["a", "b"], None)


def test_csv_by_option_whatever_the_name(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a,1\nb,2\n")
    assert read(tmp_path / "log") == (["a,1", "b,2"], None)
    assert read(tmp_path / "log", format="csv") == (["a", "b"], [1, 2])


@pytest.mark.parametrize("sizes", [None, SIZES])
def test_npz(tmp_path: Path, sizes: list[int] | None) -> None:
    keys = [5, -1, 5, 2**53 + 1, 0]  # not all of them are floats
    arrays: dict[str, Any] = {} if sizes is None else {"size": np.array(sizes, np.int32)}
    np.savez_compressed(tmp_path / "log.npz", key=np.array(keys), **arrays)
    assert read(tmp_path / "log.npz") == (keys, sizes)


def test_lines_across_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    keys = [f"{n:x}" * (n % 40 + 1) for n in rng.integers(0, 1 << 40, 30_000).tolist()]
    path = tmp_path / "log"
    path.write_text("\n".join(keys))
    assert path.stat().st_size > 2 * BLOCK
    assert read(path) == (keys, None)
    path.write_text("\n".join([*keys, "junk\0"]))
    with pytest.raises(LogError, match="log:30001: not UTF-8 text"):
        read(path)


def test_a_log_can_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a\nb\na\n")
    with open_log(str(tmp_path / "log"), twice=True) as log:
        assert [c.keys for c in log.chunks()] == [c.keys for c in log.chunks()]
        assert log.share() == 1


TEXT_ERRORS = {
    "log": [
        (b"", "log: empty"),
        (b"a\nb\n\xff\xfe\x00junk\n", "log:3: not UTF-8 text"),
        (b"a\n\x00\x01\n", "log:2: not UTF-8 text"),
        (b"a\n" + b"x" * (2 * BLOCK + 2), "log:2: a line of more than 131,072 bytes"),
        (gzip.compress(b"a\n" * 500)[:-12], "log:1: Compressed file ended before"),
        (b"\x1f\x8b and no gzip", "log:1: Unknown compression method"),
    ],
    "log.csv": [
        (b"a,1\nb,12x\n", "log.csv:2: size '12x' is not a number of bytes"),
        (b"key,size\na,-3\n", "log.csv:2: size '-3' is not a number of bytes"),
        (b"key,size\na,\n", "log.csv:2: size '' is not a number of bytes"),
        (b"a,1.5\n", "log.csv:1: size '1.5' .* a header must name 'key' or 'size'"),
        (b"a,9999999999999999\n", "log.csv:1: size '9999999999999999' is not"),
        (b"a,1\n\nb\n", "log.csv:3: 1 columns, not 2"),
        (b"a,1\nb,2,3\n", "log.csv:2: 3 columns, not 2"),
        (b"a,1\n,2\n", "log.csv:2: no key"),
        (b"size\n1\n", "log.csv:1: no column of keys"),
        (b'a,1\n"b"c,2\n', "log.csv:2: "),
        (b'a,1\n"b,2\n', "log.csv:3: unexpected end of data"),
        (b"a,1\n\xe9,2\n", "log.csv:2: not UTF-8 text"),
    ],
    "log.npz": [(b"", "log.npz: empty"), (b"a\nb\n", "log.npz: not an .npz file")],
}


@pytest.mark.parametrize(
    ("name", "data", "message"), [(n, *case) for n, cases in TEXT_ERRORS.items() for case in cases]
)
def test_bad_bytes(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    logfiles.check_refused(tmp_path / name, message)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"id": [1, 2]}, "no array named 'key'"),
        ({"key": [1.5]}, "'key' must be a flat array of integers"),
        ({"key": [[1], [2]]}, "'key' must be a flat array of integers"),
        ({"key": np.array(["a", 1], object)}, "'key' must be a flat array of integers"),
        ({"key": [1, 2], "size": [1.5, 2.5]}, "'size' must be a flat array of integers"),
        ({"key": [1, 2], "size": [1]}, "1 sizes for 2 keys"),
        ({"key": [1, 2], "size": [1, -7]}, "request 2: size -7 is negative"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "log.npz", **arrays)
    logfiles.check_refused(tmp_path / "log.npz", f"log.npz: .*{message}")


def test_damaged_npz_is_an_error_or_a_log(tmp_path: Path) -> None:
    """Whatever byte is wrong, nothing but a LogError comes out."""
    path = tmp_path / "log.npz"
    np.savez_compressed(path, key=np.arange(50), size=np.arange(50))
    whole = path.read_bytes()
    for at in range(4, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            read(path)
        except LogError:
            continue


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="nothing: No such file"):
        read(tmp_path / "nothing")
    with pytest.raises(LogError, match="Is a directory"):
        read(tmp_path)


def test_distinct_counter() -> None:
    counter = DistinctCounter(kept=4096)
    counter.add([f"k{n % 4000}" for n in range(10_000)])
    assert counter.count() == (4000, True)
    for start in range(0, 200_000, 5_000):
        counter.add([f"k{n}" for n in range(start, start + 7_000)])
    count, exact = counter.count()
    assert not exact
    assert abs(count / 202_000 - 1) < 8 / 64  # eight standard errors
