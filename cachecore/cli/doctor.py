"""`cachecore doctor`: what of the installation, the machine and the settings will not do."""

from __future__ import annotations

import json
from collections import Counter

import click

from cachecore.cli.command import command, config_option, read_settings, setting_options
from cachecore.cli.doctor_checks import FAILED, OK, WARNED, Finding, examine
from cachecore.cli.failures import Failure

COLOURS = {OK: "green", WARNED: "yellow", FAILED: "red"}
EXAMPLES = [
    ("cachecore doctor", "all checks, with what to do; exit code 1 if one failed"),
    ("cachecore doctor --upstream redis://localhost:6379", "of settings that are not yet written"),
]


@command(examples=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, a line each check.")
@config_option
@setting_options
def doctor(as_json: bool, config: str | None, **options: str | None) -> None:
    """Check what a server needs: the installation, limits, memory, the upstream, files, the clock.

    Nothing is changed. `warn` is what may cost speed or surprise later, `FAIL` what will not work.
    """
    settings, source = read_settings(config, options)
    counts: Counter[str] = Counter()
    for finding in examine(settings, source):
        counts[finding.level] += 1
        if as_json:
            click.echo(json.dumps(finding._asdict()))
        else:
            _show(finding)
    if not as_json:
        click.echo(f"\n{counts[OK]} fine, {counts[WARNED]} to look at, {counts[FAILED]} failed")
    if counts[FAILED]:
        raise Failure(f"{counts[FAILED]} of {counts.total()} checks failed")


def _show(finding: Finding) -> None:
    level = click.style(f"{finding.level:<4}", fg=COLOURS[finding.level])
    click.echo(f"{level}  {finding.name:<12} {finding.what}")
    if finding.advice:
        click.echo(f"{'':<19}-> {finding.advice}")
