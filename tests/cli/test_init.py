"""`cachecore init`: files that can be read, say why, and are not replaced by chance."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachecore.cli.init import MODES
from cachecore.server.settings import Settings
from cachecore.server.sources import load
from cli.running import invoke


def test_all_settings_are_in_it(tmp_path: Path) -> None:
    assert invoke("init").output == "wrote cachecore.toml; `cachecore start` reads it\n"
    path = tmp_path / "cachecore.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(path, None, {}) == Settings(metrics_port=9380)
    assert os.listdir(tmp_path) == ["cachecore.toml"]


@pytest.mark.parametrize("mode", MODES)
def test_modes_choose_and_say_why(tmp_path: Path, mode: str) -> None:
    options = ["--memory-limit", "4GB", "--port", "7000", "--upstream", "redis://localhost"]
    assert invoke("init", "x.toml", "--mode", mode, *options).exit_code == 0
    settings = load(tmp_path / "x.toml", None, {})
    assert (settings.memory_limit, settings.port) == (4 << 30, 7000)
    assert str(settings.upstream) == "redis://localhost"
    chosen = {name: value for name, (value, _) in MODES[mode].items() if "snapshot" not in name}
    given = {"memory_limit": "4GB", "port": 7000, "upstream": "redis://localhost"}
    assert settings == load(None, {**chosen, **given, "metrics_port": 9380}, {})
    assert invoke("init", "y.toml", "--mode", mode).exit_code == 0
    lines = (tmp_path / "y.toml").read_text().splitlines()
    for name, (_, reason) in MODES[mode].items():
        at = next(at for at, line in enumerate(lines) if line.startswith(f"{name} = "))
        assert lines[at - 1] == f"# {reason}"


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cachecore.toml"
    path.write_text("mine")
    result = invoke("init")
    assert result.exit_code == 1
    assert "cachecore.toml is there already; --force replaces it" in result.stderr
    assert path.read_text() == "mine"
    assert invoke("init", "--force").exit_code == 0
    assert load(path, None, {}).port == 6380
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert invoke("init").exit_code == 1
    assert not (tmp_path / "elsewhere").exists()
    assert sorted(os.listdir(tmp_path)) == ["cachecore.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory-limit", "4XB"], "--memory-limit must be"),
        (["--port", "x"], "--port must be"),
        (["--upstream", "http://x"], "--upstream must be a URL"),
        (["--upstream", "redis://:pw@x"], "--upstream holds a password"),
        (["--mode", "fast"], "'embedding', 'inference', 'feature'"),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = invoke("init", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert os.listdir(tmp_path) == []


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    result = invoke("init", "none/x.toml")
    assert (result.exit_code, "No such file" in result.stderr) == (1, True)
    result = invoke("init", "/proc/x.toml")
    assert (result.exit_code, "/proc/x.toml: " in result.stderr) == (1, True)
