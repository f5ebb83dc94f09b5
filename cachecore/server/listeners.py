"""Listening sockets: TCP and Unix."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

MODE = 0o600  # of a Unix socket


def tcp(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listening sockets for every address of a host; port 0: any that is free, the same for all.

    Raises:
        OSError: the name is unknown, or the port taken.
    """
    found: list[socket.socket] = []
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, _, _, _, address in infos:
            listener = socket.socket(family, socket.SOCK_STREAM)
            found.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken = found[0].getsockname()[1] if len(found) > 1 else address[1]
            listener.bind((address[0], taken, *address[2:]))
            listener.listen(backlog)
            listener.setblocking(False)
    except OSError as error:
        for listener in found:
            listener.close()
        raise _named(error, f"{host} port {port}") from None
    return found


def unix(path: Path, backlog: int) -> socket.socket:
    """A listening socket in the file system, which nobody but who may read and write it can use.

    A socket that a dead server left there is replaced, anything else is not.

    Raises:
        OSError: there is something else at `path`, or a server that listens.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _is_alive(path):
            path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _created_as(MODE):
            listener.bind(str(path))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _named(error, str(path)) from None
    return listener


def _named(error: OSError, place: str) -> OSError:
    return OSError(error.errno, f"cannot listen on {place}: {error.strerror or error}")


def shown(listener: socket.socket) -> str:
    """Where it listens, for people."""
    name = listener.getsockname()
    return name if isinstance(name, str) else f"{name[0]} port {name[1]}"


def close(listener: socket.socket) -> None:
    """Listen no more; the file of a Unix socket goes too."""
    if listener.family == socket.AF_UNIX:
        Path(listener.getsockname()).unlink(missing_ok=True)
    listener.close()


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # it does not come round to accepting
            return True
        return True


@contextlib.contextmanager
def _created_as(mode: int) -> Iterator[None]:
    """What is created meanwhile has at most this mode from its first moment on."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)
