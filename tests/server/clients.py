"""Clients of the metrics port: raw sockets, and how answers are read."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from typing import Any, NamedTuple

from cachecore.server.http import StatusServer

HOST = b"Host: localhost\r\n"
CLIENT_PATIENCE = 30.0  # seconds; what takes so long does not end


class Response(NamedTuple):
    status: int
    headers: Any
    body: bytes


def response(data: bytes) -> Response:
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, data
    first, _, lines = head.partition(b"\r\n")
    version, status, _ = first.split(b" ", 2)
    assert version == b"HTTP/1.1"
    return Response(int(status), BytesParser().parsebytes(lines), body)


@contextmanager
def connected(server: StatusServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), CLIENT_PATIENCE) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def ask(server: StatusServer, data: bytes) -> Response:
    """What the server answers to bytes."""
    with connected(server) as client:
        client.sendall(data)
        return response(read_all(client))


def get(server: StatusServer, path: str, *lines: str, method: str = "GET") -> Response:
    head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *lines, "", ""]
    return ask(server, "\r\n".join(head).encode("latin-1"))


def is_cut_off(client: socket.socket) -> bool:
    """Whether the other end is gone, which who sends finds out in the end."""
    try:
        client.sendall(b"x")
    except OSError:
        return True
    return False
