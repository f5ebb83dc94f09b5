"""deploy/: the unit, the image and the compose file, as far as they can be tried without a host."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cachecore.cli.group import cli
from cachecore.server.settings import Settings
from cachecore.server.sources import load
from cli.running import COMMAND, invoke
from servers import Server, free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def unit_lines(name: str) -> list[str]:
    """What a unit says of a setting, without the lines that begin with #."""
    text = (DEPLOY / "cachecore.service").read_text()
    return re.findall(rf"(?m)^{name}=(.*)$", text)


def test_the_unit_is_one(tmp_path: Path) -> None:
    text = (DEPLOY / "cachecore.service").read_text()
    (program,) = re.findall(r"(?m)^ExecStart=(\S+)", text)
    path = tmp_path / "cachecore.service"
    path.write_text(text.replace(program, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout  # an exposure of at most 1.5 of 10


def test_the_unit_starts_what_tells_that_it_is_ready(tmp_path: Path) -> None:
    (line,) = unit_lines("ExecStart")
    assert unit_lines("Type") == ["notify"]
    program, *arguments = shlex.split(line)
    assert program.endswith("/bin/cachecore")
    settings = tmp_path / "cachecore.toml"
    port = free_port()
    assert invoke("init", settings, "--port", port).exit_code == 0
    settings.write_text(settings.read_text().replace("metrics_port = 9380", "metrics_port = 0"))
    arguments = [part.replace("/etc/cachecore/cachecore.toml", str(settings)) for part in arguments]
    assert str(settings) in arguments
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(60)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [*COMMAND, *arguments]
        with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as served:
            assert notices.recv(100) == b"READY=1"
            assert invoke("set", "k", "v", "--port", port).output == "OK\n"
            served.send_signal(signal.SIGTERM)  # as systemd does
            assert served.wait(60) == 0


def test_the_unit_allows_as_many_files_as_clients() -> None:
    (limit,) = unit_lines("LimitNOFILE")
    assert int(limit) > Settings().maxclients + 64


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile: the word, and the rest, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text()).replace("\\\n", " ")
    found = [line.strip().partition(" ") for line in text.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in found]


def words(name: str) -> list[str]:
    """The command of the last instruction of a name, as JSON has it."""
    rest = [rest for word, rest in instructions() if word == name][-1]
    found: list[str] = json.loads(rest[rest.index("[") :])
    return found


def test_the_image_is_built_of_what_is_there() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for name in rest.split()[:-1]:
                assert (ROOT / name).exists(), name
                assert f"!{name}" in ignored
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (asked,) = re.findall(r"'\.\[(.*)\]'", (DEPLOY / "Dockerfile").read_text())
    assert set(asked.split(",")) <= extras.keys()
    assert [rest for word, rest in instructions() if word == "USER"] == ["10001"]


def test_the_image_runs_commands_that_there_are(redis: Server) -> None:
    context = cli.make_context("cachecore", ["--help"], resilient_parsing=True)
    assert words("ENTRYPOINT") == ["cachecore"]
    assert cli.get_command(context, words("CMD")[0]) is not None
    program, *check = words("HEALTHCHECK")
    assert program == "cachecore"
    assert invoke(*check, "--port", redis.port).exit_code == 0
    assert invoke(*check, "--port", free_port()).exit_code == 3


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file, read."""
    import yaml

    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(found, dict)
    return found


def test_the_settings_of_the_compose_file_can_be_used(compose: dict[str, Any]) -> None:
    service = compose["services"]["cachecore"]
    command, *options = service["command"]
    assert command == "serve"
    given = (option.removeprefix("--").partition("=") for option in options)
    said = {name.replace("-", "_"): value if equals else True for name, equals, value in given}
    settings = load(None, said, {"CACHECORE_PASSWORD": "x"})
    assert settings.metrics_hosts == ("cachecore",)
    ports = {int(text.rpartition(":")[2]) for text in service["ports"]}
    assert ports == {settings.port, settings.metrics_port}
    limit = int(service["mem_limit"].removesuffix("m")) << 20
    assert limit >= settings.memory_limit * 1.2 + settings.max_buffered
    assert service["ulimits"]["nofile"] > settings.maxclients + 64
    upstream = str(settings.upstream).removeprefix("redis://").partition(":")[0]
    assert upstream in compose["services"]
    assert upstream in service["depends_on"]


def test_what_the_compose_file_names_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert {*service.get("depends_on", ())} <= compose["services"].keys()
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), source
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port
    build = compose["services"]["cachecore"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).exists()
