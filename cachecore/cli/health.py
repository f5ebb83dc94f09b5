"""What a server tells by INFO, read into numbers; of Redis, Valkey and cachecore alike."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

_KEYSPACE = re.compile(r"keys=(\d+)")


@dataclass(frozen=True)
class Rates:
    """What happened since the look before."""

    commands: float
    """A second."""
    lookups: int
    hit_ratio: float | None
    """None: no look-ups."""


@dataclass(frozen=True)
class Health:
    """The numbers of one look."""

    name: str
    version: str
    process: int
    uptime: int
    """Seconds."""
    keys: int
    memory: int
    """Bytes."""
    memory_limit: int
    """Bytes; 0: none."""
    hits: int
    misses: int
    commands: int
    per_second: int
    clients: int
    evicted: int
    expired: int
    info: dict[str, str]
    """All that the server told."""
    at: float
    rates: Rates | None = None

    @property
    def hit_ratio(self) -> float | None:
        """Hits of all look-ups; None: there were none."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None

    def as_object(self, address: str) -> dict[str, Any]:
        """The object of `--json`."""
        fields = asdict(self)
        info = fields.pop("info")
        del fields["at"]
        first = {"running": True, "address": address, "hit_ratio": self.hit_ratio}
        return {**first, **fields, "info": info}

    def upstream_rows(self) -> list[tuple[str, str]]:
        """Lines for the page on the Redis behind it."""
        told = [
            (name.removeprefix("upstream_").replace("_", " "), value)
            for name, value in self.info.items()
            if name.startswith("upstream_")
        ]
        return [("upstream", ", ".join(f"{name} {value}" for name, value in told))] if told else []


def read(reply: Any, before: Health | None) -> Health:
    """The reply to INFO; `before` is the look before, if there was one."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    info = {name: value.strip() for name, colon, value in pairs if colon}

    def number(name: str) -> int:
        value = info.get(name, "")
        return int(value) if value.isdecimal() else 0

    spaces = (value for name, value in info.items() if re.fullmatch(r"db\d+", name))
    name = next(
        (name for name in ("cachecore", "valkey", "redis") if f"{name}_version" in info), ""
    )
    now, commands = monotonic(), number("total_commands_processed")
    hits, misses = number("keyspace_hits"), number("keyspace_misses")
    rates = None
    if before is not None:
        lookups = hits + misses - before.hits - before.misses
        rates = Rates(
            commands=(commands - before.commands) / max(now - before.at, 1e-9),
            lookups=lookups,
            hit_ratio=(hits - before.hits) / lookups if lookups > 0 else None,
        )
    return Health(
        name=name or "server",
        version=info.get(f"{name}_version", ""),
        process=number("process_id"),
        uptime=number("uptime_in_seconds"),
        keys=sum(int(found[1]) for space in spaces if (found := _KEYSPACE.search(space))),
        memory=number("used_memory"),
        memory_limit=number("maxmemory"),
        hits=hits,
        misses=misses,
        commands=commands,
        per_second=number("instantaneous_ops_per_sec"),
        clients=number("connected_clients"),
        evicted=number("evicted_keys"),
        expired=number("expired_keys"),
        info=info,
        at=now,
        rates=rates,
    )
