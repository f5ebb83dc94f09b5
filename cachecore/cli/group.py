"""The click group that gathers the commands."""

from __future__ import annotations

import click

from cachecore.cli.demo import demo
from cachecore.cli.plan import plan
from cachecore.cli.replay import replay


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A cache core for ML serving in Python."""


cli.add_command(demo)
cli.add_command(plan)
cli.add_command(replay)
