"""`cachecore bench`: a load on a server, or on a Cache in this process, and its latencies."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from cachecore.cli.command import command
from cachecore.cli.failures import InputError
from cachecore.cli.target import Target, target_options
from cachecore.server.values import duration, size

EXAMPLES = [
    (
        "cachecore bench",
        "the server of the settings, for five seconds",
    ),
    ("cachecore bench --pipeline 16 --size 4KB", "larger values, sixteen requests at a time"),
    ("cachecore bench --url redis://localhost:6379", "the same for a Redis, to compare"),
    ("cachecore bench --in-process", "what a Cache in the program itself would take"),
]


@command(examples=EXAMPLES)
@click.option(
    "--clients", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Connections."
)
@click.option(
    "--pipeline",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="Requests that a connection sends at a time.",
)
@click.option("--seconds", metavar="TIME", default="5s", show_default=True, help="How long.")
@click.option("--requests", type=click.IntRange(1), help="How many, instead.")
@click.option(
    "--keys",
    type=click.IntRange(1, 100_000_000),
    default=100_000,
    show_default=True,
    help="Distinct keys.",
)
@click.option(
    "--size",
    "sizes",
    metavar="SIZE[-SIZE]",
    default="64",
    show_default=True,
    help="Bytes of a value, or from ... to: each key has its own, small ones more often.",
)
@click.option(
    "--distribution",
    type=click.Choice(["zipf", "uniform"]),
    default="zipf",
    show_default=True,
    help="How often which key is asked for.",
)
@click.option(
    "--exponent",
    type=click.FloatRange(0, 5),
    default=0.99,
    show_default=True,
    help="Of the Zipf distribution.",
)
@click.option(
    "--ratio", metavar="GETS:SETS", default="9:1", show_default=True, help="Reads to writes."
)
@click.option("--prefix", default="cachecore-bench:", show_default=True, help="Of the keys.")
@click.option("--no-fill", is_flag=True, help="Do not set all keys before.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Of what is drawn at random.",
)
@click.option("--in-process", is_flag=True, help="Load a Cache in this process; no server.")
@click.option(
    "--memory-limit", metavar="SIZE", default="1GB", show_default=True, help="Of that Cache."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@target_options
def bench(
    *,
    seconds: str,
    sizes: str,
    ratio: str,
    memory_limit: str,
    no_fill: bool,
    in_process: bool,
    as_json: bool,
    target: Target,
    **options: Any,
) -> None:
    """Send GETs and SETs as fast as the server answers, and show how long each took.

    The keys that it sets stay: they begin with --prefix. Each connection sends its next requests
    when it has the replies to the last, so a slow answer delays what follows, and latencies are
    those of a service that is kept busy, not of one that is asked at a fixed rate.
    """
    from cachecore.cli.bench_load import Work, run_in_process, run_on_server
    from cachecore.cli.bench_report import report

    try:
        work = Work(
            seconds=duration(seconds, "--seconds"),
            sizes=_sizes(sizes),
            gets=_share(ratio),
            fill=not no_fill,
            **options,
        )
        budget = size(memory_limit, "--memory-limit")
    except ValueError as error:
        raise InputError(str(error)) from None
    result = run_in_process(work, budget) if in_process else run_on_server(work, target)
    if as_json:
        click.echo(json.dumps(result.as_object()))
    else:
        click.echo(report(result))


def _sizes(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    least = size(low, "--size")
    most = size(high, "--size") if dash else least
    if most < least or most > 512 << 20:
        raise ValueError(f"--size must be a size up to 512MB, or two, the lesser first: {text!r}")
    return least, most


def _share(text: str) -> float:
    """Of GETs, from "9:1"."""
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if match is None or int(match[1]) + int(match[2]) == 0:
        raise ValueError(f'--ratio must be two numbers like "9:1", not {text!r}')
    return int(match[1]) / (int(match[1]) + int(match[2]))
