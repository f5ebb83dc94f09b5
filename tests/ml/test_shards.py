"""Which files make up a store, and that it shows what the formats' own libraries show."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import deserialize, safe_open
from safetensors.numpy import load_file, save_file

from cachecore.errors import ShardError
from cachecore.ml import WeightStore
from cachecore.ml.shards import DTYPES
from ml.weightfiles import (
    CODES,
    Arrays,
    described,
    layers,
    numpy_dtype,
    of_arrays,
    packed,
    write_index,
    write_shards,
)


def same(store: WeightStore, arrays: Arrays) -> bool:
    assert set(store) == set(arrays)
    for name, array in arrays.items():
        found = store[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape), name
        assert found.tobytes() == array.tobytes(), name
        assert not found.flags.writeable
        assert not found.flags.owndata
    return True


# --- safetensors


def test_a_file_of_the_library(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(layers(), path, metadata={"format": "pt", "über": "größe"})
    with WeightStore(path) as store:
        assert same(store, load_file(path))
        assert store.metadata == {"format": "pt", "über": "größe"}
        with safe_open(path, "np") as theirs:
            assert theirs.metadata() == store.metadata


@pytest.mark.parametrize("code", CODES)
def test_every_dtype(tmp_path: Path, code: str) -> None:
    dtype = numpy_dtype(code)
    items = np.arange(6) % 2 if code == "BOOL" else np.arange(6 * dtype.itemsize)
    array = np.frombuffer(items.astype(np.uint8).tobytes(), dtype).reshape(2, 3)
    path = tmp_path / "x.safetensors"
    path.write_bytes(of_arrays({"x": (code, array)}))
    store = WeightStore(path)
    assert same(store, {"x": array})
    assert store.dtype("x") == str(array.dtype)
    [(_, theirs)] = deserialize(path.read_bytes())
    assert theirs["shape"] == list(store.shape("x"))
    assert theirs["data"] == store["x"].tobytes() == store.raw("x").tobytes()
    assert store.raw("x").shape == store.shape("x")
    assert store.raw("x").dtype == f"u{dtype.itemsize}"


@pytest.mark.parametrize(("code", "nbytes"), [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6)])
def test_packed_dtypes_are_bytes(tmp_path: Path, code: str, nbytes: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(packed({"x": described(code, [2, 4], 0, nbytes)}, bytes(range(nbytes))))
    store = WeightStore(path)
    assert store.raw("x").tolist() == list(range(nbytes))
    assert store.shape("x") == (2, 4)
    assert store.dtype("x") == DTYPES[code].name
    with pytest.raises(TypeError, match=r"'x' is of float.*take raw\(name\)"):
        store["x"]


def test_the_library_knows_the_same_dtypes() -> None:
    known = set()
    for code, kind in DTYPES.items():
        deserialize(packed({"x": described(code, [8], 0, kind.bits)}, bytes(kind.bits)))
        known.add(code)
    assert known >= CODES.keys()


def test_forms_of_a_header(tmp_path: Path) -> None:
    """Any order of tensors and fields, white space, escapes, nothing, zeros, and scalars."""
    one, two = described("U8", [2], 1, 3), described("U8", [], 0, 1)
    turned = dict(reversed(described("F32", [0, 2**40], 3, 3).items()))
    spaced = json.dumps({"b": one, 'ä"\\\n\u2028': two, "__metadata__": {}, "z": turned}, indent=3)
    path = tmp_path / "x.safetensors"
    path.write_bytes(packed(" \r\n\t" + spaced + "   ", b"abc"))
    store = WeightStore(path)
    assert list(store) == ["b", 'ä"\\\n\u2028', "z"]
    assert store["b"].tobytes() == b"bc"
    assert store['ä"\\\n\u2028'][()] == ord("a")
    assert store["z"].shape == (0, 2**40)
    assert {name for name, _ in deserialize(path.read_bytes())} == set(store)

    for empty in ("{}", '{"__metadata__":null}', '{"__metadata__":{"a":"b"}}   '):
        path.write_bytes(packed(empty))
        store = WeightStore(path)
        assert (len(store), store.nbytes, list(store)) == (0, 0, [])


def test_a_header_longer_than_the_first_read(tmp_path: Path) -> None:
    arrays = {f"tensor number {at}": np.full(3, at, np.int16) for at in range(2000)}
    save_file(arrays, tmp_path / "x.safetensors")
    assert same(WeightStore(tmp_path / "x.safetensors"), arrays)


def test_what_is_not_aligned_is_read_as_it_is(tmp_path: Path) -> None:
    array = np.arange(5, dtype=np.float64)
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        packed(b'{"x":%s} ' % json.dumps(described("F64", [5], 0, 40)).encode(), array.tobytes())
    )
    view = WeightStore(path)["x"]
    assert not view.flags.aligned
    assert view.sum() == array.sum()


# --- NumPy's own


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.array(7, "<u2"),
        np.zeros((0, 3), "c16"),
        np.array([1, 2], ">i4"),
        np.array([(1, 2.5)], [("a", "<i8"), ("b", "<f4")]),
        np.array(["abc", "é"]),
        np.array(["2020-01-01"], "M8[D]"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_an_npy_file(tmp_path: Path, array: Any) -> None:
    path = tmp_path / "table.npy"
    np.save(path, array)
    store = WeightStore(path)
    theirs = np.load(path)
    assert same(store, {"table": theirs})
    assert store["table"].flags.f_contiguous == theirs.flags.f_contiguous
    assert store.raw("table").nbytes == theirs.nbytes


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_npy(tmp_path: Path, version: tuple[int, int]) -> None:
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, np.arange(5), version)
    assert same(WeightStore(tmp_path / "x.npy"), {"x": np.arange(5)})


def test_an_npz_file(tmp_path: Path) -> None:
    arrays = layers(2) | {"folder/größe": np.arange(3), "fortran": np.ones((2, 3), order="F")}
    path = tmp_path / "x.npz"
    save: Any = np.savez  # its types take no keywords that are arrays
    save(path, **arrays)
    assert same(WeightStore(path, verify=True), dict(np.load(path)))
    np.savez(path)
    assert len(WeightStore(path)) == 0


# --- folders and indexes


def test_a_folder_with_an_index(tmp_path: Path) -> None:
    arrays = layers()
    folder = write_shards(tmp_path / "model", arrays, 3)
    np.save(folder / "other.npy", np.arange(3))  # which the index does not name
    store = WeightStore(folder)
    assert same(store, arrays)
    assert store.metadata == {"format": "pt", "total_size": store.nbytes}
    assert same(WeightStore(folder / "model.safetensors.index.json"), arrays)
    assert same(WeightStore(os.fsencode(folder)), arrays)


def test_an_index_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = layers()
    monkeypatch.chdir(write_shards(tmp_path / "model", arrays))
    assert same(WeightStore("model.safetensors.index.json"), arrays)
    assert same(WeightStore("."), arrays)


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    save_file({"a": np.arange(3)}, tmp_path / "one.safetensors", {"x": "1", "y": "1"})
    save_file({"b": np.arange(4)}, tmp_path / "two.safetensors", {"x": "2", "z": "2"})
    np.save(tmp_path / "c.npy", np.arange(5))
    np.savez(tmp_path / "more.npz", d=np.arange(6))
    (tmp_path / "config.json").write_text("{}")
    store = WeightStore(tmp_path)
    assert same(store, {name: np.arange(size) for size, name in enumerate("abcd", 3)})
    assert store.metadata == {"x": "1", "y": "1", "z": "2"}


def test_two_files_with_one_tensor(tmp_path: Path) -> None:
    save_file({"a": np.arange(3)}, tmp_path / "one.safetensors")
    np.save(tmp_path / "a.npy", np.arange(5))
    with pytest.raises(ShardError, match=r"a\.npy and one\.safetensors both have a tensor 'a'"):
        WeightStore(tmp_path)


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="there is no tensor"):
        WeightStore(tmp_path)
    with pytest.raises(FileNotFoundError):
        WeightStore(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        WeightStore(tmp_path / "nowhere.npz")


def test_two_indexes(tmp_path: Path) -> None:
    write_index(tmp_path, {})
    (tmp_path / "model.fp16.safetensors.index.json").write_text("{}")
    with pytest.raises(
        ShardError, match=r"several indexes, open one: model\.fp16\.safetensors\.ind"
    ):
        WeightStore(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "the file is empty"),
        ("[" * 100_000, "no index"),
        ("[]", "no index"),
        ("{}", "no index.*weight_map"),
        ('{"weight_map": []}', "must be objects"),
        ('{"weight_map": {}, "metadata": 1}', "must be objects"),
        ('{"weight_map": {"a": "m.safetensors", "a": "m.safetensors"}}', "comes twice"),
        ('{"weight_map": {"a": "../m.safetensors"}}', "no safetensors file beside it"),
        ('{"weight_map": {"a": "/etc/m.safetensors"}}', "no safetensors file beside it"),
        ('{"weight_map": {"a": "m\\u0000.safetensors"}}', "no safetensors file beside it"),
        ('{"weight_map": {"a": "config.json"}}', "no safetensors file beside it"),
        ('{"weight_map": {"a": 1}}', "no safetensors file beside it"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "which it names, is not there"),
        ('{"weight_map": {"b": "m.safetensors"}}', r"tensor 'b' is not in m\.safetensors"),
    ],
)
def test_bad_indexes(tmp_path: Path, index: str, message: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    for place in (tmp_path, folder):
        save_file({"a": np.arange(3)}, place / "m.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(index)
    for opened in (path, folder):
        with pytest.raises(ShardError, match=rf"(?s)model\.safetensors\.index\.json: .*{message}"):
            WeightStore(opened)


def test_an_index_decides_where_a_tensor_is(tmp_path: Path) -> None:
    save_file({"a": np.arange(3), "left out": np.arange(2)}, tmp_path / "one.safetensors")
    save_file({"a": np.arange(4)}, tmp_path / "two.safetensors")
    write_index(tmp_path, {"a": "two.safetensors"})
    assert same(WeightStore(tmp_path), {"a": np.arange(4)})


# --- links


def test_links_that_lead_out(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": np.arange(3)}, tmp_path / "secret.safetensors")
    (folder / "m.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(ShardError, match=r"m\.safetensors: this is a link that leads out"):
        WeightStore(folder)
    write_index(folder, {"a": "m.safetensors"})
    with pytest.raises(ShardError, match=r"m\.safetensors: this is a link that leads out"):
        WeightStore(folder)
    assert len(WeightStore(folder / "m.safetensors")) == 1  # the caller's own choice


def test_links_within_a_folder_and_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "snapshots" / "0123abc"
    (tmp_path / "hub" / "blobs").mkdir(parents=True)
    folder.mkdir(parents=True)
    save_file({"a": np.arange(3)}, tmp_path / "hub" / "blobs" / "f00")
    (folder / "m.safetensors").symlink_to("../../blobs/f00")
    write_index(folder, {"a": "m.safetensors"})
    (tmp_path / "here").symlink_to(folder)
    for place in (folder, tmp_path / "here"):
        assert same(WeightStore(place), {"a": np.arange(3)})

    save_file({"b": np.arange(4)}, tmp_path / "hub" / "elsewhere")
    (folder / "n.safetensors").symlink_to("../../elsewhere")
    write_index(folder, {"a": "m.safetensors", "b": "n.safetensors"})
    with pytest.raises(ShardError, match=r"n\.safetensors: this is a link that leads out"):
        WeightStore(folder)

    save_file({"b": np.arange(4)}, folder / "real.safetensors")
    (folder / "n.safetensors").unlink()
    (folder / "n.safetensors").symlink_to("real.safetensors")
    assert set(WeightStore(folder)) == {"a", "b"}


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.npy").mkdir()
    for name in ("pipe.safetensors", "folder.npy"):
        with pytest.raises(ShardError, match="must be a plain file"):
            WeightStore(tmp_path / name)
