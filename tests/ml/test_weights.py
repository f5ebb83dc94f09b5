"""WeightStore as a mapping of views: what it gives, what it refuses, how long things live."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import cachecore.ml
from cachecore import Cache
from cachecore.ml import WeightStats, WeightStore
from ml.weightfiles import layers, numpy_dtype, of_arrays, total, write_shards


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(layers(), tmp_path / "m.safetensors", metadata={"format": "pt"})
    return tmp_path / "m.safetensors"


def test_lazy_names() -> None:
    assert cachecore.ml.WeightStore is WeightStore
    assert cachecore.ml.WeightStats is WeightStats
    with pytest.raises(AttributeError, match="no attribute 'Weights'"):
        _ = cachecore.ml.Weights


def test_a_mapping(path: Path) -> None:
    arrays = layers()
    store = WeightStore(path)
    assert len(store) == len(arrays)
    assert list(store) == list(store.keys())
    assert set(store) == set(arrays)
    assert "layer.0.bias" in store
    assert "layer.9.bias" not in store
    other: Any = 7
    assert other not in store
    assert store.get("layer.9.bias") is None
    assert [array.shape for _, array in store.items()] == [store.shape(name) for name in store]
    assert sum(array.nbytes for array in store.values()) == store.nbytes
    assert store["layer.0.bias"] is store["layer.0.bias"]
    assert store.dtype("layer.0.bias") == "float32"
    assert store == store
    assert store != WeightStore(path)
    assert len({store, store}) == 1
    assert repr(store) == f"<WeightStore of {str(path)!r}: 12 tensors, {store.nbytes:,} bytes>"


@pytest.mark.parametrize("method", ["__getitem__", "shape", "dtype", "raw"])
def test_an_absent_name(path: Path, method: str) -> None:
    for budget in (None, "1MB"):
        with pytest.raises(KeyError, match=r"layer\.9"):
            getattr(WeightStore(path, budget=budget), method)("layer.9")


def test_bad_arguments(path: Path) -> None:
    make: Any = WeightStore
    for wrong in (7, None, [path]):
        with pytest.raises(TypeError, match="path must be a str, bytes or path object"):
            make(wrong)
    with pytest.raises(ValueError, match="path must name a file"):
        make("a\0b")
    with pytest.raises(TypeError, match="verify must be a bool"):
        make(path, verify=1)
    with pytest.raises(TypeError, match="budget must be an int"):
        make(path, budget=1.5)
    with pytest.raises(ValueError, match="budget must be a number of bytes or a size"):
        make(path, budget="much")
    with pytest.raises(ValueError, match=r"budget must be at least 32768 bytes.*not 10000"):
        make(path, budget=10_000)


# --- views


def test_views_cannot_be_written(path: Path) -> None:
    store = WeightStore(path)
    for array in (store["layer.0.bias"], store.raw("layer.0.bias")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_views_outlive_the_store(path: Path) -> None:
    store = WeightStore(path)
    view, expected = store["layer.1.mlp.weight"], layers()["layer.1.mlp.weight"]
    store.close()
    store.close()
    assert (view == expected).all()
    for use in (len, list, dict, WeightStore.residency, WeightStore.stats, pickle.dumps):
        with pytest.raises(ValueError, match="the store is closed"):
            use(store)
    with pytest.raises(ValueError, match="the store is closed"):
        store["layer.1.mlp.weight"]
    assert repr(store) == f"<WeightStore of {str(path)!r}: closed>"
    del store
    gc.collect()
    assert (view == expected).all()


@pytest.mark.parametrize("budget", [None, "1MB"])
def test_a_map_goes_with_its_last_view(path: Path, budget: str | None) -> None:
    files = len(os.listdir("/proc/self/fd"))
    store = WeightStore(path, budget=budget)
    store.pin(["layer.1.bias"])
    view = store["layer.0.bias"]
    mapped = weakref.ref(view.base)
    store.close()
    assert mapped() is not None
    del view
    assert mapped() is None
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_cache_takes_views_as_they_are(path: Path) -> None:
    view = WeightStore(path)["layer.0.bias"]
    cache: Cache[str, Any] = Cache(10)
    cache["bias"] = view
    assert np.shares_memory(cache["bias"], view)


def test_a_file_replaced_under_a_store(path: Path) -> None:
    store = WeightStore(path)
    save_file(layers(2, 32), path.with_name("new"))
    os.replace(path.with_name("new"), path)
    assert all((store[name] == array).all() for name, array in layers().items())
    assert len(WeightStore(path)) == 6


@pytest.mark.parametrize("there", ["None", "type(sys)('ml_dtypes')"])
def test_without_ml_dtypes(tmp_path: Path, there: str) -> None:
    """It is not there, or too old: other dtypes have their bits, and a clear error."""
    array = np.arange(6).astype(numpy_dtype("BF16"))
    path = tmp_path / "m.safetensors"
    path.write_bytes(of_arrays({"half": ("BF16", array), "full": ("F32", np.ones(3, "f4"))}))
    code = f"""if True:
        import sys
        sys.modules["ml_dtypes"] = {there}
        from cachecore.ml import WeightStore
        for budget in (None, "1MB"):
            store = WeightStore({str(path)!r}, budget=budget)
            assert store["full"].tolist() == [1, 1, 1]
            assert store.dtype("half") == "bfloat16"
            assert store.raw("half").tolist() == {array.view(np.uint16).tolist()}
            try:
                store["half"]
            except ImportError as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = "tensor 'half' is of bfloat16: install ml_dtypes (pip install -U "
    said += '"cachecore-ml[ml]" ml_dtypes), or take raw(name) or torch(name)'
    assert done.stdout.splitlines() == [said] * 2


# --- threads and processes


def test_many_threads(path: Path) -> None:
    arrays = layers()
    largest = max(array.nbytes for array in arrays.values())
    store = WeightStore(path, budget=2 * largest)
    wrong: list[object] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        names = list(arrays)
        try:
            for at in range(400):
                name = names[random.integers(len(names))]
                if not np.array_equal(store[name], arrays[name]):
                    wrong.append(name)
                if at % 50 == seed:
                    store.pin(["layer.0.bias"])
                elif at % 50 == 10 + seed:
                    store.unpin(["layer.0.bias"])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    stats = store.stats()
    assert stats.hot + stats.pinned == len(store._keeper.kept)
    assert set(store._hot or ()) | set(store._pinned) == {
        name for name, place in store._open().items() if place in store._keeper.kept
    }


def test_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "model", layers())
    store = WeightStore("model", budget="1MB")
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(store))
    assert total(again) == total(store) == total(copy.copy(store))
    assert again.stats().hot == len(store)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        assert pool.submit(total, store).result() == total(store)


def test_pickled_before_a_file_was_replaced(path: Path) -> None:
    content = pickle.dumps(WeightStore(path))
    save_file(layers(2, 32), path)
    with pytest.raises(ValueError, match="other files are there than when the store was pickled"):
        pickle.loads(content)


def test_a_subclass(path: Path) -> None:
    store = Named(path)
    assert store.named("bias") == [f"layer.{at}.bias" for at in range(4)]
    assert type(pickle.loads(pickle.dumps(store))) is Named


class Named(WeightStore):
    def named(self, part: str) -> list[str]:
        return sorted(name for name in self if name.endswith(part))
