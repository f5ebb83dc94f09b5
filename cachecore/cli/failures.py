"""How commands fail: one line on standard error and an exit code; see `group.EXIT_CODES`."""

from __future__ import annotations

import click


class Failure(click.ClickException):
    """What was asked for could not be done."""

    exit_code = 1


class InputError(click.ClickException):
    """Bad input or bad settings."""

    exit_code = 2


class NotRunning(Failure):
    """There is no server."""

    exit_code = 3
