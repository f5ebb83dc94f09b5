"""`cachecore init`: a file of settings, each with what it means, chosen for a kind of use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cachecore.cli.command import command
from cachecore.cli.failures import Failure, InputError
from cachecore.server.settings import SettingsError
from cachecore.server.sources import NAME, load
from cachecore.server.template import toml

Chosen = dict[str, tuple[Any, str]]
METRICS: Chosen = {
    "metrics_port": (9380, "The page is at http://127.0.0.1:9380/; remove the line if not wanted.")
}
MODES: dict[str, Chosen] = {
    "embedding": {
        "max_value": ("16MB", "An embedding is some KB; this bounds what a wrong key can cost."),
        "max_command": ("64MB", "An MSET of a thousand vectors of 4 KB is 4 MB."),
        "snapshot": (
            "cachecore.snapshot",
            "Embeddings are dear to compute and do not age: begin warm after a restart.",
        ),
        "snapshot_interval": ("15min", "A crash costs what was computed since."),
    },
    "inference": {
        "default_ttl": (
            "1h",
            "Models change: so long speaks the old one if its version is not part of the key.",
        ),
        "max_value": ("64MB", "Results may be long texts or tensors."),
        "snapshot": ("cachecore.snapshot", "Results are dear to compute: begin warm."),
    },
    "feature": {
        "default_ttl": ("5min", "Features age: no older than this if nobody invalidates them."),
        "max_value": ("1MB", "A row of features is some KB."),
        "max_command": ("32MB", "An MSET of a thousand rows of some KB fits."),
        "maxclients": (20_000, "Feature stores are asked by every worker of every service."),
        "max_stale": ("30s", "A short outage of the store behind is covered, a long one is seen."),
    },
}
EXAMPLES = [
    ("cachecore init", "all settings at their defaults, with what they mean"),
    ("cachecore init --mode embedding --memory-limit 4GB", "values chosen for embeddings"),
    ("cachecore init --mode feature --upstream redis://localhost:6379", "before a feature store"),
]


@command(examples=EXAMPLES)
@click.argument("file", default=NAME)
@click.option(
    "--mode",
    type=click.Choice([*MODES]),
    help="What it is for. embedding: vectors that are dear to compute and do not age; inference:"
    " results of models, which a new model makes old; feature: rows that age and are asked for by"
    " many, of a store behind it.",
)
@click.option("--memory-limit", metavar="SIZE", help='Most bytes it may keep, such as "4GB".')
@click.option("--port", metavar="PORT", help="TCP port.")
@click.option("--upstream", metavar="URL", help="The Redis that it is put before.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(
    file: str,
    mode: str | None,
    memory_limit: str | None,
    port: str | None,
    upstream: str | None,
    force: bool,
) -> None:
    """Write FILE with all settings of the server, and what each means.

    With --mode some are in force, with the reason; else only the port of the status page.
    """
    said = {"memory_limit": memory_limit, "port": port, "upstream": upstream}
    try:
        settings = load(None, said, {})
    except SettingsError as error:
        raise InputError(str(error)) from None
    chosen = {**METRICS, **MODES.get(mode or "", {})}
    if memory_limit is not None:
        chosen["memory_limit"] = (memory_limit, "")
    if port is not None:
        chosen["port"] = (settings.port, "")
    if upstream is not None:
        chosen["upstream"] = (upstream, "")
        for name in ("snapshot", "snapshot_interval"):  # a proxy keeps none
            chosen.pop(name, None)
    path = Path(file)
    _write(path, toml(chosen), force)
    click.echo(f"wrote {path}; `cachecore start` reads it")


def _write(path: Path, text: str, force: bool) -> None:
    """Write the file for us alone, all of it or nothing."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
            output.write(text)
        if force:
            draft.replace(path)
        else:
            os.link(draft, path)  # fails if it is there
    except FileExistsError:
        raise Failure(f"{path} is there already; --force replaces it") from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
