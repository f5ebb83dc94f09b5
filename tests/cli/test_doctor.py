"""`cachecore doctor`: what it finds on this machine, and on ones that are made to fail."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cachecore.cli import doctor_checks
from cachecore.server.settings import Settings
from cli.running import invoke
from servers import Cluster, Sentinels, Server, ask, free_port, redis_server, tls_redis_server


def findings(*arguments: object, port: int | None = None) -> dict[str, dict[str, Any]]:
    result = invoke("doctor", "--json", "--port", port or free_port(), *arguments)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    failed = sum(finding["level"] == "FAIL" for finding in found)
    assert result.exit_code == (1 if failed else 0), result.output
    assert all(finding["advice"] for finding in found if finding["level"] != "ok")
    return {finding["name"]: finding for finding in found}


def test_of_this_machine() -> None:
    found = findings()
    for name in ("settings", "python", "modules", "memory", "open files", "backlog", "clock",
                 "address", "pid_file", "log_file"):  # fmt: skip
        assert found[name]["level"] in ("ok", "warn"), found[name]
    assert "is free" in found["address"]["what"]
    text = invoke("doctor", "--port", free_port()).output
    assert "fine, " in text
    assert "\x1b" not in text


def test_of_settings_that_are_wrong(tmp_path: Path) -> None:
    assert invoke("doctor", "--port", "x").exit_code == 2
    (tmp_path / "cachecore.toml").write_text("prt = 1")
    assert "is port meant?" in invoke("doctor").stderr


def test_of_broken_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "NEEDED", ("_core", "_none"))
    found = findings()["modules"]
    assert (found["level"], found["what"][:6]) == ("FAIL", "_none:")


def test_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "usable_memory", lambda: 1 << 30)
    assert findings("--memory-limit", "2GB")["memory"]["level"] == "FAIL"
    assert findings("--memory-limit", "1000MB")["memory"]["level"] == "warn"
    assert findings("--memory-limit", "100MB")["memory"]["level"] == "ok"
    monkeypatch.setattr(doctor_checks, "_available", lambda: 1 << 20)
    assert "1 MB are free now" in findings("--memory-limit", "100MB")["memory"]["advice"]


def test_of_descriptors_and_the_backlog() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
    try:
        assert findings("--maxclients", 437)["open files"]["level"] == "ok"  # it is raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = findings("--maxclients", 1_000_000)["open files"]
    assert (found["level"], "ulimit -n 1000064" in found["advice"]) == ("FAIL", True)
    assert "somaxconn=65535" in findings("--backlog", 65535)["backlog"]["advice"]


def test_of_addresses(redis: Server) -> None:
    assert "a server answers" in findings(port=redis.port)["address"]["what"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.listen(1)
        port = listener.getsockname()[1]
        # It accepts and says nothing, so that it is another program.
        found = findings(port=port)["address"]
    assert (found["level"], "does not answer" in found["what"]) == ("FAIL", True)
    found = findings("--bind", "192.0.2.1", "--allow-remote", "--users-file", "none")
    assert found["address"]["level"] == "FAIL"
    assert found["users_file"]["level"] == "FAIL"


def test_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    found = findings("--snapshot", "none/x", "--log-file", "folder", "--pid-file", "/proc/x")
    assert [found[name]["level"] for name in ("snapshot", "log_file", "pid_file")] == ["FAIL"] * 3
    assert "disk" not in found
    found = findings("--snapshot", "x", "--memory-limit", "1MB", "--unix-socket", "x.sock")
    assert [found[name]["level"] for name in ("snapshot", "disk", "unix_socket")] == ["ok"] * 3
    few = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("cachecore.cli.doctor_files.shutil.disk_usage", lambda _path: few)
    assert findings("--snapshot", "x", "--memory-limit", "1MB")["disk"]["level"] == "warn"


def test_of_certificates(tmp_path: Path) -> None:
    server, other = tls_redis_server(tmp_path / "a"), tls_redis_server(tmp_path / "b")
    server.kill()
    other.kill()
    found = findings("--tls-cert", "a/cert.pem", "--tls-key", "a/key.pem")
    assert (found["tls_cert"]["level"], found["tls_key"]["level"]) == ("ok", "ok")
    assert "until" in found["tls_cert"]["what"]
    (tmp_path / "a" / "key.pem").chmod(0o644)
    found = findings("--tls-cert", "b/cert.pem", "--tls-key", "a/key.pem")
    assert (found["tls_cert"]["level"], found["tls_key"]["level"]) == ("FAIL", "FAIL")
    again = ["openssl", "req", "-x509", "-key", "b/key.pem", "-days", "3", "-out", "b/cert.pem"]
    subprocess.run([*again, "-subj", "/CN=x"], cwd=tmp_path, check=True, capture_output=True)
    found = findings("--tls-cert", "b/cert.pem", "--tls-key", "b/key.pem")
    assert found["tls_cert"]["level"] == "warn"


def upstream(url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    monkeypatch.setenv("CACHECORE_UPSTREAM", url)
    return findings()


def test_of_an_upstream(redis: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = upstream(f"redis://localhost:{redis.port}", monkeypatch)
    assert [found[name]["level"] for name in ("upstream", "tracking")] == ["ok", "ok"]
    assert "a round trip" in found["distance"]["what"]
    gone = upstream(f"redis://:hush@localhost:{free_port()}", monkeypatch)["upstream"]
    assert gone["level"] == "FAIL"
    assert "nobody listens" in gone["what"]
    assert "hush" not in json.dumps(gone)
    path = tmp_path / "r.sock"
    server = redis_server(tmp_path / "r", "--requirepass", "a b", "--unixsocket", str(path))
    try:
        ask(server.port, "-a x ping")
        assert upstream(f"unix://:a%20b@{path}", monkeypatch)["upstream"]["level"] == "ok"
        assert "NOAUTH" in upstream(f"unix://{path}", monkeypatch)["upstream"]["what"]
        wrong = upstream(f"redis://:no@localhost:{server.port}", monkeypatch)["upstream"]
        assert "WRONGPASS" in wrong["what"]
    finally:
        server.kill()


def test_of_an_upstream_that_tells_nothing(redis: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(redis.port, "acl setuser narrow on >pw ~* +@all -client|tracking")
    found = upstream(f"redis://narrow:pw@localhost:{redis.port}", monkeypatch)
    assert found["tracking"]["level"] == "FAIL"
    assert "allow CLIENT TRACKING" in found["tracking"]["advice"]


@contextmanager
def killed(servers: Any) -> Iterator[Any]:
    try:
        yield servers
    finally:
        servers.kill()


def test_of_sentinels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed(Sentinels(tmp_path / "s")) as servers:
        places = f"localhost:{free_port()},127.0.0.1:{servers.sentinels[0].port}"
        found = upstream(f"redis+sentinel://{places}/cache", monkeypatch)
        assert f"cache is at 127.0.0.1:{servers.master.port}" in found["sentinel"]["what"]
        assert found["tracking"]["level"] == "ok"
        found = upstream(f"redis+sentinel://{places}/other", monkeypatch)
        assert "no sentinel knows 'other'" in found["upstream"]["what"]


def test_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed(Cluster(tmp_path / "c")) as servers:
        found = upstream(f"redis+cluster://127.0.0.1:{servers.nodes[0].port}", monkeypatch)
        assert (found["upstream"]["level"], found["cluster"]["level"]) == ("ok", "ok")


def test_of_clocks_that_differ(redis: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("cachecore.cli.doctor_upstream.time.time", lambda: now - 100)
    found = upstream(f"redis://localhost:{redis.port}", monkeypatch)
    assert found["clocks"]["level"] == "warn"


def test_each_check_says_what_it_needs() -> None:
    settings = Settings()
    for check in (doctor_checks.check_pages, doctor_checks.check_clock, doctor_checks.check_python):
        assert all(finding.level != "FAIL" for finding in check(settings))
