"""A client of the server for the commands here: blocking, RESP2, on one connection.

redis-py would do as well, but is not needed by the rest and takes as long to import as all this.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from cachecore.cli.failures import Failure, NotRunning

if TYPE_CHECKING:
    from cachecore.cli.target import Target

KINDS = (b"+", b"-", b":", b"$", b"*")
MOST_DEPTH = 8  # of arrays within arrays in a reply
WINDOW = 1 << 16  # bytes of commands under way before replies are read


class ReplyError(Exception):
    """The server answered with an error."""


def encode(*arguments: bytes) -> bytes:
    """A command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)


class Client:
    """A connection to a server; a context manager.

    Raises:
        NotRunning: nobody listens there.
        Failure: it does not answer in time, goes away, answers nonsense, or refuses us.
    """

    def __init__(self, target: Target, *, timeout: float = 5.0) -> None:
        self.target = target
        self.socket = self._guard(self._connect, timeout)
        self._file = self.socket.makefile("rb", WINDOW)
        try:
            if target.password is not None:
                user = [target.username.encode()] if target.username else []
                self.call(b"AUTH", *user, target.password.reveal().encode())
            if target.database:
                self.call(b"SELECT", b"%d" % target.database)
        except ReplyError as error:
            self.close()
            raise Failure(f"{target}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.socket.close()

    def call(self, *arguments: bytes) -> Any:
        """The reply to a command; ReplyError when it is an error."""
        self._guard(self.socket.sendall, encode(*arguments))
        reply = self._guard(self._read)
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def call_many(self, commands: Iterable[bytes]) -> Iterator[Any]:
        """The replies to encoded commands, errors among them, with many commands under way."""
        pending = waiting = 0
        batch: list[bytes] = []
        for command in commands:
            batch.append(command)
            pending += len(command)
            if pending >= WINDOW:
                yield from self._replies(waiting)
                self._guard(self.socket.sendall, b"".join(batch))
                batch, pending, waiting = [], 0, len(batch)
        yield from self._replies(waiting)
        self._guard(self.socket.sendall, b"".join(batch))
        yield from self._replies(len(batch))

    def _replies(self, count: int) -> Iterator[Any]:
        for _ in range(count):
            yield self._guard(self._read)

    def _connect(self, timeout: float) -> socket.socket:
        target = self.target
        if target.path is not None:
            plain = socket.socket(socket.AF_UNIX)
            plain.settimeout(timeout)
            try:
                plain.connect(target.path)
            except OSError:
                plain.close()
                raise
            return plain
        plain = socket.create_connection((target.host, target.port), timeout=timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return target.secured(plain) if target.tls else plain

    def _guard(self, step: Any, *arguments: Any) -> Any:
        """Do a step; what fails is one line."""
        try:
            return step(*arguments)
        except (ConnectionRefusedError, FileNotFoundError):
            raise NotRunning(
                f"nobody listens at {self.target}; `cachecore start` starts a server"
            ) from None
        except TimeoutError:
            raise Failure(f"{self.target} does not answer") from None
        except OSError as error:
            raise Failure(f"{self.target}: {error.strerror or error}") from None

    def _read(self, depth: int = 0) -> Any:
        line = self._file.readline(WINDOW)
        if not line:
            raise ConnectionError("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if not line.endswith(b"\r\n") or kind not in KINDS or depth > MOST_DEPTH:
            raise ConnectionError("the answer is not in Redis' protocol")
        if kind in b"+-":
            text = rest.decode("utf-8", "replace")
            return text if kind == b"+" else ReplyError(text)
        try:
            number = int(rest)
        except ValueError:
            raise ConnectionError("the answer is not in Redis' protocol") from None
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"*":
            return [self._read(depth + 1) for _ in range(number)]
        data = self._file.read(number + 2)
        if len(data) < number + 2:
            raise ConnectionError("the connection was closed")
        return data[:-2]
