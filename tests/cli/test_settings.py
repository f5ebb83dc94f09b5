"""Settings: their kinds, where they come from, what is refused and how that is said."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cachecore.server.machine import cgroup_limit, usable_memory
from cachecore.server.settings import GROUPS, Settings, SettingsError, abouts, defaults
from cachecore.server.sources import find_config, load
from cachecore.server.template import table, toml
from cachecore.server.values import Secret

NOTHING: dict[str, str] = {}


def made(**values: Any) -> Settings:
    """Settings of values as TOML has them."""
    return Settings(**values)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_values_are_read_as_in_toml() -> None:
    settings = made(
        memory_limit="1.5 GB", default_ttl="10min", bind="127.0.0.1, ::1", snapshot="~/warm",
        idle_timeout=0, port="7000", max_stale="0", stall_timeout=2.5,
    )  # fmt: skip
    assert settings.memory_limit == 3 << 29
    assert (settings.default_ttl, settings.idle_timeout, settings.max_stale) == (600, 0, 0)
    assert settings.bind == ("127.0.0.1", "::1")
    assert settings.snapshot == Path.home() / "warm"
    assert (settings.port, settings.stall_timeout) == (7000, 2.5)
    assert Settings(**{name: getattr(settings, name) for name, _ in abouts()}) == settings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("port", 65536, "whole number of 0 ... 65535"),
        ("port", True, "whole number"),
        ("port", "12x", "whole number"),
        ("port", "9" * 400, "whole number"),
        ("maxclients", 0, "whole number of 1 ..."),
        ("bind", "example.org", "an IP address"),
        ("bind", [7], "text"),
        ("bind", 7, "list of texts"),
        ("bind", [], "nobody could connect"),
        ("memory_limit", "4XB", 'a size like "4GB"'),
        ("memory_limit", 0, "between 1 and"),
        ("memory_limit", -1, "between 1 and"),
        ("default_ttl", "soon", "duration"),
        ("default_ttl", -1, "greater than 0"),
        ("default_ttl", float("nan"), "greater than 0"),
        ("default_ttl", "1.2.3", "greater than 0"),
        ("default_ttl", 1e300, "at most"),
        ("default_ttl", False, "number of seconds"),
        ("stall_timeout", 0, "greater than 0"),
        ("allow_remote", "yes", "true or false"),
        ("log_level", "loud", "one of debug, info, warning, error"),
        ("snapshot", "a\nb", "one line of text"),
        ("snapshot", 7, "must be text"),
        ("password", "a\nb", "one line"),
        ("upstream", "http://host", "begins with redis://"),
        ("upstream", "redis://", "begins with redis://"),
        ("upstream", "redis://a b", "begins with redis://"),
        ("upstream", 7, "begins with redis://"),
        ("snapshot_interval", 60, "needs snapshot"),
        ("tls_cert", "cert.pem", "needs tls_key"),
        ("tls_key", "key.pem", "needs tls_cert"),
        ("tls_client_ca", "ca.pem", "needs tls_cert"),
        ("max_command", 1000, "at least max_value"),
        ("max_command", 1 << 32, "at most 4294967295"),
        ("metrics_port", 6380, "must differ"),
        ("metrics_bind", "0.0.0.0", "allow_remote"),
    ],
)
def test_what_is_wrong_names_the_setting_and_what_was_expected(
    tmp_path: Path, name: str, value: Any, expected: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} .*{re.escape(expected)}"):
        made(**{name: value})
    with pytest.raises(
        SettingsError, match=rf"^--{name.replace('_', '-')} .*{re.escape(expected)}"
    ):
        load(None, {name: value}, NOTHING)
    if isinstance(value, str | int) and "\n" not in str(value):
        said = f'"{value}"' if isinstance(value, str) else str(value).lower()
        path = write(tmp_path / "x.toml", f"# first\n\n{name} = {said}\n")
        where = re.escape(f"{path}:3: {name} ")
        with pytest.raises(SettingsError, match=rf"^{where}.*{re.escape(expected)}"):
            load(path, None, NOTHING)


def test_other_machines_come_in_only_by_a_flag_and_with_a_secret(tmp_path: Path) -> None:
    for address in ("0.0.0.0", "::", "192.0.2.7"):
        with pytest.raises(SettingsError, match="allow_remote = true, and a password"):
            made(bind=address)
        with pytest.raises(SettingsError, match="needs a password, users_file or tls_cert as well"):
            made(bind=("127.0.0.1", address), allow_remote=True)
        with pytest.raises(SettingsError, match="allow_remote"):
            made(bind=address, password="secret")
        assert made(bind=address, allow_remote=True, password="secret").bind == (address,)
        made(bind=address, allow_remote=True, users_file="users")
        made(bind=address, allow_remote=True, tls_cert="cert", tls_key="key")
    assert made(bind="127.8.9.1,localhost,::1").allow_remote is False


def test_later_sources_win(tmp_path: Path) -> None:
    path = write(tmp_path / "x.toml", 'port = 7000\npassword = "of the file"\ndatabases = 4\n')
    settings = load(path, {"port": "7001", "backlog": None}, {"CACHECORE_PASSWORD": "of the env"})
    assert (settings.port, settings.databases, settings.backlog) == (7001, 4, 511)
    assert settings.password == Secret("of the env")
    assert load(None, {}, NOTHING) == Settings()


def test_relative_paths_begin_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    path = write(tmp_path / "there" / "x.toml", 'snapshot = "data/warm"\n')
    assert load(path, {"log_file": "log"}, NOTHING).snapshot == tmp_path / "there" / "data" / "warm"
    assert load(path, {"log_file": "log"}, NOTHING).log_file == tmp_path / "log"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prt = 1", "1: prt is no setting; is port meant?"),
        ("\nmemory-limit = 1", "2: memory-limit is no setting; is memory_limit meant?"),
        ("[server]\nport = 1", "1: server is no setting: `cachecore init` writes all there are"),
        ("port = 1\nport = 2", "2: "),
        ("port =", "1: "),
        ('a = "', "1: "),
        ("password_file = 7", "1: password_file must be text"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "x.toml", text)
    with pytest.raises(SettingsError, match=re.escape(f"{path}:{message}")):
        load(path, None, NOTHING)


def test_files_that_cannot_be_read_or_trusted(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load(tmp_path / "none.toml", None, NOTHING)
    with pytest.raises(SettingsError, match="Is a directory"):
        load(tmp_path, None, NOTHING)
    path = tmp_path / "x.toml"
    path.write_bytes(b"port = \xff")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(path, None, NOTHING)
    with pytest.raises(SettingsError, match="more than 1,048,576 bytes"):
        load(write(path, "#" * (1 << 20) + "#"), None, NOTHING)
    with pytest.raises(SettingsError, match="can be changed by others: chmod go-w"):
        load(write(path, "port = 1", 0o666), None, NOTHING)


def test_the_file_is_found(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert find_config(None, environ) is None
    home = tmp_path / "config" / "cachecore" / "cachecore.toml"
    home.parent.mkdir(parents=True)
    write(home, "")
    assert find_config(None, environ) == home
    here = write(tmp_path / "cachecore.toml", "")
    assert find_config(None, environ) == here
    assert find_config(None, {**environ, "CACHECORE_CONFIG": "other"}) == tmp_path / "other"
    assert find_config("given", {"CACHECORE_CONFIG": "other"}) == tmp_path / "given"
    if os.geteuid() == 0:
        os.chown(here, 12345, 12345)
        with pytest.raises(SettingsError, match="belongs to another user"):
            find_config(None, environ)
        assert find_config(str(here), environ) == here


def test_secrets_are_in_files_of_their_own_or_the_environment(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", "hush\n")
    assert load(None, {"password_file": str(secret)}, NOTHING).password == Secret("hush")
    environ = {"CACHECORE_UPSTREAM_FILE": str(write(tmp_path / "url", "redis://:pw@host"))}
    found = load(None, {}, environ).upstream
    assert found is not None
    assert found.reveal() == "redis://:pw@host"
    path = write(tmp_path / "x.toml", 'password_file = "secret"', 0o644)
    assert load(path, None, NOTHING).password == Secret("hush")
    secret.chmod(0o640)
    with pytest.raises(SettingsError, match=f"chmod 600 {secret}"):
        load(path, None, NOTHING)
    with pytest.raises(SettingsError, match=r"^CACHECORE_PASSWORD_FILE: /none: No such file"):
        load(None, None, {"CACHECORE_PASSWORD_FILE": "/none"})


def test_secrets_are_refused_where_they_would_be_seen(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--upstream holds a password, but `ps`"):
        load(None, {"upstream": "redis://:pw@host"}, NOTHING)
    for said in ('password = "hush"', 'upstream = "redis://:hush@host"'):
        path = write(tmp_path / "x.toml", said, 0o644)
        with pytest.raises(SettingsError, match="others can read the file: chmod 600") as caught:
            load(path, None, NOTHING)
        assert "hush" not in str(caught.value)
    path = write(tmp_path / "x.toml", 'upstream = "redis://host"', 0o644)
    assert str(load(path, {"upstream": "redis://other"}, NOTHING).upstream) == "redis://other"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:1/2", "redis://host:1/2"),
        ("redis://user:pw@host", "redis://user:***@host"),
        ("rediss://:p@w/x@host/1", "rediss://:***@host/1"),
        ("unix:///sock?db=1&password=pw", "unix:///sock?db=1&password=***"),
        (
            "redis+sentinel://u:pw@a,b:1/main?sentinel_password=pw&x=1",
            "redis+sentinel://u:***@a,b:1/main?sentinel_password=***&x=1",
        ),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    settings = made(upstream=url, password="pw")
    assert str(settings.upstream) == shown
    assert "pw" not in repr(settings)
    assert "pw" not in f"{settings.upstream} {settings.password!r} {settings}"
    assert settings.upstream is not None
    assert settings.upstream.reveal() == url
    with pytest.raises(SettingsError) as caught:
        made(password="pw\n")
    assert "pw" not in str(caught.value)


def test_the_template_says_all_and_can_be_read(tmp_path: Path) -> None:
    text = toml({})
    assert load(write(tmp_path / "x.toml", text), None, NOTHING) == Settings()
    known = defaults()
    for name, about in abouts():
        assert about.group in GROUPS
        commented = re.search(rf"(?m)^# ({name} = .*)$", text)
        assert commented, name
        said = tomllib.loads(commented[1])[name]
        if about.example is None:
            assert about.kind.read(said, name) == known[name], name
        else:
            about.kind.read(said, name)  # examples are right, too
        assert about.meaning in text
        assert f"| `{name}` |" in table()


def test_memory_by_default_is_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().memory_limit == min(usable_memory() // 4, 1 << 30)
    monkeypatch.setattr("cachecore.server.settings.usable_memory", lambda: 1 << 28)
    assert Settings().memory_limit == 1 << 26


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "4096"}, 4096),
        ("0::/a/b\n", {"a/b/memory.max": "8192", "a/memory.max": "4096"}, 4096),
        ("0::/../../host/path\n", {"memory.max": "12288"}, 12288),
        ("0::/host/path\n", {"memory.max": "12288\n"}, 12288),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "4096"}, 4096),
        ("4:cpu,memory:/x\n", {"memory/memory.limit_in_bytes": "4096"}, 4096),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": str((1 << 63) - 4096)}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
    ],
)
def test_limits_of_cgroups(
    tmp_path: Path, own: str, files: dict[str, str], limit: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / "cg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cg" / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert cgroup_limit(tmp_path / "cg", tmp_path / "own") == limit
    assert cgroup_limit(tmp_path / "cg", tmp_path / "none") is None
