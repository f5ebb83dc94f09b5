"""Servers of cachecore in processes of their own, and sockets that say to them what they like."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

PATIENCE = 20.0  # seconds
START = """
import json, logging, sys
logging.basicConfig(level="INFO", stream=sys.stderr)
from cachecore.server.service import run
from cachecore.server.settings import Settings
{before}
run(Settings(**json.loads(sys.argv[1])))
"""


def resident(pid: int, what: str = "VmRSS") -> int:
    """Bytes of memory of a process; 0 under AddressSanitizer, whose allocator returns little."""
    if os.environ.get("CACHECORE_BUILD") == "asan":
        return 0
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


class Host:
    """A server with some settings; its port is free, unless said otherwise."""

    def __init__(self, folder: Path, *, before: str = "", **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / "server.log"
        self.folder, self._before = folder, before
        self.settings: dict[str, Any] = {"port": 0, **settings}
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, and return when it listens."""
        begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        command = [sys.executable, "-c", START.format(before=self._before)]
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([*command, json.dumps(self.settings)], stderr=log)
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"listening on \S+ port (\d+)", self.log()[begin:])):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.01)
        self.port = int(found[1])

    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes of memory; VmHWM: at most so far."""
        return resident(self.pid, what)

    def wire(self, **options: Any) -> Wire:
        """A new connection."""
        return Wire(("127.0.0.1", self.port), **options)

    def ask(self, *args: bytes | str) -> Any:
        """The reply to one command on a connection of its own."""
        with self.wire() as wire:
            return wire.ask(*args)

    def info(self, *sections: str) -> dict[str, str]:
        """The fields of INFO."""
        text = self.ask("INFO", *sections).decode()
        pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
        return {name: value for name, _, value in pairs}

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        return self.end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, if it lives."""
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


class ReplyErrorText(str):
    """An error reply."""


class Wire:
    """One connection: bytes as they are, and replies of RESP as they are read."""

    def __init__(
        self,
        address: Any,
        *,
        context: ssl.SSLContext | None = None,
        family: int = socket.AF_INET,
    ) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(address)
            if context is not None:
                self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        except BaseException:
            self.socket.close()
            raise
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def say(self, *args: bytes | str) -> None:
        self.send(command(*args))

    def ask(self, *args: bytes | str) -> Any:
        self.say(*args)
        return self.read()

    def read(self) -> Any:
        """The next reply; EOFError: there is none."""
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return ReplyErrorText(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            return self._file.read(int(rest) + 2)[:-2]
        if kind in (b"*", b"~", b">"):
            return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        if kind == b"%":
            return {self.read(): self.read() for _ in range(int(rest))}
        if kind == b"_":
            return None
        raise AssertionError(line)

    def rest(self) -> bytes:
        """All that comes until the other end closes; a reset ends it too."""
        parts = []
        try:
            while part := self._file.read1(1 << 16):
                parts.append(part)
        except ConnectionError:
            pass
        return b"".join(parts)

    def is_open(self) -> bool:
        """Whether the other end has not closed it; reads nothing."""
        if not select.select([self.socket], [], [], 0)[0]:
            return True
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except ConnectionError:
            return False


def command(*args: bytes | str) -> bytes:
    """A command as an array of bulk strings."""
    texts = [arg.encode() if isinstance(arg, str) else arg for arg in args]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%b\r\n" % (len(t), t) for t in texts)
