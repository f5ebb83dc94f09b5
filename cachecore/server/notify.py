"""Tells who started this process how far it is, in systemd's words; `cachecore start` hears them.

The protocol is that of sd_notify(3): lines of NAME=VALUE in a datagram to the socket that
NOTIFY_SOCKET names, such as READY=1, STATUS=..., STOPPING=1. Where nobody listens, nothing happens.
"""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*lines: str) -> None:
    """Send the lines, if somebody wants to know."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path.startswith(("/", "@")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect("\0" + path[1:] if path[0] == "@" else path)
            out.send("\n".join(lines).encode())
