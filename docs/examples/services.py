"""What the examples share that need several servers: those of ci/services.sh, and a clock."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

SCRIPT = Path(__file__).parents[2] / "ci" / "services.sh"

begin = time.monotonic()


def say(text: str) -> None:
    """Print a line, with the time since the start."""
    print(f"{time.monotonic() - begin:5.1f} s  {text}", flush=True)


def free_ports() -> int:
    """Return a port such that it and those after it, and theirs of a cluster's bus, are free."""
    while True:
        base = random.randrange(20_000, 30_000, 10)
        try:
            for port in [*range(base, base + 10), *range(base + 10_000, base + 10_010)]:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue


class Services:
    """Servers of a kind, in a folder and on ports of their own, which end with the block.

    Where SERVICES= and BASE_PORT= name a folder and ports it is those, and they go on.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._own = "SERVICES" not in os.environ

    def __enter__(self) -> Self:
        if self._own:
            self._temporary = tempfile.TemporaryDirectory(prefix="cachecore-example-")
            os.environ |= {"SERVICES": self._temporary.name, "BASE_PORT": str(free_ports())}
        self.base = int(os.environ["BASE_PORT"])
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            with self._temporary:
                self._run("stop")

    def start(self) -> None:
        """Start those that do not run."""
        self._run("start")

    def kill(self, port: int) -> None:
        """End the one on a port at once."""
        process = Path(os.environ["SERVICES"], str(port), "pid").read_text()
        os.kill(int(process), signal.SIGKILL)

    def _run(self, command: str) -> None:
        line = [str(SCRIPT), command, self._kind]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
