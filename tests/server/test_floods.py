"""Too much of everything: connections, descriptors, replies that nobody reads, slow clients."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from server.hosts import PATIENCE, Host, Wire, command

PING = command("PING")


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Host]:
    host = Host(folder, **options)
    try:
        yield host
    finally:
        host.kill()


def descriptors(host: Host) -> int:
    return len(os.listdir(f"/proc/{host.pid}/fd"))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def flood(wire: Wire, data: bytes, most: int = 1 << 40) -> int:
    """Send without reading until nothing more is taken or all is said; bytes that were taken."""
    wire.socket.setblocking(False)
    sent, idle_since = 0, time.monotonic()
    while sent < most and time.monotonic() < idle_since + 0.5:
        try:
            sent += wire.socket.send(data[sent % len(data) :])
            idle_since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            break
    wire.socket.settimeout(PATIENCE)
    return sent


def test_ten_thousand_connections(tmp_path: Path) -> None:
    """Opened and dropped, some in the middle of a command; nothing of them stays."""
    with serving(tmp_path) as host:
        for _ in range(20):  # what stays once, stays
            host.ask("PING")
        before, memory = descriptors(host), host.memory()
        for round_ in range(50):
            with ExitStack() as stack:
                for at in range(200):
                    wire = stack.enter_context(host.wire())
                    wire.send((PING, PING[:5], b"*2\r\n$100000\r\nabc", b"")[(at + round_) % 4])
        wait_until(lambda: descriptors(host) <= before, "descriptors are left")
        assert host.memory() - memory < 32 << 20
        info = host.info()
        assert int(info["connected_clients"]) == 1
        assert int(info["total_connections_received"]) >= 10_000


def test_too_many_clients(tmp_path: Path) -> None:
    with serving(tmp_path, maxclients=50) as host, ExitStack() as stack:
        wires = [stack.enter_context(host.wire()) for _ in range(50)]
        assert {wire.ask("PING") for wire in wires} == {"PONG"}
        for _ in range(100):
            with host.wire() as wire:
                assert wire.rest() == b"-ERR max number of clients reached\r\n"
        assert {wire.ask("PING") for wire in wires} == {"PONG"}
        assert (
            int(wires[1].ask("INFO", "stats").split(b"rejected_connections:")[1].split()[0]) == 100
        )


def test_out_of_descriptors(tmp_path: Path) -> None:
    """Who is connected goes on being served, who comes is told or waits; then all is well again."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    with serving(tmp_path, before=limit) as host, ExitStack() as stack:
        first = stack.enter_context(host.wire())
        assert first.ask("PING") == "PONG"
        others = [stack.enter_context(host.wire()) for _ in range(200)]
        served = refused = 0
        for wire in others:
            with suppress(OSError, EOFError):
                reply = wire.ask("PING")
                served += reply == "PONG"
                refused += reply == "ERR max number of clients reached"
        assert served > 50
        assert refused > 0
        assert first.ask("SET", "k", "v") == "OK"
        busy = cpu_seconds(host)
        time.sleep(0.5)
        assert cpu_seconds(host) - busy < 0.25  # it does not spin
        for wire in others:
            wire.close()
        wait_until(lambda: host.ask("GET", "k") == b"v", "it does not recover")


def test_descriptors_are_had_for_all_clients(tmp_path: Path) -> None:
    """As many as may be; where these are too few, the log says so."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400))"
    with serving(tmp_path, before=limit, maxclients=300) as host, ExitStack() as stack:
        wires = [stack.enter_context(host.wire()) for _ in range(300)]
        assert {wire.ask("PING") for wire in wires} == {"PONG"}
        assert "limit of open files" not in host.log()
    with serving(tmp_path / "few", before=limit) as host:
        assert "the limit of open files, 400, is too low for maxclients = 10000" in host.log()


def cpu_seconds(host: Host) -> float:
    fields = Path(f"/proc/{host.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_replies_that_are_not_read(tmp_path: Path) -> None:
    """Commands wait when there are too many replies; they go on when somebody reads."""
    with serving(tmp_path, max_unread=1 << 20, stall_timeout=3600) as host:
        host.ask("SET", "large", b"x" * 1_000_000)
        memory = host.memory()
        with host.wire() as wire:
            one = command("ECHO", b"e" * 50_000) + command("GET", "large")
            sent = flood(wire, one)
            assert 0 < sent < 100 << 20
            assert host.memory() - memory < 16 << 20
            assert host.ask("PING") == "PONG"
            finished = threading.Thread(
                target=wire.send, args=(one[sent % len(one) :] + command("QUIT"),)
            )
            finished.start()
            for _ in range(sent // len(one) + 1):
                assert wire.read() == b"e" * 50_000
                assert len(wire.read()) == 1_000_000
            assert wire.read() == "OK"
            finished.join()


def test_who_never_reads_is_closed(tmp_path: Path) -> None:
    with serving(tmp_path, max_unread=1 << 20, stall_timeout=1) as host:
        host.ask("SET", "large", b"x" * 1_000_000)
        with host.wire() as wire:
            flood(wire, command("GET", "large"))
            wait_until(lambda: host.info()["connected_clients"] == "1", "it is not closed")


def test_slow_clients_are_closed(tmp_path: Path) -> None:
    """A byte now and then does not keep a command open, nor a header alone."""
    with serving(tmp_path, stall_timeout=1) as host, host.wire() as slow, host.wire() as still:
        still.send(b"*2\r\n$3\r\nGET\r\n")
        begin = time.monotonic()
        with suppress(OSError):
            for byte in command("SET", "k", b"v" * 1000):
                slow.send(bytes([byte]))
                time.sleep(0.02)
                if not slow.is_open():
                    break
        assert not slow.is_open()
        assert time.monotonic() - begin < PATIENCE
        assert still.rest() == b""
        assert host.ask("EXISTS", "k") == 0


def test_idle_clients_are_closed(tmp_path: Path) -> None:
    with serving(tmp_path, idle_timeout=1) as host, host.wire() as idle, host.wire() as busy:
        idle.ask("PING")
        end = time.monotonic() + PATIENCE
        while idle.is_open():
            assert busy.ask("PING") == "PONG"
            assert time.monotonic() < end
            time.sleep(0.05)
        assert busy.ask("PING") == "PONG"


def test_what_is_announced_takes_no_memory(tmp_path: Path) -> None:
    with serving(tmp_path) as host, ExitStack() as stack:
        memory = host.memory()
        for _ in range(500):
            wire = stack.enter_context(host.wire())
            wire.send(b"*1048576\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc")
        assert host.ask("PING") == "PONG"
        assert host.memory() - memory < 32 << 20


def test_buffers_of_all_clients_together(tmp_path: Path) -> None:
    """Each is within its own limits, but not all of them: some are closed, the rest is served."""
    with serving(tmp_path, max_buffered=16 << 20) as host, ExitStack() as stack:
        memory = host.memory()
        wires = [stack.enter_context(host.wire()) for _ in range(50)]
        for wire in wires:
            with suppress(OSError):
                wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2000000\r\n" + b"x" * 1_000_000)
        assert host.ask("PING") == "PONG"
        assert host.memory("VmHWM") - memory < 48 << 20
        closed = [False] * len(wires)

        def enough_are_closed() -> bool:
            closed[:] = [not wire.is_open() for wire in wires]
            return sum(closed) > 20

        wait_until(enough_are_closed, "all are kept")
        assert not all(closed)
        assert host.ask("SET", "k", b"x" * 100_000) == "OK"


def test_transactions_are_bounded(tmp_path: Path) -> None:
    """What is queued counts as what is sent."""
    with serving(tmp_path, max_command=4 << 20, max_value=1 << 20) as host:
        memory = host.memory()
        with host.wire() as wire:
            assert wire.ask("MULTI") == "OK"
            replies = [wire.ask("SET", "k", b"x" * 1_000_000) for _ in range(100)]
            assert replies[0] == "QUEUED"
            assert replies[-1] != "QUEUED"
            assert host.memory() - memory < 32 << 20
            assert wire.ask("EXEC").startswith("EXECABORT")
            assert wire.ask("GET", "k") is None


def test_what_is_remembered_of_clients_is_bounded(tmp_path: Path) -> None:
    """Names, of themselves and of commands that there are not, and the keys that they watch."""
    with serving(tmp_path, max_buffered=32 << 20) as host, ExitStack() as stack:
        large = b"x" * 20_000_000
        host.ask("NOPE" + "x" * 20_000_000)  # what receiving it takes once
        memory = host.memory()
        for _ in range(5):
            wire = stack.enter_context(host.wire())
            assert wire.ask(large).startswith("ERR unknown command")
            assert wire.ask("CLIENT", "SETNAME", large).startswith("ERR ")
            assert wire.ask("CLIENT", "SETINFO", "LIB-NAME", large).startswith("ERR ")
        assert host.memory() - memory < 48 << 20
        watching = stack.enter_context(host.wire())
        with suppress(OSError, EOFError):
            for at in range(10):
                watching.ask("WATCH", *[b"%d %d" % (at, number) for number in range(100_000)])
        assert not watching.is_open()
        assert host.memory("VmHWM") - memory < 160 << 20


def test_values_that_are_too_large(tmp_path: Path) -> None:
    with serving(tmp_path, max_value=1 << 20, max_command=2 << 20) as host:
        with host.wire() as wire:
            wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n")
            assert wire.rest() == b"-ERR Protocol error: invalid bulk length\r\n"
        with host.wire() as wire:
            wire.send(b"*100\r\n" + b"$100000\r\n" + bytes(100_000) + b"\r\n")
            with suppress(OSError):
                for _ in range(99):
                    wire.send(b"$100000\r\n" + bytes(100_000) + b"\r\n")
            with suppress(OSError):
                assert wire.rest().startswith(b"-ERR Protocol error: ")
        assert host.ask("SET", "k", bytes(1 << 20)) == "OK"


def test_sigterm_under_load(tmp_path: Path) -> None:
    """Replies are whole, the process ends well, and what was acknowledged is in the snapshot."""
    path = tmp_path / "snapshot"
    with serving(tmp_path / "host", snapshot=str(path), memory_limit=256 << 20) as host:
        acknowledged: list[set[bytes]] = [set() for _ in range(8)]
        broken: list[bytes] = []

        def write(number: int) -> None:
            with suppress(OSError), Wire(("127.0.0.1", host.port)) as wire:
                for batch in range(1_000_000):
                    keys = [b"%d:%d:%d" % (number, batch, at) for at in range(20)]
                    wire.send(b"".join(command("SET", key, key * 10) for key in keys))
                    for key in keys:
                        line = wire._file.readline()
                        if line != b"+OK\r\n":
                            broken.extend([line] * bool(line))
                            return
                        acknowledged[number].add(key)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(len(keys) > 1000 for keys in acknowledged), "no load")
        assert host.end(signal.SIGTERM) == 0
        for thread in threads:
            thread.join(PATIENCE)
        assert broken == []
        host.start()
        with host.wire() as wire:
            for keys in acknowledged:
                found = wire.ask("MGET", *keys)
                assert found == [key * 10 for key in keys]


def test_a_listening_socket_is_free_again(tmp_path: Path) -> None:
    with serving(tmp_path) as host:
        host.ask("PING")
        assert host.stop() == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", host.port)) != 0
