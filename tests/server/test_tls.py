"""TLS: who gets in, and that commands come and go as on plain connections."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from cachecore.server import tls
from cachecore.server.settings import MisfitError, Settings
from server.hosts import PATIENCE, Host, Wire, command
from tiers.children import exit_code, fork


def make_certificate(folder: Path, name: str, signer: str | None = None) -> tuple[Path, Path]:
    """A certificate for localhost and its key; signed by itself unless said otherwise."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "30", "-subj", f"/CN={name}"]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    if signer is not None:
        words += ["-CA", str(folder / f"{signer}.pem"), "-CAkey", str(folder / f"{signer}.key")]
    words += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tls")
    make_certificate(folder, "server")
    make_certificate(folder, "authority")
    make_certificate(folder, "client", "authority")
    make_certificate(folder, "stranger")
    return folder


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[Host]:
    host = Host(folder / "host", **files(folder), stall_timeout=2, max_unread=1 << 20)
    yield host
    host.kill()


def files(folder: Path) -> dict[str, str]:
    return {"tls_cert": str(folder / "server.pem"), "tls_key": str(folder / "server.key")}


def context(folder: Path, certificate: str | None = None) -> ssl.SSLContext:
    """A client's, that trusts the server's certificate."""
    context = ssl.create_default_context(cafile=folder / "server.pem")
    if certificate is not None:
        context.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
    return context


def test_commands(host: Host, folder: Path) -> None:
    with host.wire(context=context(folder)) as wire:
        assert wire.ask("SET", "k", "v") == "OK"
        wire.send(command("GET", "k") * 1000)
        assert [wire.read() for _ in range(1000)] == [b"v"] * 1000
        large = b"x" * 5_000_000
        assert wire.ask("SET", "large", large) == "OK"
        assert wire.ask("GET", "large") == large
        assert b"addr=127.0.0.1:" in wire.ask("CLIENT", "INFO")
        for byte in command("GET", "k"):
            wire.send(bytes([byte]))
        assert wire.read() == b"v"
        assert wire.ask("QUIT") == "OK"
        assert wire.rest() == b""
    with host.wire(context=context(folder)) as wire:
        wire.send(b"*1\r\n$-5\r\n")
        assert wire.rest() == b"-ERR Protocol error: invalid bulk length\r\n"


def test_old_versions_are_refused(host: Host, folder: Path) -> None:
    old = context(folder)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        host.wire(context=old)
    new = context(folder)
    new.maximum_version = ssl.TLSVersion.TLSv1_2
    with host.wire(context=new) as wire:
        assert wire.ask("PING") == "PONG"


def test_plain_clients_get_nothing(host: Host) -> None:
    with host.wire() as wire:
        wire.say("GET", "k")
        assert b"PONG" not in wire.rest()


def test_certificates_of_clients(folder: Path) -> None:
    host = Host(folder / "strict", **files(folder), tls_client_ca=str(folder / "authority.pem"))
    try:
        with host.wire(context=context(folder, "client")) as wire:
            assert wire.ask("PING") == "PONG"
        for certificate in (None, "stranger"):
            with (
                pytest.raises((OSError, EOFError)),  # with TLS 1.3 when something is read
                host.wire(context=context(folder, certificate)) as wire,
            ):
                wire.ask("PING")
    finally:
        host.kill()


def test_silent_connections_keep_nobody_out(host: Host, folder: Path) -> None:
    before = host.memory()
    with ExitStack() as silent:
        for _ in range(600):
            silent.enter_context(socket.create_connection(("127.0.0.1", host.port)))
        with host.wire(context=context(folder)) as wire:
            assert wire.ask("PING") == "PONG"
            assert len(os.listdir(f"/proc/{host.pid}/fd")) < tls.HANDSHAKES + 50
        assert host.memory() - before < 64 << 20


def test_replies_that_are_not_read(host: Host, folder: Path) -> None:
    """Commands wait, memory is bounded, and the connection is closed after a while."""
    with host.wire(context=context(folder)) as wire:
        wire.ask("SET", "large", b"x" * 1_000_000)

        def ask_much() -> bool:
            end = time.monotonic() + PATIENCE
            with host.wire(context=context(folder)) as greedy, suppress(OSError):
                while time.monotonic() < end:
                    greedy.send(command("GET", "large") * 10)
            return time.monotonic() < end

        before = host.memory()
        assert exit_code(fork(ask_much)) == 0
        assert host.memory("VmHWM") - before < 100 << 20
        assert wire.ask("PING") == "PONG"


def test_unread_replies_of_all_clients_together(folder: Path) -> None:
    """What the transports keep is little, and what waits for them is counted."""
    host = Host(folder / "together", **files(folder), max_unread=4 << 20, max_buffered=32 << 20)
    try:
        with ExitStack() as stack:
            wires = [stack.enter_context(host.wire(context=context(folder))) for _ in range(81)]
            assert wires[-1].ask("SET", "k", b"x" * 1000) == "OK"
            before = host.memory()
            for wire in wires[:-1]:
                wire.socket.settimeout(0.2)
                with suppress(OSError):
                    for _ in range(20):
                        wire.say("MGET", *["k"] * 1000)
            assert wires[-1].ask("PING") == "PONG"
            assert host.memory("VmHWM") - before < 128 << 20
            told = wires[-1].ask("INFO").decode()
            fields = dict(re.findall(r"(\w+):(\d+)\r", told))
            assert int(fields["mem_clients_normal"]) > 16 << 20
            assert int(fields["connected_clients"]) < 81
    finally:
        host.kill()


def test_too_many(folder: Path) -> None:
    host = Host(folder / "few", **files(folder), maxclients=2)
    try:
        wires = [host.wire(context=context(folder)) for _ in range(2)]
        assert [wire.ask("PING") for wire in wires] == ["PONG"] * 2
        with host.wire(context=context(folder)) as third:
            assert third.rest() == b"-ERR max number of clients reached\r\n"
        for wire in wires:
            wire.close()
    finally:
        host.kill()


def test_wrong_files_are_named(folder: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    for certificate, key, authority, blamed in (
        (nothing, folder / "server.key", None, "tls_cert"),
        (folder / "server.pem", folder / "client.key", None, "tls_cert"),
        (folder / "server.pem", folder / "server.key", nothing, "tls_client_ca"),
    ):
        settings = Settings(tls_cert=certificate, tls_key=key, tls_client_ca=authority)
        with pytest.raises(MisfitError, match=blamed):
            tls.context_of(settings)


def test_stopping_answers_what_was_sent(folder: Path) -> None:
    host = Host(folder / "stopped", **files(folder))
    try:
        with Wire(("127.0.0.1", host.port), context=context(folder)) as wire:
            assert wire.ask("SET", "k", "v") == "OK"
            wire.send(command("GET", "k") * 100)
            assert [wire.read() for _ in range(100)] == [b"v"] * 100
            assert host.stop() == 0
            assert wire.rest() == b""
    finally:
        host.kill()
