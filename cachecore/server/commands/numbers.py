"""Numbers, times and options among the arguments of commands, read as Redis reads them."""

from __future__ import annotations

import re

from cachecore._keyspace import NEVER, unix_time
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError

LEAST, MOST = -(2**63), 2**63 - 1
FARTHEST = NEVER - 1  # the last moment at which a key can expire
NOT_INTEGER = "ERR value is not an integer or out of range"
NOT_FLOAT = "ERR value is not a valid float"
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_CURSOR = re.compile(rb"([+-]?)([0-9]*)")


def integer(text: bytes, error: str = NOT_INTEGER, least: int = LEAST, most: int = MOST) -> int:
    """A decimal integer: no plus, no leading zeros, no spaces.

    Raises:
        ReplyError: it is something else, or outside `least` ... `most`.
    """
    if _INTEGER.fullmatch(text) is None or not LEAST <= (number := int(text)) <= MOST:
        raise ReplyError(error)
    if not least <= number <= most:
        if error == NOT_INTEGER:
            error = f"ERR value is out of range, value must between {least} and {most}"
        raise ReplyError(error)
    return number


def small_integer(text: bytes, error: str = NOT_INTEGER) -> int:
    """An integer of 32 bits: the number of a database."""
    return integer(text, error, -(2**31), 2**31 - 1)


def cursor(text: bytes) -> int:
    """The cursor of a scan, an unsigned integer of 64 bits as strtoul() reads one."""
    match = _CURSOR.fullmatch(text)
    if match is None or (match[1] and not match[2]) or len(match[2].lstrip(b"0")) > 20:
        raise ReplyError("ERR invalid cursor")
    number = int(match[2] or b"0")
    if number >= 2**64:
        raise ReplyError("ERR invalid cursor")
    return (-number if match[1] == b"-" else number) % 2**64


def deadline(client: Client, text: bytes, unit: int, *, relative: bool, command: str) -> int:
    """The Unix time in ms that a lifetime of SET and the like ends at: EX, PX, EXAT, PXAT.

    Its unit is so many milliseconds, 1000 or 1; `relative`: it counts from now. ReplyError, which
    names the command: it is no time.
    """
    number = integer(text) * unit
    if number > 0 and relative:
        number = number + unix_time(client.cache) if number <= MOST else number
    if not 0 < number <= MOST:
        raise ReplyError(f"ERR invalid expire time in '{command}' command")
    return min(number, FARTHEST)


def shown(text: bytes) -> str:
    """A client's own bytes, as an error quotes them."""
    return text.decode("utf-8", "replace").replace("\r", " ").replace("\n", " ")
