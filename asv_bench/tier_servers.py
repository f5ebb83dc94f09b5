"""The servers that benchmarks talk to, on free ports of the loopback, stopped at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

STARTED = 20.0  # seconds that a server may take to start


class Server:
    """A server process and its port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    @property
    def url(self) -> str:
        """For clients of Redis."""
        return f"redis://127.0.0.1:{self.port}"


@contextmanager
def running(command: Sequence[str]) -> Iterator[Server]:
    """Run a server; {port} and {folder} in its command stand for a free port and its folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="cachecore-bench-") as folder:
        words = [word.format(port=port, folder=folder) for word in command]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        try:
            _wait_for(process, port)
            yield Server(process, port)
        finally:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + STARTED
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.01)


def redis_server(*options: str) -> AbstractContextManager[Server]:
    """Run a Redis that keeps nothing on the disk."""
    command = "redis-server --port {port} --bind 127.0.0.1 --appendonly no --dir {folder} --save"
    return running([*command.split(), "", *options])


def memcached_server() -> AbstractContextManager[Server]:
    """Run a memcached with 256 MB."""
    user = ["-u", "root"] if os.getuid() == 0 else []
    return running([*"memcached -p {port} -l 127.0.0.1 -U 0 -m 256".split(), *user])
