"""All settings of the service, declared once: the command line, init and the docs read them here.

A field says its default, its kind, what it means, and an example where the default is none.
`sources.load` reads settings from a file, the environment and options.
"""

# ruff: noqa: RUF009 (a setting is a field, as dataclasses.field makes it)
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cachecore.server.machine import usable_memory
from cachecore.server.values import (
    ADDRESS,
    ADDRESSES,
    FILE,
    FLAG,
    NAMES,
    PASSWORD,
    PORT,
    PORT_OR_NONE,
    SIZE,
    TIME,
    TIME_OR_ZERO,
    URL,
    Kind,
    Secret,
    choice,
    is_loopback,
    whole,
)

MOST_MEMORY = 1 << 30  # bytes, where no limit is given
MOST_COMMAND = (1 << 32) - 1  # bytes that the parser can count
GROUPS = {
    "network": "Where it listens",
    "clients": "What clients may do",
    "access": "Who may come in",
    "cache": "What it keeps",
    "upstream": "The Redis behind it (proxy mode)",
    "snapshot": "Warm restarts",
    "metrics": "Metrics and the status page",
    "process": "The process",
}


class SettingsError(ValueError):
    """A setting is wrong; the message names it, where it was said, and what was expected."""


class MisfitError(SettingsError):
    """Values do not fit together; `name` is the setting to blame."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name} {what}")
        self.name = name


class About(NamedTuple):
    """What is known of a setting beside its name and default."""

    kind: Kind
    meaning: str
    group: str
    example: Any
    """A value to show where the default tells little."""
    shown: str
    """The default in words, where it depends on the machine."""
    secret: bool
    """It must not be seen: it may come from the environment, and from a file, by NAME_file."""


def setting(
    default: Any,
    kind: Kind,
    meaning: str,
    *,
    group: str,
    example: Any = None,
    shown: str = "",
    secret: bool = False,
) -> Any:
    """A field with all that is known of it; a function as default is called for each."""
    metadata = {"about": About(kind, meaning, group, example, shown, secret)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_memory() -> int:
    """A quarter of the memory that we may use, at most 1 GB."""
    return min(usable_memory() // 4, MOST_MEMORY)


in_network, in_clients, in_access, in_cache, in_upstream, in_snapshot, in_metrics, in_process = (
    partial(setting, group=group) for group in GROUPS
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a service is run. Values are read as in TOML: `Settings(memory_limit="4GB")`.

    Raises:
        SettingsError: a value is none of its kind, or two do not fit together.
    """

    bind: tuple[str, ...] = in_network(
        ("127.0.0.1",), ADDRESSES, "Addresses to listen on; an empty list: only unix_socket."
    )
    port: int = in_network(6380, PORT, "TCP port; 0: one that is free, which the log tells.")
    unix_socket: Path | None = in_network(
        None,
        FILE,
        "Path of a Unix socket to listen on as well; its mode is 0600.",
        example="/run/cachecore/cachecore.sock",
    )
    backlog: int = in_network(
        511,
        whole(1, 65535),
        "Connections that may wait to be accepted; the kernel's somaxconn bounds it.",
    )
    allow_remote: bool = in_network(
        False,
        FLAG,
        "Listen also where other machines come in; needs a password, users or TLS besides.",
    )
    tls_cert: Path | None = in_network(
        None,
        FILE,
        "Certificate chain (PEM); TCP clients must then speak TLS.",
        example="/etc/cachecore/server.crt",
    )
    tls_key: Path | None = in_network(
        None, FILE, "Private key of tls_cert (PEM).", example="/etc/cachecore/server.key"
    )
    tls_client_ca: Path | None = in_network(
        None,
        FILE,
        "Clients must show a certificate that one of these (PEM) has signed.",
        example="/etc/cachecore/clients.crt",
    )

    maxclients: int = in_clients(
        10_000, whole(1, 1_000_000), "Connections at a time; more are refused."
    )
    idle_timeout: float = in_clients(
        0.0, TIME_OR_ZERO, "Close a connection that has been idle for so long; 0: never."
    )
    stall_timeout: float = in_clients(
        60.0,
        TIME,
        "Close one that leaves commands unfinished, replies unread, or AUTH unsaid for so long.",
    )
    max_value: int = in_clients(
        512 << 20, SIZE, "Largest argument of a command, and so the largest value."
    )
    max_command: int = in_clients(1 << 30, SIZE, "Largest command, all its arguments together.")
    max_unread: int = in_clients(
        64 << 20, SIZE, "Replies that a client may leave unread before its commands wait."
    )
    max_buffered: int = in_clients(
        1 << 30, SIZE, "Most bytes of all clients' commands and replies under way."
    )

    password: Secret | None = in_access(
        None,
        PASSWORD,
        "Password of the user `default`, for AUTH.",
        example="a long random text",
        secret=True,
    )
    users_file: Path | None = in_access(
        None,
        FILE,
        "File of users, their passwords, and what they may do.",
        example="/etc/cachecore/users",
    )

    memory_limit: int = in_cache(
        default_memory,
        SIZE,
        "Most bytes of keys, values and their overhead; the policy chooses what goes.",
        example="4GB",
        shown="a quarter of the memory, at most 1GB",
    )
    default_ttl: float = in_cache(
        0.0, TIME_OR_ZERO, "Lifetime of what is set without one; 0: for ever."
    )
    databases: int = in_cache(16, whole(1, 256), "Databases that SELECT knows.")

    upstream: Secret | None = in_upstream(
        None,
        URL,
        "URL of the Redis to read through to: redis://, rediss://, unix://, redis+sentinel://, ...",
        example="redis://localhost:6379",
        secret=True,
    )
    upstream_timeout: float = in_upstream(1.0, TIME, "How long connecting to it may take.")
    max_stale: float = in_upstream(
        60.0,
        TIME_OR_ZERO,
        "How long cached values are served while it cannot be reached; 0: not at all.",
    )

    snapshot: Path | None = in_snapshot(
        None,
        FILE,
        "File that the cache is written to when it stops, and read from when it starts.",
        example="/var/lib/cachecore/snapshot",
    )
    snapshot_interval: float = in_snapshot(
        0.0, TIME_OR_ZERO, "Write it also every so often; 0: only when it stops."
    )

    metrics_port: int | None = in_metrics(
        None,
        PORT_OR_NONE,
        "Port of /metrics for Prometheus and of the status page; none: neither.",
        example=9380,
    )
    metrics_bind: str = in_metrics(
        "127.0.0.1", ADDRESS, "Its address; another than loopback needs allow_remote."
    )
    metrics_hosts: tuple[str, ...] = in_metrics(
        (),
        NAMES,
        "Names by which it may be asked for, beside those of the loopback.",
        example=("cachecore.example.org",),
    )

    log_level: str = in_process(
        "info", choice("debug", "info", "warning", "error"), "Least importance of what is logged."
    )
    log_file: Path | None = in_process(
        None,
        FILE,
        "Where `start` sends the log; `serve` writes it to standard error.",
        example="/var/log/cachecore/cachecore.log",
        shown="PORT.log in the state folder",
    )
    pid_file: Path | None = in_process(
        None,
        FILE,
        "Where `start` keeps the number of the process, and shows by a lock that it lives.",
        example="/run/cachecore/cachecore.pid",
        shown="PORT.pid in the state folder",
    )

    def __post_init__(self) -> None:
        """Read and check what was given."""
        for name, about in abouts():
            try:
                object.__setattr__(self, name, about.kind.read(getattr(self, name), name))
            except (TypeError, ValueError) as error:
                raise SettingsError(str(error)) from None
        for check in CHECKS:
            check(self)


