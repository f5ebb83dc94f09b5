"""Unix sockets: whose place is taken, and whose is not."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from cachecore.server import listeners
from server.hosts import PATIENCE


def test_a_server_that_does_not_come_round_to_accepting_is_left_alone(tmp_path: Path) -> None:
    """Nobody waits for it: neither takes its place."""
    path, errors = tmp_path / "socket", []
    with ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(path))
        busy.listen(0)
        try:
            while True:  # as many as may wait
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        except BlockingIOError:
            pass

        def begin() -> None:
            try:
                listeners.unix(path, 1)
            except OSError as error:
                errors.append(error.errno)

        beginning = Thread(target=begin, daemon=True)
        beginning.start()
        beginning.join(PATIENCE)
        assert errors == [errno.EADDRINUSE]
        assert path.is_socket()
