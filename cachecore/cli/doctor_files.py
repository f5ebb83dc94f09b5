"""Whether the files that the settings name can be used, and by nobody else where that matters."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cachecore.cli import pidfile
from cachecore.cli.doctor_checks import FAILED, OK, WARNED, Finding
from cachecore.server.settings import Settings
from cachecore.units import size

SOON = 14 * 86_400  # seconds before a certificate ends that are few


def check_files(settings: Settings) -> Iterator[Finding]:
    """All that the settings name."""
    if settings.snapshot is not None:
        yield from _snapshot(settings.snapshot, settings.memory_limit)
    for name, path in (
        ("pid_file", settings.pid_file or pidfile.place(settings, "pid")),
        ("log_file", settings.log_file or pidfile.place(settings, "log")),
        ("unix_socket", settings.unix_socket),
    ):
        if path is not None:
            yield _folder(name, path)
    if settings.users_file is not None:
        yield _private("users_file", settings.users_file)
    if settings.tls_cert is not None and settings.tls_key is not None:
        yield _private("tls_key", settings.tls_key)
        yield from _certificate(settings.tls_cert, settings.tls_key)


def _snapshot(path: Path, needed: int) -> Iterator[Finding]:
    """Room for the snapshot, of which the old one stays until the new one is whole."""
    found = _folder("snapshot", path)
    yield found
    if found.level == OK:
        free = shutil.disk_usage(path.parent).free
        what = f"{size(free)} free at {path.parent}, at most {size(needed)} needed"
        if free < needed:
            advice = "free some, choose another folder, or lower memory_limit"
            yield Finding(WARNED, "disk", what, advice)
        else:
            yield Finding(OK, "disk", what)


def _folder(name: str, path: Path) -> Finding:
    """Whether a file can be written there; the folder of our own state is made by `start`."""
    folder = path.parent
    if folder == pidfile.folder():
        folder = next(parent for parent in path.parents if parent.exists())
    if path.is_dir():
        return Finding(FAILED, name, f"{path} is a folder", "name a file in it")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = f"create {folder}, and let user {os.geteuid()} write there"
        return Finding(FAILED, name, f"{folder}: {error.strerror}", advice)
    return Finding(OK, name, f"{path}")


def _private(name: str, path: Path) -> Finding:
    """Whether a file can be read, and by its owner only."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
    except OSError as error:
        return Finding(FAILED, name, f"{path}: {error.strerror}", "name a file that is there")
    if mode & 0o077:
        what = f"{path} can be read by others (mode {mode:o})"
        return Finding(FAILED, name, what, f"chmod 600 {path}")
    return Finding(OK, name, str(path))


def _certificate(cert: Path, key: Path) -> Iterator[Finding]:
    """Whether certificate and key belong together, and for how long."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        what = f"{cert} with {key}: {error.strerror or error}"
        yield Finding(FAILED, "tls_cert", what, "both must be PEM, and belong together")
        return
    if shutil.which("openssl") is None:
        yield Finding(OK, "tls_cert", f"{cert}; when it ends, openssl would tell")
        return
    asked = ["openssl", "x509", "-in", str(cert), "-noout", "-enddate", "-checkend", str(SOON)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    until = done.stdout.partition("\n")[0].removeprefix("notAfter=")
    if done.returncode:
        yield Finding(WARNED, "tls_cert", f"{cert} ends {until}", "renew it")
    else:
        yield Finding(OK, "tls_cert", f"{cert}, until {until}")
