"""Which server is asked: one, the master that sentinels name, or the nodes of a cluster by slot.

A route is a generator: it yields lists of `Ask`s, is sent the answers, and returns replies. So one
body serves threads and event loops.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Generator, Sequence
from time import monotonic
from typing import Any, TypeVar

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.redis_link import Access, Node, Refusal, pack
from cachecore.tiers.redis_pool import Answer, Ask

T = TypeVar("T")
Route = Generator[list[Ask], list[Answer], T]
Command = tuple[Any, ...]  # its name, its key, and the rest

SLOTS = 16384
REFRESH = 0.25  # seconds between two questions for a cluster's slots, once they are known
ASKING = pack(("ASKING",))


class OneServer:
    """A server; or, by way of sentinels, the master of a service."""

    def __init__(self, node: Node | None, sentinels: Sequence[Node] = (), service: str = "",
                 access: Access | None = None) -> None:  # fmt: skip
        self._node = node
        self._sentinels, self._service, self._access = [*sentinels], service, access
        self.redirects = 0

    def do(self, commands: Sequence[Command], again: bool = True) -> Route[list[Any]]:
        """The reply to each command, in its place a `Refusal` or `TierError` if there is none."""
        payload, count = b"".join(map(pack, commands)), len(commands)
        node = self._node or (yield from self._find_master())
        [answer] = yield [Ask(node, payload, count, again)]
        if self._sentinels and self._is_displaced(answer):
            self._node = None
            # What was refused was not done, so that anything may be asked again.
            if isinstance(answer, list) or (again and not isinstance(answer, TierTimeoutError)):
                found = yield from self._find_master()
                if found != node:
                    self.redirects += 1
                    [answer] = yield [Ask(found, payload, count, again)]
        return answer if isinstance(answer, list) else [answer] * count

    def nodes(self) -> Route[list[Node]]:
        """Where keys are."""
        return [self._node or (yield from self._find_master())]

    def forget(self) -> None:
        """Ask sentinels, if there are any, for the master again when it is needed next."""
        if self._sentinels:
            self._node = None

    def owner(self, slot: int) -> Node | None:
        """The server of a slot, if it is known."""
        return self._node

    @staticmethod
    def _is_displaced(answer: Answer) -> bool:
        if isinstance(answer, TierError):
            return True
        refusals = (reply.code for reply in answer if isinstance(reply, Refusal))
        return any(code in {"READONLY", "MASTERDOWN", "LOADING"} for code in refusals)

    def _find_master(self) -> Route[Node]:
        reason: object = "none of them knows it"
        command = pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
        for sentinel in [*self._sentinels]:
            [answer] = yield [Ask(sentinel, command, 1, share=0.5)]
            match answer:
                case [[bytes() as host, bytes() as port]]:
                    assert self._access is not None
                    node = self._node = Node(host.decode(), int(port), self._access)
                    return node
                case [Refusal() as reason] | (TierError() as reason):
                    # The next call begins with another one.
                    self._sentinels = [*(s for s in self._sentinels if s != sentinel), sentinel]
        raise _kind(reason)(f"sentinels do not name a master of {self._service!r}: {reason}")


# Commands for each node, by their place among all; and whether ASKING goes before each.
_Places = dict[Node, list[tuple[int, bool]]]


class Cluster:
    """The masters of a cluster, and which slots each has."""

    def __init__(self, seeds: Sequence[Node]) -> None:
        self._seeds = [*seeds]
        self._slots: list[Node | None] = []
        self._doubtful = True  # whether the slots are to be asked for again
        self._asked = 0.0
        self._suspects: set[Node] = set()  # nodes that failed last; they are asked last
        self.redirects = 0

    def do(self, commands: Sequence[Command], again: bool = True) -> Route[list[Any]]:
        """The reply to each command, in its place a `Refusal` or `TierError` if there is none."""
        if self._doubtful and monotonic() - self._asked > REFRESH * bool(self._slots):
            yield from self._find_slots()
        places: _Places = {}
        replies: list[Any] = [None] * len(commands)
        for at, command in enumerate(commands):
            slot = slot_of(command[1])
            node = self._slots[slot]
            if node is None:
                self._doubtful = True
                replies[at] = TierError(f"no node of the cluster has slot {slot}")
            else:
                places.setdefault(node, []).append((at, False))
        yield from self._ask(commands, replies, places, again)
        second: _Places = {}
        for node, parts in places.items():
            for at, _ in parts:
                if isinstance(replies[at], Refusal):
                    self._redirect(node, at, replies[at], second)
        yield from self._ask(commands, replies, second, again)
        return replies

    def nodes(self) -> Route[list[Node]]:
        """Where keys are."""
        if self._doubtful:
            yield from self._find_slots()
        return [*dict.fromkeys(filter(None, self._slots))]

    def forget(self) -> None:
        """Ask for the slots again when they are needed next."""
        self._doubtful = True

    def owner(self, slot: int) -> Node | None:
        """The master of a slot, if it is known."""
        return self._slots[slot] if self._slots else None

    def _ask(
        self, commands: Sequence[Command], replies: list[Any], places: _Places, again: bool
    ) -> Route[None]:
        """Ask each node for its part, and put the replies where they belong."""
        if not places:
            return
        asks = []
        for node, parts in places.items():
            payload = b"".join([ASKING * asking + pack(commands[at]) for at, asking in parts])
            count = len(parts) + sum(asking for _, asking in parts)
            asks.append(Ask(node, payload, count, again))
        answers = yield asks
        for (node, parts), answer in zip(places.items(), answers, strict=True):
            if isinstance(answer, TierError):
                self._doubtful = True
                self._suspects.add(node)
                for at, _ in parts:
                    replies[at] = answer
                continue
            each = iter(answer)
            for at, asking in parts:
                if asking:
                    next(each)  # the reply to ASKING
                replies[at] = next(each)

    def _redirect(self, node: Node, at: int, refusal: Refusal, second: _Places) -> None:
        """Note where a command is to be asked instead, if that is what the refusal says."""
        if refusal.code == "CLUSTERDOWN":
            self._doubtful = True
        if refusal.code not in {"MOVED", "ASK"}:
            return
        _, slot, place = str(refusal).split(" ")[:3]
        host, _, port = place.rpartition(":")
        target = Node(host or node.host, int(port), node.access)
        self.redirects += 1
        second.setdefault(target, []).append((at, refusal.code == "ASK"))
        if refusal.code == "MOVED":
            self._slots[int(slot)] = target
            self._doubtful = True

    def _find_slots(self) -> Route[None]:
        """Ask the nodes we know, one after another, until one tells who has which slots."""
        self._asked = monotonic()
        known = dict.fromkeys([*filter(None, self._slots), *self._seeds])
        reason: object = None
        for node in sorted(known, key=self._suspects.__contains__):
            [answer] = yield [Ask(node, pack(("CLUSTER", "SLOTS")), 1, share=0.5)]
            if isinstance(answer, list) and isinstance(answer[0], list):
                self._slots = _owners(answer[0], node)
                self._suspects.clear()
                self._doubtful = False
                return
            self._suspects.add(node)
            reason = answer[0] if isinstance(answer, list) else answer
        if not self._slots:
            raise _kind(reason)(f"no node tells the cluster's slots: {reason}")


def _kind(reason: object) -> type[TierError]:
    return TierTimeoutError if isinstance(reason, TierTimeoutError) else TierError


def _owners(ranges: list[Any], teller: Node) -> list[Node | None]:
    """The master of each slot, from the reply to CLUSTER SLOTS."""
    owners: list[Node | None] = [None] * SLOTS
    for first, last, (host, port, *_), *_ in ranges:
        name = host.decode() if host else teller.host  # it does not know its own name
        owners[first : last + 1] = [Node(name, port, teller.access)] * (last + 1 - first)
    return owners


def slot_of(key: bytes) -> int:
    """The slot of a key: of what is between its first braces, if there is anything."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS
