"""`start`, `stop` and `serve`: processes that are killed, stopped, replaced; folders that fail."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cachecore.cli import pidfile
from cachecore.cli.start import _says_ready
from cachecore.server.notify import notify
from cli.running import COMMAND, invoke, run
from servers import free_port


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A port; what is started with it is ended after the test."""
    port = free_port()
    yield port
    process = pidfile.find(pid_file(tmp_path, port))
    if process is not None:
        process.send(signal.SIGCONT)
        process.send(signal.SIGKILL)
        assert process.wait(10)
        os.close(process.pidfd)


def pid_file(folder: Path, port: int) -> Path:
    return folder / "state" / "cachecore" / f"{port}.pid"


def start(port: int, *arguments: object) -> int:
    """Start a server; the process."""
    done = run("start", "--port", port, *arguments)
    assert done.returncode == 0, done.stderr.decode()
    words = done.stdout.decode().split()
    assert words[:2] == ["started:", "process"]
    return int(words[2].rstrip(","))


def is_alive(pid: int) -> bool:
    folder = Path(f"/proc/{pid}")
    try:  # of its threads the first ends first; the last one to end closes what it had open
        is_zombie = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return not is_zombie or len(os.listdir(folder / "task")) > 1
    except FileNotFoundError:
        return False


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_the_line_of_the_issue(port: int) -> None:
    quiet = "sed -i s/^metrics_port/#metrics_port/ cachecore.toml"  # a port that others may have
    line = (
        f"cachecore init --port {port} && {quiet} && cachecore start && cachecore set k v &&"
        " cachecore get k && cachecore status && cachecore stop"
    )
    text = re.sub(r"(?<![.\w])cachecore ", f"{sys.executable} -m cachecore ", line)
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("wrote cachecore.toml")
    assert said[1].startswith("started: process ")
    assert said[2:4] == ["OK", "v"]
    assert f"at 127.0.0.1:{port}, process " in said[4]
    assert said[-1].startswith("stopped: process ")


def test_start_and_stop_may_be_repeated(tmp_path: Path, port: int) -> None:
    pid = start(port)
    again = run("start", "--port", port)
    assert (again.returncode, again.stdout) == (0, f"already running: process {pid}\n".encode())
    assert pid_file(tmp_path, port).stat().st_mode & 0o777 == 0o600
    assert pid_file(tmp_path, port).parent.stat().st_mode & 0o777 == 0o700
    stopped = run("stop", "--port", port)
    assert stopped.stdout.startswith(f"stopped: process {pid}, after ".encode())
    assert not is_alive(pid)
    assert not pid_file(tmp_path, port).exists()
    again = run("stop", "--port", port)
    assert (again.returncode, again.stdout) == (0, b"not running\n")
    assert invoke("get", "k", "--port", port).exit_code == 3


def test_it_is_a_daemon_of_its_own(port: int) -> None:
    pid = start(port)
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[3]) == pid  # a session of its own
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert b"serve" in command
    assert b"--pid-file" in command


