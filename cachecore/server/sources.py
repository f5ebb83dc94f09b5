"""Where settings come from: a TOML file, then the environment, then options; the later ones win.

The file is flat: NAME = VALUE, with the names of `Settings`. A secret may be said as NAME_file, the
path of a file that holds it and that nobody else can read. From the environment come only the
file's path, CACHECORE_CONFIG, and secrets, such as CACHECORE_PASSWORD: options are seen by `ps`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cachecore.server.settings import MisfitError, Settings, SettingsError, abouts
from cachecore.server.values import FILE, Secret

NAME = "cachecore.toml"
SYSTEM = Path("/etc/cachecore") / NAME
PREFIX = "CACHECORE_"
SECRET_MODE, FOREIGN_MODE = 0o077, 0o022  # bits that the mode of a secret, of any file, lacks
MOST_BYTES = 1 << 20  # of a file of settings or of a secret
ELSEWHERE = "say it in the file of settings, in the environment, or in a file of its own"


def find_config(given: str | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read: the one given or named by CACHECORE_CONFIG; else one that is there.

    Looked for are cachecore.toml here and in ~/.config/cachecore, and in /etc/cachecore.

    Raises:
        SettingsError: the one that was found belongs to another user than us and root.
    """
    named = given or environ.get(f"{PREFIX}CONFIG")
    if named:
        return Path(named).expanduser().absolute()
    home = environ.get("XDG_CONFIG_HOME") or "~/.config"
    places = (Path(NAME).absolute(), Path(home).expanduser() / "cachecore" / NAME, SYSTEM)
    for place in places:
        if place.is_file():
            if place.stat().st_uid not in (0, os.geteuid()):
                what = f"{place} belongs to another user: name it by --config if you mean it"
                raise SettingsError(what)
            return place
    return None


def load(
    config: Path | None,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from a file, the environment and options; what none of them says has its default.

    Args:
        config: the file; None: there is none.
        options: values by name; None counts as not given.
        environ: the environment.

    Raises:
        SettingsError: it names the setting and the file and line, the variable, or the option.
    """
    said = _Said()
    if config is not None:
        said.take_file(config)
    said.take_environment(environ)
    for name, value in (options or {}).items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            said.take(name, value, option, seen=f"`ps` would show it: {ELSEWHERE}")
    return said.settings()


def read_secret(path: Path, origin: str) -> str:
    """The text in a file that only its owner can read, without its last newline."""
    text, mode = _read(path, origin)
    if mode & SECRET_MODE:
        raise SettingsError(f"{origin}: {path} can be read by others: chmod 600 {path}")
    return text.removesuffix("\n").removesuffix("\r")


class _Said:
    """What was said so far, checked one by one, and where."""

    def __init__(self) -> None:
        self._known = dict(abouts())
        self._files = {f"{name}_file": name for name, about in self._known.items() if about.secret}
        self._values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}

    def take(self, name: str, value: Any, origin: str, *, seen: str = "") -> None:
        """Take a value; `seen` says why it must hold no secret."""
        try:
            if name in self._files and name not in self._known:
                name, seen = self._files[name], ""
                value = read_secret(FILE.read(value, origin), origin)
            read = self._known[name].kind.read(value, origin)
        except (TypeError, ValueError) as error:
            raise SettingsError(str(error)) from None
        if seen and isinstance(read, Secret) and read.reveal() != str(read):
            raise SettingsError(f"{origin} holds a password, but {seen}")
        self._values[name], self._origins[name] = read, origin

    def take_file(self, config: Path) -> None:
        """Take all of a file; relative paths in it begin at its folder."""
        import tomllib

        text, mode = _read(config, "settings")
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            what, _, place = str(error).partition(" (at ")
            line = re.match(r"line (\d+)", place)
            end = text.rstrip().count("\n") + 1
            raise SettingsError(f"{config}:{line[1] if line else end}: {what}") from None
        others = f"others can read the file: chmod 600 {config}" if mode & SECRET_MODE else ""
        for name, value in table.items():
            origin = f"{config}:{_line(text, name)}: {name}"
            if name not in self._known and name not in self._files:
                raise SettingsError(f"{origin} is no setting{self._nearest(name)}")
            relative = self._is_path(name) and isinstance(value, str) and value
            found = str(config.parent / Path(value).expanduser()) if relative else value
            self.take(name, found, origin, seen=others)

    def take_environment(self, environ: Mapping[str, str]) -> None:
        """Take the secrets of the environment."""
        for file, name in self._files.items():
            for said in (name, file):
                variable = f"{PREFIX}{said.upper()}"
                if environ.get(variable):
                    self.take(said, environ[variable], variable)

    def settings(self) -> Settings:
        """All together."""
        try:
            return Settings(**self._values)
        except MisfitError as error:
            origin = self._origins.get(error.name, error.name)
            raise SettingsError(str(error).replace(error.name, origin, 1)) from None

    def _is_path(self, name: str) -> bool:
        return name in self._files or self._known[name].kind is FILE

    def _nearest(self, name: str) -> str:
        from difflib import get_close_matches

        near = get_close_matches(name.replace("-", "_"), [*self._known, *self._files], 1)
        return f"; is {near[0]} meant?" if near else ": `cachecore init` writes all there are"


def _read(path: Path, origin: str) -> tuple[str, int]:
    """The text and the mode of a file that nobody but its owner can change."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(MOST_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise SettingsError(f"{origin}: {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{origin}: {path} is not UTF-8 text") from None
    if len(data) > MOST_BYTES:
        raise SettingsError(f"{origin}: {path} has more than {MOST_BYTES:,} bytes")
    if stat.S_ISREG(found.st_mode) and found.st_mode & FOREIGN_MODE:
        raise SettingsError(f"{origin}: {path} can be changed by others: chmod go-w {path}")
    return text, stat.S_IMODE(found.st_mode)


def _line(text: str, name: str) -> int:
    """The line on which a setting is said."""
    said = re.compile(rf"""\s*(?:["']?{re.escape(name)}["']?\s*[=.]|\[+\s*{re.escape(name)})""")
    lines = text.split("\n")
    return next((number for number, line in enumerate(lines, 1) if said.match(line)), 1)
