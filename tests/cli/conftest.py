"""What the tests of the command line share: folders of their own, a Redis, and ways to run it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Server, redis_server


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings, state or secrets of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith("CACHECORE_") and name not in ("CACHECORE_BUILD", "CACHECORE_TESTS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("cachecore.server.sources.SYSTEM", tmp_path / "etc")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = redis_server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()
