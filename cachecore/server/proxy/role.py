"""What a client has become by what it said: its protocol, database, name; itself or nobody.

A client is served from the cache as long as it is nobody in particular. Commands that change that
are forwarded like others, and noted when the upstream has agreed.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import TYPE_CHECKING

from cachecore._resp_client import Client
from cachecore.server.proxy.line import After
from cachecore.tiers.redis_link import Node, pack

if TYPE_CHECKING:
    from cachecore.server.proxy.proxy import Proxy

QUEUED = b"+QUEUED\r\n"


class Role:
    """What one client is.

    Attributes:
        private: it is more than the proxy knows: it authenticated as itself, say.
        multi, watching: within MULTI, behind WATCH.
        tunnel: it speaks something else than command and reply.
        pinned: the node of its transaction, in a Cluster.
    """

    def __init__(self, proxy: Proxy, client: Client) -> None:
        self._proxy, self._client = proxy, client
        self.private = self.multi = self.watching = self.tunnel = False
        self.pinned: Node | None = None
        self._info: dict[bytes, bytes] = {}  # CLIENT SETINFO, for the next connection
        client.database, client.protocol, client.name = proxy.base, 2, b""
        self.become()

    def become(self, **what: bool) -> None:
        """Set attributes; whether the client's reads are the upstream's follows from them."""
        for name, value in what.items():
            setattr(self, name, value)
        client = self._client
        client.private = self.private or self.multi or self.watching or self.tunnel
        client.patient = self.tunnel  # it may say nothing for long

    def setup(self) -> list[bytes]:
        """What makes a new connection what the client has become."""
        client = self._client
        said = [pack(("HELLO", 3))] if client.protocol == 3 else []
        if client.name:
            said.append(pack(("CLIENT", "SETNAME", client.name)))
        return [*said, *self._info.values()]

    def after(self, name: bytes, inner: bytes, args: list[bytes]) -> After | None:
        """What is to be done with the reply to a command; None: nothing."""
        change = CHANGES.get(name)
        changed = None if change is None else change(self, inner, args)
        if changed is None or name not in QUEUEABLE:
            return changed

        def queued(reply: bytes) -> bytes | None:
            if reply != QUEUED:
                return changed(reply)
            self.become(private=True)  # EXEC tells what became of it, among the rest
            return None

        return queued

    def _hello(self, inner: bytes, args: list[bytes]) -> After:
        words = [word.lower() for word in args[2:]]
        at = 2 + words.index(b"auth") if b"auth" in words else 0
        named = args[3 + words.index(b"setname")] if b"setname" in words[:-1] else None

        def after(reply: bytes) -> None:
            if reply[:1] != b"-":
                self._client.protocol = (
                    3 if inner == b"3" else 2 if inner else self._client.protocol
                )
                self._client.name = self._client.name if named is None else named
                if at:
                    self._let_in(args[at + 1 : at + 3])

        return after

    def _auth(self, _: bytes, args: list[bytes]) -> After:
        def after(reply: bytes) -> None:
            if reply[:1] != b"-":
                self._let_in(args[1:])

        return after

    def _let_in(self, words: list[bytes]) -> None:
        """It authenticated: as itself, unless with the words that the proxy itself uses."""
        ours = [str(word).encode() for word in self._proxy.credentials]
        if len(ours) == 1 and len(words) == 2:
            ours = [b"default", *ours]
        same = len(ours) == len(words) and compare_digest(b"\0".join(ours), b"\0".join(words))
        self.become(private=not same)

    def _select(self, inner: bytes, _: list[bytes]) -> After:
        def after(reply: bytes) -> None:
            if reply == b"+OK\r\n":
                if int(inner) < 256:
                    self._client.database = int(inner)
                else:
                    self.become(private=True)

        return after

    def change_client(self, inner: bytes, args: list[bytes]) -> After | None:
        raw = self._client.raw()

        def after(reply: bytes) -> None:
            if reply[:1] == b"-":
                return
            if inner == b"setname":
                self._client.name = args[2]
            elif inner == b"setinfo":
                self._info[args[2].lower()] = raw
            else:
                self.become(private=True)  # it is more than a new connection would be

        return after if inner in {b"setname", b"setinfo", b"no-evict", b"no-touch"} else None

    def _begin(self, _: bytes, __: list[bytes]) -> After:
        def after(_: bytes | None) -> None:
            self.become(multi=True)

        after(None)  # at once, and again: the end of the one before may come between
        return after

    def _watch(self, _: bytes, __: list[bytes]) -> After:
        def after(_: bytes | None) -> None:
            self.become(watching=True)

        after(None)
        return after

    def _end(self, _: bytes, __: list[bytes]) -> After:
        def after(reply: bytes) -> None:
            if reply != QUEUED:  # of UNWATCH
                self.become(multi=False, watching=False)
                self.pinned = None

        return after

    def _quit(self, _: bytes, __: list[bytes]) -> After:
        return lambda _: self._client.close("quit")

    def _told(self, inner: bytes, args: list[bytes]) -> After | None:
        if len(args) > 2 or inner not in {b"", b"all", b"default", b"everything", b"cachecore"}:
            return None
        return self._proxy.add_info


_Change = Callable[[Role, bytes, list[bytes]], After | None]
CHANGES: dict[bytes, _Change] = {
    b"hello": Role._hello,
    b"auth": Role._auth,
    b"select": Role._select,
    b"client": Role.change_client,
    b"multi": Role._begin,
    b"watch": Role._watch,
    b"exec": Role._end,
    b"discard": Role._end,
    b"unwatch": Role._end,
    b"quit": Role._quit,
    b"info": Role._told,
}
QUEUEABLE = frozenset((b"hello", b"auth", b"select", b"client"))  # within MULTI
