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

from cachecore.tiers.testing import eventually

STARTED = 20.0  # seconds that a server may take to start


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process on 127.0.0.1; `port` stays the same over restarts."""

    def __init__(
        self, command: Callable[[int], Sequence[str]], folder: Path, port: int | None = None
    ) -> None:
        self.port = port or free_port()
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


def redis_server(folder: Path, *options: str, port: int | None = None) -> Server:
    """A redis-server without persistence; `options` as on its command line."""

    def command(port: int) -> list[str]:
        fixed = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return ["redis-server", *fixed, "--dir", str(folder), *options]

    return Server(command, folder, port)


def tls_redis_server(folder: Path, *options: str) -> Server:
    """A redis-server that speaks TLS only, and asks for no certificate of its clients.

    `folder`/cert.pem is its own certificate, which vouches for itself.
    """
    certificate, key = folder / "cert.pem", folder / "key.pem"
    folder.mkdir(parents=True, exist_ok=True)
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *subject]
    subprocess.run([*new, "-keyout", key, "-out", certificate], check=True, capture_output=True)

    def command(port: int) -> list[str]:
        fixed = ["--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""]
        files = ["--tls-cert-file", certificate, "--tls-key-file", key]
        files += ["--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"]
        return ["redis-server", *fixed, *map(str, files), "--dir", str(folder), *options]

    return Server(command, folder)


class Sentinels:
    """A master, a replica, and sentinels that replace a dead master within seconds."""

    service = "cache"

    def __init__(self, folder: Path, sentinels: int = 1) -> None:
        self.master = redis_server(folder / "master", "--repl-diskless-sync-delay", "0")
        at_master = ["--replicaof", "127.0.0.1", str(self.master.port)]
        self.replica = redis_server(folder / "replica", *at_master)
        eventually(lambda: "master_link_status:up" in ask(self.replica.port, "info replication"))
        self.sentinels = [
            self._sentinel(folder / f"sentinel{at}", sentinels // 2 + 1) for at in range(sentinels)
        ]
        self._introduce(100)  # they meet when they next say that they are there
        eventually(lambda: all(map(self._is_ready, self.sentinels)))
        self._introduce(2000)

    def _introduce(self, period: int) -> None:
        """How often they say so, in milliseconds; 2000 unless told."""
        for sentinel in self.sentinels:
            ask(sentinel.port, f"sentinel debug publish-period {period}")

    def _is_ready(self, sentinel: Server) -> bool:
        """Whether it knows the replica and the other sentinels, as it must to replace a master."""
        lines = ask(sentinel.port, f"sentinel master {self.service}")
        others = len(self.sentinels) - 1
        return "num-slaves\n1\n" in lines and f"num-other-sentinels\n{others}\n" in lines

    def _sentinel(self, folder: Path, quorum: int) -> Server:
        folder.mkdir(parents=True)
        lines = [
            f"sentinel monitor {self.service} 127.0.0.1 {self.master.port} {quorum}",
            f"sentinel down-after-milliseconds {self.service} 500",
            f"sentinel failover-timeout {self.service} 2000",
        ]
        config = folder / "sentinel.conf"  # it keeps what it finds out there
        config.write_text("\n".join(lines))
        fixed = ["--bind", "127.0.0.1", "--dir", str(folder)]
        return Server(
            lambda port: ["redis-sentinel", str(config), "--port", str(port), *fixed], folder
        )

    def kill(self) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.kill()


class Cluster:
    """Masters of a Redis Cluster, which go on without those that are dead."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        options += ["--cluster-require-full-coverage", "no"]
        self.nodes = [
            redis_server(folder / str(at), *options, port=cluster_port()) for at in range(nodes)
        ]
        places = [f"127.0.0.1:{node.port}" for node in self.nodes]
        create = ["redis-cli", "--cluster", "create", *places, "--cluster-yes"]
        subprocess.run(create, check=True, capture_output=True)
        eventually(
            lambda: all("cluster_state:ok" in ask(node.port, "cluster info") for node in self.nodes)
        )

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


def cluster_port() -> int:
    """A free port P such that P + 10000, on which the nodes of a cluster talk, is free too."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 10_000))
                return port
            except (OSError, OverflowError):
                continue


def ask(port: int, command: str) -> str:
    """What a Redis answers, as redis-cli prints it."""
    run = ["redis-cli", "-p", str(port), *command.split()]
    return subprocess.run(run, capture_output=True, text=True, check=False).stdout.replace("\r", "")


def memcached_server(folder: Path, *options: str) -> Server:
    """A memcached with 64 MB; `options` as on its command line."""

    def command(port: int) -> list[str]:
        user = ["-u", "root"] if os.getuid() == 0 else []
        return ["memcached", "-p", str(port), "-l", "127.0.0.1", "-U", "0", *user, *options]

    return Server(command, folder)
