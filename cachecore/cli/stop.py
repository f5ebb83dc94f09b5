"""`cachecore stop`: the end of the server that `cachecore start` has started."""

from __future__ import annotations

import os
import signal
from time import monotonic

import click

from cachecore.cli import pidfile
from cachecore.cli.client import Client
from cachecore.cli.command import command, config_option, read_settings
from cachecore.cli.failures import Failure, InputError, NotRunning
from cachecore.cli.target import of_settings
from cachecore.server.settings import Settings
from cachecore.server.values import duration

EXAMPLES = [
    ("cachecore stop", "ask it to end, and wait until it has"),
    ("cachecore stop --port 7000", "the one that was started with that port"),
    ("cachecore stop --wait 5s --kill", "end it by force after five seconds"),
]


@command(examples=EXAMPLES)
@click.option(
    "--wait", metavar="TIME", default="60s", show_default=True, help="Most time it may take."
)
@click.option("--kill", is_flag=True, help="If it takes longer, kill it: nothing is written then.")
@click.option("--port", metavar="PORT", help="The port that it was started with.")
@click.option("--pid-file", metavar="FILE", help="The file that it was started with.")
@config_option
def stop(wait: str, kill: bool, port: str | None, pid_file: str | None, config: str | None) -> None:
    """Stop the server that `cachecore start` has started, and return when it has ended.

    What is stopped is the process that holds the lock on the pid file, and no other. If there is
    none, that is fine: the exit code is 0.
    """
    settings, _ = read_settings(config, {"port": port, "pid_file": pid_file})
    try:
        seconds = duration(wait, "--wait")
    except ValueError as error:
        raise InputError(str(error)) from None
    path = settings.pid_file or pidfile.place(settings, "pid")
    process = pidfile.find(path)
    if process is None:
        if pidfile.remove(path):
            click.echo(f"not running: it has died before; {path} is removed")
        else:
            _complain_of_another(settings, path)
            click.echo("not running")
        return
    click.echo(_end(process, seconds, kill))


def _end(process: pidfile.Process, seconds: float, kill: bool) -> str:
    begin = monotonic()
    try:
        process.send(signal.SIGTERM)
        if process.wait(seconds):
            return f"stopped: process {process.pid}, after {monotonic() - begin:.1f} s"
        if not kill:
            what = f"process {process.pid} still runs after {seconds:g} s"
            raise Failure(f"{what}: wait longer, or kill it by --kill")
        process.send(signal.SIGKILL)
    except PermissionError:
        raise Failure(f"process {process.pid} belongs to another user") from None
    if not process.wait(10):
        raise Failure(f"process {process.pid} cannot be killed: it waits in the kernel")
    return f"killed: process {process.pid}, which did not end within {seconds:g} s"


def _complain_of_another(settings: Settings, path: os.PathLike[str]) -> None:
    """Fail if there is a server all the same, which was started in another way."""
    if settings.bind and settings.port == 0:
        return
    target = of_settings(settings)
    try:
        Client(target, timeout=1).close()
    except NotRunning:
        return
    except Failure:
        pass  # somebody listens
    raise Failure(
        f"somebody listens at {target}, but was not started by `cachecore start` with {path}:"
        " stop it where it was started"
    )
