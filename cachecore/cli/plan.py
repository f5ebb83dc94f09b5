"""`cachecore plan`: how much memory a cache needs for an access log, and whether it is worth it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from cachecore.cli.failures import InputError
from cachecore.cli.plan_page import page
from cachecore.cli.plan_report import report
from cachecore.cli.terminal import Bar, Bars, progress_bars
from cachecore.plan.analysis import TARGETS, Plan, analyze
from cachecore.plan.logs import FORMATS, Chunk, Log, LogError, open_log
from cachecore.plan.terms import HIT_LATENCY, MEMORY_PRICE, MISS_LATENCY, VALUE_BYTES, Terms
from cachecore.plan.trace import collect
from cachecore.settings import positive_int, size_in_bytes
from cachecore.units import duration, seconds_in, size

ABOVE_0 = click.FloatRange(0, min_open=True)


@click.command()
@click.argument("log")
@click.option("--format", type=click.Choice(FORMATS), help="What LOG is, if it does not show.")
@click.option(
    "--target",
    "targets",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    default=TARGETS,
    show_default=True,
    help="A hit ratio to reach; may be repeated.",
)
@click.option("--maxsize", type=int, multiple=True, help="Entries of a cache to look at besides.")
@click.option("--max-bytes", metavar="SIZE", multiple=True, help="The same by bytes.")
@click.option(
    "--value-bytes",
    metavar="SIZE",
    help=f"Mean size of a value.  [default: the log's, else {size(VALUE_BYTES)}]",
)
@click.option(
    "--hit-latency",
    metavar="TIME",
    help=f"Time of a hit.  [default: {duration(HIT_LATENCY * 1e9)}]",
)
@click.option(
    "--miss-latency",
    metavar="TIME",
    help="Time to compute what was missed.  [default: the GPU time, at least"
    f" {duration(MISS_LATENCY * 1e9)}]",
)
@click.option("--gpu-time", metavar="TIME", help="Time of a GPU that a miss takes.")
@click.option("--gpu-hour-price", type=ABOVE_0, help="Price of a GPU-hour, in any currency.")
@click.option(
    "--memory-price",
    type=ABOVE_0,
    help=f"Price of a GB of memory for an hour.  [default: {MEMORY_PRICE}]",
)
@click.option("--rate", type=ABOVE_0, help="Requests a second.  [default: the log's]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--html", metavar="FILE", help="Write the report as a page of its own, too.")
def plan(
    log: str,
    format: str | None,
    targets: tuple[float, ...],
    maxsize: tuple[int, ...],
    max_bytes: tuple[str, ...],
    value_bytes: str | None,
    hit_latency: str | None,
    miss_latency: str | None,
    gpu_time: str | None,
    gpu_hour_price: float | None,
    memory_price: float | None,
    rate: float | None,
    as_json: bool,
    html: str | None,
) -> None:
    """How much memory does a cache need for the access log LOG, and is it worth it at all?

    LOG is a key a line; CSV or TSV with a header that names key, size, time, cost and op, or a key
    and perhaps a size in each row; JSON Lines or Parquet with the same names; an .npz of arrays of
    these names; or what Redis prints for MONITOR. It may be packed by gzip or Zstandard. `-` reads
    standard input. Where operations are told, reads count as requests, and writes tell sizes.

    Up to 20 million requests are analysed as they are, of longer logs those of a sample of the
    keys. Beside the cache's own policy, others are simulated where libcachesim is installed.
    """
    if html is not None and not Path(html).parent.is_dir():  # before minutes of work
        raise InputError(f"--html {html}: no such folder")
    try:
        terms = Terms(
            value_bytes=None
            if value_bytes is None
            else size_in_bytes(value_bytes, "--value-bytes"),
            hit_latency=_seconds(hit_latency, "--hit-latency"),
            miss_latency=_seconds(miss_latency, "--miss-latency"),
            gpu_time=_seconds(gpu_time, "--gpu-time"),
            gpu_hour_price=gpu_hour_price,
            memory_price=memory_price,
            rate=rate,
        )
        for number in maxsize:
            positive_int(number, "--maxsize")
        for text in max_bytes:
            size_in_bytes(text, "--max-bytes")
        with progress_bars() as bars:
            with open_log(log, format=format) as opened:
                name, kind = opened.name, opened.format
                trace = collect(_watched(opened, bars))
            if not len(trace.keys):
                raise LogError(f"{name}: no request in it")
            known: dict[str, Bar] = {}

            def progress(what: str, share: float) -> None:
                if what not in known:
                    known[what] = bars.add(what)
                known[what].update(share)

            result = analyze(
                trace,
                terms,
                targets=targets,
                maxsize=maxsize,
                max_bytes=max_bytes,
                progress=progress,
            )
    except ValueError as error:  # of the options, or a LogError
        raise InputError(str(error)) from None
    if html is not None:
        _write(html, page(result, name))
    if as_json:
        click.echo(json.dumps(as_object(result, name, kind)))
    else:
        report(result, name, Console())


def as_object(result: Plan, name: str, kind: str) -> dict[str, object]:
    """The object of `--json`: the log, and the fields of `Plan`, as documented there."""
    return {"log": name, "format": kind, **asdict(result)}


def _seconds(text: str | None, name: str) -> float | None:
    return None if text is None else seconds_in(text, name)


def _watched(log: Log, bars: Bars) -> Iterator[Chunk]:
    bar = bars.add("reading")
    for chunk in log.chunks():
        yield chunk
        bar.update(log.share())


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--html {path}: {error.strerror}") from None
