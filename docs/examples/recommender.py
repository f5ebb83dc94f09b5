"""A recommender's request: one user, 1,000 candidates, their features and vectors, and a model.

    python docs/examples/recommender.py [--requests 400] [--plot recommender.svg]

Starts a redis-server that holds what a feature store would: hashes of features, and vectors of 128
float32. 60 requests a second are answered twice: with all of it asked of Redis each time, and with
a FeatureCache and a VectorCache in front. Clicks are counted all the while; they may be two seconds
old and no older. The model is a logistic regression, fitted here. Prints a table, and draws where
matplotlib is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore import VectorCache
from cachecore.ml import Feature, FeatureCache

ITEMS, USERS, CANDIDATES, DIM = 20_000, 2_000, 1_000, 128
RATE = 60  # requests a second
FRESH = 2.0  # seconds that a number of clicks may be old
CLICKS = 20  # for each request
STAGES = {"features": "#0f766e", "vectors": "#7dd3fc", "model": "#fb923c"}

SCHEMA = [
    Feature("price", "f4", "static"),
    Feature("category", "u1", "static"),
    Feature("rating", "f4", "batch"),
    Feature("sold", "f4", "batch"),
    Feature("clicks", "i4", FRESH),
]
USER = [Feature("spent", "f4", "batch"), Feature("visits", "f4", FRESH)]
Floats = npt.NDArray[np.float32]


@contextmanager
def redis_server() -> Iterator[int]:
    """Run a Redis on a free port, which it yields."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="cachecore-example-") as folder:
        options = f"--port {port} --bind 127.0.0.1 --appendonly no --dir {folder} --save"
        command = ["redis-server", *options.split(), ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(500):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.01)
            yield port
        finally:
            process.kill()
            process.wait()


def columns_of(names: list[str], replies: list[list[bytes | None]]) -> dict[str, list[Any]]:
    """Numbers by name, from what Redis replied for each entity."""
    kinds = [int if name in ("category", "clicks") else float for name in names]
    return {
        name: [None if text is None else kind(text) for text in column]
        for name, kind, column in zip(names, kinds, zip(*replies, strict=True), strict=True)
    }


