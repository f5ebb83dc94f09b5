"""Requests and answers of HTTP/1.1 as bytes, read strictly; no sockets."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import NamedTuple

_REQUEST = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\0\r\n]*)")
_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 421: "Misdirected Request", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
# A policy for what is no page.
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Request(NamedTuple):
    """The head of a request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """By name in lower case; of several of one name, the last."""


class Answer(NamedTuple):
    """The answer to a request."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200
    policy: str = NOTHING


class RefusedError(Exception):
    """Why a request is not answered: a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(f"{text}\n".encode(), status=status)


def parse(head: bytes) -> Request:
    """A request from its lines.

    Raises:
        RefusedError: it is no request, or not one for this server.
    """
    first, *lines = head.split(b"\r\n")
    request = _REQUEST.fullmatch(first)
    if request is None:
        raise RefusedError(400, "This is no request of HTTP/1.0 or 1.1 for a path.")
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise RefusedError(400, "A line of the request is no header.")
        name = header[1].decode().lower()
        if name in headers and name in ("host", "content-length"):
            raise RefusedError(400, f"There are two {name} headers.")
        headers[name] = header[2].strip(b" \t").decode("latin-1")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise RefusedError(400, "A request has no body here.")
    if "host" not in headers and request[3] == b"1":
        raise RefusedError(400, "There is no Host header.")
    path, _, query = request[2].decode().partition("?")
    return Request(request[1].decode(), path, query, headers)


def to_bytes(answer: Answer, body: bool = True) -> bytes:
    """An answer as it is sent, with its body or, for HEAD, without."""
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        "Cross-Origin-Resource-Policy: same-origin",
        f"Content-Security-Policy: {answer.policy}",
    ]
    if answer.status == 405:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join([*lines, "", ""]).encode()
    return head + answer.body if body else head
