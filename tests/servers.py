"""Real servers for tests: started on free ports of this machine, stopped, continued, killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

STARTED = 20.0  # seconds that a server may take to start


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process on 127.0.0.1; `port` stays the same over restarts."""

    def __init__(self, command: Callable[[int], Sequence[str]], folder: Path) -> None:
        self.port = free_port()
        self._command, self._folder = command, folder
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        command = self._command(self.port)
        assert shutil.which(command[0]), (
            f"{command[0]} is not installed: see need_servers in ci/common.sh"
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        end = time.monotonic() + STARTED
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < end, f"{command[0]} does not listen"
                time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; SIGSTOP has taken effect when this returns."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """End it at once; its port is closed when this returns."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def redis_server(folder: Path, *options: str) -> Server:
    """A redis-server without persistence; `options` as on its command line."""

    def command(port: int) -> list[str]:
        fixed = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return ["redis-server", *fixed, "--dir", str(folder), *options]

    return Server(command, folder)


def memcached_server(folder: Path, *options: str) -> Server:
    """A memcached with 64 MB; `options` as on its command line."""

    def command(port: int) -> list[str]:
        user = ["-u", "root"] if os.getuid() == 0 else []
        return ["memcached", "-p", str(port), "-l", "127.0.0.1", "-U", "0", *user, *options]

    return Server(command, folder)