def abouts() -> Iterator[tuple[str, About]]:
    """The names of all settings, in order, and what is known of each."""
    for field in dataclasses.fields(Settings):
        yield field.name, field.metadata["about"]


def defaults() -> dict[str, Any]:
    """The default of each setting; None for those that depend on the machine."""
    unknown = dataclasses.MISSING
    return {
        field.name: None if field.default is unknown else field.default
        for field in dataclasses.fields(Settings)
    }


# --- what must fit together


def _check_remote(settings: Settings) -> None:
    remote = [address for address in settings.bind if not is_loopback(address)]
    if remote and not settings.allow_remote:
        what = f"{remote[0]!r} is reached from other machines: this needs allow_remote = true"
        raise MisfitError("bind", f"{what}, and a password, users_file or tls_cert")
    if remote and not (settings.password or settings.users_file or settings.tls_cert):
        what = f"{remote[0]!r} is reached from other machines"
        raise MisfitError("bind", f"{what}: this needs a password, users_file or tls_cert as well")
    if not is_loopback(settings.metrics_bind) and not settings.allow_remote:
        what = f"{settings.metrics_bind!r} is reached from other machines"
        raise MisfitError("metrics_bind", f"{what}: this needs allow_remote = true")


def _check_listens(settings: Settings) -> None:
    if not settings.bind and settings.unix_socket is None:
        raise MisfitError("bind", "is empty and there is no unix_socket: nobody could connect")


def _check_tls(settings: Settings) -> None:
    if settings.tls_cert and not settings.tls_key:
        raise MisfitError("tls_cert", "needs tls_key, the private key")
    for name in ("tls_key", "tls_client_ca"):
        if getattr(settings, name) and not settings.tls_cert:
            raise MisfitError(name, "needs tls_cert, the certificate of the server")


def _check_snapshot(settings: Settings) -> None:
    if settings.snapshot_interval and not settings.snapshot:
        raise MisfitError("snapshot_interval", "needs snapshot, the file to write")
    if settings.snapshot and settings.upstream:
        what = "is for a server without upstream: what a proxy holds changes while it is stopped"
        raise MisfitError("snapshot", what)


def _check_sizes(settings: Settings) -> None:
    if settings.max_command > MOST_COMMAND:
        raise MisfitError("max_command", f"must be at most {MOST_COMMAND}")
    if settings.max_command < settings.max_value:
        raise MisfitError("max_command", "must be at least max_value, or none could be sent")


def _check_ports(settings: Settings) -> None:
    if settings.metrics_port and settings.metrics_port == settings.port and settings.bind:
        raise MisfitError("metrics_port", f"must differ from port, {settings.port}")


CHECKS: tuple[Callable[[Settings], None], ...] = (
    _check_listens,
    _check_remote,
    _check_tls,
    _check_snapshot,
    _check_sizes,
    _check_ports,
)
