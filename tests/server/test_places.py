"""Places that a server cannot have: it says so, and which, when it starts."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from cachecore.server import listeners
from cachecore.server.service import Server
from cachecore.server.settings import MisfitError, Settings
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


def test_a_snapshot_that_could_not_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    async def begin() -> None:
        Server(Settings(port=0, snapshot=tmp_path / "none" / "snapshot"))

    with pytest.raises(MisfitError, match=f"^snapshot .*there is no folder {tmp_path}/none "):
        asyncio.run(begin())


def test_errors_name_the_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path, why in (
        (tmp_path / "file", "Address already in use"),
        (tmp_path / "none" / "socket", "No such file or directory"),
        (tmp_path / ("x" * 200), "AF_UNIX path too long"),
    ):
        with pytest.raises(OSError, match=re.escape(f"cannot listen on {path}: {why}")):
            listeners.unix(path, 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address alr"):
            listeners.tcp("127.0.0.1", port, 1)
