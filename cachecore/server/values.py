"""How the values of settings are read, from TOML, from options' text, or as Python has them.

Each function takes a value and the name to blame, and returns the value checked; ValueError or
TypeError say what was expected. Reading what was read returns the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cachecore.settings import seconds, size_in_bytes
from cachecore.units import seconds_in

SCHEMES = ["redis", "rediss", "unix"]
SCHEMES += [f"{scheme}+{kind}" for kind in ("sentinel", "cluster") for scheme in SCHEMES[:2]]
_USER = re.compile(r"(?<=://)([^/@:]*):.*@")  # to the last @, for a password may hold any letter
_HIDDEN = re.compile(r"(?i)([?&][^=&]*password=)[^&]*")


Read = Callable[[Any, str], Any]


class Kind(NamedTuple):
    """A kind of values: what stands for one in help, and how one is read."""

    metavar: str
    read: Read


class Secret:
    """A text that shows itself as ***, or as `shown`, wherever it is printed; `reveal` tells it."""

    __slots__ = ("_shown", "_value")

    def __init__(self, value: str, shown: str = "***") -> None:
        self._value, self._shown = value, shown

    def reveal(self) -> str:
        """The secret itself, for those who send or compare it."""
        return self._value

    def __repr__(self) -> str:
        return self._shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def optional(kind: Kind) -> Kind:
    """The same kind, where None or an empty text mean: there is none."""

    def read(value: Any, name: str) -> Any:
        return None if value is None or value == "" else kind.read(value, name)

    return Kind(kind.metavar, read)


def text(value: Any, name: str) -> str:
    """Text of one line."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {value!r}")
    if not value or any(ord(letter) < 32 for letter in value):
        raise ValueError(f"{name} must be one line of text, not {value!r}")
    return value


def texts(value: Any, name: str) -> tuple[str, ...]:
    """Some texts: a list of them, or one with commas between."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} must be a list of texts, not {value!r}")
    return tuple(text(part, name) for part in value)


def address(value: Any, name: str) -> str:
    """An IP address, or localhost."""
    from ipaddress import ip_address

    found = text(value, name)
    try:
        ip_address("127.0.0.1" if found == "localhost" else found)
    except ValueError:
        what = 'an IP address, such as "127.0.0.1" or "::1"'
        raise ValueError(f"{name} must be {what}, not {found!r}") from None
    return found


def addresses(value: Any, name: str) -> tuple[str, ...]:
    """Some of these."""
    return tuple(address(part, name) for part in texts(value, name))


def is_loopback(place: str) -> bool:
    """Whether an address is reached from this machine only."""
    from ipaddress import ip_address

    return place == "localhost" or ip_address(place).is_loopback


def whole(least: int, most: int, metavar: str = "COUNT") -> Kind:
    """The kind of whole numbers of a range."""

    def count(value: Any, name: str) -> int:
        if isinstance(value, str) and value.isdecimal() and len(value) < 20:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number of {least} ... {most}, not {value!r}")
        return value

    return Kind(metavar, count)


def size(value: Any, name: str) -> int:
    """Bytes."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return size_in_bytes(value, name)


def duration(value: Any, name: str) -> float:
    """Seconds: a number, or text such as "250ms", "10min" or "2d"."""
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[\d.]+\s*", value):
            return seconds_in(value, name)
        value = float(value) if value.count(".") < 2 else 0.0
    number = seconds(value, name)
    if number > 1e9:
        raise ValueError(f"{name} must be at most 1,000,000,000 seconds, not {value!r}")
    return number


def duration_or_zero(value: Any, name: str) -> float:
    """The same, or 0."""
    is_zero = value in ("0", 0) and not isinstance(value, bool)
    return 0.0 if is_zero else duration(value, name)


def flag(value: Any, name: str) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, not {value!r}")
    return value


def choice(*names: str) -> Kind:
    """The kind of some names."""

    def one_of(value: Any, name: str) -> str:
        if value not in names:
            raise ValueError(f"{name} must be one of {', '.join(names)}, not {value!r}")
        return str(value)

    return Kind(f"[{'|'.join(names)}]", one_of)


def path(value: Any, name: str) -> Path:
    """A path, made absolute."""
    if isinstance(value, Path):
        return value.absolute()
    return Path(text(value, name)).expanduser().absolute()


def secret(value: Any, name: str) -> Secret:
    """A password. It is not repeated in errors."""
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value or any(ord(letter) < 32 for letter in value):
        raise ValueError(f"{name} must be one line of text")
    return Secret(value)


def server_url(value: Any, name: str) -> Secret:
    """The URL of a Redis; shown without the passwords in it."""
    if isinstance(value, Secret):
        return value
    scheme, colon, rest = value.partition("://") if isinstance(value, str) else ("", "", "")
    if scheme not in SCHEMES or not colon or not rest or any(ord(letter) <= 32 for letter in value):
        known = "://, ".join(SCHEMES)
        raise ValueError(f"{name} must be a URL that begins with {known}://")
    return Secret(value, _HIDDEN.sub(r"\1***", _USER.sub(r"\1:***@", value)))


ADDRESS = Kind("ADDRESS", address)
ADDRESSES = Kind("ADDRESSES", addresses)
FILE = optional(Kind("FILE", path))
FLAG = Kind("", flag)
NAMES = Kind("NAMES", texts)
PASSWORD = optional(Kind("TEXT", secret))
PORT = whole(0, 65535, "PORT")
PORT_OR_NONE = optional(PORT)
SIZE = Kind("SIZE", size)
TIME = Kind("TIME", duration)
TIME_OR_ZERO = Kind("TIME", duration_or_zero)
URL = optional(Kind("URL", server_url))