def test_start_tells_why_it_failed(tmp_path: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        done = run("start", "--port", port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"it ended with exit code 1; the log, " in done.stderr
    assert b"ddress already in use" in done.stderr
    assert not pid_file(tmp_path, port).exists()
    Path("x.toml").write_text("port = 1\nprt = 2\n")
    done = run("start", "--config", "x.toml")
    assert (done.returncode, b"x.toml:2: prt is no setting" in done.stderr) == (2, True)


def test_a_start_that_takes_too_long_is_ended(tmp_path: Path, port: int) -> None:
    done = run("start", "--port", port, "--wait", "1ms")
    assert done.returncode == 1
    assert b"it was not ready within 0.001 s, and was ended" in done.stderr
    assert pidfile.find(pid_file(tmp_path, port)) is None


def test_only_lines_of_this_start_are_shown(tmp_path: Path, port: int) -> None:
    log = tmp_path / "log"
    log.write_text("of yesterday\n" * 5)
    with socket.create_server(("127.0.0.1", port)):
        done = run("start", "--port", port, "--log-file", log)
    assert done.returncode == 1
    assert b"of yesterday" not in done.stderr
    assert log.read_text().startswith("of yesterday")


def test_a_server_that_was_killed(tmp_path: Path, port: int) -> None:
    first = start(port)
    os.kill(first, signal.SIGKILL)
    wait_for_end(first)
    assert pid_file(tmp_path, port).exists()
    assert invoke("status", "--port", port).exit_code == 3
    second = start(port)  # over the file of the dead one
    assert second != first
    os.kill(second, signal.SIGKILL)
    wait_for_end(second)
    stopped = run("stop", "--port", port)
    assert (stopped.returncode, stopped.stdout[:32]) == (0, b"not running: it has died before;")
    assert not pid_file(tmp_path, port).exists()


def wait_for_end(pid: int) -> None:
    end = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_number_that_another_process_has_by_now_is_not_killed(tmp_path: Path, port: int) -> None:
    path = pid_file(tmp_path, port)
    path.parent.mkdir(parents=True)
    with sleeper() as other:
        for text in (f"{other.pid} {pidfile._began(other.pid)}\n", f"{other.pid} 1\n", "", "x"):
            path.write_text(text)
            done = run("stop", "--port", port)
            assert (done.returncode, done.stdout[:31]) == (0, b"not running: it has died before")
            assert not path.exists()
        assert other.poll() is None


def test_a_file_that_others_have_locked_is_left_alone(tmp_path: Path, port: int) -> None:
    path = pid_file(tmp_path, port)
    path.parent.mkdir(parents=True)
    for text in ("", "1 1", f"{os.getpid()} 1"):
        path.write_text(text)
        with open(path, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)  # by this process, which is no server
            for command in ("stop", "start"):
                done = run(command, "--port", port)
                assert done.returncode == 1
                what = f"is locked by process {os.getpid()}, which is not our server"
                assert what.encode() in done.stderr
    assert path.exists()


def test_a_server_of_another_container_is_left_alone(tmp_path: Path, port: int) -> None:
    if subprocess.run(["unshare", "-pf", "true"], capture_output=True, check=False).returncode:
        return  # only root may
    pid = start(port)
    command = ["unshare", "-pf", "--mount-proc", *COMMAND, "stop", "--port", str(port)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"is locked by a process of another container" in done.stderr
    assert is_alive(pid)


def test_a_server_that_hangs(port: int) -> None:
    pid = start(port)
    os.kill(pid, signal.SIGSTOP)
    done = run("stop", "--port", port, "--wait", "100ms")
    assert (done.returncode, b"still runs after 0.1 s" in done.stderr) == (1, True)
    assert is_alive(pid)
    done = run("stop", "--port", port, "--wait", "100ms", "--kill")
    assert done.stdout == f"killed: process {pid}, which did not end within 0.1 s\n".encode()
    assert not is_alive(pid)


def test_a_server_that_was_started_otherwise(port: int) -> None:
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", str(port)], stderr=subprocess.PIPE
    ) as served:
        assert served.stderr is not None
        while b"listening" not in served.stderr.readline():
            assert served.poll() is None
        done = run("stop", "--port", port)
        assert done.returncode == 1
        assert f"somebody listens at 127.0.0.1:{port}, but was not started".encode() in done.stderr
        served.send_signal(signal.SIGTERM)
        served.stderr.read()
        assert served.wait(30) == 0


def test_two_servers_beside_each_other(tmp_path: Path, port: int) -> None:
    first = start(port)
    other = free_port()
    path = tmp_path / "other.pid"
    second = start(other, "--pid-file", path)
    assert run("stop", "--port", port).returncode == 0
    assert (is_alive(first), is_alive(second)) == (False, True)
    assert run("stop", "--port", other, "--pid-file", path).stdout.startswith(b"stopped")
    assert not is_alive(second)


def test_folders_that_will_not_do(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("start", "--port", port, "--pid-file", "none/x.pid")
    assert (done.returncode, b"there is no such folder" in done.stderr) == (1, True)
    done = run("start", "--port", port, "--log-file", "none/x.log")
    assert (done.returncode, b"log_file " in done.stderr) == (1, True)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for option in ("--pid-file", "--log-file"):
        done = run("start", "--port", port, option, "link")
        assert done.returncode == 1, option
        assert not (tmp_path / "target").exists()
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    done = run("start", "--port", port)
    assert (done.returncode, b"/proc/none/cachecore: " in done.stderr) == (1, True)
    done = run("stop", "--port", port)
    assert (done.returncode, done.stdout) == (0, b"not running\n")


def test_a_full_disk(tmp_path: Path, port: int) -> None:
    limited = f"ulimit -f 0; exec {sys.executable} -m cachecore start --port {port}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"it ended with exit code" in done.stderr
    assert pidfile.find(pid_file(tmp_path, port)) is None


def test_serve_tells_when_it_is_ready_and_when_it_stops(tmp_path: Path, port: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(60)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [*COMMAND, "serve", "--port", str(port)]
        with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as served:
            assert notices.recv(100) == b"READY=1"
            assert invoke("set", "k", "v", "--port", port).output == "OK\n"
            served.send_signal(signal.SIGINT)
            assert notices.recv(100) == b"STOPPING=1"
            assert served.wait(30) == 0


def test_notices_go_to_abstract_sockets_too_or_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind("")  # a name that the kernel chooses
        name = notices.getsockname().decode().replace("\0", "@", 1)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("STATUS=half", "READY=1")
        assert notices.recv(100) == b"STATUS=half\nREADY=1"
    for nowhere in ("", "/none", "relative", name):
        monkeypatch.setenv("NOTIFY_SOCKET", nowhere)
        notify("READY=1")


def test_what_strangers_say_is_not_believed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        notices.bind(str(tmp_path / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            for text, pid, ready in (
                (b"READY=1", os.getpid(), True),
                (b"READY=1", 1, False),
                (b"STATUS=NOT READY=1", os.getpid(), False),
                (b"STATUS=done\nREADY=1", os.getpid(), True),
                (b"", os.getpid(), False),
            ):
                stranger.sendto(text, str(tmp_path / "notify"))
                assert _says_ready(notices, pid) is ready


def test_secrets_are_no_options(tmp_path: Path) -> None:
    for command in ("serve", "start"):
        result = invoke(command, "--password", "hush")
        assert (result.exit_code, "No such option" in result.stderr) == (2, True)
        result = invoke(command, "--upstream", "redis://:hush@host")
        assert (result.exit_code, "hush" in result.output) == (2, False)
        (tmp_path / "secret").write_text("hush")
        (tmp_path / "secret").chmod(0o644)
        result = invoke(command, "--password-file", "secret")
        assert (result.exit_code, "chmod 600" in result.stderr) == (2, True)
