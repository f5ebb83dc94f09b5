"""Where a client is, and where it came to."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from cachecore._resp_client import Client

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def ends_of(client: Client) -> tuple[Any, Any]:
    """The socket addresses of the client and of ours; of Unix sockets, texts. Asked for once."""
    found: tuple[Any, Any] | None = client.state.get("ends")
    if found is None:
        if client.transport is not None:
            info = client.transport.get_extra_info
            found = info("peername", ""), info("sockname", "")
        else:
            link = socket.socket(fileno=client.fileno)
            try:
                found = link.getpeername(), link.getsockname()
            except OSError:  # it is gone already
                found = "", ""
            finally:
                link.detach()
        client.state["ends"] = found
    return found


def address_of(client: Client) -> Address | None:
    """The IP address of a client; None: it is on this machine, at a Unix socket."""
    peer = ends_of(client)[0]
    if not isinstance(peer, tuple):
        return None
    found = ipaddress.ip_address(peer[0].partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


def place_of(address: Address | None) -> str:
    """What a client is counted by: its address, of IPv6 the network of a site."""
    if address is None:
        return "unix"
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def shown(end: Any) -> str:
    """A socket address as Redis shows it: ADDRESS:PORT, or PATH:0."""
    if not isinstance(end, tuple):
        path = end.decode(errors="backslashreplace") if isinstance(end, bytes) else end
        return f"{path}:0"
    host = f"[{end[0]}]" if ":" in end[0] else end[0]
    return f"{host}:{end[1]}"
