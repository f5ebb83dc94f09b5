"""Proxies for tests: processes of their own in front of real servers."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import redis


class ProxyProcess:
    """A proxy on a port of its own; `settings` as of Proxy."""

    def __init__(self, url: str, **settings: float) -> None:
        given = [f"{name}={value}" for name, value in settings.items()]
        command = [sys.executable, str(Path(__file__).with_name("serving.py")), url, *given]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors()
        self.port = int(line)

    def client(self, **options: Any) -> redis.Redis:
        """A client that repeats nothing by itself."""
        return client(self.port, **options)

    def info(self) -> dict[str, Any]:
        with self.client() as some:
            return dict(some.info("cachecore"))

    def errors(self) -> str:
        """What it said on standard error; it must have ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def stop(self) -> int:
        """End it as systemd would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.close()
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def client(port: int, **options: Any) -> redis.Redis:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options = {"protocol": 2, "socket_timeout": 20, **options}
    return redis.Redis(port=port, retry=Retry(NoBackoff(), 0), **options)


def trackers(upstream: redis.Redis) -> list[str]:
    """The ids of the connections on which proxies hear of changes."""
    return [one["id"] for one in upstream.client_list() if one["name"] == "cachecore-proxy"]


class Wire:
    """A connection to a port, byte by byte."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.sock.makefile("rb")

    def send(self, text: bytes) -> None:
        self.sock.sendall(text)

    def read(self, size: int) -> bytes:
        return self.file.read(size)

    def line(self) -> bytes:
        return self.file.readline()

    def closed(self) -> bool:
        return self.file.read(1) == b""

    def close(self) -> None:
        self.file.close()
        self.sock.close()
