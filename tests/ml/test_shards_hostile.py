"""Files that lie: each is refused with a message that names it and says why, and costs nothing."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore.errors import ShardError
from cachecore.ml import WeightStore
from ml.weightfiles import described, little_memory, packed

U8 = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
F32 = described("F32", [2], 0, 8)


def refused(path: Path, content: bytes, message: str) -> None:
    """The file is refused, and little is allocated for that."""
    path.write_bytes(content)
    with (
        little_memory(4 * len(content) + 1_000_000),
        pytest.raises(ShardError, match=rf"(?s){path.name}: .*{message}"),
    ):
        WeightStore(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x08\0\0", "truncated, or no safetensors file"),
        (struct.pack("<Q", 2**63) + b"{}", "truncated.* it has 10 bytes.* 9223372036854775808"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "truncated"),
        (struct.pack("<Q", 3) + b"{}", "truncated"),
        (packed(""), "at byte 8: '{' is missing"),
        (packed("null"), "'{' is missing"),
        (packed("[]"), "'{' is missing"),
        (packed("{"), "'\"' is missing"),
        (packed("{}x"), "at byte 10: there is more after its end"),
        (packed("{}\0"), "more after its end"),
        (packed(b"\xef\xbb\xbf{}"), "'{' is missing"),
        (packed('{"a'), "a string has no end"),
        (packed('{"a\\'), "a string has no end"),
        (packed('{"a\n":1}'), "a control character"),
        (packed(b'{"\xff":' + U8.encode() + b"}", b"x"), "a string cannot be read.*utf-8"),
        (packed('{"\\x":' + U8 + "}", b"x"), "a string cannot be read"),
        (packed('{"\\ud800":' + U8 + "}", b"x"), "a string cannot be read"),
        (packed('{"a":1}'), "tensor 'a': .*'{' is missing"),
        (packed('{"a":{}}'), "an unknown field, or none"),
        (packed('{"a":{"dtype":"U8","shape":[1]}}'), "data_offsets is missing"),
        (packed('{"a":{"dtype":"U8","dtype":"U8"}}'), "a field comes twice"),
        (packed('{"a":' + U8 + ',"a":' + U8 + "}", b"x"), "two tensors of the name 'a'"),
        (packed('{"a":' + U8 + ',"\\u0061":' + U8 + "}", b"x"), "two tensors of the name 'a'"),
        (packed('{"a":' + U8 + ",}", b"x"), "'\"' is missing"),
        (packed('{"a":' + U8 + ' "b"', b"x"), "',' or '}' is missing"),
        (packed({"a": F32 | {"strides": [1]}}, bytes(8)), "an unknown field"),
        (packed({"a": F32 | {"dtype": "F128"}}, bytes(8)), "tensor 'a': its dtype 'F128' is unk"),
        (packed({"a": F32 | {"dtype": ""}}, bytes(8)), "its dtype '' is unknown"),
        (packed({"a": F32 | {"dtype": "F3"}}, bytes(8)), "its dtype 'F3' is unknown"),
        (packed({"a": F32 | {"dtype": None}}, bytes(8)), "'\"' is missing"),
        (packed({"a": F32 | {"shape": 2}}, bytes(8)), r"'\[' is missing"),
        (packed({"a": F32 | {"shape": [-2]}}, bytes(8)), "must be whole and not negative"),
        (packed({"a": F32 | {"shape": [2.0]}}, bytes(8)), "',' or ']' is missing"),
        (packed({"a": F32 | {"shape": [True]}}, bytes(8)), "must be whole and not negative"),
        (packed({"a": F32 | {"shape": ["2"]}}, bytes(8)), "must be whole and not negative"),
        (packed('{"a":{"shape":[02]}}'), "must be whole and not negative"),
        (packed('{"a":{"shape":[2e0]}}'), "',' or ']' is missing"),
        (packed('{"a":{"shape":[1,]}}'), "must be whole and not negative"),
        (packed('{"a":{"shape":[[1]]}}'), "must be whole and not negative"),
        (packed({"a": F32 | {"shape": [2**63]}}, bytes(8)), "a number is too large"),
        (packed({"a": F32 | {"shape": [10**400]}}, bytes(8)), "a number is too large"),
        (packed({"a": F32 | {"shape": [1] * 65}}, bytes(8)), "more than 64 dimensions"),
        (packed({"a": F32 | {"shape": [2**32, 2**32]}}, bytes(8)), "more items than any file"),
        (packed({"a": F32 | {"shape": [2**62]}}, bytes(8)), "more items than any file"),
        (packed({"a": F32 | {"shape": [2**40, 0, 2**40]}}, bytes(8)), "more items than any file"),
        (packed({"a": F32 | {"shape": [3]}}, bytes(8)), "need 12 bytes, its offsets 8"),
        (packed({"a": F32 | {"shape": []}}, bytes(8)), "need 4 bytes, its offsets 8"),
        (packed({"a": described("F4", [3], 0, 2)}, bytes(2)), "its items end within a byte"),
        (packed({"a": F32 | {"data_offsets": [8, 0]}}, bytes(8)), "8 ... 0 are those of no bytes"),
        (packed({"a": F32 | {"data_offsets": [-8, 0]}}, bytes(8)), "whole and not negative"),
        (packed({"a": F32 | {"data_offsets": [0]}}, bytes(8)), "',' is missing"),
        (packed({"a": F32 | {"data_offsets": [0, 8, 8]}}, bytes(8)), "']' is missing"),
        (
            packed({"a": F32 | {"data_offsets": [2**63 - 900, 2**63 - 892]}}, bytes(8)),
            "are those of no bytes|leave a gap",
        ),
        (packed({"a": F32}, bytes(7)), "the file is truncated: its tensors end at byte"),
        (packed({"a": F32}, bytes(9)), "the file goes on after its tensors"),
        (packed({}, b"x"), "the file goes on after its tensors"),
        (packed({"a": F32, "b": described("U8", [1], 7, 8)}, bytes(8)), "tensor 'b' overlap"),
        (packed({"b": F32, "a": F32}, bytes(8)), "tensor '[ab]' overlap"),
        (packed({"a": F32, "b": described("U8", [1], 9, 10)}, bytes(10)), "'b' leave a gap"),
        (packed({"a": described("F32", [2], 1, 9)}, bytes(9)), "'a' leave a gap"),
        (packed({"__metadata__": {"a": 1}}), "'\"' is missing"),
        (packed({"__metadata__": []}), "'{' is missing"),
        (packed('{"__metadata__":{"a":"1","a":"2"}}'), "__metadata__ has 'a' twice"),
        (packed('{"__metadata__":{},"__metadata__":{}}'), "__metadata__ comes twice"),
        (packed('{"__metadata__":nul}'), "'{' is missing"),
        (packed('{"a":' * 50_000), "'\"' is missing|unknown field"),
    ],
)
def test_safetensors(tmp_path: Path, content: bytes, message: str) -> None:
    refused(tmp_path / "m.safetensors", content, message)


def test_every_truncation(tmp_path: Path) -> None:
    whole = packed({"a": F32, "b": described("BF16", [2, 2], 8, 16)}, bytes(16))
    path = tmp_path / "m.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ShardError, match=r"truncated|empty"):
            WeightStore(path)
    path.write_bytes(whole)
    assert len(WeightStore(path)) == 2


def test_a_header_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 10**9))
        file.truncate(2 * 10**9)  # of zeros that lie nowhere
    with (
        little_memory(),
        pytest.raises(ShardError, match=r"1000000000 bytes; at most 100000000 are read"),
    ):
        WeightStore(path)


# --- .npy


def npy(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin-1") if isinstance(header, str) else header
    width = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack(width, len(text)) + text + data


def saying(descr: Any = "<f4", order: Any = False, shape: Any = (2,)) -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': {order!r}, 'shape': {shape!r}, }}"


BAD_NPY = [
    (b"\x93NUMPX" + bytes(20), "no array of NumPy"),
    (b"\x93NUMPY\1", "no array of NumPy"),
    (npy(saying(), bytes(8), version=4), "no array of NumPy begins here, or one of an unknown ver"),
    (b"\x93NUMPY\1\0\xff\xff" + bytes(80), "65535 bytes: too many, or more than there are"),
    (b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(80), "4294967295 bytes: too many"),
    (npy(" " * 20_000), "20000 bytes: too many"),
    (npy(saying(), bytes(7)), "need 8 bytes; there are 7"),
    (npy(saying(), bytes(9)), "need 8 bytes; there are 9"),
    (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2L,)}", bytes(8)), "of Python 2"),
    (npy("not Python"), "damaged"),
    (npy("(" * 9_000), "damaged"),
    (npy("-" * 9_000 + "1"), "damaged"),
    (npy("[]"), "damaged"),
    (npy("{}"), "damaged"),
    (npy(b"\xff", version=3), "utf-8"),
    (npy("__import__('os').abort()"), "damaged"),
    (npy(saying("O")), "holds Python objects"),
    (npy(saying("|O", shape=(0,))), "holds Python objects"),
    (npy(saying([("a", "<f4"), ("b", "|O")]), bytes(24)), "holds Python objects"),
    (npy(saying("<q9")), "damaged"),
    (npy(saying(7)), "damaged|no array"),
    (npy(saying("(2,)<f4"), bytes(16)), "no array"),
    (npy(saying("|S0"), b""), "no array"),
    (npy(saying(order=1), bytes(8)), "not one that NumPy writes"),
    (npy(saying()[:-1] + "'more': 1}", bytes(8)), "not one that NumPy writes"),
    (npy(saying(shape=[2]), bytes(8)), "not one that NumPy writes"),
    (npy(saying(shape=(-1, -2)), bytes(8)), "that of no array"),
    (npy(saying(shape=(2.0,)), bytes(8)), "that of no array"),
    (npy(saying(shape=(True, 2)), bytes(8)), "that of no array"),
    (npy(saying(shape=(1,) * 65), bytes(4)), "that of no array"),
    (npy(saying(shape=(2**62,)), bytes(8)), "more items than any file"),
    (npy(saying(shape=(2**32, 2**32)), bytes(8)), "more items than any file"),
    (npy(saying(shape=(0, 2**62))), "more items than any file"),
    (npy(saying(shape=(10**9,)), bytes(8)), "need 4000000000 bytes; there are 8"),
]


@pytest.mark.parametrize(("content", "message"), BAD_NPY)
def test_npy(tmp_path: Path, content: bytes, message: str) -> None:
    refused(tmp_path / "m.npy", content, message)


@pytest.mark.parametrize(("content", "message"), BAD_NPY)
def test_npy_within_npz(tmp_path: Path, content: bytes, message: str) -> None:
    refused(tmp_path / "m.npz", archive({"a.npy": content}), rf"member 'a\.npy': .*{message}")


# --- .npz


def archive(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


GOOD = npy(saying(), bytes(8))
PLAIN = archive({"a.npy": GOOD})
CENTRAL, END = PLAIN.index(b"PK\1\2"), PLAIN.index(b"PK\5\6")


def patched(at: int, value: bytes, content: bytes = PLAIN) -> bytes:
    return content[:at] + value + content[at + len(value) :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK", "no archive begins here"),
        (b"PK\3\4", "cannot be read"),
        (b"x" + PLAIN, "no archive begins here"),
        (PLAIN[:-1], "cannot be read"),
        (b"PK\3\4" + PLAIN[34:], "does not begin where the directory says"),
        (archive({"a.npy": GOOD}, zipfile.ZIP_DEFLATED), "compressed.*np.savez_compressed does"),
        (archive({"a.npy": bytes(10**6)}, zipfile.ZIP_LZMA), "compressed, and cannot be mapped"),
        (archive({"a.txt": GOOD}), "its name does not end in .npy"),
        (archive({"a.npy": b""}), "no array of NumPy"),
        (patched(CENTRAL + 8, b"\1\0"), "it is encrypted"),
        (patched(CENTRAL + 24, struct.pack("<I", 2**31)), "to have another size"),
        (patched(CENTRAL + 20, struct.pack("<II", 2**31, 2**31)), "truncated|overlap"),
        (patched(CENTRAL + 42, struct.pack("<I", 5)), "does not begin where the directory says"),
        (patched(CENTRAL + 42, struct.pack("<I", 2**31)), "does not begin|cannot be read"),
        (patched(END + 12, struct.pack("<I", 2**32 - 2)), "cannot be read"),
        (patched(CENTRAL + 8, b"\x20\0"), "a patch of something else"),
        (patched(26, b"\xff\xff"), "it has another name where it begins"),
        (patched(30, b"b"), "it has another name where it begins"),
        (patched(28, b"\xff\xff"), "truncated"),
        (patched(CENTRAL + 6, b"\xff\0"), "cannot be read"),
    ],
)
def test_npz(tmp_path: Path, content: bytes, message: str) -> None:
    refused(tmp_path / "m.npz", content, message)


@pytest.mark.parametrize("offset", [2**62, 2**63, 2**64 - 1])
def test_an_offset_of_64_bits(tmp_path: Path, offset: int) -> None:
    more = struct.pack("<HHQ", 1, 8, offset)  # the field of ZIP64, where the entry has ones
    entry = patched(CENTRAL + 42, b"\xff" * 4, patched(CENTRAL + 30, struct.pack("<H", len(more))))
    entry = entry[CENTRAL:END] + more
    end = patched(12, struct.pack("<I", len(entry)), PLAIN[END:])
    refused(tmp_path / "m.npz", PLAIN[:CENTRAL] + entry + end, "does not begin where the directory")


def test_members_within_members(tmp_path: Path) -> None:
    """As in a bomb: many members of the directory lie over one another."""
    inner = PLAIN[:CENTRAL].replace(b"a.npy", b"b.npy")
    outer = npy(saying("|u1", shape=(len(inner),)), inner)
    both = archive({"a.npy": outer, "b.npy": GOOD})
    entry = both.index(b"PK\1\2", both.index(b"PK\1\2") + 1)
    content = patched(entry + 42, struct.pack("<I", both.index(inner)), both)
    refused(tmp_path / "m.npz", content, r"member 'b\.npy': it overlaps another member")


def test_two_members_of_one_name(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a.npy", GOOD)
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("a.npy", GOOD)
    refused(tmp_path / "m.npz", file.getvalue(), "there are two of this name")


def test_a_directory_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    with open(path, "wb") as file:
        file.write(b"PK\3\4")
        file.seek(2 * 10**9)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 10**9, 10**9, 0))
    with (
        little_memory(),
        pytest.raises(ShardError, match="its directory has 1000000000 bytes; at most"),
    ):
        WeightStore(path)


def test_an_index_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors.index.json"
    with open(path, "wb") as file:
        file.truncate(10**9)
    with (
        little_memory(),
        pytest.raises(ShardError, match=r"index\.json: it has 1000000000 bytes; at most"),
    ):
        WeightStore(tmp_path)


def test_check_sums(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, a=np.arange(300_000), b=np.arange(5))
    content = path.read_bytes()
    at = content.index(np.arange(299_990, 299_999).tobytes())
    path.write_bytes(patched(at, b"\xff", content))
    assert len(WeightStore(path)) == 2
    with pytest.raises(ShardError, match=r"m\.npz: member 'a\.npy' is damaged"):
        WeightStore(path, verify=True)
