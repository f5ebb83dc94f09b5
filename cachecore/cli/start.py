"""`cachecore start`: the server in the background, once it has said that it is ready."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import click

from cachecore.cli import pidfile
from cachecore.cli.command import command, config_option, read_settings, setting_options
from cachecore.cli.failures import Failure, InputError
from cachecore.cli.target import of_settings
from cachecore.server.settings import Settings
from cachecore.server.values import duration

TAIL = 20  # lines of the log that are shown when it did not start
MOST_TAIL = 1 << 16  # bytes of them
CREDENTIALS = struct.Struct("iii")  # of a sender: process, user, group
EXAMPLES = [
    ("cachecore start", "with the settings of cachecore.toml, or without any"),
    ("cachecore start --port 7000 --memory-limit 4GB", "options go before the file"),
]


@command(examples=EXAMPLES)
@click.option(
    "--wait", metavar="TIME", default="60s", show_default=True, help="Most time it may take."
)
@config_option
@setting_options
def start(wait: str, config: str | None, **options: Any) -> None:
    """Start the server in the background, and return when it answers.

    If it does not start, the last lines of its log tell why, and the exit code is 1. If it runs
    already, that is fine: the exit code is 0.
    """
    settings, source = read_settings(config, options)
    try:
        seconds = duration(wait, "--wait")
    except ValueError as error:
        raise InputError(str(error)) from None
    pid_path = settings.pid_file or pidfile.place(settings, "pid")
    log_path = settings.log_file or pidfile.place(settings, "log")
    for path in (pid_path, log_path):
        if path.parent == pidfile.folder():
            _make_folder(path.parent)
    if (running := pidfile.find(pid_path)) is not None:
        click.echo(f"already running: process {running.pid}")
        return
    arguments = _arguments({**options, "pid_file": str(pid_path)})
    if source is not None:
        arguments += ["--config", str(source)]
    with _log(log_path) as log, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        notices.bind("")  # an abstract name that the kernel chooses: no file, so no disk is needed
        begin = os.fstat(log.fileno()).st_size
        child = _spawn(
            arguments, log.fileno(), notices.getsockname().decode().replace("\0", "@", 1)
        )
        problem = _await_ready(child, notices, seconds)
    if problem:
        raise Failure(f"{problem}; the log, {log_path}, says:\n{_tail(log_path, begin)}")
    click.echo(f"started: process {child.pid}, {_places(settings)}, log {log_path}")


def _places(settings: Settings) -> str:
    if settings.bind and settings.port == 0:
        return "on a free port, which the log tells"
    return f"at {of_settings(settings)}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"{folder}: {error.strerror}") from None


def _log(path: Path) -> Any:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        return os.fdopen(os.open(path, flags, 0o600), "ab")
    except OSError as error:
        raise Failure(f"log_file {path}: {error.strerror}") from None


def _arguments(options: dict[str, Any]) -> list[str]:
    """The command line of `serve` with the same options; paths begin at this folder there too."""
    arguments = []
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            arguments += [option] if value is True else [option, value]
    return arguments


def _spawn(arguments: list[str], log: int, told: str) -> pidfile.Process:
    """Start the server in a session of its own."""
    # Where we were found by our script's place, the child must not be found by this folder.
    found_here = os.path.basename(sys.argv[0]) == "__main__.py"
    python = [sys.executable, *([] if found_here else ["-P"]), "-m", "cachecore", "serve"]
    pid = os.posix_spawn(
        sys.executable,
        [*python, *arguments],
        {**os.environ, "NOTIFY_SOCKET": told},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ],
        setsid=True,
    )
    return pidfile.Process(pid, os.pidfd_open(pid))


def _await_ready(child: pidfile.Process, notices: socket.socket, seconds: float) -> str:
    """Wait until it is ready; what went wrong, or nothing."""
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    poll.register(notices, select.POLLIN)
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        ready = [fd for fd, _ in poll.poll(left * 1000)]
        if notices.fileno() in ready and _says_ready(notices, child.pid):
            return ""
        if child.pidfd in ready:
            status = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
            assert status is not None
            if status.si_code == os.CLD_EXITED:
                return f"it ended with exit code {status.si_status}"
            return f"it was ended by {signal.Signals(status.si_status).name}"
    child.send(signal.SIGTERM)
    if not child.wait(5):
        child.send(signal.SIGKILL)
        child.wait(5)
    return f"it was not ready within {seconds:g} s, and was ended"


def _says_ready(notices: socket.socket, pid: int) -> bool:
    """Whether the next notice says so, and is of that process: anybody can send to the socket."""
    data, extra, *_ = notices.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
    senders = [
        CREDENTIALS.unpack(what)[0] for _, kind, what in extra if kind == socket.SCM_CREDENTIALS
    ]
    return senders == [pid] and b"READY=1" in data.split(b"\n")


def _tail(path: Path, begin: int) -> str:
    with open(path, "rb") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(max(begin, end - MOST_TAIL))
        lines = log.read().decode("utf-8", "replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-TAIL:]) or "  nothing"
