"""The file that tells which process is the server: its number, when it began, and a lock on it.

The process holds a lock on the file while it lives, whatever ends it. So a file that was left
behind is known by being unlocked, and of a locked one the kernel tells the process, which is then
reached by a pidfd: a number that another process has by now is never signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cachecore.cli.failures import Failure
from cachecore.server.settings import Settings

_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid


class Process(NamedTuple):
    """A process that lives, or did so when it was looked at."""

    pid: int
    pidfd: int

    def wait(self, seconds: float) -> bool:
        """Whether it ended in time."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


def folder() -> Path:
    """Where the state of servers is, if the settings do not say."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "cachecore"


def place(settings: Settings, suffix: str) -> Path:
    """The pid file or the log of a server, there."""
    name = str(settings.port)
    if not settings.bind and settings.unix_socket is not None:
        name = settings.unix_socket.name
    return folder() / f"{name}.{suffix}"


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Be the process that the file tells of, for the block.

    Raises:
        Failure: another one is, or the file cannot be written.
    """
    file = _locked(path)
    try:
        try:
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()} {_began(os.getpid())}\n".encode())
        except OSError as error:
            raise Failure(f"pid_file {path}: {error.strerror}") from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
    finally:
        os.close(file)


def find(path: Path) -> Process | None:
    """The server that the file tells of; None: it has ended, or there is no file.

    Raises:
        Failure: somebody else has locked the file, or it cannot be read.
    """
    with _opened(path) as file:
        if file is None:
            return None
        holder = _holder(file)
        if holder is None:
            return None
        if holder <= 0:  # the kernel knows no number for it here
            raise Failure(f"pid_file {path} is locked by a process of another container")
        try:
            process = Process(holder, os.pidfd_open(holder))
        except ProcessLookupError:
            return None
        # While it held the lock after the pidfd was made, the pidfd is of the process that does.
        text = os.pread(file, 100, 0).decode("ascii", "replace").split()
        if _holder(file) != holder or text != [str(holder), _began(holder)]:
            os.close(process.pidfd)
            raise Failure(f"pid_file {path} is locked by process {holder}, which is not our server")
        return process


def remove(path: Path) -> bool:
    """Remove the file that a dead process has left; False if there is none."""
    try:
        file = _locked(path, create=False)
    except FileNotFoundError:
        return False
    os.unlink(path)
    os.close(file)
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise Failure(f"pid_file {path}: {error.strerror}") from None
    try:
        yield file
    finally:
        os.close(file)


def _locked(path: Path, *, create: bool = True) -> int:
    """The file, locked by us."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    while True:
        try:
            file = os.open(path, flags, 0o600)
        except FileNotFoundError:
            if not create:
                raise
            raise Failure(f"pid_file {path}: there is no such folder") from None
        except OSError as error:
            raise Failure(f"pid_file {path}: {error.strerror}") from None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(file).st_ino:
                return file
        except FileNotFoundError:
            pass  # removed between the two: again
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            what = f"process {holder} runs already" if holder else error.strerror
            raise Failure(f"pid_file {path}: {what}") from None
        os.close(file)


def _holder(file: int) -> int | None:
    """The process that has locked the file, by what the kernel says."""
    ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, ask))
    return None if kind == fcntl.F_UNLCK else pid


def _began(pid: int) -> str:
    """When a process began, in ticks since the boot; empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
