"""`cachecore demo`: embeddings of real text under a byte budget, against what people use today."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cachecore import Cache
from cachecore.cli.charts import Line, log_chart
from cachecore.cli.encoder import Encoder, HashingEncoder, ModelEncoder, Vector
from cachecore.cli.failures import InputError
from cachecore.cli.terminal import Bars, progress_bars
from cachecore.cli.trial import ROUNDS, Embeddings, Ranking, Run, holders, rank, serve
from cachecore.cli.workload import EPOCHS, EXPONENT, docstrings, zipf_requests
from cachecore.units import duration, size

BUDGET = 0.25  # of the bytes of all embeddings
SAMPLE = 4_000  # requests sent without a cache, where all the rest would cost the same
CANDIDATES = 1_000
NAME_WIDTH = 34  # of a docstring's name in the table of the hottest
STYLES = ("red", "yellow", "cyan", "bold green")
REQUESTS = 200_000
# A model takes milliseconds a text, so it gets less to do.
MODEL_TEXTS, MODEL_REQUESTS, MODEL_SAMPLE = 1_000, 2_000, 400


@dataclass(frozen=True)
class Result:
    """All that was measured."""

    encoder: Encoder
    texts: dict[str, str]
    requests: list[str]
    seed: int
    budget: int
    counted: int  # bytes that the Cache accounts, keys and overhead included
    runs: list[Run]
    hottest: list[tuple[str, int]]
    ranking: list[Ranking]
    candidates: int
    equal: int  # gathered vectors that equal a fresh encoding
    seconds: float


@click.command()
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Seed of the stream of requests.",
)
@click.option("--requests", type=click.IntRange(1000), help="Length of the stream.")
@click.option("--texts", type=click.IntRange(100), help="Use only so many docstrings.")
@click.option("--model", metavar="NAME", help="A sentence-transformers model as the encoder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def demo(
    seed: int, requests: int | None, texts: int | None, model: str | None, as_json: bool
) -> None:
    """Embeddings of the standard library's docstrings under a budget of 25% of their bytes.

    A skewed, drifting stream of requests meets no cache, an unbounded dict, functools.lru_cache and
    a Cache; then 1,000 candidates are ranked for one user. Needs no server, no network and, without
    --model, no model: the encoder is feature hashing. Every number is measured in this run.
    """
    started = perf_counter()
    encoder = _encoder(model)
    length, sample = requests or REQUESTS, SAMPLE
    if model is not None:
        texts, length, sample = texts or MODEL_TEXTS, requests or MODEL_REQUESTS, MODEL_SAMPLE
    with progress_bars() as bars:
        catalogue = docstrings(texts, bars.add("reading docstrings").update)
        if len(catalogue) < 100:
            raise InputError("the standard library's sources are not installed: no docstrings")
        result = _measure(encoder, catalogue, length, sample, seed, bars, started)
    if as_json:
        click.echo(json.dumps(_as_json(result)))
    else:
        _show(result, Console())
    if result.equal < result.candidates:
        raise click.ClickException("the cache returned vectors that differ from fresh ones")


def _encoder(model: str | None) -> Encoder:
    if model is None:
        return HashingEncoder()
    try:
        return ModelEncoder(model)
    except ModuleNotFoundError as error:
        raise InputError(f"--model needs {error.name}: pip install sentence-transformers") from None
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"--model {model}: {why}") from None


def _measure(
    encoder: Encoder,
    texts: dict[str, str],
    length: int,
    sample: int,
    seed: int,
    bars: Bars,
    started: float,
) -> Result:
    names = list(texts)
    requests = [names[n] for n in zipf_requests(len(names), length, seed)]
    embed = Embeddings(texts, encoder)
    vector_bytes = embed(names[0]).nbytes
    budget = int(BUDGET * len(names) * vector_bytes)
    kept: dict[str, Vector] = {}
    cache: Cache[str, Vector] = Cache(max_bytes=budget)

    contenders = holders(embed, kept, cache, budget // vector_bytes)
    runs = serve(contenders, embed, requests, sample, bars.add("serving requests").update)
    hottest = cache.hottest(10)  # before the ranking, whose look-ups count as well

    rng = np.random.default_rng(seed)
    resident = sorted(cache)
    candidates = rng.permutation(resident)[:CANDIDATES].tolist()
    user = np.mean([kept[name] for name in requests[-10:]], axis=0)
    ranking, rows = rank(cache, kept, candidates, user)
    fresh = np.stack([embed(name) for name in candidates])
    return Result(
        encoder=encoder,
        texts=texts,
        requests=requests,
        seed=seed,
        budget=budget,
        counted=cache.stats().bytes,
        runs=runs,
        hottest=hottest,
        ranking=ranking,
        candidates=len(candidates),
        equal=int((rows == fresh).all(axis=1).sum()),
        seconds=perf_counter() - started,
    )


def _show(result: Result, console: Console) -> None:
    def say(label: str, text: str) -> None:
        console.print(f"[bold]{label:<9}[/]{text}", highlight=False)

    def note(text: str) -> None:
        console.print(text + "\n", style="dim", highlight=False)

    catalogue = len(result.texts) * result.encoder.dim * 4
    uncached, sent = result.runs[0].latency, len(result.runs[0].latency)
    each = f"{result.encoder.dim:,} float32 in {duration(uncached.mean())} a text"
    drift = f"Zipf {EXPONENT}, drifting in {EPOCHS} steps, seed {result.seed}"
    library = f"the standard library of Python {platform.python_version()}"
    say("texts", f"{len(result.texts):,} docstrings of {library}")
    say("encoder", f"{escape(result.encoder.name)}: {each}")
    say("stream", f"{len(result.requests):,} requests, {drift}")
    say("budget", f"{size(result.budget)}, {BUDGET:.0%} of the {size(catalogue)} of all embeddings")
    console.print("", _latency_table(result))
    note(
        f"* a sample of {sent:,} requests, evenly spread. lru_cache may hold as many vectors as fit"
        " in the budget. Memory is that of the vectors; with keys and overhead the Cache counts"
        f" {size(result.counted)}. A latency includes reading the clock."
    )
    console.print("Mean latency, by requests served", style="bold")
    console.print(_latency_chart(result, min(console.width, 120)), no_wrap=True)
    console.print("", _ranking_table(result))
    note(
        f"{result.equal:,} of {result.candidates:,} gathered vectors equal a fresh encoding, bit"
        f" for bit. Times: the fastest of {ROUNDS}."
    )
    console.print(_hottest_table(result, console.width))
    note("Frequency is the policy's own count: it ages, and is what decides who stays.")
    say("done", f"in {result.seconds:.0f} s; every number was measured in this run")


def _table(title: str) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    table.pad_edge = False
    return table


def _latency_table(result: Result) -> Table:
    table = _table("One embedding a request")
    table.add_column("", no_wrap=True)
    for heading in ("hit ratio", "mean", "p50", "p99", "vectors", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run, style in zip(result.runs, STYLES, strict=True):
        table.add_row(
            run.name if run.held else f"{run.name}*",
            f"{run.hit_ratio:.1%}" if run.held else "-",
            duration(run.latency.mean()),
            *(duration(p) for p in np.percentile(run.latency, (50, 99))),
            f"{run.held:,}",
            size(run.held * result.encoder.dim * 4),
            style=style,
        )
    return table


def _latency_chart(result: Result, width: int) -> Any:
    lines = []
    for run, style in zip(result.runs, STYLES, strict=True):
        if run.held:
            ends = np.unique(np.geomspace(100, len(run.latency), 48).astype(int))
            starts = np.array([0, *ends[:-1]])
            y = np.add.reduceat(run.latency[: ends[-1]], starts) / (ends - starts)
            lines.append(Line(run.name, style, ends.astype(float), y))
        else:
            ends, y = np.array([100.0, len(result.requests)]), np.full(2, run.latency.mean())
            lines.append(Line(run.name, style, ends, y))
    return log_chart(lines, width=width, height=16, x_tick=lambda x: f"{x:,.0f}", y_tick=duration)


def _ranking_table(result: Result) -> Table:
    table = _table(f"Ranking {result.candidates:,} candidates for one user")
    table.add_column("", no_wrap=True)
    table.add_column("fetch", justify="right")
    table.add_column("fetch and score", justify="right")
    for way in result.ranking:
        table.add_row(escape(way.name), duration(way.fetch), duration(way.total))
    return table


def _hottest_table(result: Result, width: int) -> Table:
    table = _table(f"cache.hottest({len(result.hottest)})")
    table.add_column("docstring", no_wrap=True)
    table.add_column("frequency", justify="right", no_wrap=True)
    table.add_column("requests", justify="right", no_wrap=True)
    table.add_column("text", no_wrap=True, style="dim")
    asked = Counter(result.requests)
    for name, frequency in result.hottest:
        text = " ".join(result.texts[name].split())
        table.add_row(
            _cut(name, NAME_WIDTH),
            f"{frequency:,}",
            f"{asked[name]:,}",
            escape(_cut(text, width - NAME_WIDTH - 29)),
        )
    return table


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _as_json(result: Result) -> dict[str, Any]:
    def latency(taken: NDArray[np.int64]) -> dict[str, float]:
        p50, p99 = np.percentile(taken, (50, 99))
        return {"mean_ns": float(taken.mean()), "p50_ns": float(p50), "p99_ns": float(p99)}

    asked = Counter(result.requests)
    return {
        "python": platform.python_version(),
        "encoder": result.encoder.name,
        "dim": result.encoder.dim,
        "texts": len(result.texts),
        "requests": len(result.requests),
        "seed": result.seed,
        "max_bytes": result.budget,
        "bytes": result.counted,
        "holders": [
            {
                "name": run.name,
                "requests": len(run.latency),
                "hit_ratio": run.hit_ratio,
                "vectors": run.held,
                "vector_bytes": run.held * result.encoder.dim * 4,
                **latency(run.latency),
            }
            for run in result.runs
        ],
        "ranking": [
            {"name": way.name, "fetch_ns": way.fetch, "total_ns": way.total}
            for way in result.ranking
        ],
        "candidates": result.candidates,
        "equal_to_fresh": result.equal,
        "hottest": [
            {"name": name, "frequency": frequency, "requests": asked[name]}
            for name, frequency in result.hottest
        ],
        "seconds": result.seconds,
    }