class Store:
    """The feature store: what is in Redis, how to ask for it, and when what was clicked."""

    def __init__(self, client: Any) -> None:
        self.client = client
        random = np.random.default_rng(7)
        self.vectors = random.standard_normal((ITEMS + USERS, DIM), np.float32) / DIM**0.5
        self.price = random.lognormal(3, 1, ITEMS).astype(np.float32)
        self.rating = random.uniform(1, 5, ITEMS).astype(np.float32)
        self.clicked: list[list[float]] = [[] for _ in range(ITEMS)]
        pipeline = client.pipeline(transaction=False)
        for item in range(ITEMS):
            fields = {"price": float(self.price[item]), "category": item % 40, "clicks": 0}
            fields |= {"rating": float(self.rating[item]), "sold": item * 37 % 1000}
            pipeline.hset(f"item:{item}", mapping=fields)
        for user in range(USERS):
            pipeline.hset(f"user:{user}", mapping={"spent": user % 90, "visits": user % 7})
        pipeline.mset({f"vector:{at}": row.tobytes() for at, row in enumerate(self.vectors)})
        pipeline.execute()

    def features(self, entities: list[str], names: list[str]) -> dict[str, list[Any]]:
        """Ask for features of each entity."""
        pipeline = self.client.pipeline(transaction=False)
        for entity in entities:
            pipeline.hmget(entity, names)
        return columns_of(names, pipeline.execute())

    def missing(self, entities: list[str], names: list[str], wanted: Any) -> dict[str, list[Any]]:
        """Ask for features, of each entity those that are wanted: a loader."""
        pipeline = self.client.pipeline(transaction=False)
        wanted = wanted.tolist()
        for entity, wants in zip(entities, wanted, strict=True):
            pipeline.hmget(entity, [*compress(names, wants)])
        replies = []
        for wants, reply in zip(wanted, map(iter, pipeline.execute()), strict=True):
            replies.append([next(reply) if want else None for want in wants])
        return columns_of(names, replies)

    def rows(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Ask for vectors: a loader."""
        found = self.client.mget([f"vector:{at}" for at in ids.tolist()])
        return np.frombuffer(b"".join(found), np.float32).reshape(len(ids), DIM)

    def click(self, items: npt.NDArray[np.int64]) -> None:
        """Count clicks, and remember when they came."""
        pipeline = self.client.pipeline(transaction=False)
        for item in items.tolist():
            pipeline.hincrby(f"item:{item}", "clicks")
        pipeline.execute()
        for item in items.tolist():
            self.clicked[item].append(time.perf_counter())

    def age(self, items: npt.NDArray[np.int64], clicks: npt.NDArray[Any], now: float) -> float:
        """How many seconds ago the most outdated of these numbers of clicks was right."""
        pairs = zip(items.tolist(), clicks.tolist(), strict=True)
        later = (self.clicked[item][seen:] for item, seen in pairs)
        return max((now - times[0] for times in later if times), default=0.0)


class Model:
    """Logistic regression on features of a user and an item, fitted to made-up clicks."""

    def __init__(self, store: Store) -> None:
        random = np.random.default_rng(3)
        items, users = random.integers(0, ITEMS, 20_000), random.integers(0, USERS, 20_000)
        match = np.einsum("ij,ij->i", store.vectors[items], store.vectors[ITEMS + users])
        prices, ratings = store.price[items], store.rating[items]
        inputs = self.inputs(match, prices, ratings, items * 37 % 1000, 0 * items, users % 90)
        truth = 8 * match + 0.8 * ratings - np.log(prices) + random.logistic(size=len(items))
        bought = truth > np.median(truth)
        self.mean, self.scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
        inputs = (inputs - self.mean) / self.scale
        self.weights = np.zeros(inputs.shape[1], np.float32)
        for _ in range(300):  # gradient descent
            error = 1 / (1 + np.exp(-inputs @ self.weights)) - bought
            self.weights -= inputs.T @ error.astype(np.float32) / len(error)
        self.accuracy = float(((inputs @ self.weights > 0) == bought).mean())

    @staticmethod
    def inputs(match: Any, price: Any, rating: Any, sold: Any, clicks: Any, spent: Any) -> Floats:
        """A row for each candidate."""
        counts = np.log1p(sold), np.log1p(clicks)
        columns = [match, np.log(price), rating, *counts, 0 * match + spent]
        return np.stack(columns, axis=1).astype(np.float32)

    def score(self, user: Any, items: Any, user_vector: Floats, vectors: Floats) -> Floats:
        """A score for each candidate, from columns of features and from vectors."""
        inputs = self.inputs(
            vectors @ user_vector,
            items["price"], items["rating"], items["sold"], items["clicks"], user["spent"][0],
        )  # fmt: skip
        scores: Floats = (inputs - self.mean) / self.scale @ self.weights
        return scores


class Direct:
    """Asks Redis for everything."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def features(self, user: str, items: list[str]) -> tuple[Any, Any]:
        """Columns of the user and of the candidates."""
        columns = self.store.features(items, [feature.name for feature in SCHEMA])
        found = {each.name: np.array(columns[each.name], each.dtype) for each in SCHEMA}
        return self.store.features([user], [feature.name for feature in USER]), found

    def vectors(self, ids: npt.NDArray[np.int64]) -> Floats:
        """A row for each id."""
        return self.store.rows(ids)


class Cached:
    """The same with caches in front."""

    def __init__(self, store: Store) -> None:
        self.users = FeatureCache(USER, maxsize=USERS, loader=store.missing, exact=True)
        self.items = FeatureCache(SCHEMA, maxsize=ITEMS, loader=store.missing, exact=True)
        self.rows, self.store = VectorCache(DIM, capacity=ITEMS + USERS), store
        for start in range(0, ITEMS, CANDIDATES):  # the catalogue, before the first request
            ids = np.arange(start, start + CANDIDATES)
            self.items.get_features([f"item:{item}" for item in ids.tolist()])
            self.rows.get_or_load(ids, store.rows)
        self.rows.get_or_load(np.arange(ITEMS, ITEMS + USERS), store.rows)

    def features(self, user: str, items: list[str]) -> tuple[Any, Any]:
        """Columns of the user and of the candidates."""
        return self.users.get_features([user]), self.items.get_features(items)

    def vectors(self, ids: npt.NDArray[np.int64]) -> Floats:
        """A row for each id."""
        return self.rows.get_or_load(ids, self.store.rows)


def play(store: Store, model: Model, side: Any, requests: int) -> tuple[Any, float]:
    """Answer requests: the seconds of each stage of each; by how many some clicks were too old."""
    random = np.random.default_rng(11)
    popularity = np.cumsum(1 / np.arange(1, ITEMS + 1))
    spent, oldest, longest = np.zeros((requests, 3)), 0.0, 0.0
    begin = time.perf_counter()
    for number in range(requests):
        time.sleep(max(0.0, begin + number / RATE - time.perf_counter()))
        drawn = np.searchsorted(popularity, random.random(CANDIDATES) * popularity[-1])
        user, ids = int(random.integers(USERS)), drawn.astype(np.int64)
        names = [f"item:{item}" for item in drawn.tolist()]
        start = time.perf_counter()
        person, items = side.features(f"user:{user}", names)
        told = time.perf_counter()
        rows = side.vectors(np.append(ids, ITEMS + user))
        vectors = time.perf_counter()
        scores = model.score(person, items, rows[-1], rows[:-1])
        best = ids[np.argsort(-scores)[:20]]
        spent[number] = np.diff([start, told, vectors, time.perf_counter()])
        longest = max(longest, told - start)
        oldest = max(oldest, store.age(ids, items["clicks"], told))
        store.click(best[:CLICKS])
    return spent, oldest - FRESH - longest


def table(sides: dict[str, Any]) -> None:
    """Print how long the stages take."""
    print(f"\n{'milliseconds, median':24}" + "".join(f"{stage:>10}" for stage in STAGES), end="")
    print(f"{'together':>10}{'99 %':>8}")
    for name, spent in sides.items():
        total = spent.sum(axis=1)
        numbers = [*np.median(spent, axis=0), np.median(total)]
        print(f"{name:24}" + "".join(f"{1e3 * number:10.2f}" for number in numbers), end="")
        print(f"{1e3 * np.percentile(total, 99):8.2f}")


def draw(sides: dict[str, Any], path: Path) -> None:
    """Draw stages, and each request in its turn."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ink = "#334155"
    mpl.rcParams.update({"text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink})
    mpl.rcParams.update({"svg.hashsalt": "recommender", "font.size": 9})
    figure, (stages, turns) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left = np.zeros(len(sides))
    for at, (stage, colour) in enumerate(STAGES.items()):
        width = [1e3 * np.median(spent[:, at]) for spent in sides.values()]
        stages.barh(list(sides), width, left=left, color=colour, label=stage)
        left += width
    for at, total in enumerate(left):
        stages.text(total + 0.01 * left.max(), at, f"{total:.2f} ms", va="center")
    stages.set_xlim(0, 1.18 * left.max())
    stages.set_xlabel("milliseconds, medians")
    stages.legend(loc="lower center", bbox_to_anchor=(0.45, 1.02), ncols=3, frameon=False)
    stages.invert_yaxis()
    for (name, spent), colour in zip(sides.items(), ("#94a3b8", "#0f766e"), strict=True):
        turns.plot(1e3 * spent.sum(axis=1), color=colour, linewidth=0.9, label=name)
    turns.set_yscale("log")
    least = min(1e3 * spent.sum(axis=1).min() for spent in sides.values())
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if tick > 0.5 * least]
    turns.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    turns.minorticks_off()
    turns.set_xlabel("requests, in turn; the catalogue was loaded before the first")
    turns.set_ylabel("milliseconds")
    turns.legend(loc="lower center", bbox_to_anchor=(0.5, 1.02), ncols=2, frameon=False)
    for each in (stages, turns):
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> int:
    """Run the example; 1 if what is cached was too old."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=400, help="how many (%(default)s)")
    parser.add_argument(
        "--plot", type=Path, default=Path("recommender.svg"), help="SVG or PNG (%(default)s)"
    )
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        print("redis-server is not installed; on Debian and Ubuntu: apt-get install redis-server")
        return 2
    from redis import Redis

    with redis_server() as port, Redis(port=port) as client:
        store = Store(client)
        model = Model(store)
        print(f"{CANDIDATES:,} of {ITEMS:,} items; the model is right in {model.accuracy:.0%}")
        sides, late = {}, 0.0
        begin = time.perf_counter()
        cached = Cached(store)
        print(f"The catalogue was loaded in {time.perf_counter() - begin:.2f} s.")
        for name, side in (("Redis each time", Direct(store)), ("with the caches", cached)):
            sides[name], excess = play(store, model, side, options.requests)
            late = max(late, excess)
    table(sides)
    print("\nfeature   lifetime    hits   expired  asked of Redis")
    for feature, counts in zip(SCHEMA, cached.items.stats().features.values(), strict=True):
        share = counts.hits / (counts.hits + counts.misses)
        print(
            f"{feature.name:10}{feature.ttl!s:8}{share:8.1%}{counts.expired:10,}{counts.loads:16,}"
        )
    print(f"\nVectors found: {cached.rows.stats().hit_ratio:.1%}.")
    print(f"Clicks older than {FRESH:g} s: {'some' if late > 0 else 'none'}.")
    if importlib.util.find_spec("matplotlib"):
        draw(sides, options.plot)
        print(f"\nPicture: {options.plot}")
    else:
        print("\nNo picture: pip install matplotlib")
    return 1 if late > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
