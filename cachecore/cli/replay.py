"""`cachecore replay`: an access log through a real Cache, and what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import chain
from operator import index
from time import perf_counter_ns
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cachecore import Cache
from cachecore.cli.failures import InputError
from cachecore.cli.terminal import progress_bars, resident_bytes
from cachecore.plan.logs import FORMATS, LogError, open_log
from cachecore.plan.sampling import DistinctCounter
from cachecore.settings import positive_int, size_in_bytes
from cachecore.units import size

DEFAULT_SHARE = 0.1  # of the distinct keys, where no bound is given


@dataclass(frozen=True)
class Report:
    """The result of a replay; the fields of `--json`."""

    log: str
    requests: int
    distinct: int
    distinct_is_exact: bool
    maxsize: int | None
    maxsize_is_default: bool
    max_bytes: int | None
    hits: int
    misses: int
    hit_ratio: float
    byte_hit_ratio: float | None
    operations: int
    ns_per_operation: float
    ns_per_request: float
    evictions: int
    rejections: int
    refused: int
    entries: int
    bytes: int | None
    rss_growth: int | None


@click.command()
@click.argument("file")
@click.option("--maxsize", type=int, help="Entries the cache may hold.")
@click.option("--max-bytes", metavar="SIZE", help='Bytes the cache may hold, such as "64MB".')
@click.option("--format", type=click.Choice(FORMATS), help="What FILE is, if it does not show.")
@click.option("--csv", "as_csv", is_flag=True, help="Short for --format csv.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def replay(
    file: str,
    maxsize: int | None,
    max_bytes: str | None,
    format: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Run the access log FILE through a cache: get each key and, on a miss, set it.

    FILE is an .npz with an integer array `key` (and perhaps `size`), text with one key per line,
    CSV or TSV (the key in the column named `key` or the first, its size in bytes in the column
    named `size` or, without a header, the second), JSON Lines with the same names, Parquet, or the
    output of Redis's MONITOR. It may be packed by gzip or Zstandard. `-` reads standard input.

    Without a bound the cache may hold 10% of the log's distinct keys; to count them the log is
    read twice. Values of a log with sizes count as that large, but take no memory.
    """
    try:
        entries = None if maxsize is None else positive_int(maxsize, "--maxsize")
        budget = None if max_bytes is None else size_in_bytes(max_bytes, "--max-bytes")
        report = _replay(file, entries, budget, "csv" if as_csv else format)
    except ValueError as error:  # of the bounds, or a LogError
        raise InputError(str(error)) from None
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        Console().print(_table(report))


def _replay(file: str, maxsize: int | None, max_bytes: int | None, format: str | None) -> Report:
    default = maxsize is None and max_bytes is None
    counter = DistinctCounter()
    with progress_bars() as bars, open_log(file, format=format, twice=default) as log:
        if default:
            bar = bars.add("counting keys")
            for chunk in log.chunks():
                counter.add(chunk.keys)
                bar.update(log.share())
            maxsize = max(1, round(counter.count()[0] * DEFAULT_SHARE))
        bar = bars.add("replaying")
        chunks = log.chunks()
        first = next(chunks, None)
        if first is None:
            raise LogError(f"{log.name}: no request in it")
        sized = first.sizes is not None
        rss = resident_bytes()
        # A value stands for its size: the int itself, counted at what it says.
        cache: Cache[Any, Any] = Cache(
            maxsize, max_bytes=max_bytes, getsizeof=index if sized else None
        )
        requests = ns = asked = missed = 0
        for chunk in chain([first], chunks):
            if not default:
                counter.add(chunk.keys)
            sizes = None
            if sized:  # what is not known counts as nothing
                sizes = [max(0, n) for n in chunk.sizes or [0] * len(chunk.keys)]
            taken, bytes_missed = _run(cache, chunk.keys, sizes)
            ns += taken
            missed += bytes_missed
            asked += sum(sizes or ())
            requests += len(chunk.keys)
            bar.update(log.share())
        grown = resident_bytes()
        distinct, exact = counter.count()
    stats = cache.stats()
    return Report(
        log=log.name,
        requests=requests,
        distinct=distinct,
        distinct_is_exact=exact,
        maxsize=maxsize,
        maxsize_is_default=default,
        max_bytes=max_bytes,
        hits=stats.hits,
        misses=stats.misses,
        hit_ratio=stats.hit_ratio,
        byte_hit_ratio=1 - missed / asked if asked else None,
        operations=requests + stats.misses,
        ns_per_operation=ns / (requests + stats.misses),
        ns_per_request=ns / requests,
        evictions=stats.evictions,
        rejections=stats.rejections,
        refused=stats.refused,
        entries=stats.entries,
        bytes=stats.bytes if sized or max_bytes is not None else None,
        rss_growth=None if rss is None or grown is None else grown - rss,
    )


def _run(cache: Cache[Any, Any], keys: list[Any], sizes: list[int] | None) -> tuple[int, int]:
    """Send requests through the cache: nanoseconds taken and bytes missed."""
    get, put, missed = cache.get, cache.set, 0
    if sizes is None:
        start = perf_counter_ns()
        for key in keys:
            if get(key) is None:
                put(key, True)
    else:
        start = perf_counter_ns()
        for key, value in zip(keys, sizes, strict=True):
            if get(key) is None:
                put(key, value)
                missed += value
    return perf_counter_ns() - start, missed


def _table(report: Report) -> Table:
    table = Table(title=f"{escape(report.log)} through a Cache", title_justify="left")
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(style="dim")
    row = table.add_row
    row("requests", f"{report.requests:,}")
    row("distinct keys", f"{report.distinct:,}", "" if report.distinct_is_exact else "± 0.2%")
    if report.maxsize is not None:
        note = "no bound given: 10% of the distinct keys" if report.maxsize_is_default else ""
        row("maxsize", f"{report.maxsize:,}", note)
    if report.max_bytes is not None:
        row("max_bytes", f"{report.max_bytes:,}", size(report.max_bytes))
    table.add_section()
    row("hit ratio", f"{report.hit_ratio:.2%}", f"{report.hits:,} hits, {report.misses:,} misses")
    if report.byte_hit_ratio is not None:
        row("byte hit ratio", f"{report.byte_hit_ratio:.2%}", "of the bytes asked for")
    row(
        "ns per operation",
        f"{report.ns_per_operation:,.0f}",
        "a get, or a set after a miss: the call and the Python loop, not reading the log",
    )
    row("ns per request", f"{report.ns_per_request:,.0f}", "the get and, on a miss, the set")
    table.add_section()
    row("evictions", f"{report.evictions:,}")
    row("rejections", f"{report.rejections:,}", "new keys that lost to an older one")
    if report.refused:
        row("refused", f"{report.refused:,}", "larger than max_bytes")
    row("entries at the end", f"{report.entries:,}")
    if report.bytes is not None:
        counted = "values as logged" if report.byte_hit_ratio is not None else "small values"
        row("memory, counted", size(report.bytes), f"keys, {counted}, 64 bytes an entry")
    if report.rss_growth is not None:
        grown = size(report.rss_growth) if report.rss_growth > 1 << 20 else "< 1 MB"
        row("memory, measured", grown, "growth of the process (RSS)")
    return table
