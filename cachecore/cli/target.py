"""Which server a command talks to: --url, or what the settings say, with --port or --db instead."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import click

from cachecore.cli.command import config_option, read_settings
from cachecore.cli.failures import Failure, InputError
from cachecore.server.settings import Settings
from cachecore.server.values import Secret

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # addresses to listen on, and to find them at


@dataclass(frozen=True)
class Target:
    """Where a server is, and how to come in."""

    host: str = "127.0.0.1"
    port: int = 6380
    path: str | None = None
    """A Unix socket, instead of these."""
    tls: bool = False
    certificate: Path | None = None
    """The server's own, which it must show; None: one that the system trusts, for its name."""
    username: str = ""
    password: Secret | None = None
    database: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"

    def secured(self, plain: socket.socket) -> socket.socket:
        """The connection under TLS; OSError when the server cannot prove who it is."""
        import ssl

        if self.certificate is None:
            context = ssl.create_default_context()
            return context.wrap_socket(plain, server_hostname=self.host)
        # It is this machine's own server, perhaps by an address that no certificate names.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        secured = context.wrap_socket(plain)
        try:
            own = ssl.PEM_cert_to_DER_cert(self._first_certificate())
        except (OSError, ValueError) as error:
            secured.close()
            raise ssl.SSLError(f"tls_cert {self.certificate}: {error}") from None
        if secured.getpeercert(binary_form=True) != own:
            secured.close()
            raise ssl.SSLError(f"it does not show the certificate {self.certificate}")
        return secured

    def _first_certificate(self) -> str:
        assert self.certificate is not None
        begin, rest = "-----BEGIN CERTIFICATE-----", self.certificate.read_text()
        return (
            begin
            + rest.partition(begin)[2].partition("-----END CERTIFICATE-----")[0]
            + ("-----END CERTIFICATE-----")
        )


def of_settings(settings: Settings) -> Target:
    """Where a server with these settings is; the Unix socket rather than TLS."""
    target = Target(
        port=settings.port,
        tls=settings.tls_cert is not None,
        certificate=settings.tls_cert,
        password=settings.password,
    )
    if settings.unix_socket is not None and (target.tls or not settings.bind):
        return replace(target, path=str(settings.unix_socket), tls=False)
    return replace(target, host=ANY.get(settings.bind[0], settings.bind[0]))


def of_url(url: str) -> Target:
    """What a URL says: redis://host:port/db, rediss://... for TLS, unix:///path?db=0.

    The password comes from CACHECORE_PASSWORD, for `ps` would show it here.
    """
    secret = os.environ.get("CACHECORE_PASSWORD")
    password = Secret(secret) if secret else None
    try:
        parts = urlsplit(url)
        port = parts.port or 6380
        text = parse_qs(parts.query).get("db", ["0"])[-1] if parts.scheme == "unix" else parts.path
        database = int(text.strip("/") or 0)
    except ValueError:
        raise InputError(f"--url {url!r} is not of the form redis://host:port/db") from None
    if parts.password is not None:
        raise InputError("--url must hold no password, for `ps` shows it: set CACHECORE_PASSWORD")
    named = Target(username=unquote(parts.username or ""), password=password, database=database)
    if parts.scheme == "unix" and parts.path:
        return replace(named, path=unquote(parts.path))
    if parts.scheme in ("redis", "rediss") and parts.hostname:
        return replace(named, host=parts.hostname, port=port, tls=parts.scheme == "rediss")
    raise InputError("--url must begin with redis://host, rediss://host or unix:///path")


def target_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which server is meant, as an argument `target`."""

    @wraps(function)
    def command(
        *args: Any, config: str | None, url: str | None, port: int | None, db: int | None, **kw: Any
    ) -> None:
        function(*args, target=_find(config, url, port, db), **kw)

    options = [
        click.option(
            "--url",
            metavar="URL",
            help="The server: redis://host:port/db, rediss:// or unix:///path. Its password comes"
            " from the environment, CACHECORE_PASSWORD.  [default: that of the settings]",
        ),
        click.option("--port", type=click.IntRange(1, 65535), help="Its port."),
        click.option(
            "--db", type=click.IntRange(0), metavar="NUMBER", help="Database.  [default: 0]"
        ),
        config_option,
    ]
    decorated: Callable[..., None] = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def _find(config: str | None, url: str | None, port: int | None, db: int | None) -> Target:
    if url is not None:
        if config is not None or port is not None:
            raise InputError("--url cannot go with --config or --port: it says both")
        target = of_url(url)
    else:
        target = of_settings(read_settings(config, {"port": port})[0])
    if target.path is None and target.port == 0:
        raise Failure("the settings say port = 0, any free one: say by --port which it became")
    return target if db is None else replace(target, database=db)
