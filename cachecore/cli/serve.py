"""`cachecore serve`: the server, in the foreground."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from typing import Any

from cachecore.cli import pidfile
from cachecore.cli.command import command, config_option, read_settings, setting_options
from cachecore.cli.failures import Failure, InputError
from cachecore.server.settings import SettingsError

EXAMPLES = [
    ("cachecore serve", "a quarter of the memory, at most 1 GB, on 127.0.0.1:6380"),
    ("cachecore serve --upstream redis://localhost:6379", "a proxy that answers hot keys itself"),
    ("cachecore serve --memory-limit 4GB --snapshot warm.snapshot", "more of it, kept at a stop"),
]


@command(examples=EXAMPLES)
@config_option
@setting_options
def serve(config: str | None, **options: Any) -> None:
    """Run the server until it is interrupted or told to stop (SIGINT, SIGTERM).

    Settings come from a file, see `cachecore init`, and from the options here, which go before it.
    The log goes to standard error. To run it in the background, use `cachecore start`, or the
    systemd unit in deploy/.
    """
    settings, source = read_settings(config, options)
    from cachecore.server.service import run

    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
    )
    logging.getLogger("cachecore").info("settings: %s", source or "defaults and options")
    with pidfile.held(settings.pid_file) if settings.pid_file else nullcontext():
        try:
            run(settings)
        except SettingsError as error:  # of the files that settings name
            raise InputError(str(error)) from None
        except OSError as error:  # an address that is taken
            raise Failure(str(error)) from None
